"""The calibration slope: by what log odds have to be multiplied to be right.

Below one, a model is over-confident; above, under-confident. Cox (1958), Two further applications
of a model for binary regression, Biometrika 45:562-565.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.special import expit, logit

from cm2.evaluation import bootstrap, checked

STEPS, CLOSE = 50, 1e-8
SAME = 1e-12
"""Log odds that are closer together are the same but for rounding."""
LEAST = 1e-9
"""The least probability; of it and of one there is no logarithm of the odds."""


def slope(
    target: Any,
    probability: Any,
    weight: Any = None,
) -> Float[ndarray, " replicate"]:
    """The slope of the logistic regression of the outcome on the predicted log odds.

    Args:
        target: Outcomes (n,), zeros and ones or booleans.
        probability: Predicted.
        weight: Weights of the rows; None for one row of ones.

    Returns:
        NaN where all rows have one outcome or one probability, or outcomes are parted without an
        exception, of which no slope is the best.

    Raises:
        ValueError: If outcomes are not 0 and 1, or probabilities not from 0 to 1.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> p = rng.uniform(size=20000)
        >>> y = rng.uniform(size=20000) < p
        >>> round(float(slope(y, p)[0]), 1)
        1.0
    """
    hit = checked.outcomes(target)
    proba = checked.of_outcome(probability, len(hit))
    odds = logit(np.clip(proba, LEAST, 1 - LEAST))
    return np.array([_slope(hit, odds, row) for row in checked.weights(weight, len(hit))])


def _slope(
    target: Bool[ndarray, " n"], odds: Float[ndarray, " n"], weight: Float[ndarray, " n"]
) -> float:
    """By Newton's method, on the rows of some weight."""
    kept = weight > 0
    y, x, w = target[kept].astype(float), odds[kept], weight[kept]
    if len(x) == 0 or np.ptp(x) < SAME or np.ptp(y) == 0 or _is_parted(y, x):
        return np.nan
    # In deviations from the mean, so that a step is as large wherever odds lie and however close.
    mean, scale = x.mean(), x.std()
    design = np.stack([np.ones_like(x), (x - mean) / scale], axis=1)
    found = np.array([mean, scale])
    for _ in range(STEPS):
        p = expit(design @ found)
        gradient = design.T @ (w * (y - p))
        curvature = (design.T * (w * np.maximum(p * (1 - p), 1e-12))) @ design
        step = np.linalg.solve(curvature, gradient)
        found = found + step / max(1.0, np.abs(step).max() / 2)
        if np.abs(step).max() < CLOSE:
            return float(found[1] / scale)
    return np.nan


def _is_parted(y: Float[ndarray, " n"], x: Float[ndarray, " n"]) -> bool:
    return bool(x[y == 1].min() >= x[y == 0].max() or x[y == 1].max() <= x[y == 0].min())


class Slope(NamedTuple):
    """The slope among rows that lack equally many modalities.

    Attributes:
        missing: How many they lack.
        rows: How many there are.
        patients: Whose rows they are.
        positives: Rows with the outcome.
        value: The slope.
        low: Lower end of its interval.
        high: Upper end.
    """

    missing: int
    rows: int
    patients: int
    positives: int
    value: float
    low: float
    high: float


def by_missing(
    target: Any,
    probability: Any,
    missing: Any,
    counts: Int[ndarray, "replicate patient"],
    groups: Any,
) -> list[Slope]:
    """The slope in each stratum of rows that lack equally many modalities.

    Args:
        target: Outcomes (n,), zeros and ones or booleans.
        probability: Predicted.
        missing: How many modalities each row lacks.
        counts: How often each patient is drawn, the first row once each.
        groups: The column of ``counts`` of each row's patient.
    """
    target = checked.outcomes(target)
    probability = checked.of_outcome(probability, len(target))
    missing, groups = np.asarray(missing), np.asarray(groups)
    found = []
    for number in np.unique(missing):
        rows = missing == number
        values = slope(target[rows], probability[rows], counts[:, groups[rows]].astype(float))
        spread = bootstrap.interval(values)
        size = (int(rows.sum()), len(np.unique(groups[rows])), int(target[rows].sum()))
        found.append(Slope(int(number), *size, spread.value, spread.low, spread.high))
    return found
