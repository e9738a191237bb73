"""From the last value of each bin to a dense, normalised grid in Parquet.

Bin b is the half-open ``[b, b + 1)`` (times the length of a bin) hours since ``intime``. A bin
without an observation takes the last one before it in the stay, or before the first the variable's
normal value; a mask says which is which. Words become one column a category and system, so that
there are the 76 columns of Harutyunyan et al. (2019): 12 continuous, 47 categories, 17 masks.
Continuous columns are standardised by mean and deviation of the training stays' bins, after the
filling, as there.
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
from jaxtyping import Bool, Float32, Float64, Int8, Int64

from cm2.prepare.variables import NAMES, VARIABLES

__all__ = ["CHUNK", "COLUMNS", "CONTINUOUS", "Series", "write_series"]

CHUNK = 1024
CONTINUOUS = tuple(one.name for one in VARIABLES if not one.codes)
COLUMNS = (
    *(
        name
        for one in VARIABLES
        for name in ([f"{one.name}_{code.name}" for code in one.codes] or [one.name])
    ),
    *(f"mask_{name}" for name in NAMES),
)
UNSEEN = -1
NORMAL = np.array([one.normal for one in VARIABLES], dtype=np.float32)
NORMAL_LEVEL = np.array(
    [
        next((k for k, code in enumerate(one.codes) if code.value == one.normal), UNSEEN)
        for one in VARIABLES
    ],
    dtype=np.int8,
)
# A deviation below this is rounding: such a column is only centred.
LEAST_DEVIATION = 1e-6


class Series(NamedTuple):
    """What was written.

    Attributes:
        stay_id: The stays in the file, ascending: those with at least one observation.
        bins: Bins of each stay.
        columns: Names of the columns after ``stay_id`` and ``bin``.
        mean: Mean of each continuous column over the training stays.
        deviation: Its standard deviation there.
        cells: How many bins of each variable hold an observation.
        missing: How many of the given stays have no observation of each variable.
    """

    stay_id: Int64[np.ndarray, " written"]
    bins: int
    columns: tuple[str, ...]
    mean: dict[str, float]
    deviation: dict[str, float]
    cells: dict[str, int]
    missing: dict[str, int]


class _Compact(NamedTuple):
    """One number a stay, bin and variable; NaN, and level UNSEEN, where nothing was observed."""

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
) -> Series:
    """Writes ``series.parquet``: ``stay_id``, ``bin`` and the 76 columns as float32.

    In memory is one number a stay, bin and variable (200 MB for 50,000 stays of 48 bins); the
    columns are made and written by chunks of stays.

    Args:
        last: Batches of ``stay_id``, ``variable``, ``bin``, ``value`` and ``level``, in any order,
            as :func:`cm2.prepare.events.last_in_bin` gives them.
        stay_id: All stays.
        training: Which of them the normalisation may see.
        path: The file to write.
        hours: Length of the window.
        hours_per_bin: Length of a bin; 2 gives the 24 bins of the reference.
    """
    order = np.argsort(stay_id, kind="stable")
    stays, training = stay_id[order], training[order]
    if len(np.unique(stays)) != len(stays):
        raise ValueError(f"{len(stays) - len(np.unique(stays))} stay ids are there more than once")
    compact = _scatter(last, stays, math.ceil(hours / hours_per_bin))
    seen = ~np.isnan(compact.value)
    observed = seen.any(axis=1)
    there = observed.any(axis=1)
    if not (there & training).any():
        raise ValueError(
            f"none of the {int(training.sum())} training stays has an observation in the window,"
            " so that nothing can be normalised"
        )
    compact = _Compact(compact.value[there], compact.level[there])
    mean, deviation = _moments(compact, training[there])
    _write(path, compact, stays[there], mean, deviation)
    return Series(
        stay_id=stays[there],
        bins=compact.value.shape[1],
        columns=COLUMNS,
        mean=dict(zip(CONTINUOUS, mean.tolist(), strict=True)),
        deviation=dict(zip(CONTINUOUS, deviation.tolist(), strict=True)),
        cells=dict(zip(NAMES, seen.sum(axis=(0, 1)).tolist(), strict=True)),
        missing=dict(zip(NAMES, (~observed).sum(axis=0).tolist(), strict=True)),
    )


def _scatter(
    last: Iterable[pa.RecordBatch], stays: Int64[np.ndarray, " stay"], bins: int
) -> _Compact:
    shape = (len(stays), bins, len(VARIABLES))
    value = np.full(shape, np.nan, dtype=np.float32)
    level = np.full(shape, UNSEEN, dtype=np.int8)
    names = pa.array(NAMES)
    for batch in last:
        ids = batch["stay_id"].to_numpy(zero_copy_only=False)
        row = np.searchsorted(stays, ids)
        if (row >= len(stays)).any() or (stays[np.minimum(row, len(stays) - 1)] != ids).any():
            raise ValueError("the events have stay ids that are not among the given stays")
        column = pc.index_in(batch["variable"], value_set=names).to_numpy(zero_copy_only=False)
        step = batch["bin"].to_numpy(zero_copy_only=False)
        if len(step) and (step.min() < 0 or step.max() >= bins):
            raise ValueError(f"the events have bins outside 0 to {bins - 1}")
        value[row, step, column] = batch["value"].to_numpy(zero_copy_only=False)
        filled = pc.fill_null(batch["level"].cast(pa.int8()), UNSEEN)
        level[row, step, column] = filled.to_numpy(zero_copy_only=False)
    return _Compact(value, level)


def _chunks(compact: _Compact) -> Iterator[_Compact]:
    for start in range(0, len(compact.value), CHUNK):
        yield _Compact(*(array[start : start + CHUNK] for array in compact))


def _filled(compact: _Compact) -> _Compact:
    """Carries the last observation forward, and puts the normal value before the first."""
    seen = ~np.isnan(compact.value)
    steps = np.arange(seen.shape[1])[None, :, None]
    latest = np.maximum.accumulate(np.where(seen, steps, -1), axis=1)
    never, latest = latest < 0, np.maximum(latest, 0)
    value = np.take_along_axis(compact.value, latest, axis=1)
    level = np.take_along_axis(compact.level, latest, axis=1)
    return _Compact(np.where(never, NORMAL, value), np.where(never, NORMAL_LEVEL, level))


def _moments(
    compact: _Compact, training: Bool[np.ndarray, " stay"]
) -> tuple[Float64[np.ndarray, " continuous"], Float64[np.ndarray, " continuous"]]:
    """Computes mean and deviation of the continuous columns, in two passes over chunks."""
    where = [NAMES.index(name) for name in CONTINUOUS]
    count = int(training.sum()) * compact.value.shape[1]

    def total(
        centre: Float64[np.ndarray, " continuous"] | None,
    ) -> Float64[np.ndarray, " continuous"]:
        added = np.zeros(len(where))
        for start, part in zip(range(0, len(training), CHUNK), _chunks(compact), strict=True):
            chosen = _Compact(*(array[training[start : start + CHUNK]] for array in part))
            values = _filled(chosen).value[..., where].astype(np.float64)
            added += (values if centre is None else (values - centre) ** 2).sum(axis=(0, 1))
        return added

    mean = total(None) / count
    deviation = np.sqrt(total(mean) / max(count - 1, 1))
    return mean, np.where(deviation < LEAST_DEVIATION, 1.0, deviation)


def _expanded(
    compact: _Compact,
    mean: Float64[np.ndarray, " continuous"],
    deviation: Float64[np.ndarray, " continuous"],
) -> Float32[np.ndarray, "column row"]:
    """Makes the 76 columns of one chunk."""
    filled = _filled(compact)
    columns: list[np.ndarray] = []
    for k, one in enumerate(VARIABLES):
        if one.codes:
            level = filled.level[..., k].ravel()
            columns += [level == number for number in range(len(one.codes))]
        else:
            place = CONTINUOUS.index(one.name)
            columns.append((filled.value[..., k].ravel() - mean[place]) / deviation[place])
    columns += list(~np.isnan(compact.value).reshape(-1, len(NAMES)).T)
    return np.stack([column.astype(np.float32) for column in columns])


def _write(
    path: Path,
    compact: _Compact,
    stays: Int64[np.ndarray, " stay"],
    mean: Float64[np.ndarray, " continuous"],
    deviation: Float64[np.ndarray, " continuous"],
) -> None:
    bins = compact.value.shape[1]
    schema = pa.schema(
        [("stay_id", pa.int64()), ("bin", pa.int32()), *((name, pa.float32()) for name in COLUMNS)]
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start, part in zip(range(0, len(stays), CHUNK), _chunks(compact), strict=True):
            ids = stays[start : start + CHUNK]
            steps = np.tile(np.arange(bins, dtype=np.int32), len(ids))
            arrays = [np.repeat(ids, bins), steps, *_expanded(part, mean, deviation)]
            writer.write_batch(pa.record_batch([pa.array(a) for a in arrays], schema=schema))
