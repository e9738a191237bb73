"""Whether two methods differ on the same test rows: DeLong's test, and what the paper took for one.

DeLong, DeLong, Clarke-Pearson (1988), Comparing the areas under two or more correlated receiver
operating characteristic curves; with several rows a patient as Obuchowski (1997), Nonparametric
analysis of clustered ROC curve data, both in Biometrics.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import stats

from cm2.evaluation import bootstrap, checked

WHY_NOT = (
    "A t-test over bootstrap replicates says nothing of the difference: replicates are not "
    "observations, their number is chosen, and p goes to zero as it grows, for any two methods "
    "that do not agree to the last digit."
)
"""What has to be said beside :func:`over_replicates`."""


class Compared(NamedTuple):
    """The difference of two areas under the ROC curve.

    Attributes:
        difference: First minus second.
        standard_error: Over other patients.
        p: Two-sided p-value of no difference; NaN, as the others, where it is not defined.
    """

    difference: float
    standard_error: float
    p: float


def delong(
    target: Any,
    first: Any,
    second: Any,
    groups: Any = None,
) -> Compared:
    """Compares the mean AUROC of one method's runs with that of another's.

    Args:
        target: Outcomes (n,), zeros and ones or booleans.
        first: Scores of each run of a method, (run, n).
        second: Scores of each run of another.
        groups: The patient of each row; None where each row is one.

    Returns:
        NaN for error and p where fewer than two patients have an outcome, and for the difference
        where none has.

    Raises:
        ValueError: If outcomes are not 0 and 1, or scores are not finite, one row a run.

    Example:
        >>> target = np.array([False, False, True, True, True])
        >>> scores = np.array([[0.1, 0.4, 0.35, 0.8, 0.9]]), np.array([[0.3, 0.2, 0.1, 0.9, 0.4]])
        >>> round(delong(target, *scores).difference, 3)
        0.167
    """
    target = checked.outcomes(target)
    first, second = (
        checked.runs(scores, len(target), what)
        for scores, what in ((first, "first"), (second, "second"))
    )
    patient = bootstrap.numbered(groups, len(target))
    if target.all() or not target.any():
        return Compared(np.nan, np.nan, np.nan)
    gap, parts = 0.0, {outcome: np.zeros((target == outcome).sum()) for outcome in (True, False)}
    for sign, scores in ((1, first), (-1, second)):
        for score in scores:
            area, placed = _placements(target, score)
            gap += sign * area / len(scores)
            for outcome, values in placed.items():
                parts[outcome] = parts[outcome] + sign * (values - area) / len(scores)
    variance = _variance(parts, {outcome: patient[target == outcome] for outcome in parts})
    error = float(np.sqrt(variance))
    p = float(2 * stats.norm.sf(abs(gap) / error)) if error > 0 else np.nan
    return Compared(float(gap), error, p)


def _placements(
    target: Bool[ndarray, " n"], score: Float[ndarray, " n"]
) -> tuple[float, dict[bool, Float[ndarray, " m"]]]:
    """The AUROC, and for each row of an outcome the share of the other that it is right against."""
    count = {outcome: int((target == outcome).sum()) for outcome in (True, False)}
    ranks = stats.rankdata(score)
    above = ranks[target] - stats.rankdata(score[target])  # negatives below each positive
    below = ranks[~target] - stats.rankdata(score[~target])  # positives below each negative
    placed = {True: above / count[False], False: 1 - below / count[True]}
    return float(placed[True].mean()), placed


def _variance(parts: dict[bool, ndarray], patient: dict[bool, Int[ndarray, " m"]]) -> float:
    """The variance of a mean placement whose rows come in patients; NaN of fewer than two."""
    size = 1 + max(int(each.max(initial=0)) for each in patient.values())
    sums, there = {}, {}
    for outcome, values in parts.items():
        sums[outcome] = np.bincount(patient[outcome], values / len(values), size)
        there[outcome] = np.bincount(patient[outcome], minlength=size) > 0
    if min(int(each.sum()) for each in there.values()) < 2:
        return np.nan
    each = sum(_inflated(there[outcome]) * float((sums[outcome] ** 2).sum()) for outcome in parts)
    both = _inflated(there[True] | there[False]) * float((sums[True] * sums[False]).sum())
    return max(each + 2 * both, 0.0)


def _inflated(there: Bool[ndarray, " patient"]) -> float:
    """By what a sum of squares about an estimated mean is too small."""
    return float(there.sum() / (there.sum() - 1))


def over_replicates(
    first: Float[ndarray, " replicate"], second: Float[ndarray, " replicate"]
) -> float:
    """The paper's p-value: a two-sample t-test over bootstrap replicates, which is no test.

    It is here to be shown beside those that are; see ``WHY_NOT``.

    Args:
        first: Replicates of a method's measure; those that are not defined are left out.
        second: Of another's.
    """
    return float(stats.ttest_ind(first, second, nan_policy="omit").pvalue)
