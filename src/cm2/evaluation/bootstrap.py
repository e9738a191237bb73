"""The one bootstrap: patients are drawn with all their rows, whatever is measured.

Rows of one patient resemble each other, so that drawing single rows makes intervals too narrow.
Classes are not held fixed, since their shares would differ in other patients too. One seed gives
the same draws to all who ask, so that differences between methods and splits are paired.

A replicate in which a measure is not defined, such as AUROC where all patients drawn are of one
class, is left out of the interval, and a note says how many were. Another note says where so few
patients have an outcome that intervals of percentiles cover less than they say.

Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 13 and 16; Davison and
Hinkley (1997), Bootstrap Methods and their Application, sections 3.8 and 4.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from cm2.samples.targets import check_known

LEVEL = 0.95
FEW = 20
"""Patients with an outcome below which an interval has a note."""


class Interval(NamedTuple):
    """A value with the ends of its confidence interval.

    Attributes:
        value: On the data as they are.
        low: Lower end; NaN if no replicate has a value.
        high: Upper end.
        notes: What makes the interval less sure than it says.
    """

    value: float
    low: float
    high: float
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As it stands in a table."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def draws(patients: int, replicates: int, seed: int = 0) -> Int[ndarray, "replicate patient"]:
    """Counts how often each patient is drawn; the first row is ones, the data as they are.

    Raises:
        ValueError: If there is no patient to draw, or nothing to be drawn.
    """
    for what, number in (("patients", patients), ("replicates", replicates)):
        if number < 1:
            raise ValueError(f"{what} should be at least 1, got {number}")
    drawn = np.random.default_rng(seed).multinomial(
        patients, np.full(patients, 1 / patients), size=replicates
    )
    return np.concatenate([np.ones((1, patients), np.int64), drawn])


def numbered(groups: Any, rows: int) -> Int[ndarray, " n"]:
    """The patient of each row as a number from 0; each row is one where no groups are given.

    Raises:
        ValueError: If there is not one group a row, or one is missing.
    """
    if groups is None:
        return np.arange(rows)
    if np.shape(groups) != (rows,):
        raise ValueError(
            f"groups should have one entry for each of {rows} rows, not shape {np.shape(groups)}"
        )
    check_known(groups)
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def interval(values: Any, *, rarest: int = FEW, confidence: float = LEVEL) -> Interval:
    """The middle of the replicates that are defined.

    Args:
        values: Of one measure; the first is the value itself.
        rarest: Patients with the rarest outcome, as :func:`rarest` counts them.
        confidence: Share of the replicates inside.
    """
    values = np.asarray(values)
    value, replicates = float(values[0]), values[1:]
    defined = replicates[~np.isnan(replicates)]
    notes = []
    if rarest < FEW:
        notes.append(
            f"only {rarest} patients have the rarest outcome: with fewer than {FEW} an interval is "
            "too narrow"
        )
    if lacking := len(replicates) - len(defined):
        notes.append(f"{lacking} of {len(replicates)} replicates lack an outcome and are left out")
    if not len(defined):
        return Interval(value, np.nan, np.nan, tuple(notes))
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(value, float(low), float(high), tuple(notes))


def rarest(target: Any, groups: Any) -> int:
    """How many patients have the rarest class, or the rarer outcome of the rarest label.

    Labels that nobody or everybody has are left out, as they are of the means over labels.

    Example:
        >>> rarest(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2]))
        1
    """
    target, groups = np.asarray(target), np.asarray(groups)
    if target.ndim == 2:
        each = [rarest(column, groups) for column in target.T]
        return min((number for number in each if number), default=0)
    classes = np.unique(target)
    if len(classes) < 2:
        return 0
    return min(len(np.unique(groups[target == c])) for c in classes)


def p_value(gap: Float[ndarray, " replicate"]) -> float:
    """Two-sided p-value of no difference, from replicates of the difference.

    Twice the share of replicates on the rarer side of zero, with one added so that it is never
    zero: Davison and Hinkley (1997), section 4.4.

    Example:
        >>> round(p_value(np.arange(-4.0, 95.0)), 2)
        0.12
    """
    gap = gap[~np.isnan(gap)]
    if not len(gap):
        return float("nan")
    rarer = min((gap <= 0).sum(), (gap >= 0).sum())
    return float(min(1.0, 2 * (1 + rarer) / (len(gap) + 1)))


def told(notes: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """Each note once, after the names of what it is about.

    Args:
        notes: Names, and the notes of each.

    Example:
        >>> told([("auroc", ["few"]), ("aupr", ["few", "odd"])])
        ['auroc, aupr: few', 'aupr: odd']
    """
    found: dict[str, dict[str, None]] = {}
    for name, several in notes:
        for note in filter(None, several):
            found.setdefault(note, {})[name] = None
    return [f"{', '.join(names)}: {note}" for note, names in found.items()]
