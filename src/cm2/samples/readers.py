"""How each kind of modality is read from a prepared folder and handed out in whole batches.

A reader answers for the stays of one split. Row ``-1`` stands for a stay without the modality; it
comes out as zeros, or as a sequence without steps.

What a reader takes from the training split, such as scales, comes to it as plain numbers and names
(``learn``), which a trained model keeps: it then reads other data without those it was trained on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from cm2.core.errors import InputError
from cm2.core.records import Padded
from cm2.samples.folder import Folder
from cm2.samples.scaling import distinct_gaps

__all__ = ["Image", "Reader", "Series", "Stack", "Tabular"]

NEVER = np.float32(0.0)
"""The hour of what is not there, at the end of all hours, which row ``-1`` reads."""

GRID = ("columns", "hours_per_bin")
"""Entries of a series in the manifest that must be the same wherever one model is used."""
SCALE = ("mean", "deviation")
"""Entries of a series in the manifest, by column."""


class Reader(ABC):
    """One modality of the stays of a split.

    Attributes:
        shape: Arguments of an encoder that follow from the data, such as ``features``.
        has: For which of the stays there is something.
    """

    shape: dict[str, int]
    has: Bool[ndarray, " stay"]

    @classmethod
    def learn(cls, folder: Folder, name: str) -> dict[str, Any]:
        """Returns what the training split of a folder gives, as JSON; by default, nothing."""
        return {}

    @abstractmethod
    def take(self, rows: Int[ndarray, " batch"]) -> Any:
        """Returns the batch of these stays, by their position; ``-1`` for nothing."""

    def hours(self, rows: Int[ndarray, " batch"]) -> Float[Tensor, "batch ..."] | None:
        """Returns when what ``take`` returns is from, zeros for nothing; None if not known."""
        return None


def finite(numbers: ndarray, path: Path) -> ndarray:
    """Returns the numbers of a file.

    Raises:
        InputError: If one is missing or infinite.
    """
    if not np.isfinite(numbers).all():
        raise InputError(f"{path}: has missing or infinite values")
    return numbers


def hours_of(table: pd.DataFrame, path: Path) -> Float[ndarray, " row"] | None:
    """The column ``hour``; None where there is none, or nothing in it."""
    if "hour" not in table or table["hour"].isna().all():
        return None
    return finite(table["hour"].to_numpy(np.float32), path)


class Ragged:
    """Arrays of different lengths, end to end, and a last one of length zero.

    Args:
        flat: Steps of all sequences, one after the other.
        lengths: Steps of each sequence.
    """

    def __init__(self, flat: ndarray, lengths: Int[ndarray, " sequence"]) -> None:
        self.lengths = np.append(lengths, 0)
        self.starts = np.append(np.cumsum(lengths) - lengths, 0)
        self.flat = np.concatenate([flat, np.zeros((1, *flat.shape[1:]), flat.dtype)])

    def keep_last(self, number: int) -> None:
        """Leaves out the first steps of sequences that have more than so many."""
        self.starts += np.maximum(self.lengths - number, 0)
        self.lengths = np.minimum(self.lengths, number)

    def take(self, rows: Int[ndarray, "*batch"]) -> tuple[ndarray, ndarray]:
        """Returns the sequences padded with zeros to one length, and what is no padding."""
        lengths = self.lengths[rows][..., None]
        steps = np.arange(max(1, int(lengths.max(initial=0))))
        mask = steps < lengths
        return self.flat[np.where(mask, self.starts[rows][..., None] + steps, -1)], mask


class Series(Reader):
    """A grid of numbers by time: ``stay_id, bin``, then the columns, sorted.

    Args:
        folder: The prepared data.
        name: Name of the modality.
        stays: The stays that are answered for, sorted.
        learned: The grid and scale that ``learn`` gave; those of ``folder`` are scaled by its own.
    """

    @classmethod
    def learn(cls, folder: Folder, name: str) -> dict[str, Any]:
        """The grid and the scale, which preparation took from the training split."""
        facts = folder.modalities[name]
        return {key: facts[key] for key in (*GRID, *SCALE) if key in facts}

    def __init__(
        self,
        folder: Folder,
        name: str,
        stays: Int[ndarray, " stay"],
        learned: Mapping[str, Any],
    ) -> None:
        frame, lengths = steps(folder, name, stays)
        own = self.learn(folder, name)
        if own != learned:
            frame = _rescaled(frame, own, learned)
        values = frame.to_numpy(np.float32)
        self.has = lengths > 0
        self.shape = {"features": values.shape[1]}
        self._ragged = Ragged(values, lengths)

    def take(self, rows: Int[ndarray, " batch"]) -> Padded:
        values, mask = self._ragged.take(rows)
        return Padded(torch.from_numpy(values), torch.from_numpy(mask))


def steps(
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


def in_units(frame: pd.DataFrame, scale: Mapping[str, Any]) -> pd.DataFrame:
    """The columns of a grid that have a mean and a deviation, in the units they were taken in.

    Args:
        frame: Rows of the grid.
        scale: ``mean`` and ``deviation`` by column, as the manifest says them.
    """
    mean, deviation = _scales(scale)
    return frame[list(mean.index)] * deviation + mean


def _rescaled(
    frame: pd.DataFrame, own: Mapping[str, Any], other: Mapping[str, Any]
) -> pd.DataFrame:
    """Numbers on the scale of other data, which must have the same grid."""
    for key in GRID:
        if own.get(key) != other.get(key):
            raise InputError(f"series differ in {key} from those they are to be scaled like")
    center, scale = _scales(other)
    return frame.assign(**((in_units(frame, own) - center) / scale))


def _scales(facts: Mapping[str, Any]) -> list[pd.Series]:
    return [pd.Series(facts.get(key, {}), dtype=np.float64) for key in SCALE]


class Stack:
    """Grey images of one size in one array on disk, from which rows are read when asked.

    Args:
        path: The array; each process opens it for itself.

    Raises:
        InputError: If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pixels: ndarray | None = None
        self.shape: tuple[int, int] = self.pixels.shape[1:3]

    @property
    def pixels(self) -> UInt8[ndarray, "image height width"]:
        """All images, on disk."""
        if self._pixels is None:
            try:
                self._pixels = np.load(self._path, mmap_mode="r")
            except (OSError, ValueError, EOFError):
                raise InputError(
                    f"{self._path}: not readable as an array; prepare the data again"
                ) from None
        return self._pixels

    def __getstate__(self) -> dict[str, Any]:
        """What goes to another process: the path in place of the pixels."""
        return self.__dict__ | {"_pixels": None}


