"""Numbers of modalities of any kind, for methods that read nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial, singledispatch
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.decomposition import PCA

from cm2.samples.container import Samples
from cm2.samples.kinds import Column, EventColumn, ImageColumn, SeriesColumn, TextColumn

LOG = logging.getLogger(__name__)

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
    documents are vectors of their terms, and pictures principal components of their pixels. A
    modality that no training row has is NaN, where something would have to be learned of it.
    """
    return partial(_same, column.numbers())


@numbers.register
def _(column: SeriesColumn) -> Made:
    return partial(_same, column.summaries())


@numbers.register
def _(column: EventColumn) -> Made:
    return partial(_summaries, column)


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


def held(samples: Samples) -> Samples:
    """Returns samples that need no folder any more; pictures are made ``PICTURE`` wide."""
    return Samples({name: _held(column) for name, column in samples.columns.items()})


@singledispatch
def _held(column: Column) -> Column:
    return column


@_held.register
def _(column: TextColumn) -> Column:
    return TextColumn(column.name, [list(one) if one else None for one in column.values])


@_held.register
def _(column: ImageColumn) -> Column:
    there = column.present
    pictures = [column.pixels(row, PICTURE) if there[row] else None for row in range(len(there))]
    return ImageColumn(column.name, pictures)


def _same(values: Float[ndarray, "n feature"], train: ndarray) -> Float[ndarray, "n feature"]:
    return values


def _summaries(column: EventColumn, train: ndarray) -> Float[ndarray, "n feature"]:
    """Of the variables that training rows have."""
    seen = np.unique(column.take(train).flat()[0]["variable"])
    return column.summaries([column.names[code] for code in seen])


def _vectors(documents: pd.Series, train: ndarray) -> Float[ndarray, "n feature"]:
    from cm2.clinical.prepare.documents import NoTermError, vectorize

    if documents.iloc[train].isna().all():
        return _nothing(len(documents))
    try:
        return np.asarray(vectorize(documents, pd.Index(train), COMPONENTS))
    except NoTermError as error:  # texts that say nothing are there all the same
        LOG.warning("%s; methods that read numbers see only who has it", error)
        return np.where(documents.notna(), 0.0, np.nan)[:, None]


def _components(pixels: Float[ndarray, "n pixel"], train: ndarray) -> Float[ndarray, "n feature"]:
    there = ~np.isnan(pixels).any(axis=1)
    known = np.intersect1d(train, np.flatnonzero(there))
    if not len(known):
        return _nothing(len(pixels))
    # Beyond one less than there are pictures a component is rounding error.
    number = max(1, min(COMPONENTS, len(known) - 1))
    learned = PCA(number, svd_solver="full").fit(pixels[known])
    found = np.full((len(pixels), learned.n_components_), np.nan)
    found[there] = learned.transform(pixels[there])
    return found


def _nothing(rows: int) -> Float[ndarray, "n feature"]:
    return np.full((rows, 1), np.nan)
