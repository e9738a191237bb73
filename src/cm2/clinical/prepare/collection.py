"""Data sets whose samples and outcomes are given: no cohort is made, all else is as elsewhere.

A collection reads its files and returns one `Collected`; what is written from it, and what the
manifest says, is the same for all.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa

from cm2.clinical.prepare import grid, modalities
from cm2.clinical.prepare.errors import none_left
from cm2.clinical.prepare.modalities import Written
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.stays import by_split, check_training, write_stays
from cm2.clinical.prepare.variables import Variable
from cm2.core.registry import Registry

__all__ = ["COLLECTIONS", "Collected", "Collection", "register", "write"]


@dataclasses.dataclass
class Collected:
    """What a data set gives.

    Attributes:
        stays: One row a sample: ``stay_id``, ``subject_id``, ``hadm_id``, ``label``, ``age``,
            ``split``; other columns are not written.
        variables: What is measured over time.
        events: ``stay_id``, ``variable``, ``hour``, ``value`` inside the window, in any order; of
            several in a bin the last hour counts, then the greatest value.
        numbers: Modalities of one row of numbers a stay, indexed by stay.
        beside: Tables that are no modality, by the name of their file.
        flow: What was found, and each exclusion with its number.
        left_out: Values left out, by variable and reason.
        unreadable: Values that could not be read, by column.
        positive: What a positive outcome is owed to.
    """

    stays: pd.DataFrame
    variables: tuple[Variable, ...]
    events: pd.DataFrame
    numbers: Mapping[str, pd.DataFrame]
    beside: Mapping[str, pd.DataFrame]
    flow: list[tuple[str, int]]
    left_out: dict[str, dict[str, int]]
    unreadable: dict[str, int]
    positive: str


class Collection(ABC):
    """One such data set.

    Args:
        raw: Its folder.

    Attributes:
        name: The name it is registered under.
        tasks: What its files tell the outcome of.
        label: What the manifest calls the outcome, where it is none of the tasks.
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[str, ...]] = ("in-hospital-mortality",)

    label: ClassVar[str | None] = None

    def __init__(self, raw: Path) -> None:
        self.raw = raw

    @abstractmethod
    def files(self, options: Options) -> dict[str, Path]:
        """Returns what is read, by name; raises `MissingError` for what is not there."""

    @abstractmethod
    def collect(self, options: Options, given: Mapping[int, str] | None) -> Collected:
        """Reads the files.

        Args:
            options: What decides the result.
            given: The part of each patient, in the place of the collection's own.
        """


COLLECTIONS: Registry[Collection] = Registry("source")
register = COLLECTIONS.register


def write(collected: Collected, out: Path, options: Options) -> dict[str, Any]:
    """Writes all files but the manifest, and returns what that says of them.

    Args:
        collected: What a collection returned.
        out: The folder, empty.
        options: What decides the result.
    """
    frame = collected.stays.sort_values("stay_id", ignore_index=True)
    if frame.empty:
        raise none_left(collected.flow)
    check_training(frame)
    order = ["stay_id", "variable", "hour", "value"]
    events = collected.events.sort_values(order, ignore_index=True)[order]
    batches = pa.Table.from_pandas(events, preserve_index=False).to_batches()
    counts: dict[str, Any] = {
        "events": modalities.write_table(out / "events.parquet", modalities.EVENTS, iter(batches))
    }
    written = dict(_modalities(collected, events, frame, out, options))
    for name, table in collected.beside.items():
        modalities.write_beside(table, name, out)
    counts |= {name: one.counts for name, one in written.items()}
    counts["stays"] = by_split(frame)
    removed, sets = write_stays(frame, written, out, options)
    labels = frame["label"].dropna()
    positive = int((labels > 0).sum())
    return {
        "flow": [*map(list, collected.flow), ["stays kept", len(frame)]],
        "classes": max(2, int(labels.max()) + 1) if len(labels) == len(frame) else None,
        "positives": {collected.positive: positive} if positive else {},
        "counts": counts,
        "measurements_left_out": collected.left_out,
        "unreadable": dict(sorted(collected.unreadable.items())),
        "modalities": {
            name: {**one.facts, "stays": len(one.stays) - removed[name]}
            for name, one in written.items()
        },
        "sets": sets,
        "removed": removed if options.missing_rate else {},
        "absent": {},
    }


def _modalities(
    collected: Collected, events: pd.DataFrame, frame: pd.DataFrame, out: Path, options: Options
) -> Iterator[tuple[str, Written]]:
    if len(events):
        written = grid.write_series(
            _last(events, options),
            frame["stay_id"].to_numpy(np.int64),
            (frame["split"] == "train").to_numpy(bool),
            out / "series.parquet",
            hours=options.hours,
            hours_per_bin=options.hours_per_bin,
            variables=collected.variables,
        )
        yield "series", modalities.of_series(written, "series.parquet", options.hours_per_bin)
    for name, numbers in collected.numbers.items():
        yield name, modalities.write_tabular(numbers, name, out)


def _last(events: pd.DataFrame, options: Options) -> Iterator[pa.RecordBatch]:
    """The last of each stay, variable and bin of sorted events; the window's end is in the last."""
    bins = math.ceil(options.hours / options.hours_per_bin)
    step = np.floor(events["hour"] / options.hours_per_bin).clip(0, bins - 1).astype("int64")
    last = events.assign(bin=step).drop_duplicates(["stay_id", "variable", "bin"], keep="last")
    table = pa.Table.from_pandas(
        last[["stay_id", "variable", "bin", "value"]], preserve_index=False
    )
    yield from table.append_column("level", pa.nulls(len(table), pa.int64())).to_batches()
