"""The methods of the demo's table: CM² and its rivals, by the name under which they are shown."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxtyping import Float, Int
from numpy import ndarray

from cm2.baselines import Concatenated, LateFusion
from cm2.estimator import CM2Classifier

POOLED = "CM², pooled heads"
LATE_FUSION = "late fusion"
LATE_FUSION_LOG = "late fusion, log average"
NETWORKS = {
    "CM² network, conditional": "conditional",
    "CM² network, marginal": "marginal",
    "same network, zero-filling": "zero",
}
CONCATENATED: dict[str, Literal["linear", "boosting"]] = {
    "concatenated LR": "linear",
    "concatenated boosting": "boosting",
}
ABOUT = {
    POOLED: "the estimator's default: fusion, joint and expert heads, pooled",
    "CM² network, conditional": "the fusion head alone; missing embeddings drawn given the others",
    "CM² network, marginal": "the same, drawn without looking at the others, as in the paper",
    "same network, zero-filling": "the same, missing embeddings are zero",
    "concatenated LR": "logistic regression on all features side by side, gaps filled and flagged",
    "concatenated boosting": "gradient boosting on all features side by side, gaps as they are",
    LATE_FUSION: "a logistic regression each modality, mean probability of those present",
    LATE_FUSION_LOG: "the same, geometric mean",
}
"""One line on each method."""


class Prediction(NamedTuple):
    """Class probabilities of the test rows, and the seconds that fit and prediction took."""

    method: str
    probability: Float[ndarray, "n label"]
    seconds: float


def predictions(
    train: Mapping[str, Any],
    y: Int[ndarray, " train"],
    test: Mapping[str, Any],
    *,
    seed: int,
    epochs: int,
    folder: Path | None = None,
) -> Iterator[Prediction]:
    """Fits every method to the same rows and predicts the same rows.

    Args:
        train: Modalities of the training rows.
        y: Their class codes.
        test: Modalities of the test rows.
        seed: Of all that is random in a method.
        epochs: Largest number of passes of a network.
        folder: If given, the pooled classifier is saved there, and the log of its training.
    """
    start = time.perf_counter()
    pooled = CM2Classifier(
        head="pooled",
        max_epochs=epochs,
        random_state=seed,
        run_dir=None if folder is None else str(folder / "training"),
    ).fit(train, y)
    yield Prediction(POOLED, pooled.predict_proba(test), time.perf_counter() - start)
    if folder is not None:
        pooled.save(folder / "classifier")
    for name, imputation in NETWORKS.items():
        network = CM2Classifier(
            head="fusion", imputation=imputation, max_epochs=epochs, random_state=seed
        )
        yield _predict(name, network, train, y, test)
    for name, model in CONCATENATED.items():
        yield _predict(name, Concatenated(model, random_state=seed), train, y, test)
    late = LateFusion("linear", random_state=seed)
    yield _predict(LATE_FUSION, late, train, y, test)
    start = time.perf_counter()
    geometric = copy.copy(late).set_params(average="log")
    yield Prediction(LATE_FUSION_LOG, geometric.predict_proba(test), time.perf_counter() - start)


def _predict(
    name: str, method: Any, train: Mapping[str, Any], y: Int[ndarray, " n"], test: Mapping[str, Any]
) -> Prediction:
    start = time.perf_counter()
    probability = method.fit(train, y).predict_proba(test)
    return Prediction(name, probability, time.perf_counter() - start)
