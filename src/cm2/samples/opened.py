"""The modalities of a prepared folder as columns, in the units in which they were measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from numpy import ndarray

from cm2.core.errors import InputError
from cm2.samples import embeddings, texts
from cm2.samples.folder import Folder, finite, hours_of
from cm2.samples.kinds import (
    Column,
    EmbeddingColumn,
    EventColumn,
    ImageColumn,
    SeriesColumn,
    TableColumn,
    TextColumn,
)
from cm2.samples.kinds.events import STEP
from cm2.samples.kinds.image import Kept, Stack
from cm2.samples.selection import Selection

__all__ = ["columns"]

SCALE = ("mean", "deviation")
"""Entries of a series in the manifest, by column, if its numbers were scaled."""

EVENTS = ("stay_id", "variable", "hour", "value")


def columns(
    folder: Folder,
    modalities: Sequence[str],
    selection: Selection,
    embedded: Sequence[str] = (),
) -> dict[str, Column]:
    """Reads modalities of the stays that were selected.

    Args:
        folder: The prepared data.
        modalities: Which.
        selection: The stays, and which of their modalities are left.
        embedded: Modalities whose encoder has run before; see ``cm2.samples.embeddings``.

    Raises:
        InputError: If a modality is not whole, or of a kind that samples do not know.
    """
    found: dict[str, Column] = {}
    for place, name in enumerate(modalities):
        kind = "embedding" if name in embedded else str(folder.facts(name)["kind"])
        if kind not in COLUMNS:
            raise InputError(
                f"{folder.root}: modality {name!r} is of the kind {kind!r}; samples may be of "
                f"{', '.join(COLUMNS)}"
            )
        column, has = COLUMNS[kind](folder, name, selection.ids, selection.present[:, place])
        folder.check_whole(name, selection.has[:, place], has)
        found[name] = column
    return found


Made = tuple[Column, Bool[ndarray, " stay"]]
"""A column without what was removed, and for which stays the folder has something."""


def _series(
    folder: Folder, name: str, stays: Int[ndarray, " stay"], left: Bool[ndarray, " stay"]
) -> Made:
    """Series as arrays; masks and columns of zeros and ones have no scale and stay."""
    frame, lengths = _steps(folder, name, stays)
    scaled = _in_units(frame, folder.modalities[name])
    # What was float32 before it was scaled is so again, rounded but for the last digit at most.
    values = frame.assign(**scaled).to_numpy(np.float32)
    parts = np.split(values, np.cumsum(lengths)[:-1]) if len(lengths) else []
    kept = [part if there else None for part, there in zip(parts, left, strict=True)]
    step_hours = folder.modalities[name].get("hours_per_bin")
    return SeriesColumn(name, kept, list(frame.columns), step_hours), lengths > 0


def _table(
    folder: Folder, name: str, stays: Int[ndarray, " stay"], left: Bool[ndarray, " stay"]
) -> Made:
    frame = _numbers(folder, name)
    rows = frame.reindex(stays).reset_index(drop=True)
    return TableColumn(name, rows.where(pd.Series(left))), np.isin(stays, frame.index)


def _text(
    folder: Folder, name: str, stays: Int[ndarray, " stay"], left: Bool[ndarray, " stay"]
) -> Made:
    kept = texts.Documents(folder, name, stays)
    has = kept.has()
    return TextColumn.of(name, kept, has & left), has


def _image(
    folder: Folder, name: str, stays: Int[ndarray, " stay"], left: Bool[ndarray, " stay"]
) -> Made:
    stack, table = _stacked(folder, name, stays)
    rows = table["row"].to_numpy()
    hours = table["hour"].tolist() if "hour" in table else [None] * len(rows)
    kept = [
        Kept(stack, int(row), hour) if row >= 0 and there else None
        for row, hour, there in zip(rows, hours, left, strict=True)
    ]
    return ImageColumn(name, kept), rows >= 0


def _embedding(
    folder: Folder, name: str, stays: Int[ndarray, " stay"], left: Bool[ndarray, " stay"]
) -> Made:
    values = embeddings.read(folder, name)
    values = values[np.searchsorted(folder.stays["stay_id"].to_numpy(), stays)]
    kept = np.where(left[:, None], values, np.nan)
    return EmbeddingColumn(name, kept), np.isfinite(values).all(axis=1)


def _events(
    folder: Folder, name: str, stays: Int[ndarray, " stay"], left: Bool[ndarray, " stay"]
) -> Made:
    """Events, of which each stay's are a part of one array."""
    file = folder.facts(name)["file"]
    frame = folder.table(file, EVENTS, repeated=["variable"])
    frame = frame[frame["stay_id"].isin(stays)]
    _check_events(frame, folder, file)
    ids, hours = frame["stay_id"].to_numpy(), frame["hour"].to_numpy()
    order = np.lexsort((hours, ids))  # stable: the file's order stays within an hour
    flat = np.empty(len(frame), STEP)
    flat["hour"] = hours[order]
    flat["variable"] = frame["variable"].cat.codes.to_numpy()[order]
    flat["value"] = frame["value"].to_numpy()[order]
    first, end = (np.searchsorted(ids[order], stays, side) for side in ("left", "right"))
    kept = [flat[a:b] if there else None for a, b, there in zip(first, end, left, strict=True)]
    names = [str(one) for one in frame["variable"].cat.categories]
    return EventColumn(name, kept, names), end > first


