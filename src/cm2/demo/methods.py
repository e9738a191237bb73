"""The methods of the demo's table: CM² and its rivals, by the name under which they are shown."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxtyping import Int
from numpy import ndarray

from cm2.estimators.baselines import Concatenated, LateFusion
from cm2.estimators.classifier import CM2Classifier

POOLED = "CM², pooled heads"
LATE_FUSION = "late fusion"
LATE_FUSION_LOG = "late fusion, log"
NETWORKS = {
    "CM², conditional": "conditional",
    "CM², marginal": "marginal",
    "CM², zero-filled": "zero",
}
CONCATENATED: dict[str, Literal["linear", "boosting"]] = {
    "concat. LR": "linear",
    "concat. boosting": "boosting",
}
ABOUT = {
    POOLED: "the estimator's default: linear, boosting, joint, expert and network heads, pooled",
    "CM², conditional": "the fusion head alone; missing embeddings drawn given the others",
    "CM², marginal": "the same, drawn without looking at the others, as in the paper",
    "CM², zero-filled": "the same, missing embeddings are zero",
    "concat. LR": "logistic regression on all features side by side, gaps filled and flagged",
    "concat. boosting": "gradient boosting on all features side by side, gaps as they are",
    LATE_FUSION: "a logistic regression each modality, mean probability of those present",
    LATE_FUSION_LOG: "the same, geometric mean",
}
"""One line on each method."""


FITS = (POOLED, *NETWORKS, *CONCATENATED, LATE_FUSION)
"""What is fitted, the slowest first; late fusion yields both of its averages."""


class Fitted(NamedTuple):
    """A method that has been fitted, and the seconds that it took."""

    name: str
    method: Any
    seconds: float


def fit(
    name: str,
    X: Mapping[str, Any],
    y: Int[ndarray, " n"],
    *,
    groups: Int[ndarray, " n"],
    seed: int,
    epochs: int,
    folder: Path | None = None,
) -> list[Fitted]:
    """Fits one of `FITS`.

    Args:
        name: Which.
        X: Modalities of the training rows.
        y: Their class codes.
        groups: The patient of each row; all folds keep a patient together.
        seed: Of all that is random in a method.
        epochs: Largest number of passes of a network.
        folder: If given, the pooled classifier is saved there, and the log of its training.
    """
    start = time.perf_counter()
    method = _build(name, seed, epochs, folder)
    method.fit(X, y, groups=groups)
    fitted = [Fitted(name, method, time.perf_counter() - start)]
    if name == POOLED and folder is not None:
        method.save(folder / "classifier.skops")
    if name == LATE_FUSION:
        geometric = copy.copy(method).set_params(average="log")
        fitted.append(Fitted(LATE_FUSION_LOG, geometric, fitted[0].seconds))
    return fitted


def _build(name: str, seed: int, epochs: int, folder: Path | None) -> Any:
    if name == POOLED:
        log = None if folder is None else str(folder / "training")
        return CM2Classifier(max_epochs=epochs, random_state=seed, run_dir=log)
    if name in NETWORKS:
        return CM2Classifier(
            head="fusion", imputation=NETWORKS[name], max_epochs=epochs, random_state=seed
        )
    if name in CONCATENATED:
        return Concatenated(CONCATENATED[name], random_state=seed)
    return LateFusion("linear", random_state=seed)
