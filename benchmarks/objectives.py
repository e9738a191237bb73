"""Which settings of the network to have by default, measured on development data.

    python benchmarks/objectives.py --data DIR --out runs/objectives.csv

DIR holds the folders ``eicu-demo-hourly`` (or ``eicu-demo``) and ``physionet2012``. The data are
training parts only: of eICU, the 70% of patients that the demo's first split trains on; of
PhysioNet 2012, set a; both divided again, 70% to train; and the simulated worlds ``shared`` and
``cross-rank`` at seeds that no other benchmark uses. 30% of the modalities are removed at random
from all rows. Each setting changes one thing of the first; a setting is one network, not a
cross-fitted three.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import physionet2012
import torch
from numpy import ndarray

from cm2.data.worlds import make_world, remove
from cm2.demo.studies import eicu_folder, load
from cm2.heads import Fusion
from cm2.inputs import Reader
from cm2.metrics import measure, paired
from cm2.prepare.splits import split

RATE = 0.3
SETTINGS: dict[str, dict[str, Any]] = {
    "factor, rank 8, shared components, K = 1": {},
    "K = 3": {"components": 3},
    "rank 2": {"rank": 2},
    "rank 16": {"rank": 16},
    "Rosenblatt": {"coupling": "rosenblatt", "components": 3},
    "Gaussian, coordinates": {"copula": "gaussian", "rank": None},
    "Gumbel, coordinates": {"copula": "gumbel", "rank": None},
    "independence": {"copula": "independence", "rank": None},
    "no alignment": {"alignment": 0.0},
    "alignment x 10": {"alignment": 1.0},
    "Gaussian posterior, ELBO": {"posterior": "gaussian", "objective": "elbo"},
    "no auxiliary heads": {"auxiliary": 0.0},
    "concatenation for LSTM": {"fusion": "concat"},
    "attention for LSTM": {"fusion": "attention"},
    "conditional means": {"imputation": "conditional-mean"},
    "marginal imputation": {"imputation": "marginal"},
    "zero imputation": {"imputation": "zero"},
    "no hiding": {"hide": 0.0},
}
BASE: dict[str, Any] = {
    "copula": "factor",
    "rank": 8,
    "coupling": "shared-components",
    "components": 1,
    "folds": 1,
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


def main() -> None:
    """Runs the settings and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/objectives.csv"))
    parser.add_argument("--seeds", type=int, default=3, help="at least two")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"standard errors need at least two seeds, got {args.seeds}")
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in range(args.seeds):
        for data, X, y, learns in samples(args.data, seed):
            reader = Reader()
            train = reader.fit_blocks({k: v[learns] for k, v in X.items()})
            test = reader.blocks({k: v[~learns] for k, v in X.items()})
            for name, settings in SETTINGS.items():
                start = time.process_time()
                head = Fusion(seed=seed, **(BASE | settings)).fit(train, y[learns])
                proba = np.exp(head.predict_log_proba(test))
                scores = {k: float(v[0]) for k, v in measure(y[~learns], proba).items()}
                seconds = time.process_time() - start
                rows.append({"data": data, "setting": name, "seed": seed, **scores, "cpu": seconds})
                pd.DataFrame(rows).to_csv(args.out, index=False)
    print(report(pd.DataFrame(rows)))


def report(rows: pd.DataFrame) -> str:
    """Mean AUROC and log loss, and the paired difference of the AUROC to the first setting.

    Seeds split clinical data anew, and draw the worlds anew.
    """
    lines = ["| setting | data | AUROC | difference +- se | log loss | CPU s |", "|---" * 6 + "|"]
    for data, part in rows.groupby("data"):
        table = part.pivot(index="seed", columns="setting", values="auroc")
        base = table[next(iter(SETTINGS))]
        for name in SETTINGS:
            ratio = 0.0 if str(data).endswith("world") else 0.3 / 0.7
            found = paired(table[name].to_numpy(), base.to_numpy(), test_to_train=ratio)
            mean = part[part["setting"] == name][["log_loss", "cpu"]].mean()
            lines.append(
                f"| {name} | {data} | {table[name].mean():.3f} | {found.difference:+.3f} +- "
                f"{found.standard_error:.3f} | {mean['log_loss']:.3f} | {mean['cpu']:.0f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