def _check_events(frame: pd.DataFrame, folder: Folder, file: str) -> None:
    """Refuses what is missing or no number, and what was measured after the prediction."""
    if frame["variable"].isna().any():
        raise InputError(f"{folder.root / file}: has events without a variable")
    numbers = finite(frame[["hour", "value"]].to_numpy(np.float64), folder.root / file)
    late = 0 if folder.hours is None else int((numbers[:, 0] > folder.hours).sum())
    if late:
        raise InputError(
            f"{folder.root / file}: {late} events are from after the prediction, at hour "
            f"{folder.hours:g}"
        )


COLUMNS: dict[str, Callable[..., Made]] = {
    "series": _series,
    "tabular": _table,
    "text": _text,
    "image": _image,
    "embedding": _embedding,
    "events": _events,
}
"""What reads each kind of a folder."""


def _steps(
    folder: Folder, name: str, stays: Int[ndarray, " stay"]
) -> tuple[pd.DataFrame, Int[ndarray, " stay"]]:
    """The rows of a grid for some stays, without ``stay_id`` and ``bin``, and how many each has."""
    file = folder.modalities[name]["file"]
    frame = folder.table(file, ["stay_id", "bin"])
    frame = frame[frame["stay_id"].isin(stays)]
    ids = frame["stay_id"].to_numpy()
    bins = frame["bin"].to_numpy()
    later = (ids[1:] > ids[:-1]) | ((ids[1:] == ids[:-1]) & (bins[1:] > bins[:-1]))
    if not later.all():
        raise InputError(f"{folder.root / file}: rows must be sorted by stay_id and bin")
    frame = frame.drop(columns=["stay_id", "bin"])
    finite(frame.to_numpy(np.float32), folder.root / file)
    lengths = np.searchsorted(ids, stays, "right") - np.searchsorted(ids, stays, "left")
    return frame, lengths


def _in_units(frame: pd.DataFrame, scale: Mapping[str, Any]) -> pd.DataFrame:
    """The columns of a grid that have a mean and a deviation, in the units they were taken in.

    Args:
        frame: Rows of the grid.
        scale: ``mean`` and ``deviation`` by column, as the manifest says them.
    """
    mean, deviation = _scales(scale)
    return frame[list(mean.index)] * deviation + mean


def _scales(facts: Mapping[str, Any]) -> list[pd.Series]:
    return [pd.Series(facts.get(key, {}), dtype=np.float64) for key in SCALE]


def _stacked(folder: Folder, name: str, stays: Int[ndarray, " stay"]) -> tuple[Stack, pd.DataFrame]:
    """The images of a folder, and for each stay its ``row`` there (-1 for none).

    Where the folder says when images are from, there is an ``hour`` too.
    """
    file = folder.modalities[name]["file"]
    index = folder.modalities[name].get("index", f"{Path(file).stem}.parquet")
    stack = Stack(folder.path(file))
    table = folder.table(index, ["stay_id", "row"])
    hours = hours_of(table, folder.root / index)
    known = {"row": table["row"].to_numpy(np.int64)} | ({} if hours is None else {"hour": hours})
    table = pd.DataFrame(known, index=table["stay_id"]).reindex(stays)
    table["row"] = table["row"].fillna(-1).astype(np.int64)
    if (table["row"] >= len(stack.pixels)).any():
        raise InputError(f"{folder.root / file}: has fewer images than {index} names")
    return stack, table


def _numbers(folder: Folder, name: str) -> pd.DataFrame:
    """A table of a folder, a row a stay that has it, NaN where a number is missing."""
    table = folder.table(folder.modalities[name]["file"], ["stay_id"]).set_index("stay_id")
    return table.astype(np.float64).replace([np.inf, -np.inf], np.nan)
