"""The methods of the demo's table: CM² and its rivals, by the name under which they are shown."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxtyping import Int
from numpy import ndarray

from cm2.baselines import Concatenated, LateFusion
from cm2.estimator import CM2Classifier

POOLED = "CM², pooled heads"
LATE_FUSION = "late fusion"
LATE_FUSION_LOG = "late fusion, log mean"
NETWORKS = {
    "CM², conditional": "conditional",
    "CM², marginal": "marginal",
    "CM² net, zero-filled": "zero",
}
CONCATENATED: dict[str, Literal["linear", "boosting"]] = {
    "concatenated LR": "linear",
    "concatenated boosting": "boosting",
}
ABOUT = {
    POOLED: "the estimator's default: fusion, joint and expert heads, pooled",
    "CM², conditional": "the fusion head alone; missing embeddings drawn given the others",
    "CM², marginal": "the same, drawn without looking at the others, as in the paper",
    "CM² net, zero-filled": "the same, missing embeddings are zero",
    "concatenated LR": "logistic regression on all features side by side, gaps filled and flagged",
    "concatenated boosting": "gradient boosting on all features side by side, gaps as they are",
    LATE_FUSION: "a logistic regression each modality, mean probability of those present",
    LATE_FUSION_LOG: "the same, geometric mean",
}
"""One line on each method."""


class Fitted(NamedTuple):
    """A method that has been fitted, and the seconds that it took."""

    name: str
    method: Any
    seconds: float


def fitted(
    X: Mapping[str, Any],
    y: Int[ndarray, " n"],
    *,
    seed: int,
    epochs: int,
    folder: Path | None = None,
) -> Iterator[Fitted]:
    """Fits every method to the same rows.

    Args:
        X: Modalities of the training rows.
        y: Their class codes.
        seed: Of all that is random in a method.
        epochs: Largest number of passes of a network.
        folder: If given, the pooled classifier is saved there, and the log of its training.
    """
    pooled = CM2Classifier(
        head="pooled",
        max_epochs=epochs,
        random_state=seed,
        run_dir=None if folder is None else str(folder / "training"),
    )
    yield _fit(POOLED, pooled, X, y)
    if folder is not None:
        pooled.save(folder / "classifier")
    for name, imputation in NETWORKS.items():
        network = CM2Classifier(
            head="fusion", imputation=imputation, max_epochs=epochs, random_state=seed
        )
        yield _fit(name, network, X, y)
    for name, model in CONCATENATED.items():
        yield _fit(name, Concatenated(model, random_state=seed), X, y)
    late = LateFusion("linear", random_state=seed)
    yield _fit(LATE_FUSION, late, X, y)
    yield Fitted(LATE_FUSION_LOG, copy.copy(late).set_params(average="log"), 0.0)


def _fit(name: str, method: Any, X: Mapping[str, Any], y: Int[ndarray, " n"]) -> Fitted:
    start = time.perf_counter()
    method.fit(X, y)
    return Fitted(name, method, time.perf_counter() - start)
