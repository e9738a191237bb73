"""From what the user has to blocks.

Blocks are one finite, standardised array for each modality, and who has it. A modality is missing
for a sample where its whole row is NaN, where a mask says so, or where it is not given at all.
Columns are read robustly (:mod:`cm2.scaling`); those that are partly missing are filled with their
centre and flagged.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.utils.validation import check_array

from cm2.scaling import RobustScaler

Groups = Mapping[str, Any]
"""Columns of each modality in one two-dimensional array: slices, positions or column names."""

_SHOWN = 5


class Blocks(NamedTuple):
    """What heads see.

    Attributes:
        values: By modality, rows of finite numbers; zeros where the modality is absent.
        present: Which modalities each row has, in the order of ``values``.
    """

    values: dict[str, Float[ndarray, "n feature"]]
    present: Bool[ndarray, "n modality"]

    def take(self, rows: Int[ndarray, " row"]) -> Blocks:
        """Some of the rows."""
        return Blocks({k: v[rows] for k, v in self.values.items()}, self.present[rows])


class Reader(BaseEstimator):  # type: ignore[misc]
    """Turns the user's tables into :class:`Blocks`.

    It learns columns, centres and robust scales from the first.

    Args:
        modalities: Columns of each modality, if samples come as one two-dimensional array.

    Attributes:
        names_: Names of the modalities.
        columns_: Names or number of the columns of each modality.
        scalers_: What standardises, fills and flags each modality.
        widths_: Number of columns of each modality's block, flags among them.
    """

    def __init__(self, modalities: Groups | None = None) -> None:
        self.modalities = modalities

    def count(self, X: Any) -> int:
        """Number of samples.

        Raises:
            ValueError: If modalities differ in it, or a modality is no table.
        """
        return int(next(iter(self._tables(X).values())).shape[0])

    def fit(self, X: Any, present: Any = None) -> Self:
        """Learns from the training samples.

        Raises:
            ValueError: If a modality is empty, not numeric, infinite or missing everywhere.
        """
        self.fit_blocks(X, present)
        return self

    def fit_blocks(
        self, X: Any, present: Any = None, rows: Int[ndarray, " row"] | None = None
    ) -> Blocks:
        """Learns from the training samples and returns their blocks.

        Args:
            X: The samples.
            present: Which modalities each sample has, beyond what NaN rows say.
            rows: Samples to learn from and return; all if ``None``. The others are only checked.
        """
        tables = self._tables(X)
        self.names_ = list(tables)
        arrays = {name: _numbers(name, table) for name, table in tables.items()}
        self.columns_ = {name: _columns(table) for name, table in tables.items()}
        mask = self._present(arrays, present)
        _check_finite(tables, arrays, mask)
        if rows is not None:
            arrays, mask = {name: array[rows] for name, array in arrays.items()}, mask[rows]
        empty = [self.names_[m] for m in np.flatnonzero(~mask.any(axis=0))]
        if empty:
            raise ValueError(f"modality {empty[0]!r} is missing for every training sample")
        self.scalers_ = {
            name: _scaler().fit(array[mask[:, m]]) for m, (name, array) in enumerate(arrays.items())
        }
        self.widths_ = {
            name: len(scaler.get_feature_names_out()) for name, scaler in self.scalers_.items()
        }
        return self._blocks(arrays, mask)

    def blocks(self, X: Any, present: Any = None) -> Blocks:
        """The blocks of further samples.

        Raises:
            ValueError: If a modality is unknown or has other columns than in training.
        """
        tables = self._tables(X)
        for name in tables:
            if name not in self.names_:
                raise ValueError(_unknown(name, self.names_))
        arrays = {name: _numbers(name, table) for name, table in tables.items()}
        for name, table in tables.items():
            _check_columns(name, _columns(table), self.columns_[name])
        rows = len(next(iter(arrays.values())))
        for name in self.names_:
            if name not in arrays:
                arrays[name] = np.full((rows, _width(self.columns_[name])), np.nan)
        arrays = {name: arrays[name] for name in self.names_}
        mask = self._present(arrays, present)
        _check_finite(tables, arrays, mask)
        return self._blocks(arrays, mask)

    def _tables(self, X: Any) -> dict[str, Any]:
        """Splits ``X`` into one table a modality and checks that their rows agree."""
        if is_dict(X):
            if self.modalities is not None:
                raise ValueError(
                    "`modalities` names the columns of one two-dimensional X, but X is a dict"
                )
            if not X:
                raise ValueError("X has no modality")
            tables = {name: _table(table) for name, table in X.items()}
        else:
            tables = self._grouped(X)
        for name, table in tables.items():
            check_dimensions(table, f"modality {name!r}")
        lengths = {name: table.shape[0] for name, table in tables.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"modalities have different numbers of rows: {lengths}")
        frames = {k: t for k, t in tables.items() if isinstance(t, pd.DataFrame)}
        first = next(iter(frames), "")
        for name, frame in frames.items():
            if not frame.index.equals(frames[first].index):
                raise ValueError(f"the index of modality {name!r} differs from that of {first!r}")
        return tables

    def _grouped(self, X: Any) -> dict[str, Any]:
        check_dimensions(X, "X")
        if not isinstance(X, pd.DataFrame):
            X = check_array(X, ensure_all_finite=False, dtype=None, estimator="CM2Classifier")
        if self.modalities is None:
            return {"features": X}
        width = X.shape[1]
        tables = {}
        for name, group in self.modalities.items():
            try:
                if isinstance(group, slice) and (group.stop or 0) > width:
                    raise IndexError
                if isinstance(X, pd.DataFrame):
                    named = not isinstance(group, slice) and all(isinstance(c, str) for c in group)
                    tables[name] = X.loc[:, list(group)] if named else X.iloc[:, group]
                else:
                    tables[name] = X[:, group]
            except (IndexError, KeyError) as error:
                raise ValueError(
                    f"modality {name!r}: columns {group} are not all among the {width} of X"
                ) from error
            if not tables[name].shape[1]:
                raise ValueError(
                    f"modality {name!r}: {group} picks no column of X, which has n_features={width}"
                )
        return tables

    def _present(self, arrays: dict[str, ndarray], mask: Any) -> Bool[ndarray, "n modality"]:
        """Which modalities each sample has.

        Raises:
            ValueError: If a sample has none.
        """
        given = np.stack([~np.isnan(array).all(axis=1) for array in arrays.values()], axis=1)
        if mask is not None:
            if isinstance(mask, Mapping):
                for name in mask:
                    if name not in arrays:
                        raise ValueError(_unknown(name, list(arrays)))
                full = {name: mask.get(name, np.ones(len(given), bool)) for name in arrays}
                mask = np.stack([np.asarray(part) for part in full.values()], axis=1)
            mask = np.asarray(mask)
            if mask.shape != given.shape or mask.dtype != bool:
                raise ValueError(
                    f"present must be boolean of shape {given.shape}, "
                    f"got {mask.dtype} of shape {mask.shape}"
                )
            given &= mask
        none = np.flatnonzero(~given.any(axis=1))
        if len(none):
            raise ValueError(
                f"{len(none)} samples have no modality at all (rows {_few(none.tolist())}); "
                "remove them first"
            )
        return given

    def _blocks(self, arrays: dict[str, ndarray], present: ndarray) -> Blocks:
        values = {}
        for m, (name, array) in enumerate(arrays.items()):
            here = present[:, m]
            block = np.zeros((len(array), self.widths_[name]), dtype=np.float32)
            if here.any():
                block[here] = self.scalers_[name].transform(array[here])
            values[name] = block
        return Blocks(values, present)


def _scaler() -> FeatureUnion:
    """Scales are learned from what was seen: filled gaps would make every column look narrower."""
    filled = SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True)
    return make_union(
        make_pipeline(RobustScaler(), filled),
        make_pipeline(MissingIndicator(error_on_new=False), RobustScaler()),
    )


def is_dict(X: Any) -> bool:
    """Whether samples come as a dict of modalities (one format of sparse arrays is a dict too)."""
    return isinstance(X, Mapping) and not issparse(X)


def check_dimensions(table: Any, what: str) -> None:
    """Refuses what is not a table of samples and columns, without printing its values."""
    shape = _table(table).shape
    if len(shape) != 2:
        raise ValueError(
            f"{what} must be two-dimensional (samples, columns), but its shape is {shape}. "
            "Reshape your data"
        )


def _table(X: Any) -> Any:
    """DataFrames and sparse matrices as they are, anything else as an array."""
    return X if isinstance(X, pd.DataFrame) or issparse(X) else np.asarray(X)


def _numbers(name: str, table: Any) -> Float[ndarray, "n feature"]:
    """A modality as float64.

    Raises:
        ValueError: If it is not numeric or empty; values are not shown.
    """
    worded = [column for column in range(table.shape[1]) if _has_text(table, column)]
    if worded:
        raise ValueError(
            f"modality {name!r} has text in columns {_names(table, worded)}; encode them as numbers"
        )
    try:
        array: ndarray = check_array(
            table, ensure_all_finite=False, dtype=np.float64, ensure_min_samples=1
        )
    except (ValueError, TypeError) as error:
        raise type(error)(f"modality {name!r}: {error}") from error
    return array


def _has_text(table: Any, column: int) -> bool:
    if isinstance(table, pd.DataFrame):
        values = table.iloc[:, column]
        if pd.api.types.is_numeric_dtype(values.dtype):
            return False
    elif table.dtype.kind not in "OUS":
        return False
    else:
        values = table[:, column]
    try:
        np.asarray(values, dtype=np.float64)
    except ValueError:
        return True
    except TypeError:  # no number at all: the caller's conversion says so
        return False
    return False


def _check_finite(
    tables: Mapping[str, Any], arrays: Mapping[str, ndarray], present: Bool[ndarray, "n modality"]
) -> None:
    """Refuses infinite values where a modality is present."""
    for here, (name, array) in zip(present.T, arrays.items(), strict=True):
        infinite = np.flatnonzero(np.isinf(array[here]).any(axis=0))
        if len(infinite):
            columns = _names(tables[name], infinite.tolist())
            raise ValueError(f"modality {name!r} has infinite values in columns {columns}")


def _names(table: Any, columns: list[int]) -> str:
    """The first few of some columns, by name if they have one."""
    names = list(table.columns) if isinstance(table, pd.DataFrame) else range(table.shape[1])
    return _few([names[column] for column in columns])


def _few(names: list[Any]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (", .." if len(names) > _SHOWN else "")


def _columns(table: Any) -> list[str] | int:
    if isinstance(table, pd.DataFrame):
        return [str(column) for column in table.columns]
    return table.shape[1]


def _width(columns: list[str] | int) -> int:
    return columns if isinstance(columns, int) else len(columns)


def _check_columns(name: str, found: list[str] | int, expected: list[str] | int) -> None:
    if _width(found) != _width(expected):
        raise ValueError(
            f"modality {name!r} has {_width(found)} columns; "
            f"the fitted model expects {_width(expected)}"
        )
    if isinstance(found, list) and isinstance(expected, list) and found != expected:
        differing = next(pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1])
        raise ValueError(
            f"modality {name!r}: column {differing[0]!r} stands where the fitted model expects "
            f"{differing[1]!r}"
        )


def _unknown(name: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"unknown modality {name!r}{hint} The model knows: {', '.join(known)}"
