"""Numbers by time: a grid of steps and variables for each sample, of any number of steps."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from cm2.core.records import Padded
from cm2.samples import tables
from cm2.samples.kinds.base import Column, Inputs, Learned, Listed, entries, register, some
from cm2.samples.kinds.table import standardised
from cm2.samples.ragged import Ragged
from cm2.samples.scaling import Columns, distinct_gaps, scaler


class Steps(Inputs):
    """Sequences of standardised steps.

    Args:
        steps: All sequences.
        shape: ``features`` of a step, and ``hours_per_step`` where it is known.
        rows: Which of them these are.
    """

    def __init__(self, steps: Ragged, shape: dict[str, Any], rows: Int[ndarray, " row"]) -> None:
        self.shape = shape
        self._steps = steps
        self._rows = np.append(rows, -1)

    def take(self, rows: Int[ndarray, " batch"]) -> Padded:
        values, mask = self._steps.take(self._rows[rows])
        return Padded(torch.from_numpy(values), torch.from_numpy(mask))

    def select(self, rows: Int[ndarray, " row"]) -> Steps:
        return Steps(self._steps, self.shape, self._rows[rows])


class LearnedSeries(Learned):
    """Scales of variables, and which of them have gaps.

    A gap takes the last value before it, or the variable's centre where there is none, and is
    flagged in a column of its own, one for all variables that are missing in the same steps. As
    features a series is six numbers a variable: its first, last, least, greatest and mean value,
    and how many there are.

    Attributes:
        variables_: Names or number of the variables.
        step_hours_: Length of a step, if it is known.
        scaler_: What standardises a step.
        gaps_: The variables that have gaps in training, the first of those that are missing in
            the same steps.
        summary_: What standardises the features.
    """

    def fit(
        self,
        column: Any,
        weight: Float[ndarray, " n"] | None = None,
        patients: ndarray | None = None,
    ) -> Self:
        self.variables_ = column.variables
        self.step_hours_ = column.step_hours
        flat = np.concatenate(column.values)
        lengths = [len(one) for one in column.values]
        by_step = None if weight is None else np.repeat(weight, lengths)
        scaling = (self.options or {}).get("scaling", "robust")
        self.scaler_ = scaler(scaling).fit(flat, sample_weight=by_step)
        self.gaps_ = distinct_gaps(np.isnan(flat))
        self.summary_ = Columns(scaling).fit(column.summaries(), sample_weight=weight)
        return self

    def check(self, column: Any) -> None:
        if column.variables is not None:
            what = f"modality {column.name!r}"
            tables.check_columns(what, column.variables, self.variables_, noun="variable")
            if column.step_hours != self.step_hours_:
                raise ValueError(
                    f"{what} has steps of {column.step_hours} hours; the fitted model expects "
                    f"{self.step_hours_}"
                )

    def empty(self, rows: int) -> Column:
        return SeriesColumn("", [None] * rows)

    def features(
        self, column: Any, here: Bool[ndarray, " n"]
    ) -> Float[ndarray, "n feature"] | None:
        return standardised(self.summary_, column.summaries(tables.width(self.variables_)), here)

    def inputs(self, column: Any, here: Bool[ndarray, " n"]) -> Inputs | None:
        width = tables.width(self.variables_) + len(self.gaps_)
        nothing = np.zeros((0, width), np.float32)
        steps = [
            self._standardised(one) if known else nothing
            for one, known in zip(column.values, here, strict=True)
        ]
        lengths = np.array([len(one) for one in steps], np.int64)
        ragged = Ragged(np.concatenate([nothing, *steps]), lengths)
        shape: dict[str, Any] = {"features": width}
        if self.step_hours_ is not None:
            shape["hours_per_step"] = float(self.step_hours_)
        return Steps(ragged, shape, np.arange(len(steps)))

    def _standardised(
        self, steps: Float[ndarray, "step variable"]
    ) -> Float[ndarray, "step column"]:
        scaled = self.scaler_.transform(steps)
        missing = np.isnan(scaled)
        last = np.maximum.accumulate(np.where(missing, -1, np.arange(len(steps))[:, None]))
        filled = np.take_along_axis(scaled, np.maximum(last, 0), axis=0)
        filled = np.where(last < 0, 0.0, filled)
        return np.concatenate([filled, missing[:, self.gaps_]], axis=1, dtype=np.float32)


@register("series")
class SeriesColumn(Listed):
    """One array (step, variable) a sample; ``None``, or one that is all NaN, where it is missing.

    Attributes:
        values: The arrays; one without steps where the modality is missing.
        variables: Their names if series are DataFrames, or else how many they are; None if no
            sample has the modality.
        step_hours: Length of a step, if it is known.
    """

    learned = LearnedSeries
    encoder = {"kind": "series", "width": 32, "layers": 1}

    def __init__(
        self,
        name: str,
        values: Any,
        variables: list[str] | None = None,
        step_hours: float | int | None = None,
    ) -> None:
        self.step_hours = step_hours
        cube = isinstance(values, ndarray) and values.ndim == 3
        listed = list(values) if cube else entries(values)
        if listed is None:
            raise ValueError(
                f"modality {name!r} is to be series: a list of arrays (steps, variables), or an "
                f"array (samples, steps, variables), but is a {type(values).__name__}"
            )
        arrays = [
            None if one is None else _numbers(name, row, one) for row, one in enumerate(listed)
        ]
        self.variables = variables or _variables(name, listed, arrays)
        nothing = np.zeros((0, tables.width(self.variables or 0)))
        kept = [nothing if one is None or np.isnan(one).all() else one for one in arrays]
        self.keep(name, kept, [len(one) > 0 for one in kept])

    @classmethod
    def fits(cls, values: Any) -> bool:
        if isinstance(values, ndarray) and values.ndim == 3:
            return values.dtype != np.uint8
        arrays = [np.asarray(one) for one in some(values) if not isinstance(one, str)]
        return bool(arrays) and all(one.ndim == 2 and one.dtype != np.uint8 for one in arrays)

    def check(self, here: Bool[ndarray, " n"]) -> None:
        bad = [row for row in np.flatnonzero(here) if np.isinf(self.values[row]).any()]
        if bad:
            raise ValueError(
                f"modality {self.name!r} has infinite values in {len(bad)} series, the first at "
                f"row {self.rows[bad[0]]}"
            )

    def summaries(self, variables: int | None = None) -> Float[ndarray, "n feature"]:
        """First, last, least, greatest and mean value of each variable, and their number.

        Args:
            variables: How many there are, if no sample can say so.
        """
        width = tables.width(self.variables or variables or 0)
        return np.stack(
            [_summary(one) if len(one) else np.full(6 * width, np.nan) for one in self.values]
        )


def _variables(name: str, given: list[Any], arrays: list[ndarray | None]) -> list[str] | int | None:
    """The variables that all series have."""
    widths = sorted({one.shape[1] for one in arrays if one is not None})
    if len(widths) > 1:
        raise ValueError(f"modality {name!r} has series of {widths} variables; all need as many")
    frames = [(row, one) for row, one in enumerate(given) if isinstance(one, pd.DataFrame)]
    if not frames:
        return widths[0] if widths else None
    first, expected = frames[0][0], tables.columns(frames[0][1])
    for row, frame in frames:
        what, whose = f"modality {name!r}, row {row}", f"row {first} has"
        tables.check_columns(what, tables.columns(frame), expected, noun="variable", whose=whose)
    return expected


def _numbers(name: str, row: int, one: Any) -> Float[ndarray, "step variable"]:
    try:
        array = np.asarray(one)
        numbers = array.dtype.kind not in "USO" or array.ndim > 0
    except ValueError:  # rows of different lengths
        numbers = False
    if not numbers:
        raise ValueError(f"modality {name!r}: the series of row {row} is not of numbers")
    if array.ndim != 2 or not array.shape[1]:
        raise ValueError(
            f"modality {name!r}: a series has the shape (steps, variables), but that of row {row} "
            f"is {array.shape}"
        )
    if array.dtype.kind not in "biuf" and len(array):  # dates would become numbers
        return tables.numbers(name, one if isinstance(one, pd.DataFrame) else array)
    return array if array.dtype == np.float32 else array.astype(np.float64, copy=False)


def _summary(steps: Float[ndarray, "step variable"]) -> Float[ndarray, " feature"]:
    known = ~np.isnan(steps)
    any_known = known.any(axis=0)
    columns = np.arange(steps.shape[1])
    first, last = known.argmax(axis=0), len(steps) - 1 - known[::-1].argmax(axis=0)
    with np.errstate(all="ignore"):  # of variables without a value, now NaN
        least, greatest = np.fmin.reduce(steps), np.fmax.reduce(steps)
        total = np.where(known, steps, 0).sum(axis=0, dtype=np.float64)
        # The sum may be rounded, or overflow.
        mean = (total / known.sum(axis=0)).clip(least, greatest)
    ends = [np.where(any_known, steps[at, columns], np.nan) for at in (first, last)]
    return np.concatenate([*ends, least, greatest, mean, known.sum(axis=0)])
