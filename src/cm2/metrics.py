"""How good predicted probabilities are, with bootstrap intervals and paired comparisons.

Every measure takes weights of shape (replicate, n), so that all bootstrap replicates are computed
at once: the samples are sorted once and a replicate is only a row of counts. More than two classes
are averaged one against the rest, labels that may hold together one by one (macro) and all at once
(micro). Bootstrap: Efron and Tibshirani (1993), percentile intervals
within strata (the classes; rows with several labels are drawn from all).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import stats

_CHUNK = 2_000_000
_TINY = 1e-12


class Interval(NamedTuple):
    """A value with the ends of its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """As it stands in a table."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Paired(NamedTuple):
    """The mean difference of two methods over paired runs, with p-values of no difference."""

    difference: float
    low: float
    high: float
    standard_error: float
    t_test: float
    wilcoxon: float


def auroc(
    target: Bool[ndarray, " n"], score: Float[ndarray, " n"], weight: Float[ndarray, "replicate n"]
) -> Float[ndarray, " replicate"]:
    """Area under the ROC curve: the probability that a positive scores higher, ties half."""
    positive, negative = _by_threshold(target, score, weight)
    above = np.cumsum(positive, axis=1)
    wins = (negative * (above - positive / 2)).sum(axis=1)
    return np.asarray(wins / (positive.sum(axis=1) * negative.sum(axis=1)))


def aupr(
    target: Bool[ndarray, " n"], score: Float[ndarray, " n"], weight: Float[ndarray, "replicate n"]
) -> Float[ndarray, " replicate"]:
    """Average precision: precision at each threshold, weighted by the gain in recall."""
    positive, negative = _by_threshold(target, score, weight)
    hits, called = np.cumsum(positive, axis=1), np.cumsum(positive + negative, axis=1)
    precision = hits / np.where(called > 0, called, 1.0)
    return np.asarray((precision * positive).sum(axis=1) / positive.sum(axis=1))


def brier(
    target: Bool[ndarray, " n"], score: Float[ndarray, " n"], weight: Float[ndarray, "replicate n"]
) -> Float[ndarray, " replicate"]:
    """Mean squared difference between probability and outcome."""
    return np.asarray(weight @ (score - target) ** 2 / weight.sum(axis=1))


RANKING: dict[str, Callable[..., Float[ndarray, " replicate"]]] = {"auroc": auroc, "aupr": aupr}
MEASURES = ("auroc", "aupr", "brier", "log_loss")


def measure(
    target: Int[ndarray, n * label],
    probability: Float[ndarray, "row ..."],
    weight: Float[ndarray, "replicate n"] | None = None,
) -> dict[str, Float[ndarray, " replicate"]]:
    """AUROC, AUPR, Brier score and log loss for each row of weights.

    With more than two classes AUROC and AUPR are means over the one-against-the-rest problems of
    those that occur, and the Brier score sums the squared differences over classes. For two classes
    it is that of class 1.

    A target of zeros and ones, one column a label, gives means over labels of the four, AUROC and
    AUPR over those that have both outcomes; ``auroc_micro`` and ``aupr_micro`` rank all labels of
    all samples together; and ``auroc 0``, ``aupr 0``, ``auroc 1`` are those of each label that
    has both outcomes, NaN where a row of weights leaves it without one.

    Args:
        target: Class codes, or one column a label.
        probability: One column a class or label, or the probability of class 1.
        weight: Weights of the samples; None for one row of ones.
    """
    if np.ndim(target) == 2:
        return _together(target, np.asarray(probability, dtype=np.float64), weight)
    proba = _columns(probability)
    if len(target) != len(proba):
        raise ValueError(f"{len(target)} targets but {len(proba)} rows of probabilities")
    if weight is None:
        weight = np.ones((1, len(target)))
    labels = proba.shape[1]
    each = range(1, 2) if labels == 2 else range(labels)
    # A class without a sample cannot be told from the rest.
    there = each if labels == 2 else [c for c in each if (target == c).any()]
    out = {
        name: np.mean([rank(target == c, proba[:, c], weight) for c in there], axis=0)
        for name, rank in RANKING.items()
    }
    out["brier"] = np.sum([brier(target == c, proba[:, c], weight) for c in each], axis=0)
    surprise = -np.log(np.clip(proba[np.arange(len(target)), target], _TINY, 1.0))
    out["log_loss"] = weight @ surprise / weight.sum(axis=1)
    return out


def _together(
    target: Int[ndarray, "n label"],
    probability: Float[ndarray, "row column"],
    weight: Float[ndarray, "replicate n"] | None,
) -> dict[str, Float[ndarray, " replicate"]]:
    """Measures of several labels: their means, all labels together, and each by itself."""
    if target.shape != probability.shape:
        raise ValueError(f"targets {target.shape} but probabilities {probability.shape}")
    if weight is None:
        weight = np.ones((1, len(target)))
    every = np.repeat(weight, target.shape[1], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = [measure(*column, weight) for column in zip(target.T, probability.T, strict=True)]
        out = {name: _mean(np.stack([one[name] for one in each])) for name in MEASURES}
        for name, rank in RANKING.items():
            out[f"{name}_micro"] = rank(target.ravel() == 1, probability.ravel(), every)
    for k in np.flatnonzero((target == 1).any(axis=0) & (target == 0).any(axis=0)):
        out |= {f"{name} {k}": each[k][name] for name in RANKING}
    return out


def _mean(values: Float[ndarray, "label replicate"]) -> Float[ndarray, " replicate"]:
    """Averages over the labels for which a value is defined."""
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0))


def evaluate(
    target: Int[ndarray, n * label],
    probability: Float[ndarray, "row ..."],
    *,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every measure with its bootstrap interval, resampling within classes.

    Example:
        >>> target = np.array([0, 0, 1, 1])
        >>> evaluate(target, np.array([0.1, 0.4, 0.35, 0.8]))["auroc"].value
        0.75
    """
    value = measure(target, probability)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // max(target.size, 1))
    parts = [
        measure(target, probability, resample(target, min(chunk, replicates - first), rng))
        for first in range(0, replicates, chunk)
    ]
    tail = (1 - confidence) / 2
    result = {}
    for name in value:
        draws = np.concatenate([part[name] for part in parts])
        # A replicate may lack one of a label's outcomes.
        defined = draws[~np.isnan(draws)] if target.ndim == 2 else draws
        low, high = np.quantile(defined, [tail, 1 - tail]) if len(defined) else (np.nan, np.nan)
        result[name] = Interval(float(value[name][0]), float(low), float(high))
    return result


