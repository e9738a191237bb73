"""Checks of patients, labels and weights: what is missing is refused, and what is given counts."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import DataConversionWarning

from cm2 import CM2Classifier, Samples
from cm2.estimators import baselines
from cm2.evaluation import metrics
from cm2.samples.targets import checked_groups, checked_labels, weighted

ROWS = 6
Y = np.arange(ROWS) % 2
X = {"labs": np.arange(2.0 * ROWS).reshape(ROWS, 2)}
MISSING: dict[str, Any] = {
    "not a number": np.array([1.0, 1.0, np.nan, 2.0, np.nan, 3.0]),
    "none": [7, 7, None, 8, None, 9],
    "a gap among texts": ["Ann", "Ann", np.nan, "Bob", np.nan, "Cy"],
    "not a time": np.array(["2020", "2020", "NaT", "2021", "NaT", "2022"], "M8[ns]"),
    "a column": pd.Series([1, 1, None, 2, None, 3], dtype="Int64"),
    "categories": pd.Categorical(["Ann", "Ann", None, "Bob", None, "Cy"]),
}


def array(groups: Any) -> np.ndarray:
    """The same as an array, for what takes arrays only."""
    return pd.Series(groups).to_numpy()


PLACES: dict[str, Callable[[Any], Any]] = {
    "a check": lambda groups: checked_groups(groups, ROWS),
    "the classifier": lambda groups: CM2Classifier(head="joint").fit(X, Y, groups=groups),
    "a rival": lambda groups: baselines.LateFusion().fit(X, Y, groups=array(groups)),
    "samples": lambda groups: Samples(X, y=Y, groups=groups),
    "intervals": lambda groups: metrics.evaluate(Y, np.full(ROWS, 0.5), groups=array(groups)),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", MISSING)
def test_a_missing_patient_is_refused_and_none_is_named(kind: str, place: str) -> None:
    with pytest.raises(ValueError, match="groups has 2 missing values, first at row 2") as caught:
        PLACES[place](MISSING[kind])
    assert not re.search("Ann|Bob|Cy|nan|202|[7-9]", str(caught.value))


@pytest.mark.parametrize("kind", MISSING)
def test_known_patients_are_taken_as_they_are(kind: str) -> None:
    known = pd.Series(MISSING[kind]).ffill().to_numpy()
    np.testing.assert_array_equal(checked_groups(known, ROWS), known)


@pytest.mark.parametrize("labels", [[0, 1, 2], ["0", "1", "2"], ["a", "b", "c"]])
def test_weights_of_classes_are_those_of_the_labels_as_they_are(labels: list[Any]) -> None:
    codes, classes = np.array([0, 1, 2, 1]), np.array(labels)
    by_label = {labels[1]: 3.0, labels[2]: 0.5}
    found = weighted(np.ones(4), codes, classes, by_label)
    np.testing.assert_allclose(found, np.array([1, 3, 0.5, 3]) / 1.875)
    with pytest.raises(ValueError, match="class_weight names 1 classes that no sample has"):
        weighted(np.ones(4), codes, classes, by_label | {"other": 1.0})
    every = by_label | {labels[0]: 1.0, "other": 1.0}  # of a fold that lacks a class
    np.testing.assert_allclose(weighted(np.ones(4), codes, classes, every), found)


def test_several_labels_may_be_columns_of_several_types() -> None:
    frame = pd.DataFrame({"died": [True, False, True], "ill": [0, 1, 0]})
    wanted = frame.to_numpy(int)
    for one in (frame, frame.convert_dtypes(), frame.astype(float), frame.astype(object)):
        np.testing.assert_array_equal(checked_labels(one, 3), wanted)
    for kind in (bool, np.int64, np.uint64):
        with pytest.warns(DataConversionWarning):  # one column of classes
            assert checked_labels(frame[["ill"]].astype(kind), 3).dtype == kind
    with pytest.raises(ValueError, match="NaN: 1 labels, first at row 1"):
        checked_labels(frame.convert_dtypes().mask(frame["ill"] == 1), 3)
