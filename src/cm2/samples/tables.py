"""Tables as numbers: one modality at a time, and what cannot be a number is refused by its column.

A table is an array, a DataFrame or a sparse matrix of samples and columns; lists are arrays, and
frames of polars or pyarrow DataFrames.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.sparse import issparse
from sklearn.utils.validation import check_array

from cm2.core.given import plain

_SHOWN = 5
_TIMES = (
    datetime.date,
    datetime.time,
    datetime.timedelta,
    np.datetime64,
    np.timedelta64,
    pd.Period,
    type(pd.NaT),
)
_FAULTS = {
    "text": "has text in columns {}; encode them as numbers",
    "times": "has dates or durations in columns {}; give numbers, such as days since admission",
    "complex": "has complex numbers in columns {}: Complex data not supported",
    "objects": "has objects in columns {}, where each argument must be a string or a number",
}


def as_table(X: Any) -> Any:
    """DataFrames as they are, sparse matrices by columns, anything else as an array."""
    X = plain(X)
    if isinstance(X, pd.DataFrame):
        return X
    return X.tocsc() if issparse(X) else np.asarray(X)


def is_dict(X: Any) -> bool:
    """Whether samples come as a dict of modalities (one format of sparse arrays is a dict too)."""
    return isinstance(X, Mapping) and not issparse(X)


def present(X: Mapping[str, Float[ndarray, "n _"]]) -> Bool[ndarray, "n modality"]:
    """Which modalities each sample has: those of which it has any number."""
    return np.stack([~np.isnan(block).all(axis=1) for block in X.values()], axis=1)


def check_dimensions(X: Any, what: str) -> None:
    """Refuses what is not a table of samples and columns, without printing its values."""
    shape = X.shape if issparse(X) else as_table(X).shape
    if len(shape) != 2:
        raise ValueError(
            f"{what} must be two-dimensional (samples, columns), but its shape is {shape}. "
            "Reshape your data"
        )


def parted(X: Any, groups: Mapping[str, Any]) -> dict[str, Any]:
    """One table for each group of columns.

    Args:
        X: A table.
        groups: Slices, positions, masks or names of columns by modality.

    Raises:
        ValueError: If a group has no column, or one that is not there, or one of another group.
    """
    if not groups:
        raise ValueError("`modalities` is empty: it should name the columns of each modality")
    tables: dict[str, Any] = {}
    owner: dict[int, str] = {}
    for name, group in groups.items():
        chosen = _positions(X, name, group)
        if not chosen:
            raise ValueError(
                f"modality {name!r}: {group} picks no column of X, which has "
                f"n_features={X.shape[1]}"
            )
        for column in chosen:
            if column in owner:
                raise ValueError(
                    f"column {names(X, [column])} of X is in modality {owner[column]!r} and again "
                    f"in {name!r}; a column is of one modality, once"
                )
            owner[column] = name
        tables[name] = X.iloc[:, chosen] if isinstance(X, pd.DataFrame) else X[:, chosen]
    return tables


def _positions(X: Any, name: str, group: Any) -> list[int]:
    """The columns of a group by their positions."""
    width = X.shape[1]
    try:
        if isinstance(group, slice):
            if (group.stop or 0) > width:
                raise IndexError
            return list(range(width)[group])
        chosen = [group] if isinstance(group, str) or np.ndim(group) == 0 else list(group)
        if isinstance(X, pd.DataFrame) and chosen and all(isinstance(c, str) for c in chosen):
            _check_distinct(X.columns[X.columns.isin(chosen)], "X")
            place = {column: k for k, column in enumerate(X.columns)}
            return [place[column] for column in chosen]
        return [int(k) for k in np.arange(width)[np.asarray(chosen)]] if chosen else []
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(
            f"modality {name!r}: columns {group} are not all among the {width} of X"
        ) from error


def numbers(name: str, table: Any) -> Float[ndarray, "n feature"]:
    """A modality as dense float64; NaN, None and pd.NA are missing.

    Raises:
        ValueError: If it is empty or a column is not of numbers; values are not shown.
        TypeError: If a column holds objects.
    """
    if issparse(table):
        table = table.toarray()
    frame = isinstance(table, pd.DataFrame)
    if frame:
        _check_distinct(table.columns, f"modality {name!r}")
    if frame or table.dtype.kind not in "biuf":
        out = np.empty(table.shape)
        faults: dict[str, list[int]] = {}
        for column in range(table.shape[1]):
            values = table.iloc[:, column] if frame else table[:, column]
            found = _floats(values)
            if isinstance(found, str):
                faults.setdefault(found, []).append(column)
            else:
                out[:, column] = found
        for fault, columns in faults.items():
            kind = TypeError if fault == "objects" else ValueError
            raise kind(f"modality {name!r} {_FAULTS[fault].format(names(table, columns))}")
        table = out
    try:
        array: ndarray = check_array(
            table, ensure_all_finite=False, dtype=np.float64, ensure_min_samples=1
        )
    except ValueError as error:
        raise ValueError(f"modality {name!r}: {error}") from error
    return array


def _floats(values: Any) -> Float[ndarray, " n"] | str:
    """A column as float64, or which of the faults it has."""
    dtype = values.dtype.subtype if isinstance(values.dtype, pd.SparseDtype) else values.dtype
    if pd.api.types.is_complex_dtype(dtype):
        return "complex"
    if pd.api.types.is_numeric_dtype(dtype):
        whole = values if isinstance(values, ndarray) else values.to_numpy(float, na_value=np.nan)
        return whole.astype(np.float64)
    plain = np.asarray(values)
    objects = plain.astype(object)
    if plain.dtype.kind in "mM" or any(isinstance(one, _TIMES) for one in objects):
        return "times"
    out = np.full(len(objects), np.nan)
    known = ~pd.isna(objects)
    try:
        out[known] = objects[known].astype(np.float64)
    except ValueError:
        return "text"
    except TypeError:
        return "objects"
    return out


def _check_distinct(columns: pd.Index, what: str) -> None:
    twice = columns[columns.duplicated()]
    if len(twice):
        raise ValueError(f"{what} has several columns called {twice[0]!r}")


def names(table: Any, columns: Iterable[int]) -> str:
    """The first few of some columns, by name if they have one."""
    known = list(table.columns) if isinstance(table, pd.DataFrame) else range(table.shape[1])
    return few([known[column] for column in columns])


def few(items: Sequence[Any]) -> str:
    """The first few, with dots if there are more."""
    return ", ".join(map(repr, items[:_SHOWN])) + (", .." if len(items) > _SHOWN else "")


def columns(table: Any) -> list[str] | int:
    """The names of a table's columns, or how many there are."""
    if isinstance(table, pd.DataFrame):
        return [str(column) for column in table.columns]
    return int(table.shape[1])


def width(columns: list[str] | int) -> int:
    """How many columns there are."""
    return columns if isinstance(columns, int) else len(columns)


def check_columns(
    what: str,
    found: list[str] | int,
    expected: list[str] | int,
    *,
    noun: str = "column",
    whose: str = "the fitted model expects",
) -> None:
    """Refuses other columns than in training.

    Args:
        what: Has the columns.
        found: Names or number of them.
        expected: Names or number of those that there should be; names are compared with names.
        noun: What one is called.
        whose: Who has or wants the expected ones.
    """
    if width(found) != width(expected):
        raise ValueError(f"{what} has {width(found)} {noun}s; {whose} {width(expected)}")
    if isinstance(found, list) and isinstance(expected, list) and found != expected:
        differing = next(pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1])
        raise ValueError(f"{what}: {noun} {differing[0]!r} stands where {whose} {differing[1]!r}")
