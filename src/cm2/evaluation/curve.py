"""Measures of ranks under many rows of weights at once.

Positives and negatives are sorted once each, and what they weigh is kept at the positives alone,
which are few where outcomes are rare. Replicates lie side by side in memory, so that sums over
samples are vectorised. What one outcome weighs is never taken for the rest of a sum over both,
which cancels where it weighs little or nothing.
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
        least: Positives that score as high or higher.
        false_above: Negatives that score higher.
        false_least: Negatives that score as high or higher.
        positives: All of them.
        negatives: All of them.
    """

    own: Float[ndarray, "positive replicate"]
    least: Float[ndarray, "positive replicate"]
    false_above: Float[ndarray, "positive replicate"]
    false_least: Float[ndarray, "positive replicate"]
    positives: Float[ndarray, " replicate"]
    negatives: Float[ndarray, " replicate"]


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
    hits, misses = (weight.T[order[own]] for own in (hit, ~hit))
    positive, negative = _sums(hits), _sums(misses)
    last = np.searchsorted(down[hit], down[hit], "right")
    above, least = (np.searchsorted(down[~hit], down[hit], side) for side in ("left", "right"))
    return Curve(hits, positive[last], negative[above], negative[least], positive[-1], negative[-1])


@np.errstate(invalid="ignore")
def auroc(ranked: Curve) -> Float[ndarray, " replicate"]:
    """The probability that a positive scores higher than a negative, ties half.

    NaN where a replicate lacks one of them, as average precision is without positives.
    """
    better = (ranked.false_above + ranked.false_least) / 2
    wins = (ranked.own * (ranked.negatives - better)).sum(axis=0)
    return np.asarray(wins / (ranked.positives * ranked.negatives))


@np.errstate(invalid="ignore")
def aupr(ranked: Curve) -> Float[ndarray, " replicate"]:
    """Average precision: precision at each threshold by its gain in recall."""
    called = ranked.least + ranked.false_least
    precision = ranked.least / np.where(called > 0, called, 1.0)
    return np.asarray((precision * ranked.own).sum(axis=0) / ranked.positives)


def _sums(rows: Float[ndarray, "row replicate"]) -> Float[ndarray, "sum replicate"]:
    """Sums of the rows before each, and of all of them."""
    sums = np.zeros((len(rows) + 1, rows.shape[1]))
    np.cumsum(rows, axis=0, out=sums[1:])
    return sums
