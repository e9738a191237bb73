"""What each head is worth in the pool, and what its weights and confidence do.

    CM2_DATA_HOME=DIR python benchmarks/pool.py                        # PhysioNet's set a, 4 splits
    CM2_DATA_HOME=DIR python benchmarks/pool.py --studies eicu-hourly --splits 5

Heads learn from the training rows of each split, the pool from what they say of rows held out
there, and both predict the other rows, as they are and with modalities removed at random. AUROC,
log loss and the slope of calibration, means over the splits. Set a is development data; eICU's
folds are those of ``cm2 benchmark``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from cm2 import CM2Classifier
from cm2.benchmark.command import places
from cm2.benchmark.patterns import OBSERVED, Pattern
from cm2.benchmark.run import open_studies
from cm2.benchmark.studies import Study
from cm2.core.removal import hidden
from cm2.estimators import assembly
from cm2.estimators.heads import log_linear
from cm2.estimators.heads.base import stratified_folds
from cm2.estimators.heads.pool import RATES
from cm2.evaluation.calibrated import slope
from cm2.evaluation.metrics import measure
from cm2.samples.inputs import Reader

PATTERNS = (OBSERVED, Pattern("random", 0.3), Pattern("random", 0.6))


class Said(NamedTuple):
    """What heads said of the rows of a split.

    Attributes:
        names: The heads.
        held_out: Of training rows, by each head, in each view.
        test: Of test rows, by each head, under each pattern.
        lacking: The share of the modalities that a training row lacks in each view.
        missing: That of a test row under each pattern.
        y: Outcomes of training rows.
        truth: Those of test rows.
    """

    names: list[str]
    held_out: Float[ndarray, "head view row label"]
    test: Float[ndarray, "head pattern row label"]
    lacking: Float[ndarray, "view row"]
    missing: Float[ndarray, "pattern row"]
    y: Int[ndarray, " row"]
    truth: Int[ndarray, " row"]


def ask(study: Study, seed: int) -> Said:
    """Fits the heads of the default pool to a split of a study."""
    train, test = study.split(seed)
    X, y, groups = study.blocks(train), study.y[train], study.groups[train]
    reader = Reader()
    rows = reader.fit_blocks({name: x[train] for name, x in X.items()})
    asked = {name: x[test] for name, x in X.items()}
    shown = [reader.blocks(pattern.removed_from(asked, seed)) for pattern in PATTERNS]
    pool = assembly.build(CM2Classifier().get_params(), seed, rows, None)
    folds = stratified_folds(y, pool.folds, seed, groups)
    rng = np.random.default_rng(seed)
    views = [hidden(rows.present, rate, rng) for rate in RATES]
    held_out, said = [], []
    for head in pool.heads.values():
        held_out.append(head.cross_fit(rows, y, np.ones(len(y)), folds, groups, views))
        said.append(np.stack([head.predict_log_proba(one) for one in shown]))
    lacking = 1 - np.stack([rows.present, *views]).mean(axis=2)
    missing = 1 - np.stack([one.present for one in shown]).mean(axis=2)
    told = np.stack(held_out), np.stack(said)
    return Said(list(pool.heads), *told, lacking, missing, y, study.y[test])


def pools(said: Said) -> Iterator[tuple[str, Float[ndarray, "pattern row label"]]]:
    """Each head alone, and pools of them; what they say of test rows."""
    names = said.names
    for name, alone in zip(names, said.test, strict=True):
        yield f"{name} alone", alone
    equal = np.full((said.test.shape[2], len(names)), 1 / len(names))
    one, rates = np.ones(len(equal)), np.zeros(said.test.shape[3])
    yield "equal weights", np.stack([log_linear.pool(p, equal, one, rates) for p in _each(said)])
    whole = np.arange(len(names))
    for out, name in enumerate(names):
        yield f"the pool without {name}", _pooled(said, whole[whole != out])
    with mock.patch.object(log_linear, "class_prior", lambda y, w, labels: np.ones(labels)):
        prior_too = _pooled(said, whole)
    yield "the pool, confidence in the prior too", prior_too
    yield "the pool", _pooled(said, whole)


def _each(said: Said) -> Iterator[Float[ndarray, "head row label"]]:
    yield from said.test.swapaxes(0, 1)


def _pooled(said: Said, which: Int[ndarray, " head"]) -> Float[ndarray, "pattern row label"]:
    """What a pool of some of the heads says of test rows."""
    known, weight = said.held_out[which], np.ones(len(said.y))
    prior = np.ones(len(which))
    found = log_linear.fit_weights(known, said.y, weight, prior, said.lacking)
    asked = zip(_each(said), said.missing, strict=True)
    return np.stack([found.pooled(one[which], missing) for one, missing in asked])


def measures(
    log_proba: Float[ndarray, "row label"], y: Int[ndarray, " row"]
) -> tuple[float, float, float]:
    """AUROC, log loss and the slope of calibration."""
    proba = np.exp(log_proba)
    proba /= proba.sum(axis=1, keepdims=True)
    found = measure(y, proba)
    [steep] = slope(y == 1, proba[:, 1]) if proba.shape[1] == 2 else [np.nan]
    return float(found["auroc"][0]), float(found["log_loss"][0]), float(steep)


def main() -> None:
    """Prints a table a study, a line a pool."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", nargs="+", default=["physionet2012"])
    parser.add_argument("--splits", type=int, default=4)
    given = parser.parse_args()
    for name, study in open_studies(given.studies, places(())).items():
        found: dict[str, list[list[tuple[float, float, float]]]] = {}
        for seed in range(given.splits):
            said = ask(study, seed)
            for pool, proba in pools(said):
                found.setdefault(pool, []).append([measures(one, said.truth) for one in proba])
        print(f"\n| {name} | as observed | 30% removed | 60% removed |\n|---|---|---|---|")
        for pool, scores in found.items():
            each = np.mean(scores, axis=0)
            cells = " | ".join(f"{a:.4f} ({loss:.4f}), {s:.2f}" for a, loss, s in each)
            print(f"| {pool} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