def of_label(name: str) -> tuple[str, int | None]:
    """Parts a name such as `measure` returns into the measure and the label's column, if any.

    Example:
        >>> of_label("auroc 1"), of_label("log loss")
        (('auroc', 1), ('log loss', None))
    """
    measured, _, column = name.rpartition(" ")
    return (measured, int(column)) if column.isdecimal() else (name, None)


def named(name: str, labels: Sequence[str]) -> str:
    """Puts a label's name into that of a measure of one label.

    Args:
        name: As `measure` returns it.
        labels: Names, in the order of the target's columns.

    Example:
        >>> named("auroc 1", ["stroke", "shock"]), named("auroc", [])
        ('auroc shock', 'auroc')
    """
    measured, column = of_label(name)
    return measured if column is None else f"{measured} {labels[column]}"


def resample(
    target: Int[ndarray, n * label], replicates: int, rng: np.random.Generator
) -> Float[ndarray, "replicate n"]:
    """How often each sample is drawn, with replacement and within its class."""
    count = np.zeros((replicates, len(target)))
    strata = target if target.ndim == 1 else np.zeros(len(target))
    for label in np.unique(strata):
        rows = np.flatnonzero(strata == label)
        count[:, rows] = rng.multinomial(
            len(rows), np.full(len(rows), 1 / len(rows)), size=replicates
        )
    return count


def paired(
    first: Float[ndarray, " run"], second: Float[ndarray, " run"], *, confidence: float = 0.95
) -> Paired:
    """First minus second over runs that share data and seeds: t interval, t and Wilcoxon tests.

    Example:
        >>> paired(np.array([0.8, 0.9, 0.7]), np.array([0.7, 0.7, 0.7])).difference.round(3)
        np.float64(0.1)
    """
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    runs = len(difference)
    if difference.ndim != 1 or runs < 2:
        raise ValueError(f"a paired comparison needs at least two runs, got {difference.shape}")
    mean = difference.mean()
    error = float(difference.std(ddof=1) / np.sqrt(runs))
    half = float(stats.t.ppf((1 + confidence) / 2, runs - 1)) * error
    if np.ptp(difference) == 0:
        certain = 1.0 if mean == 0 else 0.0
        wilcoxon = 1.0 if mean == 0 else float(stats.wilcoxon(difference).pvalue)
        return Paired(mean, mean, mean, 0.0, certain, wilcoxon)
    return Paired(
        mean,
        mean - half,
        mean + half,
        error,
        float(stats.ttest_1samp(difference, 0.0).pvalue),
        float(stats.wilcoxon(difference).pvalue),
    )


def _by_threshold(
    target: Bool[ndarray, " n"], score: Float[ndarray, " n"], weight: Float[ndarray, "replicate n"]
) -> tuple[Float[ndarray, "replicate threshold"], Float[ndarray, "replicate threshold"]]:
    """Weight of positives and of negatives at each distinct score, from high to low."""
    order = np.argsort(-score, kind="stable")
    first = np.flatnonzero(np.diff(score[order], prepend=np.inf))
    sorted_weight, hit = weight[:, order], target[order]
    positive = np.add.reduceat(sorted_weight * hit, first, axis=1)
    negative = np.add.reduceat(sorted_weight * ~hit, first, axis=1)
    return positive, negative


def _columns(
    probability: Float[ndarray, "row ..."],
) -> Float[ndarray, "n label"]:
    proba = np.asarray(probability, dtype=np.float64)
    if proba.ndim == 1:
        proba = np.stack([1 - proba, proba], axis=1)
    if proba.ndim != 2 or proba.shape[1] < 2 or not np.isfinite(proba).all():
        raise ValueError(f"probabilities should be finite, one column a class; got {proba.shape}")
    return proba
