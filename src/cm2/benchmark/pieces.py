"""Joins the tables of a benchmark that was run in pieces."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray

from cm2.benchmark.methods import POOLED
from cm2.core.errors import InputError
from cm2.evaluation import summary

SAME = 0.001
"""By how much, and by which part, a measure may differ between machines that make the same fits."""

COUNTS = ["rate", "splits", "rows", "positives", "patients"]
"""What has to be the same."""


def merged(table: pd.DataFrame, earlier: pd.DataFrame, method: str = POOLED) -> pd.DataFrame:
    """Joins tables of two runs of a benchmark, made in pieces: other data sets, or other rivals.

    A cell of which the later run has all methods is the later's. One whose rivals were made in
    two runs is joined: the method, which both have, is compared with the better one, and no rival
    is compared any more.

    Args:
        table: The later table of :func:`.results.measured`.
        earlier: The other.
        method: Which both have of a data set in pieces.

    Raises:
        InputError: If pieces of a data set have other patterns, or others than the method in
            common, or the method differs between them.
    """
    cell = ["data", "pattern"]
    for name in sorted(set(table["data"]) & set(earlier["data"])):
        patterns = [set(one.loc[one["data"] == name, "pattern"]) for one in (table, earlier)]
        if patterns[0] != patterns[1]:
            raise InputError(f"{name}: the pieces need the same patterns")
    was = dict(iter(earlier.groupby(cell, sort=False)))
    now = [
        _joined(rows, was.pop(place, None), method)
        for place, rows in table.groupby(cell, sort=False)
    ]
    return pd.concat([*now, *was.values()], ignore_index=True)


def _joined(later: pd.DataFrame, earlier: pd.DataFrame | None, method: str) -> pd.DataFrame:
    """Joins what two runs have of one cell."""
    if earlier is None or set(earlier["method"]) <= set(later["method"]):
        return later
    name = later["data"].iloc[0]
    common = set(earlier["method"]) & set(later["method"])
    if common != {method}:
        raise InputError(
            f"{name}: the pieces should have {method} in common and nothing else, not "
            f"{', '.join(sorted(common)) or 'nothing'}; make all of the earlier's methods again, or"
            " none"
        )
    parts = [one.set_index("metric") for one in (later, earlier.reindex(columns=later.columns))]
    own, was = (part[part["method"] == method] for part in parts)
    equal = own.index.equals(was.index) and (own[COUNTS] == was[COUNTS]).all(axis=None)
    if not (equal and np.allclose(own["value"], was["value"], SAME, SAME, equal_nan=True)):
        raise InputError(
            f"{name}: {method} is not the same in both pieces; make all of a data set by one"
            " version"
        )
    # A rival's own value tells which is the better one; a piece without any has none.
    sign = own.index.map(summary.sign).to_numpy(float)
    sign[sign == 0] = np.nan
    ours, theirs = (np.nan_to_num(sign * _of_rivals(part, method), nan=-np.inf) for part in parts)
    rivals = pd.concat([part[part["method"] != method] for part in parts])
    rivals[[*summary.COMPARISON]] = np.nan
    rivals["rival"] = ""
    chosen = own.where(pd.Series(ours >= theirs, own.index), was)
    joined = pd.concat([chosen, rivals]).reset_index()
    return joined[list(later.columns)]


def _of_rivals(part: pd.DataFrame, method: str) -> Float[ndarray, " metric"]:
    """The value of the rival with which a method is compared, by metric."""
    value = part.reset_index().set_index(["metric", "method"])["value"]
    own = part[part["method"] == method]
    return value.reindex(pd.MultiIndex.from_arrays([own.index, own["rival"]])).to_numpy(float)
