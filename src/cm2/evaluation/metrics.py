"""How good predicted probabilities are, with bootstrap intervals and paired comparisons.

Every measure takes weights of shape (replicate, n), so that all bootstrap replicates are computed
at once: the samples are sorted once and a replicate is only a row of counts. More than two classes
are averaged one against the rest, labels that may hold together one by one (macro) and all at once
(micro). Patients are drawn as :mod:`cm2.evaluation.bootstrap` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import stats

from cm2.core.pace import told
from cm2.evaluation import bootstrap, checked, curve
from cm2.evaluation.bootstrap import Interval

_CHUNK = 2_000_000
_TINY = 1e-12


class Paired(NamedTuple):
    """The mean difference of two methods over paired runs, with p-values of no difference.

    Attributes:
        difference: First minus second.
        low: Lower end of its t interval.
        high: Upper end.
        standard_error: Of the difference.
        t_test: P-value.
        wilcoxon: P-value of the signed ranks; NaN over random splits, which it takes for
            independent.
    """

    difference: float
    low: float
    high: float
    standard_error: float
    t_test: float
    wilcoxon: float


def auroc(target: Any, score: Any, weight: Any) -> Float[ndarray, " replicate"]:
    """Area under the ROC curve: the probability that a positive scores higher, ties half.

    Args:
        target: Outcomes (n,), zeros and ones or booleans.
        score: Finite numbers (n,).
        weight: Of the samples, (replicate, n).

    Raises:
        ValueError: If outcomes, scores or weights are other than that.
    """
    return curve.auroc(curve.curve(*_ranked(target, score, weight)))


def aupr(target: Any, score: Any, weight: Any) -> Float[ndarray, " replicate"]:
    """Average precision: precision at each threshold by its gain in recall; see :func:`auroc`."""
    return curve.aupr(curve.curve(*_ranked(target, score, weight)))


def brier(target: Any, score: Any, weight: Any) -> Float[ndarray, " replicate"]:
    """Mean squared difference between probability and outcome; see :func:`auroc`."""
    hit = checked.outcomes(target)
    proba = checked.of_outcome(score, len(hit), "score")
    return _brier(hit, proba, checked.weights(weight, len(hit)))


def _brier(
    target: Bool[ndarray, " n"], score: Float[ndarray, " n"], weight: Float[ndarray, "replicate n"]
) -> Float[ndarray, " replicate"]:
    return np.asarray(weight @ (score - target) ** 2 / weight.sum(axis=1))


RANKING = {"auroc": curve.auroc, "aupr": curve.aupr}
MEASURES = ("auroc", "aupr", "brier", "log_loss")
LOWER = frozenset({"brier", "log_loss"})
"""Measures of which less is better."""


def measure(
    target: Any,
    probability: Any,
    weight: Any = None,
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
        target: Class codes from 0, (n,), or zeros and ones, one column a label; booleans will do.
        probability: One column a class or label, or the probability of class 1.
        weight: Weights of the samples, (replicate, n); None for one row of ones.

    Raises:
        ValueError: If targets are no such codes, or probabilities are not from 0 to 1, not as many,
            or do not sum to one over the classes.
    """
    codes, proba = _given(target, probability)
    return _measured(codes, proba, checked.weights(weight, len(codes)))


def _given(
    target: Any, probability: Any
) -> tuple[Int[ndarray, n * label], Float[ndarray, "n label"]]:
    """Targets as whole numbers, and probabilities with a column a class or label."""
    if np.ndim(target) == 2:
        labels, proba = checked.several(target), checked.probabilities(probability)
        if labels.shape != proba.shape or not len(labels):
            raise ValueError(
                f"targets have shape {labels.shape}, but probabilities {proba.shape}: there should "
                "be a column for each label in both, and a sample at least"
            )
        return labels, proba
    proba = checked.by_class(probability)
    codes = checked.codes(target, proba.shape[1])
    if len(codes) != len(proba):
        raise ValueError(f"{len(codes)} targets but {len(proba)} rows of probabilities")
    return codes, proba


