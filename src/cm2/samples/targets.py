"""Checks of what is learned from, beside the modalities: labels, weights and patients."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from cm2.core.given import floats, told


class Targets(NamedTuple):
    """What is learned beside the modalities.

    Attributes:
        kept: The rows that count, those of a weight.
        codes: Of their labels.
        classes: That the codes stand for.
        weight: Of these rows, that of their classes among it.
        groups: Their patients, if they are known.
    """

    kept: Int[ndarray, " row"]
    codes: Int[ndarray, " row ..."]
    classes: ndarray
    weight: Float[ndarray, " row"]
    groups: ndarray | None


def checked_labels(y: Any, rows: int) -> ndarray:
    """Checks labels: (n,) classes or an (n, L) matrix of zeros and ones."""
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    labels = told("y", y)
    missing = np.flatnonzero(np.atleast_2d(pd.isna(labels).T).any(axis=0))
    if len(missing):
        raise ValueError(f"Input y contains NaN: {len(missing)} labels, first at row {missing[0]}")
    several = labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind == "O"
    if several and all(isinstance(one, Number | np.bool_) for one in labels.flat):
        labels = labels.astype(np.float64)  # columns of several types
    if labels.dtype.kind == "f" and np.isinf(labels).any():
        raise ValueError("Input y contains infinity")
    check_classification_targets(labels)
    kind = type_of_target(labels, input_name="y")
    if kind == "multiclass-multioutput":
        raise ValueError(f"y of shape {labels.shape} and kind {kind!r} is not supported")
    if kind != "multilabel-indicator":
        labels = column_or_1d(labels, warn=True)
    elif not np.isin(labels, (0, 1)).all():
        raise ValueError("y of several labels must hold zeros and ones; encode each label so")
    if len(labels) != rows:
        raise ValueError(f"X has {rows} samples, but y has {len(labels)}")
    return labels


def encoded(labels: ndarray, *, constant: bool = False) -> tuple[ndarray, ndarray]:
    """Codes of labels, and the classes that they stand for.

    Args:
        labels: (n,) classes, or (n, L) zeros and ones.
        constant: Whether one of several labels may be the same for every sample.

    Raises:
        ValueError: If there is one class only.
    """
    if labels.ndim == 2:
        same = np.flatnonzero(labels.min(axis=0) == labels.max(axis=0))
        if len(same) and not constant:
            raise ValueError(f"label {same[0]} is the same class for every sample")
        return labels.astype(np.int64), np.array([0, 1])
    encoder = LabelEncoder()
    codes = np.asarray(encoder.fit_transform(labels))
    check_classes(encoder.classes_, "the labels")
    return codes, encoder.classes_


def known_codes(
    y: Any, rows: int, classes: ndarray, labels: tuple[int, ...]
) -> Int[ndarray, n * label]:
    """Codes of the labels of validation samples, which are those of a training.

    Args:
        y: What was given as their labels.
        rows: How many samples there are.
        classes: Of the training.
        labels: How many labels a sample had there, in a tuple; an empty one for a class.

    Raises:
        ValueError: If the labels are not as in training.
    """
    if y is None:
        raise ValueError("validation has no y: give Samples(X, y=y)")
    try:
        found = checked_labels(y, rows)
    except ValueError as error:
        raise ValueError(f"validation: {error}") from error
    if found.shape[1:] != labels:
        wanted = ("n", *map(str, labels))
        raise ValueError(
            f"validation has y of shape {found.shape}, but that of training is "
            f"({', '.join(wanted)}{'' if labels else ','})"
        )
    unknown = ~np.isin(found, classes)
    if unknown.any():
        raise ValueError(
            f"validation has {unknown.sum()} labels of classes that no training sample has, "
            f"first at row {np.argwhere(unknown)[0, 0]}"
        )
    codes = found if found.ndim == 2 else np.searchsorted(classes, found)
    return codes.astype(np.int64)


def check_classes(labels: ndarray, whose: str) -> None:
    """Refuses labels of one class."""
    if len(np.unique(labels)) < 2:
        raise ValueError(f"{whose} have one class only; a classifier needs at least 2 classes")


def checked_weights(sample_weight: Any, rows: int) -> ndarray:
    """Weights as float64, ones if there are none."""
    weight = np.ones(rows) if sample_weight is None else floats("sample_weight", sample_weight)
    if weight.ndim != 1:
        raise ValueError(f"sample_weight should have one dimension, got shape {weight.shape}")
    weight = row_weights(weight, rows)
    if not weight.any():
        raise ValueError("the sample weights are zero for every sample")
    return weight


def row_weights(sample_weight: Float[ndarray, " n"] | None, rows: int) -> Float[ndarray, " n"]:
    """Weights as float64, ones if there are none."""
    if sample_weight is None:
        return np.ones(rows)
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != (rows,) or not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError(
            f"sample_weight should be {rows} finite numbers >= 0, got shape {weight.shape}"
        )
    return weight


def weighted(
    weight: Float[ndarray, " n"], codes: Int[ndarray, " n ..."], classes: ndarray, class_weight: Any
) -> Float[ndarray, " n"]:
    """Weights of samples, those of their classes among them if each is of one class."""
    if class_weight is not None and codes.ndim == 1:
        weight = weight * weights_by_code(codes, classes, class_weight)[codes]
    # Heads have priors and penalties worth so many rows; only relative weights should matter.
    return np.asarray(weight / weight.mean())


def weights_by_code(
    codes: Int[ndarray, " n"], classes: ndarray, class_weight: Any
) -> Float[ndarray, " class"]:
    """Weight of each class of a training, by its code; one for a class that no sample has."""
    if isinstance(class_weight, Mapping):
        class_weight = _by_code(class_weight, classes)
    found = np.ones(len(classes))
    found[codes] = compute_sample_weight(class_weight, codes)
    return found


def _by_code(class_weight: Mapping[Any, Any], classes: ndarray) -> dict[int, float]:
    """Weights of classes by their codes; one for a class that is not named."""
    known = classes.tolist()
    unknown = [key for key in class_weight if key not in known]
    if unknown and not all(label in class_weight for label in known):
        raise ValueError(
            f"class_weight names {len(unknown)} classes that no sample has, and not all that they "
            f"have; labels are {classes.dtype}, the first such key is {type(unknown[0]).__name__}"
        )
    return {code: float(class_weight.get(label, 1)) for code, label in enumerate(known)}


def checked_groups(groups: Any, rows: int) -> ndarray:
    """The patient of each row."""
    checked = told("groups", groups)
    if checked.shape != (rows,):
        raise ValueError(f"groups must have shape ({rows},), got {checked.shape}")
    check_known(checked)
    return checked


def check_known(groups: ndarray) -> None:
    """Refuses rows whose patient is missing: NaN, None or NaT."""
    missing = np.flatnonzero(pd.isna(groups))
    if len(missing):
        raise ValueError(
            f"groups has {len(missing)} missing values, first at row {missing[0]}: it must name "
            "the patient of each row, a number of its own where that is not known"
        )


def check_patients(groups: ndarray, least: int, who: str) -> None:
    """Refuses fewer patients than can be parted."""
    found = len(np.unique(groups))
    if found < least:
        raise ValueError(
            f"groups names {found} patients, but {who} needs at least {least}: what is learned "
            "from some is tested on others"
        )
