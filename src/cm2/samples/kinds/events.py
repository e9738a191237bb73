"""Measurements as they were made: each with its hour, its variable and its value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from cm2.core.records import Events
from cm2.samples.kinds.base import Column, Inputs, Learned, Listed, entries, register, some
from cm2.samples.kinds.table import standardised
from cm2.samples.ragged import Ragged
from cm2.samples.scaling import Columns, scaler

UNSEEN = 1
"""Number of every variable that training has not seen; 0 is padding."""

COLUMNS = ("hour", "variable", "value")
STEP = np.dtype([("hour", np.float32), ("variable", np.int32), ("value", np.float32)])

SUMMARIES = ("first", "last", "min", "max", "mean", "count")


class Measurements(Inputs):
    """Events in the order of their hours, twelve bytes each.

    Args:
        steps: All of them, as ``STEP``.
        vocabulary: How many numbers ``variable`` may have.
        rows: Which of the samples these are.
    """

    def __init__(self, steps: Ragged, vocabulary: int, rows: Int[ndarray, " row"]) -> None:
        self.shape = {"vocabulary": vocabulary}
        self._steps = steps
        self._rows = np.append(rows, -1)

    def take(self, rows: Int[ndarray, " batch"]) -> Events:
        steps, mask = self._steps.take(self._rows[rows])
        return Events(
            hour=torch.from_numpy(steps["hour"].copy()),
            variable=torch.from_numpy(steps["variable"].astype(np.int64)),
            value=torch.from_numpy(steps["value"].copy()),
            mask=torch.from_numpy(mask),
        )

    def select(self, rows: Int[ndarray, " row"]) -> Measurements:
        return Measurements(self._steps, self.shape["vocabulary"], self._rows[rows])


class LearnedEvents(Learned):
    """The variables of the training samples, and the scale of each.

    As features, events are six numbers a variable: its first, last, least, greatest and mean
    value, and how many there are.

    Attributes:
        names_: The variables, in the order of their numbers, which begin after ``UNSEEN``.
        scalers_: What standardises the values of each.
        summary_: What standardises the features.
    """

    def fit(
        self,
        column: Any,
        weight: Float[ndarray, " n"] | None = None,
        patients: ndarray | None = None,
    ) -> Self:
        scaling = (self.options or {}).get("scaling", "robust")
        flat, owners = column.flat()
        share = np.ones(len(flat)) if weight is None else np.asarray(weight)[owners]
        seen = np.unique(flat["variable"][share > 0])
        self.names_ = sorted(column.names[code] for code in seen)
        number = self._numbers(column)[flat["variable"]]
        self.scalers_ = [
            scaler(scaling).fit(flat["value"][own, None], sample_weight=share[own])
            for own in (number == UNSEEN + 1 + place for place in range(len(self.names_)))
        ]
        self.summary_ = Columns(scaling).fit(column.summaries(self.names_), sample_weight=weight)
        return self

    def check(self, column: Any) -> None:
        return None  # a variable that training has not seen is one of its own

    def empty(self, rows: int) -> Column:
        return EventColumn("", [None] * rows)

    def features(
        self, column: Any, here: Bool[ndarray, " n"]
    ) -> Float[ndarray, "n feature"] | None:
        return standardised(self.summary_, column.summaries(self.names_), here)

    def inputs(self, column: Any, here: Bool[ndarray, " n"]) -> Inputs | None:
        lengths = np.array([len(one) for one in column.values], np.int64) * here
        parts = [one for one, there in zip(column.values, here, strict=True) if there]
        flat = np.concatenate([np.empty(0, STEP), *parts])
        flat["variable"] = number = self._numbers(column)[flat["variable"]]
        flat["value"][number == UNSEEN] = 0.0
        for known in np.unique(number[number > UNSEEN]):
            own, scale = number == known, self.scalers_[known - UNSEEN - 1]
            flat["value"][own] = scale.transform(flat["value"][own, None])[:, 0]
        size = UNSEEN + 1 + len(self.names_)
        return Measurements(Ragged(flat, lengths), size, np.arange(len(lengths)))

    def _numbers(self, column: Any) -> Int[ndarray, " code"]:
        """For each of a column's own variables its number here."""
        # The place of a name that is not known is -1, which makes it UNSEEN.
        return _place(self.names_, column.names) + UNSEEN + 1


