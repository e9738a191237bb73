"""Which settings of the network to have by default, measured on development data.

    python benchmarks/objectives.py --data DIR --out runs/objectives.csv --jobs 2

DIR holds the folders ``eicu-demo-hourly`` (or ``eicu-demo``) and ``physionet2012``. The data are
training parts only: of eICU, the 70% of patients that the demo's first split trains on; of
PhysioNet 2012, set a; both divided again, 70% to train; and the simulated worlds ``shared`` and
``cross-rank`` at seeds that no other benchmark uses. 30% of the modalities are removed at random
from all rows. Settings change one thing, or more, of the first, which is the estimator's; a setting
is one network, not a cross-fitted three. The table has the AUROC and, in brackets, the log loss;
from the second line on as paired differences to the first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import physionet2012
import torch
from numpy import ndarray

from cm2.clinical.prepare.splits import split
from cm2.demo.studies import eicu_folder, load
from cm2.estimators.heads.fusion import MODEL, Fusion
from cm2.evaluation.metrics import measure, paired
from cm2.samples.inputs import Blocks, Reader
from cm2.samples.worlds import make_world, remove

RATE = 0.3
FIRST = "the default: factor of rank 8, one Gaussian, means, concatenation"
LITTLE: dict[str, Any] = {"dropout": 0.1, "encoder": {"dropout": 0.1}}
SETTINGS: dict[str, dict[str, Any]] = {
    FIRST: {},
    "K = 3": {"components": 3},
    "rank 2": {"rank": 2},
    "rank 16": {"rank": 16},
    "Rosenblatt, K = 3, draws": {
        "coupling": "rosenblatt",
        "components": 3,
        "imputation": "conditional",
    },
    "Gaussian, coordinates": {"copula": "gaussian", "rank": None},
    "independence": {"copula": "independence", "rank": None},
    "no alignment": {"weights": {"alignment": 0.0, "kl": 0.0}},
    "alignment x 10": {"weights": {"alignment": 1.0, "kl": 1.0}},
    "Gaussian posterior, ELBO": {"posterior": "gaussian", "objective": "elbo"},
    "no auxiliary heads": {"weights": {"auxiliary": 0.0}},
    "draws given the others": {"imputation": "conditional"},
    "marginal draws": {"imputation": "marginal"},
    "marginal means": {"imputation": "mean"},
    "zeros": {"imputation": "zero"},
    "no hiding": {"hide": 0.0},
    "hiding half": {"hide": 0.5},
    "attention": {"fusion": "attention"},
    "LSTM": {"fusion": "lstm"},
    "LSTM, dropout .1": {"fusion": "lstm", **LITTLE},
    "LSTM, dropout .1, draws given the others": {
        "fusion": "lstm",
        "imputation": "conditional",
        **LITTLE,
    },
    "dropout .1": LITTLE,
}


def samples(data: Path, seed: int) -> Iterator[tuple[str, dict[str, ndarray], ndarray, ndarray]]:
    """Name, modalities, classes and whether a row trains, of each data set."""
    hourly = data / "eicu-demo-hourly"
    study = load(eicu_folder(hourly if hourly.is_dir() else data / "eicu-demo", None))
    train, _ = study.split(0)
    learns = _learns(pd.Series(study.groups[train]), study.y[train], seed)
    X = {name: block[train] for name, block in study.blocks(train[learns]).items()}
    yield "eICU", remove(X, RATE, seed), study.y[train], learns
    stays = physionet2012.read(data / "physionet2012", "a")
    X = {name: frame.to_numpy(np.float64) for name, frame in stays.X.items()}
    learns = _learns(pd.Series(np.arange(len(stays.y))), stays.y, seed)
    yield "PhysioNet a", remove(X, RATE, seed), stays.y, learns
    for world in ("shared", "cross-rank"):
        X, y = make_world(world, 2400, seed + 500)
        yield f"{world} world", remove(X, RATE, seed), y, np.arange(2400) < 1440


def _learns(groups: pd.Series, y: ndarray, seed: int) -> ndarray:
    inside, _ = split(groups, pd.Series(y), (0.7, 0.3), seed=seed)
    return np.isin(np.arange(len(y)), inside)


def score(
    data: str, name: str, seed: int, train: Blocks, test: Blocks, y: ndarray, target: ndarray
) -> dict[str, Any]:
    """Measures one setting."""
    torch.set_num_threads(1)
    start = time.process_time()
    given = MODEL | {"rank": 8} | SETTINGS[name]
    training = {"weights": given.pop("weights", {})}
    encoder = {"kind": "dense", **given.pop("encoder", {})}
    encoders = dict.fromkeys(train.names, encoder)
    head = Fusion(model=given, training=training, folds=1, seed=seed, encoders=encoders)
    head.fit(train, y)
    proba = np.exp(head.predict_log_proba(test))
    scores = {k: float(v[0]) for k, v in measure(target, proba).items()}
    seconds = time.process_time() - start
    return {"data": data, "setting": name, "seed": seed, **scores, "cpu": seconds}


def main() -> None:
    """Runs the settings and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/objectives.csv"))
    parser.add_argument("--seeds", type=int, default=5, help="at least two")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"standard errors need at least two seeds, got {args.seeds}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        for data, X, y, learns in samples(args.data, seed):
            reader = Reader()
            train = reader.fit_blocks({k: v[learns] for k, v in X.items()})
            test = reader.blocks({k: v[~learns] for k, v in X.items()})
            rows += joblib.Parallel(args.jobs)(
                joblib.delayed(score)(data, name, seed, train, test, y[learns], y[~learns])
                for name in SETTINGS
            )
            pd.DataFrame(rows).to_csv(args.out, index=False)
    print(report(pd.DataFrame(rows)))


def report(rows: pd.DataFrame) -> str:
    """AUROC and log loss of the first setting, and the paired differences of the others to it.

    Seeds split clinical data anew, and draw the worlds anew.
    """
    table = rows.pivot(index=["data", "seed"], columns="setting", values=["auroc", "log_loss"])
    seconds = rows.groupby("setting")["cpu"].mean()
    data = list(dict.fromkeys(rows["data"]))
    lines = [f"| setting | {' | '.join(data)} | CPU s |", "|---" * (len(data) + 2) + "|"]
    for name in SETTINGS:
        cells = []
        for each in data:
            part = table.loc[each].xs(name, axis=1, level=1)
            if name == FIRST:
                cells.append(f"{part['auroc'].mean():.3f} ({part['log_loss'].mean():.3f})")
                continue
            base = table.loc[each].xs(FIRST, axis=1, level=1)
            ratio = 0.0 if each.endswith("world") else 0.3 / 0.7
            auroc, loss = (
                paired(part[of].to_numpy(), base[of].to_numpy(), test_to_train=ratio)
                for of in ("auroc", "log_loss")
            )
            cells.append(
                f"{auroc.difference:+.3f} ± {auroc.standard_error:.3f} ({loss.difference:+.3f})"
            )
        lines.append(f"| {name} | {' | '.join(cells)} | {seconds[name]:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
