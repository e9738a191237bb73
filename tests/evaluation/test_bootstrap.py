"""The bootstrap against fresh data: what intervals cover, and what they say where they cannot."""

import numpy as np
import pytest
from scipy.special import expit

from cm2.evaluation import bootstrap, metrics

SETS, REPLICATES = 400, 200


def _patients(rng: np.random.Generator, patients: int, rows: int) -> tuple[np.ndarray, ...]:
    """Outcomes and predictions of a patient's rows, which share outcome and most of the score."""
    y = (rng.random(patients) < 0.4).astype(int)
    own = 1.2 * (y - 0.5) + rng.normal(size=patients)
    score = own[:, None] + 0.3 * rng.normal(size=(patients, rows))
    return np.repeat(y, rows), expit(score - 0.4).ravel(), np.repeat(np.arange(patients), rows)


@pytest.fixture(scope="module")
def intervals() -> dict[str, np.ndarray]:
    """Value, low and high of each measure on 400 fresh sets of 100 patients with five rows."""
    rng = np.random.default_rng(0)
    found = []
    for seed in range(SETS):
        y, p, patient = _patients(rng, 100, 5)
        found.append(metrics.evaluate(y, p, groups=patient, replicates=REPLICATES, seed=seed))
    return {name: np.array([one[name][:3] for one in found]) for name in metrics.MEASURES}


@pytest.mark.parametrize("name", metrics.MEASURES)
def test_trap_intervals_cover_what_they_say_with_five_rows_a_patient(
    intervals: dict[str, np.ndarray], name: str
) -> None:
    """Percentiles of some patients cover a little less than .95; up to .02 is allowed for that.

    The share covered has a standard error of .011; four of them below .93 are .886. Single rows in
    the place of patients cover .6.
    """
    rng = np.random.default_rng(1)
    y, p, _ = _patients(rng, 100_000, 1)
    truth = metrics.measure(y, p)[name][0]
    _, low, high = intervals[name].T
    assert 0.886 < np.mean((low <= truth) & (truth <= high)) < 0.99


@pytest.mark.parametrize("name", metrics.MEASURES)
def test_trap_intervals_are_as_wide_as_fresh_data_vary(
    intervals: dict[str, np.ndarray], name: str
) -> None:
    """Within classes, Brier score and log loss of a good prior vary hardly at all.

    The deviation over 400 sets has a relative error of 3.5%, and the bootstrap's lacks a share of
    order 1 / 100; .85 allows four errors.
    """
    value, low, high = intervals[name].T
    width = np.mean(high - low) / (2 * 1.96)
    assert 0.85 < width / value.std(ddof=1) < 1.15


def test_trap_a_constant_prediction_has_an_interval() -> None:
    """The Brier score of a prior is known up to the share of positives alone."""
    y = np.repeat([0, 1], [80, 20])
    found = metrics.evaluate(y, np.full(100, 0.2), replicates=2000)["brier"]
    # Each row's loss is .04 or .64, so that the error is .6 * sqrt(.2 * .8 / 100); with 2,000
    # replicates the width has a relative error of about 3%.
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.6 * 0.04, rel=0.12)


def test_patients_are_drawn_whole_and_first_the_data_as_they_are() -> None:
    counts = bootstrap.draws(30, 50)
    assert counts.shape == (51, 30)
    assert (counts[0] == 1).all()
    assert (counts.sum(axis=1) == 30).all()
    assert (bootstrap.draws(30, 20) == counts[:21]).all(), "fewer replicates are the first ones"
    names = np.array(["b", "a", "b", "c"])
    assert bootstrap.numbered(names, 4).tolist() == [1, 0, 1, 2]
    assert bootstrap.numbered(None, 3).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="one entry for each of 5 rows"):
        bootstrap.numbered(names, 5)


def test_replicates_without_a_class_are_left_out_and_counted() -> None:
    y, p = np.array([0, 0, 1]), np.array([0.1, 0.4, 0.7])
    counts = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1]])
    values = metrics.replicate(y, p, counts, np.arange(3))["auroc"]
    assert np.isnan(values[1])
    found = bootstrap.interval(values, rarest=bootstrap.rarest(y, np.arange(3)))
    assert found[:3] == (1.0, 1.0, 1.0)
    few, lacking = found.notes
    assert few.startswith("only 1 patients have the rarest outcome")
    assert lacking == "1 of 2 replicates lack an outcome and are left out"


def test_nothing_is_noted_where_outcomes_are_many() -> None:
    y = np.repeat([0, 1], [60, 20])
    found = metrics.evaluate(y, np.linspace(0, 1, 80), replicates=50)
    assert all(one.notes == () for one in found.values())
    twice = metrics.evaluate(y, np.linspace(0, 1, 80), groups=np.arange(80) // 2, replicates=50)
    assert all(one.notes for one in twice.values()), "ten patients have the outcome"


def test_the_rarest_outcome_of_labels_is_that_of_a_label_with_both() -> None:
    target = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 0], [1, 0, 1]])
    assert bootstrap.rarest(target, np.arange(4)) == 1
    assert bootstrap.rarest(target[:, 0], np.arange(4)) == 2
    assert bootstrap.rarest(target[:, 1:2], np.arange(4)) == 0
