"""The modalities of a prepared folder as columns, in the units in which they were measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from numpy import ndarray

from cm2.core.errors import InputError
from cm2.samples import embeddings, readers, texts
from cm2.samples.folder import Folder
from cm2.samples.kinds import Column, EmbeddingColumn, ImageColumn, SeriesColumn, TableColumn
from cm2.samples.kinds.image import Kept
from cm2.samples.kinds.text import TextColumn
from cm2.samples.selection import Selection

__all__ = ["columns"]


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
    frame, lengths = readers.steps(folder, name, stays)
    scaled = readers.in_units(frame, folder.modalities[name])
    # What was float32 before it was scaled is so again, rounded but for the last digit at most.
    values = frame.assign(**scaled).to_numpy(np.float32)
    parts = np.split(values, np.cumsum(lengths)[:-1]) if len(lengths) else []
    kept = [part if there else None for part, there in zip(parts, left, strict=True)]
    return SeriesColumn(name, kept), lengths > 0


def _table(
    folder: Folder, name: str, stays: Int[ndarray, " stay"], left: Bool[ndarray, " stay"]
) -> Made:
    frame = readers.numbers(folder, name)
    rows = frame.reindex(stays).reset_index(drop=True)
    return TableColumn(name, rows.where(pd.Series(left))), np.isin(stays, frame.index)


def _text(
    folder: Folder, name: str, stays: Int[ndarray, " stay"], left: Bool[ndarray, " stay"]
) -> Made:
    frame, _ = texts.documents(folder, name)
    documents: dict[Any, list[str]] = frame.groupby("stay_id")["text"].agg(list).to_dict()
    kept = [documents.get(s) if there else None for s, there in zip(stays, left, strict=True)]
    return TextColumn(name, kept), np.isin(stays, list(documents))


def _image(
    folder: Folder, name: str, stays: Int[ndarray, " stay"], left: Bool[ndarray, " stay"]
) -> Made:
    stack, table = readers.stacked(folder, name, stays)
    rows = table["row"].to_numpy()
    kept = [Kept(stack, int(r)) if r >= 0 and t else None for r, t in zip(rows, left, strict=True)]
    return ImageColumn(name, kept), rows >= 0


def _embedding(
    folder: Folder, name: str, stays: Int[ndarray, " stay"], left: Bool[ndarray, " stay"]
) -> Made:
    values = embeddings.read(folder, name)
    values = values[np.searchsorted(folder.stays["stay_id"].to_numpy(), stays)]
    kept = np.where(left[:, None], values, np.nan)
    return EmbeddingColumn(name, kept), np.isfinite(values).all(axis=1)


COLUMNS: dict[str, Callable[..., Made]] = {
    "series": _series,
    "tabular": _table,
    "text": _text,
    "image": _image,
    "embedding": _embedding,
}
"""What reads each kind of a folder."""
