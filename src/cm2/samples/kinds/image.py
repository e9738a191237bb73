"""Pictures: files or rows of an array on disk, read when a batch needs them, or arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from numpy.lib.format import open_memmap
from torch import Tensor

from cm2.core.errors import InputError
from cm2.core.files import DAMAGED
from cm2.core.pace import told
from cm2.samples.kinds import paths
from cm2.samples.kinds.base import Column, Inputs, Learned, Listed, entries, register
from cm2.samples.ragged import NEVER

TRIAL = 8
"""Side of the squares as which pictures are read to find out whether they can be."""


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
                self._pixels = open_memmap(self._path, mode="r")
            except (OSError, *DAMAGED):
                raise InputError(
                    f"{self._path}: not readable as an array; prepare the data again"
                ) from None
        return self._pixels

    def __getstate__(self) -> dict[str, Any]:
        """What goes to another process: the path in place of the pixels."""
        return self.__dict__ | {"_pixels": None}


class Kept(NamedTuple):
    """A picture that stays on disk, in an array with others, until it is read."""

    stack: Stack
    row: int
    hour: float | None = None

    def read(self) -> UInt8[ndarray, "height width"]:
        """The picture."""
        return np.asarray(self.stack.pixels[self.row])


class Pictures(Inputs):
    """Grey squares, of which a batch reads its own rows only.

    Args:
        column: The pictures.
        side: Of the squares.
    """

    def __init__(self, column: ImageColumn, side: int) -> None:
        self._column = column
        self._side = side
        hours = column.hours
        self._hours = None if hours is None else np.append(hours, NEVER)
        # Training sees crops at random places: seven eighths of the side, 224 of 256.
        self.shape = {"crop": side * 7 // 8}

    def take(self, rows: Int[ndarray, " batch"]) -> UInt8[Tensor, "batch height width"]:
        pixels = np.zeros((len(rows), self._side, self._side), np.uint8)
        for place, row in enumerate(rows):
            if row >= 0:
                pixels[place] = self._column.pixels(int(row), self._side)
        return torch.from_numpy(pixels)

    def hours(self, rows: Int[ndarray, " batch"]) -> Float[Tensor, " batch"] | None:
        return None if self._hours is None else torch.from_numpy(self._hours[rows])

    def select(self, rows: Int[ndarray, " row"]) -> Pictures:
        return Pictures(self._column.take(rows), self._side)


class LearnedImage(Learned):
    """The side of the squares: that of the arrays where all have one, 256 otherwise.

    Attributes:
        side_: In pixels.
    """

    def fit(
        self,
        column: Any,
        weight: Float[ndarray, " n"] | None = None,
        patients: ndarray | None = None,
    ) -> Self:
        from cm2.core.pictures import SIDE

        shapes = {_size(one) for one in column.values}
        shape = shapes.pop() if len(shapes) == 1 else None
        self.side_ = SIDE if shape is None else min(shape)
        return self

    def check(self, column: Any) -> None:
        return None

    def empty(self, rows: int) -> Column:
        return ImageColumn("", [None] * rows)

    def inputs(self, column: Any, here: Bool[ndarray, " n"]) -> Inputs | None:
        return Pictures(column, self.side_)


@register("image")
class ImageColumn(Listed):
    """A picture a sample: a path, a PIL image, or an array (height, width[, colour]) of uint8.

    Those of a prepared folder are :class:`Kept`.

    Attributes:
        values: The pictures, ``None`` where the modality is missing.
    """

    learned = LearnedImage
    encoder = {"kind": "image", "depths": [1, 1], "widths": [16, 32]}

    def __init__(self, name: str, values: Any) -> None:
        listed = (
            list(values) if isinstance(values, ndarray) and values.ndim > 1 else entries(values)
        )
        if listed is None:
            raise ValueError(
                f"modality {name!r} is to be images, one a sample, but is a {type(values).__name__}"
            )
        pictures = [_picture(name, row, one) for row, one in enumerate(listed)]
        self.keep(name, pictures, [one is not None for one in pictures])

    @property
    def hours(self) -> Float[ndarray, " n"] | None:
        """When they are from, zero for none; ``None`` if that is not known of any."""
        kept = [one.hour if isinstance(one, Kept) else None for one in self.values]
        if all(hour is None for hour in kept):
            return None
        return np.array([hour or NEVER for hour in kept], np.float32)

    @classmethod
    def fits(cls, values: Any) -> bool:
        if isinstance(values, ndarray) and values.ndim > 2:
            return values.dtype == np.uint8
        listed = enumerate(entries(values) or [])
        there = [(row, one) for row, one in listed if one is not None]
        texts = [(row, one) for row, one in there if isinstance(one, str)]
        others = [one for _, one in there if not isinstance(one, str)]
        if not there or not all(map(_looks_like_one, others)):
            return False
        return not texts or paths.are_images(texts)

    def check(self, here: Bool[ndarray, " n"]) -> None:
        for row in np.flatnonzero(here).tolist():
            one = self.values[row]
            if isinstance(one, Path) and not one.is_file():
                raise ValueError(
                    f"modality {self.name!r}: there is no file for row {self.rows[row]}"
                )

    def try_all(self, here: Bool[ndarray, " n"]) -> None:
        rows = np.flatnonzero(here).tolist()
        for row in told(rows, len(rows), "pictures that are tried"):
            if not isinstance(self.values[row], ndarray | Kept):
                self.pixels(row, TRIAL)  # whole: the start of a file that is cut short is sound

    def pixels(self, row: int, side: int) -> UInt8[ndarray, "side side"]:
        """The picture of a sample.

        Raises:
            ValueError: If it cannot be read; the message does not name the file.
        """
        from PIL import Image

        from cm2.core.pictures import decode

        one = self.values[row]
        one = one.read() if isinstance(one, Kept) else one
        try:
            return decode(Image.fromarray(one) if isinstance(one, ndarray) else one, side)
        # Pillow's decoders fail in many ways on broken files.
        except Exception as error:
            number = self.rows[row]
            raise ValueError(
                f"modality {self.name!r}: the image of row {number} cannot be read "
                f"({type(error).__name__})"
            ) from None


def _size(one: Any) -> tuple[int, ...] | None:
    """Height and width of a picture that has been read already, or is kept with others."""
    if isinstance(one, Kept):
        return one.stack.shape
    return one.shape[:2] if isinstance(one, ndarray) else None


def _looks_like_one(value: Any) -> bool:
    if isinstance(value, ndarray):
        return value.dtype == np.uint8 and value.ndim in (2, 3)
    return isinstance(value, Path | Kept) or hasattr(value, "getbands")


def _picture(name: str, row: int, one: Any) -> Any:
    if one is None or isinstance(one, Kept) or hasattr(one, "getbands"):
        return one
    if isinstance(one, str | Path):
        return Path(one)
    array = np.asarray(one)
    colours = array.ndim == 3 and array.shape[2] in (3, 4)
    if array.dtype != np.uint8 or not (array.ndim == 2 or colours) or not array.size:
        raise ValueError(
            f"modality {name!r}: an image is a path, a PIL image or an array of uint8, but row "
            f"{row} holds {array.dtype} of shape {array.shape}"
        )
    return array
