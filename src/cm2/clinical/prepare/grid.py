"""From the last value of each bin to a dense grid in Parquet.

Bin b is the half-open ``[b, b + 1)`` (times the length of a bin) hours since ``intime``. A bin
without an observation takes the last one before it (of height and weight also from before
``intime``), or before the first the variable's normal value; a mask says which is which. Words
become one column a category and system, so that there are the 76 columns of Harutyunyan et al.
(2019): 12 continuous, 47 categories, 17 masks. Continuous columns are in the units of measurement:
what reads the grid standardises it by the stays that it learns from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32, Int8, Int64

from cm2.clinical.prepare.variables import NAMES, VARIABLES, Variable

__all__ = ["CHUNK", "COLUMNS", "CONTINUOUS", "Layout", "Series", "write_array", "write_series"]

CHUNK = 1024
UNSEEN = -1


class Layout(NamedTuple):
    """Which variables become which columns.

    Attributes:
        variables: In the order of their columns.
        masked: Those with a column that says which bins were observed.
    """

    variables: tuple[Variable, ...] = VARIABLES
    masked: tuple[str, ...] = NAMES

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variables."""
        return tuple(one.name for one in self.variables)

    @property
    def continuous(self) -> tuple[str, ...]:
        """Names of those that are numbers."""
        return tuple(one.name for one in self.variables if not one.codes)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        values = (
            [f"{one.name}_{code.name}" for code in one.codes] or [one.name]
            for one in self.variables
        )
        masks = (f"mask_{name}" for name in self.names if name in self.masked)
        return (*(name for names in values for name in names), *masks)

    @property
    def level(self) -> Int8[np.ndarray, " variable"]:
        """The category of each variable before its first observation."""
        levels = [
            next((k for k, code in enumerate(one.codes) if code.value == one.normal), UNSEEN)
            for one in self.variables
        ]
        return np.array(levels, dtype=np.int8)


CONTINUOUS = Layout().continuous
COLUMNS = Layout().columns


class Series(NamedTuple):
    """What was written.

    Attributes:
        stay_id: The stays in the file, ascending: those with at least one observation.
        bins: Bins of each stay.
        columns: Names of the columns after ``stay_id`` and ``bin``.
        cells: How many bins of each variable hold an observation.
        missing: How many of the given stays have no observation of each variable, not even one
            before the window.
    """

    stay_id: Int64[np.ndarray, " written"]
    bins: int
    columns: tuple[str, ...]
    cells: dict[str, int]
    missing: dict[str, int]


class _Compact(NamedTuple):
    """One number a stay, bin and variable; NaN, and level UNSEEN, where nothing was observed.

    In front of the bins of the window stands what was observed before it.
    """

    value: Float32[np.ndarray, "stay bin variable"]
    level: Int8[np.ndarray, "stay bin variable"]


def write_series(
    last: Iterable[pa.RecordBatch],
    stay_id: Int64[np.ndarray, " stay"],
    training: Bool[np.ndarray, " stay"],
    path: Path,
    *,
    hours: float | int = 48,
    hours_per_bin: float | int = 1,
    variables: tuple[Variable, ...] = VARIABLES,
) -> Series:
    """Writes ``series.parquet``: ``stay_id``, ``bin`` and the columns (76 of MIMIC) as float32.

    In memory is one number a stay, bin and variable (200 MB for 50,000 stays of 48 bins); the
    columns are made and written by chunks of stays.

    Args:
        last: Batches of ``stay_id``, ``variable``, ``bin``, ``value`` and ``level``, in any order,
            as :func:`cm2.clinical.prepare.events.last_in_bin` gives them. Bin -1 lies before the
            window: the grid starts from it, and its masks do not show it.
        stay_id: All stays.
        training: Those from which is learned what stands where nothing was observed.
        path: The file to write.
        hours: Length of the window.
        hours_per_bin: Length of a bin; 2 gives the 24 bins of the reference.
        variables: What is measured. One without a normal value takes the median of its observed
            bins of training stays before its first observation.
    """
    layout = Layout(variables, tuple(one.name for one in variables))
    order = np.argsort(stay_id, kind="stable")
    stays, training = stay_id[order], training[order]
    if len(np.unique(stays)) != len(stays):
        raise ValueError(f"{len(stays) - len(np.unique(stays))} stay ids are there more than once")
    compact = _scatter(last, stays, math.ceil(hours / hours_per_bin), layout.names)
    return _written(compact, stays, training, path, layout)


def write_array(
    values: Float32[np.ndarray, "stay bin variable"],
    stay_id: Int64[np.ndarray, " stay"],
    training: Bool[np.ndarray, " stay"],
    path: Path,
    names: tuple[str, ...],
) -> Series:
    """Writes numbers that lie on a grid already, NaN where nothing was observed.

    Args:
        values: The numbers.
        stay_id: The stays, ascending.
        training: Those from which is learned what stands where nothing was observed.
        path: The file to write.
        names: Of the variables. Those with a gap in a training stay have a mask.
    """
    variables = tuple(Variable(name, "", math.nan) for name in names)
    there = ~np.isnan(values).all(axis=(1, 2))
    gaps = np.isnan(values[there & training]).any(axis=(0, 1))
    layout = Layout(variables, tuple(name for name, gap in zip(names, gaps, strict=True) if gap))
    before = np.full_like(values[:, :1], np.nan)
    values = np.concatenate([before, values], axis=1)
    level = np.full(values.shape, UNSEEN, dtype=np.int8)
    return _written(_Compact(values, level), stay_id, training, path, layout)


