"""PhysioNet 2012 as modalities: the first 48 hours of 4,000 stays a set, eleven modalities.

    python benchmarks/physionet2012.py --data DIR            # trains and tests inside set a
    python benchmarks/physionet2012.py --data DIR --test b   # trains on a, looks at b

A folder is one that ``cm2 prepare physionet2012`` reads: ``set-a`` or ``set-a.tar.gz`` (one text
file a stay: Time, Parameter, Value) and ``Outcomes-a.txt``; likewise for set b. Silva et al.
(2012), "Predicting in-hospital mortality of ICU patients: the PhysioNet/Computing in Cardiology
Challenge 2012".
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.linear_model import LogisticRegression

from cm2 import CM2Classifier
from cm2.benchmark.studies import physionet2012
from cm2.evaluation.metrics import measure
from cm2.samples.inputs import Reader
from cm2.samples.worlds import remove


class Stays(NamedTuple):
    """The modalities of the stays, rows of NaN where one was never measured, and who died."""

    X: dict[str, pd.DataFrame]
    y: Int[ndarray, " n"]


def read(folder: Path, letter: str) -> Stays:
    """Reads one set, as ``cm2 prepare physionet2012`` does.

    Args:
        folder: Where the archives and outcomes are.
        letter: "a" or "b".
    """
    X, stays = physionet2012.read(folder, letter)
    return Stays(X, stays["label"].to_numpy(np.int64))


RATES = (0.0, 0.3, 0.6)
METHODS = {
    "CM2 pool": ("pooled", "factor"),
    "CM2 linear": ("linear", "factor"),
    "CM2 boosting": ("boosting", "factor"),
    "CM2 joint": ("joint", "factor"),
    "CM2 joint, by coordinate": ("joint", "gaussian"),
    "CM2 joint, independence": ("joint", "independence"),
    "CM2 experts": ("experts", "factor"),
}
RIVAL = "LR + dropout"
COPIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
"""Removal rates of the copies of the rows on which the rival is trained."""
DRAWS = 20
"""Removals of modalities from test stays: values are means over them, and of the first alone."""


def main() -> None:
    """Fits heads on set a, tests them on set b or on the last fifth of a, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the archives")
    parser.add_argument("--test", choices=("a", "b"), default="a", help="a: its last fifth")
    args = parser.parse_args()
    stays = read(args.data, "a")
    X, y = {name: frame.to_numpy() for name, frame in stays.X.items()}, stays.y
    if args.test == "b":
        other = read(args.data, "b")
        fresh, truth = {name: frame.to_numpy() for name, frame in other.X.items()}, other.y
    else:
        cut = len(y) * 4 // 5
        fresh, truth = {name: block[cut:] for name, block in X.items()}, y[cut:]
        X, y = {name: block[:cut] for name, block in X.items()}, y[:cut]
    removed = [rate for rate in RATES if rate]
    heads = [f"{rate:g}" for rate in RATES] + [f"{rate:g}, first removal" for rate in removed]
    print(f"| AUROC (log loss) | {' | '.join(heads)} | CPU s |")
    print("|---" * (len(heads) + 2) + "|")
    models: dict[str, Any] = {
        label: CM2Classifier(copula, head=head, random_state=0)
        for label, (head, copula) in METHODS.items()
    }
    for label, model in (models | {RIVAL: LogisticDropout()}).items():
        start = time.process_time()
        model.fit(X, y)
        seconds = time.process_time() - start
        found = {rate: _values(model, fresh, truth, rate) for rate in RATES}
        cells = [_cell(each) for each in found.values()]
        cells += [_cell(found[rate][:1]) for rate in removed]
        print(f"| {label} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


class LogisticDropout:
    """Logistic regression on all features, trained on copies with modalities removed.

    Features are those of the heads: standardised, clipped at 5 deviations, zeros where a modality
    is missing; and a flag a modality.
    """

    def fit(self, X: dict[str, Any], y: Int[ndarray, " n"]) -> LogisticDropout:
        """Fits scales and weights."""
        self.reader = Reader().fit(X)
        copies = [self._features(remove(X, rate, 100 + i)) for i, rate in enumerate(COPIES)]
        self.model = LogisticRegression(C=0.01, max_iter=500)
        self.model.fit(np.concatenate(copies), np.tile(y, len(COPIES)))
        return self

    def predict_proba(self, X: dict[str, Any]) -> ndarray:
        """Probabilities of the classes."""
        return self.model.predict_proba(self._features(X))

    def _features(self, X: dict[str, Any]) -> ndarray:
        blocks = self.reader.blocks(X)
        return np.concatenate([*blocks.values.values(), blocks.present], axis=1)


def _values(
    model: Any, X: dict[str, Any], y: Int[ndarray, " n"], rate: float
) -> Float[ndarray, "removal 2"]:
    """AUROC and log loss under removals at a rate."""
    found = [
        measure(y, model.predict_proba(remove(X, rate, seed)))
        for seed in range(DRAWS if rate else 1)
    ]
    return np.array([[float(v["auroc"][0]), float(v["log_loss"][0])] for v in found])


def _cell(values: Float[ndarray, "removal 2"]) -> str:
    """Means, and the deviation of the AUROC between removals where there are several."""
    auroc, loss = values.mean(axis=0)
    apart = f" ± {values[:, 0].std(ddof=1):.3f}" if len(values) > 1 else ""
    return f"{auroc:.3f}{apart} ({loss:.3f})"


if __name__ == "__main__":
    main()
