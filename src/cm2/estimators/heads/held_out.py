"""How classifiers of one table are judged: by rows that they have not learned from.

Folds, or for forests the trees that have not drawn a row. Used by the experts and by the rivals.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from cm2.estimators.heads.base import cross_predict

FOREST_MIX = 0.01
"""Share of the class prior in a forest's probabilities, which would otherwise reach 0."""


def complete(
    proba: Float[ndarray, "n seen"],
    codes: Int[ndarray, " seen"],
    prior: Float[ndarray, " label"],
    mix: float = 0.0,
) -> Float[ndarray, "n label"]:
    """Adds the classes that a model has not seen, at their prior probability.

    Args:
        proba: Of the classes that it has seen.
        codes: Those classes.
        prior: Of all classes.
        mix: Share of the prior in the probabilities of classes seen.
    """
    full = np.tile(prior, (len(proba), 1))
    known = proba / proba.sum(axis=1, keepdims=True) * prior[codes].sum()
    full[:, codes] = (1 - mix) * known + mix * prior[codes]
    return full


def out_of_fold(
    fit: Callable[..., Any],
    x: Float[ndarray, "n feature"],
    y: Int[ndarray, " n"],
    weight: Float[ndarray, " n"],
    folds: Int[ndarray, " n"],
    prior: Float[ndarray, " label"],
    mix: float = 0.0,
) -> Float[ndarray, "n label"]:
    """Probabilities of each row by a model that ``fit(x, y, weight)`` made without its fold."""

    def predict(
        train: Bool[ndarray, " n"], test: Bool[ndarray, " n"]
    ) -> Float[ndarray, "test label"]:
        model = fit(x[train], y[train], weight[train])
        return complete(model.predict_proba(x[test]), model.classes_, prior, mix)

    return cross_predict(predict, y, folds, prior)


def out_of_bag(
    fit: Callable[[], Any], prior: Float[ndarray, " label"], mix: float = 0.0
) -> tuple[Any, Float[ndarray, "n label"]]:
    """A forest, and probabilities of each row by the trees that have not drawn it.

    Args:
        fit: Returns a fitted forest with ``oob_score``, which then forgets the training rows.
        prior: What a row in every bag, such as one of large weight, gets.
        mix: As for :func:`complete`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Some inputs do not have OOB scores", UserWarning)
        forest = fit()
    votes = np.nan_to_num(forest.oob_decision_function_)
    forget(forest)
    votes[votes.sum(axis=1) == 0] = prior[forest.classes_]
    return forest, complete(votes, forest.classes_, prior, mix)


def forget(forest: Any) -> Any:
    """Drops what a forest keeps of each training row; a saved model holds none."""
    for name in ("oob_decision_function_", "_sample_weight"):
        vars(forest).pop(name, None)
    return forest


def log_loss(
    log_proba: Float[ndarray, "n label"], y: Int[ndarray, " n"], weight: Float[ndarray, " n"]
) -> float:
    """Weighted mean of the negative log probability of what happened."""
    return float(-np.average(log_proba[np.arange(len(y)), y], weights=weight))


def clearly_lower(
    losses: Float[ndarray, " row"],
    than: Float[ndarray, " row"],
    weight: Float[ndarray, " row"],
    groups: Int[ndarray, " row"],
) -> bool:
    """Whether losses are lower by more than one standard error of the paired difference.

    Rows of one group count as one in the standard error: they are right or wrong together.

    Args:
        losses: Of each row.
        than: What they are compared with.
        weight: Of each row; they sum to one.
        groups: The number of each row's group.
    """
    gain = than - losses
    mean = float(weight @ gain)
    error = np.bincount(groups, weight * (gain - mean))
    return bool(mean > np.sqrt(error @ error))


def lowest(
    judged: Iterable[tuple[Any, Float[ndarray, "n label"]]],
    loss: Callable[[Float[ndarray, "n label"]], float],
) -> tuple[Any, Float[ndarray, "n label"]]:
    """The first candidate of lowest loss, and what it says of rows held out."""
    return min(judged, key=lambda one: loss(one[1]))
