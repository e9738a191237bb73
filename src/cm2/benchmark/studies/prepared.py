"""Studies of prepared stays, whose modalities of any kind become numbers for all methods alike."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from sklearn.decomposition import PCA

from cm2.benchmark.studies.base import Study
from cm2.samples.kinds import ImageColumn, SeriesColumn, TextColumn
from cm2.samples.stays import Stays

SIDE = 16
"""Side of the squares of pixels that components are made of."""

COMPONENTS = 16
"""Numbers of a picture or document."""


class Prepared(Study):
    """Stays of a folder that ``cm2 prepare`` wrote."""

    def read(self, root: Path, flow: Sequence[Any], **options: Any) -> pd.DataFrame:
        """Takes rows, target and patients from a folder.

        Args:
            root: The folder; it is read whole.
            flow: How its stays came about.
            options: Of :meth:`.Stays.open`.

        Returns:
            What the folder says of the stays.
        """
        found = Stays.open(root, **options)
        self._columns = {name: _held(one) for name, one in found.samples.columns.items()}
        self._present = found.samples.present
        self.modalities = tuple(self._columns)
        self.y = found.stays["label"].to_numpy(np.int64)
        self.labels = ("survived", "died")
        self.groups = pd.factorize(found.stays["subject_id"])[0].astype(np.int64)
        self.score = np.full(len(self.y), np.nan)
        self.flow = [(str(step), int(count)) for step, count in flow]
        self.flow.append(("deaths in hospital", int(self.y.sum())))
        return found.stays

    def blocks(self, train: Int[ndarray, " train"]) -> dict[str, Float[ndarray, "n feature"]]:
        """Returns numbers; see :func:`numbers`."""
        return {name: numbers(column, train) for name, column in self._columns.items()}

    def present(self) -> Bool[ndarray, "n modality"]:
        """Returns where a modality has any number, document or picture."""
        return self._present


def _held(column: Any) -> Any:
    """A column that needs the folder no more: pictures small and in memory."""
    if not isinstance(column, ImageColumn):
        return column
    there = enumerate(column.present)
    pictures = [column.pixels(row, SIDE) if here else None for row, here in there]
    return ImageColumn(column.name, pictures)


@singledispatch
def numbers(column: Any, train: Int[ndarray, " train"]) -> Float[ndarray, "n feature"]:
    """Returns a column as numbers, NaN where it is missing; learned from training rows alone.

    A table is as it is. A series is the summaries that heads without an encoder read; documents
    are vectors of their terms, and pictures principal components of their pixels.
    """
    return np.asarray(column.values, np.float64)


@numbers.register
def _(column: SeriesColumn, train: Int[ndarray, " train"]) -> Float[ndarray, "n feature"]:
    return column.summaries()


@numbers.register
def _(column: TextColumn, train: Int[ndarray, " train"]) -> Float[ndarray, "n feature"]:
    from cm2.clinical.prepare.documents import vectorize

    lines = ["\n".join(one) if one else None for one in column.values]
    documents = pd.Series(lines, name=column.name)
    return vectorize(documents, pd.Index(train), COMPONENTS).to_numpy()


@numbers.register
def _(column: ImageColumn, train: Int[ndarray, " train"]) -> Float[ndarray, "n feature"]:
    rows = np.flatnonzero(column.present)
    pixels = np.stack([column.values[row].ravel() for row in rows]).astype(np.float64)
    known = np.isin(rows, train)
    learned = PCA(min(COMPONENTS, int(known.sum())), svd_solver="full").fit(pixels[known])
    found = np.full((len(column.present), learned.n_components_), np.nan)
    found[rows] = learned.transform(pixels)
    return found