def _written(
    compact: _Compact,
    stays: Int64[np.ndarray, " stay"],
    training: Bool[np.ndarray, " stay"],
    path: Path,
    layout: Layout,
) -> Series:
    seen = ~np.isnan(compact.value)
    observed, inside = seen.any(axis=1), seen[:, 1:]
    there = inside.any(axis=(1, 2))
    if not (there & training).any():
        raise ValueError(
            f"none of the {int(training.sum())} training stays has an observation in the window,"
            " so that nothing can be learned"
        )
    compact = _Compact(compact.value[there], compact.level[there])
    normal = _normal(compact, training[there], layout)
    _write(path, compact, stays[there], normal, layout)
    names = layout.names
    return Series(
        stay_id=stays[there],
        bins=inside.shape[1],
        columns=layout.columns,
        cells=dict(zip(names, inside.sum(axis=(0, 1)).tolist(), strict=True)),
        missing=dict(zip(names, (~observed).sum(axis=0).tolist(), strict=True)),
    )


def _normal(
    compact: _Compact, training: Bool[np.ndarray, " stay"], layout: Layout
) -> Float32[np.ndarray, " variable"]:
    """The value of each variable before its first observation; zero where none was ever made."""
    normal = np.array([one.normal for one in layout.variables], dtype=np.float32)
    for k in np.flatnonzero(np.isnan(normal)):
        values = compact.value[training, 1:, k]
        values = values[~np.isnan(values)]
        normal[k] = np.median(values) if len(values) else 0.0
    return normal


def _scatter(
    last: Iterable[pa.RecordBatch],
    stays: Int64[np.ndarray, " stay"],
    bins: int,
    variables: tuple[str, ...],
) -> _Compact:
    shape = (len(stays), 1 + bins, len(variables))
    value = np.full(shape, np.nan, dtype=np.float32)
    level = np.full(shape, UNSEEN, dtype=np.int8)
    names = pa.array(variables)
    for batch in last:
        ids = batch["stay_id"].to_numpy(zero_copy_only=False)
        row = np.searchsorted(stays, ids)
        if (row >= len(stays)).any() or (stays[np.minimum(row, len(stays) - 1)] != ids).any():
            raise ValueError("the events have stay ids that are not among the given stays")
        column = pc.index_in(batch["variable"], value_set=names).to_numpy(zero_copy_only=False)
        step = batch["bin"].to_numpy(zero_copy_only=False)
        if len(step) and (step.min() < -1 or step.max() >= bins):
            raise ValueError(f"the events have bins outside -1 to {bins - 1}")
        value[row, 1 + step, column] = batch["value"].to_numpy(zero_copy_only=False)
        filled = pc.fill_null(batch["level"].cast(pa.int8()), UNSEEN)
        level[row, 1 + step, column] = filled.to_numpy(zero_copy_only=False)
    return _Compact(value, level)


def _chunks(compact: _Compact) -> Iterator[_Compact]:
    for start in range(0, len(compact.value), CHUNK):
        yield _Compact(*(array[start : start + CHUNK] for array in compact))


def _filled(
    compact: _Compact, normal: Float32[np.ndarray, " variable"], layout: Layout
) -> _Compact:
    """Carries the last observation into the bins, and puts the normal value before the first."""
    seen = ~np.isnan(compact.value)
    steps = np.arange(seen.shape[1])[None, :, None]
    latest = np.maximum.accumulate(np.where(seen, steps, -1), axis=1)
    never, latest = latest < 0, np.maximum(latest, 0)
    value = np.take_along_axis(compact.value, latest, axis=1)
    level = np.take_along_axis(compact.level, latest, axis=1)
    filled = _Compact(np.where(never, normal, value), np.where(never, layout.level, level))
    return _Compact(*(array[:, 1:] for array in filled))


def _expanded(
    compact: _Compact,
    normal: Float32[np.ndarray, " variable"],
    layout: Layout,
) -> Float32[np.ndarray, "column row"]:
    """Makes the columns of one chunk."""
    filled = _filled(compact, normal, layout)
    columns: list[np.ndarray] = []
    for k, one in enumerate(layout.variables):
        if one.codes:
            level = filled.level[..., k].ravel()
            columns += [level == number for number in range(len(one.codes))]
        else:
            columns.append(filled.value[..., k].ravel())
    masked = [k for k, name in enumerate(layout.names) if name in layout.masked]
    columns += [~np.isnan(compact.value[:, 1:, k]).ravel() for k in masked]
    return np.stack([column.astype(np.float32) for column in columns])


def _write(
    path: Path,
    compact: _Compact,
    stays: Int64[np.ndarray, " stay"],
    normal: Float32[np.ndarray, " variable"],
    layout: Layout,
) -> None:
    bins = compact.value.shape[1] - 1
    schema = pa.schema(
        [
            ("stay_id", pa.int64()),
            ("bin", pa.int32()),
            *((name, pa.float32()) for name in layout.columns),
        ]
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start, part in zip(range(0, len(stays), CHUNK), _chunks(compact), strict=True):
            ids = stays[start : start + CHUNK]
            steps = np.tile(np.arange(bins, dtype=np.int32), len(ids))
            arrays = [
                np.repeat(ids, bins),
                steps,
                *_expanded(part, normal, layout),
            ]
            writer.write_batch(pa.record_batch([pa.array(a) for a in arrays], schema=schema))