@register("events")
class EventColumn(Listed):
    """A DataFrame of ``hour``, ``variable`` and ``value`` a sample; ``None`` where it is missing.

    Hours are since the beginning of the window; those of one hour keep their order.

    Args:
        name: Of the modality.
        values: The frames; or, with ``names``, arrays of ``STEP`` in the order of their hours.
        names: Of the variables, if ``values`` hold their positions.

    Attributes:
        values: Arrays of ``STEP``, without an event where the modality is missing.
        names: The variables that they name.
    """

    learned = LearnedEvents
    encoder = {"kind": "transformer", "width": 32, "layers": 1, "heads": 2}

    def __init__(self, name: str, values: Any, names: Sequence[str] | None = None) -> None:
        listed = entries(values)
        if listed is None:
            raise ValueError(
                f"modality {name!r} is to be events: for each sample a DataFrame of "
                f"{', '.join(COLUMNS)}, but is a {type(values).__name__}"
            )
        nothing = np.empty(0, STEP)
        if names is None:
            frames = [
                None if one is None else _checked(name, row, one) for row, one in enumerate(listed)
            ]
            known = {str(v) for one in frames if one is not None for v in one["variable"].unique()}
            self.names = sorted(known)
            place = {variable: code for code, variable in enumerate(self.names)}
            listed = [None if one is None else _steps(one, place) for one in frames]
        else:
            self.names = list(names)
        kept = [nothing if one is None else one for one in listed]
        self.keep(name, kept, [len(one) > 0 for one in kept])

    @classmethod
    def fits(cls, values: Any) -> bool:
        found = some(values)
        return bool(found) and all(
            isinstance(one, pd.DataFrame) and set(COLUMNS) <= set(one) for one in found
        )

    def check(self, here: Bool[ndarray, " n"]) -> None:
        for part in ("hour", "value"):
            bad = [r for r in np.flatnonzero(here) if not np.isfinite(self.values[r][part]).all()]
            if bad:
                raise ValueError(
                    f"modality {self.name!r} has events whose {part} is missing or infinite in "
                    f"{len(bad)} samples, the first at row {self.rows[bad[0]]}"
                )

    def flat(self) -> tuple[ndarray, Int[ndarray, " event"]]:
        """All events, and of which sample each is."""
        lengths = [len(one) for one in self.values]
        flat = np.concatenate([np.empty(0, STEP), *self.values])
        return flat, np.repeat(np.arange(len(lengths)), lengths)

    def summaries(self, names: Sequence[str]) -> Float[ndarray, "n feature"]:
        """First, last, least, greatest and mean value of these variables, and their number."""
        flat, owners = self.flat()
        column = _place(names, self.names)[flat["variable"]]
        kept = column >= 0
        groups = pd.Series(flat["value"][kept].astype(np.float64)).groupby(
            [owners[kept], column[kept]]
        )
        found = groups.agg(list(SUMMARIES))
        out = np.full((len(self), len(SUMMARIES), len(names)), np.nan)
        out[self.present, -1] = 0.0  # none of a variable is a number, too
        out[found.index.get_level_values(0), :, found.index.get_level_values(1)] = found
        return out.reshape(len(self), -1)


def _place(known: Sequence[str], names: Sequence[str]) -> Int[ndarray, " name"]:
    """Where names stand among those that are known; -1 for others."""
    place = {name: number for number, name in enumerate(known)}
    return np.array([place.get(name, -1) for name in names], np.int64)


def _checked(name: str, row: int, one: Any) -> pd.DataFrame:
    """A sample's events, if they are what they should be."""
    if not isinstance(one, pd.DataFrame) or not set(COLUMNS) <= set(one):
        raise ValueError(
            f"modality {name!r}: events are a DataFrame of {', '.join(COLUMNS)}, but those of row "
            f"{row} are not"
        )
    if one["variable"].isna().any():
        raise ValueError(f"modality {name!r}: row {row} has events without a variable")
    try:
        return one.astype({"hour": np.float32, "value": np.float32})
    except (TypeError, ValueError):
        raise ValueError(
            f"modality {name!r}: hours and values of row {row} are not numbers"
        ) from None


def _steps(frame: pd.DataFrame, place: dict[str, int]) -> ndarray:
    """A sample's events in the order of their hours."""
    frame = frame.sort_values("hour", kind="stable")
    steps = np.empty(len(frame), STEP)
    steps["hour"] = frame["hour"]
    steps["variable"] = [place[str(variable)] for variable in frame["variable"]]
    steps["value"] = frame["value"]
    return steps
