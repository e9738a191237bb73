"""What measures are given: outcomes, probabilities, scores and weights, checked where they come in.

Outcomes in another coding give a number like any other: -1 is the place of the last column, ``~``
of an integer negates nothing, and a series is aligned by its index. Therefore all that measures
reads what it is given here, once, before it repeats itself over replicates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray

NEAR = 0.01
"""How far from one the probabilities of a row may sum: rounding to half precision or to three
digits stays within it, and logits, counts or columns of something else do not."""
ROUNDING = 1e-6
"""How far beyond zero and one a probability may lie: means in single precision do."""
_NUMBERS = {"boolean", "integer", "floating", "mixed-integer-float"}
"""What pandas calls an array of objects that are all numbers."""


def outcomes(target: Any, what: str = "target") -> Bool[ndarray, " n"]:
    """Outcomes of one label as booleans.

    Args:
        target: Zeros and ones, or booleans.
        what: Its name in errors.

    Raises:
        ValueError: If there is none, or one is neither.
    """
    found = _one_dimension(target, what)
    return _coded(found, 2, what, f"outcomes 0 and 1: give {what} == the class in question") == 1


def codes(target: Any, classes: int) -> Int[ndarray, " n"]:
    """Classes as places among the columns of probabilities.

    Args:
        target: Whole numbers from 0, or booleans for two classes.
        classes: How many columns there are.

    Raises:
        ValueError: If there is none, or one is no such number.
    """
    hint = f"class codes 0 to {classes - 1}, the places of the columns of probability: "
    return _coded(
        _one_dimension(target, "target"),
        classes,
        "target",
        hint + "np.unique(y, return_inverse=True)[1] makes codes of labels",
    )


def several(target: Any) -> Int[ndarray, "n label"]:
    """Outcomes of several labels, a column each, as zeros and ones."""
    return _coded(_numbers(target, "target"), 2, "target", "0 and 1 in each column of a label")


def probabilities(probability: Any, what: str = "probability") -> Float[ndarray, "n ..."]:
    """Probabilities of any shape.

    Raises:
        ValueError: If one is not finite, or not from 0 to 1.
    """
    found = _finite(probability, what)
    wrong = int(((found < -ROUNDING) | (found > 1 + ROUNDING)).sum())
    if wrong:
        raise ValueError(
            f"{what} should lie from 0 to 1, but {wrong} of {found.size} numbers do not: scores "
            "and logits are no probabilities"
        )
    return found


def by_class(probability: Any) -> Float[ndarray, "n label"]:
    """Probabilities with a column a class; of one dimension they are those of class 1 of two.

    Raises:
        ValueError: If a row does not sum to one.
    """
    found = probabilities(probability)
    if found.ndim == 1:
        return np.stack([1 - found, found], axis=1)
    if found.ndim != 2 or found.shape[1] < 2:
        raise ValueError(
            f"probability should have a column for each class, or one dimension for the "
            f"probability of class 1; its shape is {found.shape}"
        )
    wrong = int((np.abs(found.sum(axis=1) - 1) > NEAR).sum())
    if wrong:
        raise ValueError(
            f"the classes of a row should have probabilities that sum to one, but they do not in "
            f"{wrong} of {len(found)} rows"
        )
    return found


def of_outcome(probability: Any, rows: int, what: str = "probability") -> Float[ndarray, " n"]:
    """The probability of the outcome, one a row."""
    return _as_long(probabilities(probability, what), rows, what)


def scores(score: Any, rows: int, what: str = "score") -> Float[ndarray, " n"]:
    """Finite scores of any scale, one a row."""
    return _as_long(_finite(score, what), rows, what)


def runs(score: Any, rows: int, what: str) -> Float[ndarray, "run n"]:
    """Finite scores of any scale, a row a run."""
    found = _finite(score, what)
    if found.ndim != 2 or found.shape[1] != rows or not len(found):
        raise ValueError(
            f"{what} should have shape (runs, {rows}), a row for each run and a number for each "
            f"outcome; it has {found.shape}"
        )
    return found


def weights(weight: Any, rows: int) -> Float[ndarray, "replicate n"]:
    """Weights of the samples, a row a replicate; one row of ones if there are none."""
    if weight is None:
        return np.ones((1, rows))
    found = _numbers(weight, "weight")
    if found.ndim != 2 or found.shape[1] != rows or not ((found >= 0) & (found < np.inf)).all():
        raise ValueError(
            f"weight should have shape (replicates, {rows}) and no number that is negative, "
            f"infinite or missing; its shape is {found.shape}"
        )
    # Sums of many in half or single precision would be off.
    return found.astype(np.float64, copy=False)


def _coded(found: ndarray, classes: int, what: str, wanted: str) -> Int[ndarray, "n ..."]:
    """Whole numbers below a number of classes."""
    if found.dtype.kind != "b" and (wrong := int((~np.isin(found, np.arange(classes))).sum())):
        raise ValueError(f"{wrong} of {found.size} in {what} are not {wanted}")
    return found.astype(np.int64)


def _one_dimension(given: Any, what: str) -> ndarray:
    found = _numbers(given, what)
    if found.ndim != 1 or not len(found):
        raise ValueError(
            f"{what} should have one dimension and at least one sample; its shape is {found.shape}"
        )
    return found


def _as_long(found: ndarray, rows: int, what: str) -> ndarray:
    if found.shape != (rows,):
        raise ValueError(
            f"{what} should have shape ({rows},), a number for each outcome; it has {found.shape}"
        )
    return found


def _finite(given: Any, what: str) -> Float[ndarray, "n ..."]:
    found = _numbers(given, what).astype(np.float64)
    wrong = int((~np.isfinite(found)).sum())
    if wrong:
        raise ValueError(f"{what} should be finite, but {wrong} of {found.size} numbers are not")
    return found


def _numbers(given: Any, what: str) -> ndarray:
    """An array of numbers or booleans, without the index that it may have had."""
    if np.ma.is_masked(given):  # an array of it would hold what the mask hides
        raise ValueError(f"{what} has masked entries; leave out their rows")
    found = np.asarray(given)
    objects = found.dtype.kind == "O"  # as pandas' own types of numbers come
    if objects and pd.api.types.infer_dtype(found.ravel(), skipna=False) in _NUMBERS:
        found = found.astype(np.float64)
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{what} should be numbers; it is an array of dtype {found.dtype}")
    return found
