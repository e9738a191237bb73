"""Whatever the coding of outcomes, measures say the same, or what is wrong with it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cm2.evaluation import bootstrap, calibrated, checked, metrics, significance
from cm2.evaluation.figures import calibration

RNG = np.random.default_rng(5)
Y = RNG.integers(0, 2, 120)
P = 1 / (1 + np.exp(-(RNG.normal(size=120) + Y)))
ONES = np.ones((1, 120))
Q = RNG.random(120)

ALIKE: dict[str, Callable[[Any, Any], Any]] = {
    "auroc": lambda y, p: metrics.auroc(y, p, ONES),
    "aupr": lambda y, p: metrics.aupr(y, p, ONES),
    "brier": lambda y, p: metrics.brier(y, p, ONES),
    "measure": lambda y, p: list(metrics.measure(y, p).values()),
    "evaluate": lambda y, p: [one.value for one in metrics.evaluate(y, p, replicates=3).values()],
    "replicate": lambda y, p: metrics.replicate(y, p, bootstrap.draws(120, 2), np.arange(120))[
        "log_loss"
    ],
    "delong": lambda y, p: significance.delong(y, [p], [Q]),
    "slope": calibrated.slope,
    "by_missing": lambda y, p: calibrated.by_missing(
        y, p, Y * 0, bootstrap.draws(120, 2), np.arange(120)
    )[0][1:4],
    "reliability": lambda y, p: calibration.reliability(y, p, bins=4),
}
"""All that takes outcomes of one label; each of them has to meet what follows."""

CODINGS = {
    "bool": Y == 1,
    "int": Y,
    "uint8": Y.astype(np.uint8),
    "float": Y.astype(float),
    "list": Y.tolist(),
    "series in another order": pd.Series(Y, index=np.arange(120)[::-1]),
    "nullable": pd.Series(Y, dtype="Int64"),
    "objects": Y.astype(object),
}
WRONG: dict[str, Any] = {
    "minus one and one": 2 * Y - 1,
    "one and two": Y + 1,
    "halves": Y / 2,
    "missing": np.where(np.arange(120) < 3, np.nan, Y),
    "nullable, missing": pd.Series([None, *Y[1:]], dtype="Int64"),
    "texts": np.array(["no", "secret"])[Y],
    "objects": np.array(["no", "secret"], object)[Y],
    "masked": np.ma.masked_array(Y, mask=np.arange(120) < 3),
    "none": Y[:0],
}


@pytest.mark.parametrize("name", ALIKE)
def test_codings_of_outcomes_give_one_value(name: str) -> None:
    expected = np.asarray(ALIKE[name](Y == 1, P), float)
    assert np.isfinite(expected.flat[0])
    for how, coded in CODINGS.items():
        found = ALIKE[name](coded, pd.Series(P, index=np.arange(120) + 7))
        np.testing.assert_array_equal(np.asarray(found, float), expected, err_msg=how)


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.parametrize("name", ALIKE)
def test_other_outcomes_are_refused_without_being_shown(name: str, how: str) -> None:
    with pytest.raises(ValueError, match=r"target|outcome") as error:
        ALIKE[name](WRONG[how], P[: len(WRONG[how])])
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("name", ALIKE)
def test_other_probabilities_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="should be finite, but 1 of 120"):
        ALIKE[name](Y, np.where(np.arange(120) == 4, np.nan, P))
    with pytest.raises(ValueError, match=r"shape|rows"):
        ALIKE[name](Y, P[:1])
    with pytest.raises(ValueError, match="should be numbers"):
        ALIKE[name](Y, P.astype(str))
    if name not in ("auroc", "aupr", "delong", "brier"):  # any scores rank
        with pytest.raises(ValueError, match="should lie from 0 to 1"):
            ALIKE[name](Y, np.log(P / (1 - P)))


def test_classes_are_places_of_columns_and_rows_sum_to_one() -> None:
    three = np.full((4, 3), 1 / 3)
    assert metrics.measure([0, 1, 1, 2], three)["log_loss"][0] == pytest.approx(np.log(3))
    for wrong in ([0, 1, 3, 0], [0, 1, -1, 0], [0, 1, 0.5, 0]):
        with pytest.raises(ValueError, match="1 of 4 in target are not class codes 0 to 2"):
            metrics.measure(wrong, three)
    with pytest.raises(ValueError, match="sum to one, but they do not in 4 of 4 rows"):
        metrics.measure([0, 1, 1, 2], np.full((4, 3), 0.5))
    rounded = np.array([[0.333, 0.333, 0.333]] * 4)
    metrics.measure([0, 1, 1, 2], rounded)
    metrics.measure([0, 1, 1, 2], np.float16(three))
    with pytest.raises(ValueError, match="a column for each class"):
        metrics.measure(Y, P[:, None])


def test_several_labels_are_zeros_and_ones() -> None:
    y, p = np.stack([Y, 1 - Y], axis=1), np.stack([P, Q], axis=1)
    expected = metrics.measure(y, p)
    for coded in (y == 1, pd.DataFrame(y), y.tolist(), y.astype(float)):
        found = metrics.measure(coded, pd.DataFrame(p))
        assert {k: v[0] for k, v in found.items()} == {k: v[0] for k, v in expected.items()}
    for wrong in (y + 1, 2 * y - 1, np.where(y == 1, np.nan, 0.0)):
        with pytest.raises(ValueError, match="0 and 1 in each column of a label"):
            metrics.measure(wrong, p)
    with pytest.raises(ValueError, match="should lie from 0 to 1"):
        metrics.measure(y, 3 * p)


def test_weights_have_a_row_a_replicate() -> None:
    for wrong in (np.ones(120), np.ones((2, 119)), -ONES, ONES * np.nan):
        with pytest.raises(ValueError, match=r"weight should have shape \(replicates, 120\)"):
            metrics.measure(Y, P, wrong)
    with pytest.raises(ValueError, match="groups should have one entry for each of 120 rows"):
        metrics.replicate(Y, P, bootstrap.draws(120, 2), np.arange(119))


def test_scores_of_runs_are_rows() -> None:
    with pytest.raises(ValueError, match=r"first should have shape \(runs, 120\)"):
        significance.delong(Y, P, [Q])
    with pytest.raises(ValueError, match=r"second should have shape \(runs, 120\)"):
        significance.delong(Y, [P], Q[None, :50])


def test_runs_are_paired_one_to_one() -> None:
    with pytest.raises(ValueError, match="the same of both methods"):
        metrics.paired([1.0, 0.2, 0.3], [0.1])
    series = pd.Series([0.8, 0.9, 0.7], index=[2, 1, 0])
    found = metrics.paired(series, pd.Series([0.7, 0.7, 0.7])).difference
    assert found == pytest.approx(0.1)


@pytest.mark.parametrize("replicates", [0, -1])
def test_nothing_is_drawn_of_no_replicate(replicates: int) -> None:
    with pytest.raises(ValueError, match=f"replicates should be at least 1, got {replicates}"):
        metrics.evaluate(Y, P, replicates=replicates)
    with pytest.raises(ValueError, match="patients should be at least 1"):
        bootstrap.draws(0, 10)


def test_a_mean_in_single_precision_is_a_probability() -> None:
    beyond = np.nextafter(np.float32(1), np.float32(2))
    assert checked.probabilities([beyond, 0.0]).tolist() == [float(beyond), 0.0]
