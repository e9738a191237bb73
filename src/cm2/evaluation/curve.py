"""Measures of ranks under many rows of weights at once.

The samples are sorted once, and what positives and negatives weigh is kept at the positives alone,
which are few where outcomes are rare. Replicates lie side by side in memory, so that sums over
samples are vectorised.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray


class Curve(NamedTuple):
    """What weighs how much at the score of each positive, from high to low, in each replicate.

    Attributes:
        own: The positive itself.
        above: Positives that score higher.
        least: Positives that score as high or higher.
        called_above: Samples of either outcome that score higher.
        called_least: Samples that score as high or higher.
        samples: All samples.
    """

    own: Float[ndarray, "positive replicate"]
    above: Float[ndarray, "positive replicate"]
    least: Float[ndarray, "positive replicate"]
    called_above: Float[ndarray, "positive replicate"]
    called_least: Float[ndarray, "positive replicate"]
    samples: Float[ndarray, " replicate"]


def curve(
    target: Bool[ndarray, " n"], score: Float[ndarray, " n"], weight: Float[ndarray, "replicate n"]
) -> Curve:
    """Sorts samples by their score.

    Args:
        target: Outcomes.
        score: Finite numbers.
        weight: Of the samples.
    """
    order = np.argsort(-score, kind="stable")
    down, hit = -score[order], target[order]
    rows = weight.T[order]
    own = rows[hit]
    called, positive = _sums(rows), _sums(own)
    first, last = (np.searchsorted(down, down[hit], side) for side in ("left", "right"))
    hits = np.concatenate([[0], np.cumsum(hit)])
    return Curve(
        own, positive[hits[first]], positive[hits[last]], called[first], called[last], called[-1]
    )


def auroc(ranked: Curve) -> Float[ndarray, " replicate"]:
    """The probability that a positive scores higher than a negative, ties half."""
    positive = ranked.own.sum(axis=0)
    negative = ranked.samples - positive
    better = (ranked.called_above - ranked.above + ranked.called_least - ranked.least) / 2
    wins = (ranked.own * (negative - better)).sum(axis=0)
    return np.asarray(wins / (positive * negative))


def aupr(ranked: Curve) -> Float[ndarray, " replicate"]:
    """Average precision: precision at each threshold by its gain in recall."""
    precision = ranked.least / np.where(ranked.called_least > 0, ranked.called_least, 1.0)
    return np.asarray((precision * ranked.own).sum(axis=0) / ranked.own.sum(axis=0))


def _sums(rows: Float[ndarray, "row replicate"]) -> Float[ndarray, "sum replicate"]:
    """Sums of the rows before each, and of all of them."""
    sums = np.zeros((len(rows) + 1, rows.shape[1]))
    np.cumsum(rows, axis=0, out=sums[1:])
    return sums