def _measured(
    target: Int[ndarray, n * label],
    proba: Float[ndarray, "n label"],
    weight: Float[ndarray, "replicate n"],
) -> dict[str, Float[ndarray, " replicate"]]:
    """Measures of what has been checked."""
    if target.ndim == 2:
        return _together(target, proba, weight)
    labels = proba.shape[1]
    each = range(1, 2) if labels == 2 else range(labels)
    # A class without a sample cannot be told from the rest.
    there = each if labels == 2 else [c for c in each if (target == c).any()]
    out = _ranking([(target == c, proba[:, c]) for c in there], weight)
    out["brier"] = np.sum([_brier(target == c, proba[:, c], weight) for c in each], axis=0)
    surprise = -np.log(np.clip(proba[np.arange(len(target)), target], _TINY, 1.0))
    out["log_loss"] = weight @ surprise / weight.sum(axis=1)
    return out


def _ranking(
    each: Sequence[tuple[Bool[ndarray, " n"], Float[ndarray, " n"]]],
    weight: Float[ndarray, "replicate n"],
) -> dict[str, Float[ndarray, " replicate"]]:
    """Measures of ranks, averaged over outcomes and their scores."""
    found: dict[str, list[ndarray]] = {name: [] for name in RANKING}
    for target, score in each:
        ranked = curve.curve(target, score, weight)
        for name, rank in RANKING.items():
            found[name].append(rank(ranked))
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def _together(
    target: Int[ndarray, "n label"],
    probability: Float[ndarray, "n label"],
    weight: Float[ndarray, "replicate n"],
) -> dict[str, Float[ndarray, " replicate"]]:
    """Measures of several labels: their means, all labels together, and each by itself."""
    every = np.repeat(weight, target.shape[1], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = [
            _measured(outcome, np.stack([1 - proba, proba], axis=1), weight)
            for outcome, proba in zip(target.T, probability.T, strict=True)
        ]
        for one in each:  # average precision is one without negatives, whatever is predicted
            one["aupr"] = np.where(np.isnan(one["auroc"]), np.nan, one["aupr"])
        out = {name: _mean(np.stack([one[name] for one in each])) for name in MEASURES}
        together = _ranking([(target.ravel() == 1, probability.ravel())], every)
        out |= {f"{name}_micro": values for name, values in together.items()}
    for k in np.flatnonzero((target == 1).any(axis=0) & (target == 0).any(axis=0)):
        out |= {f"{name} {k}": each[k][name] for name in RANKING}
    return out


def _mean(values: Float[ndarray, "label replicate"]) -> Float[ndarray, " replicate"]:
    """Averages over the labels for which a value is defined."""
    known = ~np.isnan(values)
    return np.asarray(np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0))


