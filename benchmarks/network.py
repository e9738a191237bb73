"""One network beside one linear model, under settings of fusion and of regularising.

    CM2_DATA_HOME=DIR python benchmarks/network.py                  # PhysioNet's set a, 4 splits
    CM2_DATA_HOME=DIR python benchmarks/network.py --studies eicu-hourly --splits 5

Each setting is fitted to the training rows of each split as they are, and predicts the others as
they are and with modalities removed at random; AUROC and, in brackets, log loss, means over the
splits; seconds of processor time of a fit. Set a is development data; eICU's folds are those of
``cm2 benchmark``.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from cm2 import CM2Classifier
from cm2.benchmark.command import places
from cm2.benchmark.patterns import OBSERVED, Pattern
from cm2.benchmark.run import open_studies
from cm2.benchmark.studies import Study
from cm2.estimators.heads import Fusion
from cm2.estimators.heads.fusion import MODEL

PATTERNS = (OBSERVED, Pattern("random", 0.3), Pattern("random", 0.6))
LSTM, LITTLE, MUCH = {"fusion": "lstm"}, {"dropout": 0.1}, {"dropout": 0.5}
SLOW = {"lr": 1e-3}
PAPER: dict[str, Any] = {"model": LSTM | LITTLE, "encoder": LITTLE}
"""The paper's fusion, with the dropout that other encoders, and ``CM2`` itself, have."""
SETTINGS: dict[str, dict[str, Any]] = {
    "LSTM, dropout .1": PAPER,
    "LSTM, dropout .3": {"model": LSTM},
    "concatenation, dropout .1": {"model": LITTLE, "encoder": LITTLE},
    "concatenation, dropout .3: the default": {},
    "concatenation, dropout .5": {"model": MUCH, "encoder": MUCH},
    "the default, learning rate .001": {"training": SLOW},
    "LSTM, dropout .3, learning rate .001": {"model": LSTM, "training": SLOW},
    "LSTM, dropout .1, weight decay 1": PAPER | {"training": {"weight_decay": 1.0}},
    "LSTM, dropout .1, hiding half": PAPER | {"model": LSTM | LITTLE | {"hide": 0.5}},
    "LSTM, dropout .1, auxiliary heads x 4": PAPER | {"training": {"weights": {"auxiliary": 2.0}}},
    "LSTM, dropout .1, three networks": PAPER | {"folds": 3},
    "concatenation, dropout .1, three networks": {"model": LITTLE, "encoder": LITTLE, "folds": 3},
    "concatenation, dropout .3, three networks": {"folds": 3},
}
LINEAR = "the linear head, all features"


def build(name: str, modalities: tuple[str, ...]) -> CM2Classifier:
    """The classifier of a setting."""
    if name == LINEAR:
        return CM2Classifier(head="linear", random_state=0)
    asked = SETTINGS[name]
    encoder = {"kind": "dense", **asked.get("encoder", {})}
    head = Fusion(
        model=MODEL | asked.get("model", {}),
        training=asked.get("training"),
        folds=asked.get("folds", 1),
        encoders=dict.fromkeys(modalities, encoder),
    )
    return CM2Classifier(head=head, random_state=0)


def measure(study: Study, name: str, splits: int) -> tuple[float, list[tuple[float, float]]]:
    """Seconds of a fit, and AUROC and log loss under each pattern."""
    found = np.zeros((splits, len(PATTERNS), 2))
    seconds = 0.0
    for seed in range(splits):
        train, test = study.split(seed)
        blocks = study.blocks(train)
        learned, asked = ({n: x[rows] for n, x in blocks.items()} for rows in (train, test))
        start = time.process_time()
        model = build(name, study.modalities)
        model.fit(learned, study.y[train], groups=study.groups[train])
        seconds += (time.process_time() - start) / splits
        for place, pattern in enumerate(PATTERNS):
            said = model.predict_proba(pattern.removed_from(asked, seed))[:, 1]
            truth = study.y[test]
            found[seed, place] = roc_auc_score(truth, said), log_loss(truth, said)
    return seconds, [tuple(pair) for pair in found.mean(axis=0).tolist()]


def main() -> None:
    """Prints a table a study, a line a setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", nargs="+", default=["physionet2012"])
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--settings", nargs="+", choices=[LINEAR, *SETTINGS])
    given = parser.parse_args()
    for study_name, study in open_studies(given.studies, places(())).items():
        print(f"\n| {study_name} | as observed | 30% removed | 60% removed | CPU s |")
        print("|---|---|---|---|---|")
        for name in given.settings or [LINEAR, *SETTINGS]:
            seconds, each = measure(study, name, given.splits)
            cells = " | ".join(f"{auroc:.4f} ({loss:.4f})" for auroc, loss in each)
            print(f"| {name} | {cells} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
