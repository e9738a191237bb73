"""A forest as arrays: the probabilities of the forest that it was taken from, to the last bit."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from cm2.estimators.heads.forest import TOGETHER, Forest


@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize("rows", [0, 1, 300, TOGETHER // 2 + 1])
def test_it_says_the_same_to_the_last_bit(labels: int, rows: int) -> None:
    rng = np.random.default_rng(labels)
    x = np.round(rng.normal(size=(200, 3)), 1)  # so that rows lie on thresholds
    y = rng.permutation(np.arange(200) % labels) * 3
    forest = RandomForestClassifier(30, min_samples_leaf=5, random_state=0).fit(x, y)
    test = np.round(rng.normal(size=(rows, 3)), 1)
    found = Forest(forest).predict_proba(test)
    assert found.shape == (rows, labels)
    if rows:
        np.testing.assert_array_equal(found, forest.predict_proba(test))


def test_thresholds_are_compared_as_they_are_in_double_precision() -> None:
    """The threshold between neighbours in single precision lies between them, and rounds to one."""
    low = np.float32(1.0)
    for _ in range(8):
        x = np.array([low, np.nextafter(low, np.float32(2.0))], np.float64).repeat(10)[:, None]
        y = np.arange(2).repeat(10)
        forest = RandomForestClassifier(5, random_state=0).fit(x, y)
        np.testing.assert_array_equal(Forest(forest).predict_proba(x), forest.predict_proba(x))
        low = np.nextafter(low, np.float32(2.0))


def test_a_forest_of_stumps_without_a_split() -> None:
    forest = RandomForestClassifier(3, random_state=0).fit(np.zeros((4, 1)), [0, 0, 1, 1])
    x = np.array([[0.5], [-2.0]])
    np.testing.assert_array_equal(Forest(forest).predict_proba(x), forest.predict_proba(x))
