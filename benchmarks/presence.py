"""Does it pay to let presence speak? The joint head with and without it.

    python benchmarks/presence.py                  # made-up noise whose presence tells
    python benchmarks/presence.py --data DIR       # and PhysioNet 2012, five folds of set a

Of the test rows modalities are removed at random, and their absence then says nothing of the
outcome: what was learned from presence helps as observed, and misleads the more is removed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from cm2 import CM2Classifier, Samples
from cm2.samples.worlds import remove

RATES = (0.0, 0.3, 0.6)


def noise(rows: int, seed: int) -> tuple[dict[str, ndarray], ndarray]:
    """Two modalities of noise; one class has the second at a rate of .9, the other of .3."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=rows)
    X = {name: rng.normal(size=(rows, 3)) for name in "ab"}
    X["b"][rng.random(rows) >= np.where(y == 1, 0.9, 0.3)] = np.nan
    return X, y


def line(name: str, scores: dict[tuple[bool, float], list[tuple[float, float]]]) -> None:
    """Prints a row of the table for each choice."""
    for choice in (False, True):
        cells = [np.mean(scores[choice, rate], axis=0) for rate in RATES]
        shown = " | ".join(f"{auc:.3f} ({loss:.3f})" for auc, loss in cells)
        print(f"| {name} | {'on' if choice else 'off'} | {shown} |", flush=True)


def compare(name: str, X: dict[str, Any], y: ndarray, folds: int) -> None:
    """Scores of both choices on the folds' test rows."""
    scores: dict[tuple[bool, float], list[tuple[float, float]]] = {
        (choice, rate): [] for choice in (False, True) for rate in RATES
    }
    X = {name: np.asarray(values, float) for name, values in X.items()}
    S = Samples(X, y=y)
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=1).split(S, y):
        for choice in (False, True):
            model = CM2Classifier(head="joint", presence=choice, random_state=0).fit(S[train])
            for rate in RATES:
                new = remove({k: v[test] for k, v in X.items()}, rate, seed=0)
                proba = model.predict_proba(new)[:, 1]
                scores[choice, rate].append(
                    (roc_auc_score(y[test], proba), log_loss(y[test], proba))
                )
    line(name, scores)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of PhysioNet 2012")
    folder = parser.parse_args().data
    print("| data | presence | as observed | 30% removed | 60% removed |")
    print("|---|---|---|---|---|")
    compare("noise", *noise(2000, 0), folds=2)
    if folder is not None:
        from physionet2012 import read

        stays = read(folder, "a")
        compare("PhysioNet 2012, set a", stays.X, stays.y, folds=5)


if __name__ == "__main__":
    main()