def stacked(folder: Folder, name: str, stays: Int[ndarray, " stay"]) -> tuple[Stack, pd.DataFrame]:
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


class Image(Reader):
    """Grey images in one array on disk, of which a batch reads its own rows only."""

    def __init__(self, folder: Folder, name: str, stays: Int[ndarray, " stay"]) -> None:
        self._stack, table = stacked(folder, name, stays)
        self._rows = np.append(table["row"].to_numpy(), -1)
        self._hours = None
        if "hour" in table:
            self._hours = np.append(table["hour"].fillna(0.0).to_numpy(np.float32), NEVER)
        self.has = self._rows[:-1] >= 0
        self.shape = {}

    def take(self, rows: Int[ndarray, " batch"]) -> UInt8[Tensor, "batch height width"]:
        index = self._rows[rows]
        pixels = np.zeros((len(rows), *self._stack.shape), np.uint8)
        pixels[index >= 0] = self._stack.pixels[index[index >= 0]]
        return torch.from_numpy(pixels)

    def hours(self, rows: Int[ndarray, " batch"]) -> Float[Tensor, " batch"] | None:
        return None if self._hours is None else torch.from_numpy(self._hours[rows])


class Tabular(Reader):
    """Numbers, one row a stay, standardised by the training split's means and deviations.

    A missing number is the training mean, zero; a column with missing numbers in the training
    split has a column of its own behind all others that is one where the number is missing.
    Columns missing for the same stays share it.

    Args:
        folder: The prepared data.
        name: Name of the modality.
        stays: The stays that are answered for, sorted.
        learned: Columns, means, deviations and flags that ``learn`` gave.
    """

    @classmethod
    def learn(cls, folder: Folder, name: str) -> dict[str, Any]:
        """Columns, their means and deviations, and which have a flag."""
        table = numbers(folder, name)
        train = folder.stays.loc[folder.stays["split"] == "train", "stay_id"]
        seen = table[table.index.isin(train)]
        deviation = seen.std(ddof=0)
        return {
            "columns": list(table.columns),
            "mean": seen.mean().tolist(),
            "deviation": deviation.where(deviation > 0, 1.0).tolist(),
            "flags": list(table.columns[distinct_gaps(seen.isna().to_numpy())]),
        }

    def __init__(
        self,
        folder: Folder,
        name: str,
        stays: Int[ndarray, " stay"],
        learned: Mapping[str, Any],
    ) -> None:
        frame = numbers(folder, name)
        columns = learned["columns"]
        if list(frame.columns) != columns:
            raise InputError(
                f"{folder.root}: modality {name!r} has other columns than in the training"
            )
        mean, deviation = (pd.Series(learned[key], columns, dtype=np.float64) for key in SCALE)
        scaled = (frame - mean) / deviation
        flags = frame[learned["flags"]].isna().astype(np.float64)
        values = pd.concat([scaled.fillna(0.0), flags], axis=1)
        self.has = np.isin(stays, frame.index)
        self.shape = {"features": values.shape[1]}
        kept = values.reindex(stays, fill_value=0.0).to_numpy(np.float32)
        self._values = np.concatenate([kept, np.zeros((1, kept.shape[1]), np.float32)])

    def take(self, rows: Int[ndarray, " batch"]) -> Float[Tensor, "batch feature"]:
        return torch.from_numpy(self._values[rows])


def numbers(folder: Folder, name: str) -> pd.DataFrame:
    """A table of a folder, a row a stay that has it, NaN where a number is missing."""
    table = folder.table(folder.modalities[name]["file"], ["stay_id"]).set_index("stay_id")
    return table.astype(np.float64).replace([np.inf, -np.inf], np.nan)
