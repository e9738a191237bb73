"""Numbers of modalities of any kind, for methods that read nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, singledispatch
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.decomposition import PCA

from cm2.samples.kinds import Column, EventColumn, ImageColumn, SeriesColumn, TextColumn

SIDE = 16
"""Side of the squares of pixels that components are made of."""

PICTURE = 32
"""Side of the pictures that encoders of a benchmark read."""

COMPONENTS = 16
"""Numbers of a picture or document."""

Made: TypeAlias = Callable[[Int[ndarray, " train"]], Float[ndarray, "n feature"]]
"""Numbers of all rows, given those from which to learn."""


@singledispatch
def numbers(column: Any) -> Made:
    """Returns what makes numbers of a column, NaN where it is missing; it needs no folder any more.

    A table is as it is. Series and events are the summaries that heads without an encoder read;
    documents are vectors of their terms, and pictures principal components of their pixels.
    """
    return partial(_same, np.asarray(column.values, np.float64))


@numbers.register
def _(column: SeriesColumn) -> Made:
    return partial(_same, column.summaries())


@numbers.register
def _(column: EventColumn) -> Made:
    return partial(_same, column.summaries(column.names))


@numbers.register
def _(column: TextColumn) -> Made:
    lines = ["\n".join(one) if one else None for one in column.values]
    return partial(_vectors, pd.Series(lines, name=column.name))


@numbers.register
def _(column: ImageColumn) -> Made:
    pixels = np.full((len(column.present), SIDE * SIDE), np.nan)
    for row in np.flatnonzero(column.present).tolist():
        pixels[row] = column.pixels(row, SIDE).ravel()
    return partial(_components, pixels)


@singledispatch
def held(column: Column) -> Column:
    """Returns a column that needs no folder any more; pictures are made small."""
    return column


@held.register
def _(column: TextColumn) -> Column:
    return TextColumn(column.name, [list(one) if one else None for one in column.values])


@held.register
def _(column: ImageColumn) -> Column:
    there = column.present
    pictures = [column.pixels(row, PICTURE) if there[row] else None for row in range(len(there))]
    return ImageColumn(column.name, pictures)


def _same(values: Float[ndarray, "n feature"], train: ndarray) -> Float[ndarray, "n feature"]:
    return values


def _vectors(documents: pd.Series, train: ndarray) -> Float[ndarray, "n feature"]:
    from cm2.clinical.prepare.documents import vectorize

    return np.asarray(vectorize(documents, pd.Index(train), COMPONENTS))


def _components(pixels: Float[ndarray, "n pixel"], train: ndarray) -> Float[ndarray, "n feature"]:
    there = ~np.isnan(pixels).any(axis=1)
    known = np.intersect1d(train, np.flatnonzero(there))
    learned = PCA(min(COMPONENTS, len(known)), svd_solver="full").fit(pixels[known])
    found = np.full((len(pixels), learned.n_components_), np.nan)
    found[there] = learned.transform(pixels[there])
    return found
