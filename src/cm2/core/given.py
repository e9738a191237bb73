"""What users give, in many forms, as arrays and frames that mean the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from scipy.sparse import issparse


def plain(values: Any) -> Any:
    """Masked arrays with NaN for what is masked, tables of other libraries as of pandas.

    Anything else as it is. NumPy would take what a mask hides for a measurement, and forget what
    the columns of polars or pyarrow are called.
    """
    if np.ma.isMaskedArray(values):
        if not np.ma.is_masked(values):
            return values.data
        hidden: Any = np.nan if values.dtype.kind in "biuf" else None
        data = values.data.astype(object if hidden is None else np.float64)
        return np.where(values.mask, hidden, data)
    return values.to_pandas() if hasattr(values, "to_pandas") else values


def floats(name: str, values: Any) -> Float[ndarray, ...]:
    """A copy as float64, NaN where something is missing.

    Raises:
        ValueError: If something is no number; the error does not show it.
    """
    values = plain(values)
    try:
        if isinstance(values, pd.DataFrame | pd.Series):
            return values.to_numpy(np.float64, na_value=np.nan, copy=True)
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} should be numbers, but holds something else") from None


def told(name: str, values: Any) -> ndarray:
    """What is said of each sample, as an array; a list keeps the types that it has.

    Raises:
        ValueError: If texts stand beside something else, which NumPy would make texts of too.
    """
    values = plain(values)
    if issparse(values):
        return np.asarray(values.toarray())
    array = np.asarray(values)
    exact = array
    if array.dtype.kind in "US" and isinstance(values, list | tuple):
        exact = np.array(values, dtype=object)
    if exact.dtype.kind != "O" or exact.ndim > 1:
        return array
    missing = pd.isna(exact)
    texts = [isinstance(one, str) for one in exact[~missing]]
    if any(texts) and not all(texts):
        raise ValueError(f"{name} has texts beside other values; give all as text, or none")
    return exact if missing.any() else array


def check_index(name: str, values: Any, index: pd.Index | None, whose: str) -> None:
    """Refuses a frame or series that has the samples in another order, as its index says.

    An index of other labels says nothing of the order: one may count rows where the other names
    samples, also after rows of both were taken.

    Args:
        name: What ``values`` are called.
        values: Anything; only frames and series have an index.
        index: That of the samples, if there is one.
        whose: Who has it.
    """
    if index is None or not isinstance(values, pd.DataFrame | pd.Series):
        return
    own = values.index
    if len(own) != len(index) or own.equals(index):
        return
    alike = own.nlevels == index.nlevels
    if alike and own.isin(index).all() and index.isin(own).all():
        raise ValueError(
            f"the index of {name} has the samples in another order than {whose}: bring both into "
            "one order, or give an array if they are"
        )
