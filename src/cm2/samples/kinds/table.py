"""Numbers in columns, and embeddings that were made before."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import issparse

from cm2.samples import tables
from cm2.samples.kinds.base import Column, Learned, entries, register, some
from cm2.samples.scaling import Columns


class LearnedTable(Learned):
    """Centres and scales of columns, and which of them have gaps.

    Columns are read robustly (:mod:`cm2.samples.scaling`); those that are partly missing are filled
    with their centre and flagged, by one flag where several are missing in the same rows.

    Attributes:
        columns_: Names or number of the columns.
        scaler_: What standardises, fills and flags.
    """

    def fit(
        self,
        column: Any,
        weight: Float[ndarray, " n"] | None = None,
        patients: ndarray | None = None,
    ) -> Self:
        self.columns_ = tables.columns(column.values)
        scaling = (self.options or {}).get("scaling", "robust")
        self.scaler_ = Columns(scaling).fit(column.numbers(), sample_weight=weight)
        return self

    def check(self, column: Any) -> None:
        if column.present.any():
            found = tables.columns(column.values)
            tables.check_columns(f"modality {column.name!r}", found, self.columns_)

    def empty(self, rows: int) -> Column:
        return TableColumn("", np.full((rows, tables.width(self.columns_)), np.nan))

    def features(
        self, column: Any, here: Bool[ndarray, " n"]
    ) -> Float[ndarray, "n feature"] | None:
        return standardised(self.scaler_, column.numbers(), here)


def standardised(
    fitted: Columns, array: Float[ndarray, "n feature"], here: Bool[ndarray, " n"]
) -> Float[ndarray, "n column"]:
    """An array standardised in some rows, zeros in the others."""
    block = np.zeros((len(array), fitted.width), dtype=np.float32)
    if here.any():
        block[here] = fitted.transform(array[here])
    return block


class Numbers(Column):
    """A table of numbers; a sample whose row is NaN throughout lacks it.

    Attributes:
        values: The table: an array, a DataFrame or a sparse matrix by columns.
    """

    learned = LearnedTable

    def __init__(self, name: str, values: Any) -> None:
        self.name = name
        try:
            self.values = tables.as_table(_filled(values))
        except ValueError:
            raise ValueError(f"modality {name!r} is no table: its rows differ in length") from None
        tables.check_dimensions(self.values, f"modality {name!r}")
        self._numbers: ndarray | None = None
        self.present = ~self._nan()

    def numbers(self) -> Float[ndarray, "n feature"]:
        """The table as dense float64; of a sparse one it is not kept."""
        if self._numbers is not None:
            return self._numbers
        found = tables.numbers(self.name, self.values)
        if not issparse(self.values):
            self._numbers = found
        return found

    def _nan(self) -> Bool[ndarray, " n"]:
        """Which rows are NaN throughout; what a sparse matrix does not store is zero."""
        if not issparse(self.values):
            return np.isnan(self.numbers()).all(axis=1)
        if self.values.dtype.kind != "f":
            return np.zeros(self.values.shape[0], bool)
        stored = self.values.tocoo()
        rows = stored.coords[0][np.isnan(stored.data)]
        return np.bincount(rows, minlength=stored.shape[0]) == stored.shape[1]

    def take(self, rows: Int[ndarray, " row"]) -> Self:
        frame = hasattr(self.values, "iloc")
        return type(self)(self.name, self.values.iloc[rows] if frame else self.values[rows])

    def check(self, here: Bool[ndarray, " n"]) -> None:
        if issparse(self.values):
            infinite = np.unique(self.values.tocoo().coords[1][np.isinf(self.values.tocoo().data)])
        else:
            infinite = np.flatnonzero(np.isinf(self.numbers()[here]).any(axis=0))
        if len(infinite):
            shown = tables.names(self.values, infinite.tolist())
            raise ValueError(f"modality {self.name!r} has infinite values in columns {shown}")


@register("table")
class TableColumn(Numbers):
    """Numbers, a row a sample."""

    encoder = {"kind": "dense"}

    @classmethod
    def fits(cls, values: Any) -> bool:
        if issparse(values):
            return True
        return np.ndim(values) == 2 if entries(values) is None else _nested(values)


@register("embedding")
class EmbeddingColumn(Numbers):
    """Embeddings that an encoder made before, a row a sample; only by name."""

    encoder = {"kind": "precomputed"}

    @classmethod
    def fits(cls, values: Any) -> bool:
        return False


def _nested(values: Any) -> bool:
    """Whether entries are rows of one width; lists of texts are documents, as many as they are."""
    rows = some(values)
    listed = all(isinstance(one, list | tuple | ndarray) for one in rows)
    if not rows or not listed or len({len(one) for one in rows}) > 1:
        return False
    cells = [cell for one in rows for cell in one]
    texts = all(isinstance(cell, str) for cell in cells)
    return not texts and all(np.ndim(cell) == 0 for cell in cells)


def _filled(values: Any) -> Any:
    """Rows with NaN in place of ``None``: one column of it where there is no row."""
    listed = entries(values) or []
    rows = [one for one in listed if isinstance(one, list | tuple | ndarray)]
    none = sum(one is None for one in listed)  # `count` would compare arrays with None
    if len(rows) + none < len(listed) or len(rows) == len(listed):
        return values
    gap = [np.nan] * (len(rows[0]) if rows else 1)
    return [gap if one is None else one for one in listed]