def evaluate(
    target: Any,
    probability: Any,
    *,
    groups: Any = None,
    replicates: int = 1000,
    confidence: float = bootstrap.LEVEL,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every measure with its bootstrap interval.

    Args:
        target: Class codes, or one column a label.
        probability: One column a class or label, or the probability of class 1.
        groups: The patient of each row, who is drawn with all of them; None where each row is one.
        replicates: How often patients are drawn.
        confidence: Of the intervals.
        seed: Of the draws.

    Returns:
        Intervals by measure. Replicates that lack a class are left out of that of AUROC, those
        without a positive of that of AUPR, and of several labels the label counts in neither; notes
        say how many, and where fewer than 20 patients have an outcome.

    Example:
        >>> target = np.array([0, 0, 1, 1])
        >>> found = evaluate(target, np.array([0.1, 0.4, 0.35, 0.8]))["auroc"]
        >>> found.value, found.notes[1]
        (0.75, '111 of 1000 replicates lack an outcome and are left out')
    """
    target, probability = _given(target, probability)
    patient = bootstrap.numbered(groups, len(target))
    counts = bootstrap.draws(int(patient.max()) + 1, replicates, seed)
    values = replicate(target, probability, counts, patient)
    return {
        name: bootstrap.interval(found, rarest=rarest(name, target, patient), confidence=confidence)
        for name, found in values.items()
    }


def rarest(name: str, target: Any, groups: Any) -> int:
    """How many patients have the rarest outcome that a measure looks at.

    Args:
        name: Of the measure; that of one label ends with its column.
        target: Class codes, or one column a label.
        groups: The patient of each row.
    """
    column, target = of_label(name)[1], np.asarray(target)
    return bootstrap.rarest(target if column is None else target[:, column], groups)


def replicate(
    target: Any,
    probability: Any,
    counts: Int[ndarray, "replicate patient"],
    groups: Any,
) -> dict[str, Float[ndarray, " replicate"]]:
    """Every measure under each draw of patients, in pieces that bound memory.

    Args:
        target: Class codes, or one column a label.
        probability: One column a class or label, or the probability of class 1.
        counts: How often each patient is drawn, as of :func:`~cm2.evaluation.bootstrap.draws`.
        groups: The column of ``counts`` of each row's patient.

    Returns:
        As :func:`measure`; NaN where a replicate lacks a class, AUPR where it has no positive.
    """
    target, probability = _given(target, probability)
    groups = np.asarray(groups)
    if groups.shape != (len(target),):
        raise ValueError(
            f"groups should have one entry for each of {len(target)} rows, not shape {groups.shape}"
        )
    step = max(1, _CHUNK // max(target.size, 1))
    pieces = range(0, len(counts), step)
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [
            _measured(target, probability, counts[first : first + step, groups].astype(np.float64))
            for first in told(pieces, len(pieces), "pieces of the bootstrap")
        ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


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


def paired(
    first: Any,
    second: Any,
    *,
    confidence: float = bootstrap.LEVEL,
    test_to_train: float = 0.0,
) -> Paired:
    """First minus second over runs that share data and seeds: t interval, t and Wilcoxon tests.

    Args:
        first: A measure of one method, run by run.
        second: Of another method, in the same runs.
        confidence: Of the interval.
        test_to_train: Test rows a training row, if runs are random splits of one data set. They
            share rows, so that their variance says too little: with J runs the mean then has the
            variance 1 / J + ``test_to_train`` times that of a run (Nadeau and Bengio, 2003,
            Inference for the generalization error). 0 for runs on data of their own, and for seeds
            of a training whose rows do not change.

    Example:
        >>> round(paired(np.array([0.8, 0.9, 0.7]), np.array([0.7, 0.7, 0.7])).difference, 3)
        0.1
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape or len(one) < 2:
        raise ValueError(
            f"a paired comparison needs at least two runs, and the same of both methods; the "
            f"shapes are {one.shape} and {other.shape}"
        )
    difference, runs = one - other, len(one)
    mean = float(difference.mean())
    error = float(difference.std(ddof=1) * np.sqrt(1 / runs + test_to_train))
    half = float(stats.t.ppf((1 + confidence) / 2, runs - 1)) * error
    if np.ptp(difference) == 0:
        half = error = 0.0
        certain = 1.0 if mean == 0 else 0.0
    else:
        certain = float(2 * stats.t.sf(abs(mean) / error, runs - 1))
    ranks = np.nan
    if not test_to_train:
        ranks = float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0
    return Paired(mean, mean - half, mean + half, error, certain, ranks)


def _ranked(
    target: Any, score: Any, weight: Any
) -> tuple[Bool[ndarray, " n"], Float[ndarray, " n"], Float[ndarray, "replicate n"]]:
    """What the rankings are given, checked."""
    hit = checked.outcomes(target)
    return hit, checked.scores(score, len(hit)), checked.weights(weight, len(hit))
