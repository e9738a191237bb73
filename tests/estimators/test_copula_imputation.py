"""Imputation by a Gaussian copula: what is known of conditional means, and of ranks."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from numpy import ndarray
from scipy.stats import norm

from cm2.estimators.copula_imputation import CopulaImputation, CopulaImputed, NormalScores
from cm2.samples.worlds import make_world, remove

CORRELATION = np.array([[1.0, 0.8, -0.6], [0.8, 1.0, -0.4], [-0.6, -0.4, 1.0]])


def drawn(rows: int, seed: int = 0, rate: float = 0.3) -> tuple[ndarray, ndarray]:
    """Normal rows of a known correlation, whole and with gaps."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)) @ np.linalg.cholesky(CORRELATION).T
    gaps = rng.random(x.shape) < rate
    gaps[np.arange(rows), rng.integers(0, 3, rows)] = False
    return x, np.where(gaps, np.nan, x)


def test_em_finds_the_correlation_and_means_are_those_of_regression() -> None:
    _, holes = drawn(4000)
    found = CopulaImputation(strengths=(0.0,), tolerance=1e-6).fit(holes)
    # Every pair is seen in about half of the rows: a standard error below 1/sqrt(2000).
    np.testing.assert_allclose(found.copula_.correlation, CORRELATION, atol=4 / np.sqrt(2000))
    row = np.array([[0.7, np.nan, -0.2]])
    known, gone = [0, 2], 1
    gain = np.linalg.solve(CORRELATION[np.ix_(known, known)], CORRELATION[known, gone])
    filled = found.transform(row)
    assert filled[0, gone] == pytest.approx(row[0, known] @ gain, abs=0.1)
    np.testing.assert_array_equal(filled[0, known], row[0, known])


def test_means_are_those_of_the_copula() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6))
    holes = np.where(rng.random(x.shape) < rng.random((200, 1)), np.nan, x)
    assert {0, 1, 5, 6} <= set((~np.isnan(holes)).sum(axis=1)), "from no value to all"
    found = CopulaImputation().fit(holes)
    scores = torch.from_numpy(found.scores_.transform(holes))
    mean = found.copula_.mean_normal(scores, ~scores.isnan()).numpy()
    expected = np.where(np.isnan(holes), found.scores_.inverse_transform(mean), holes)
    np.testing.assert_allclose(found.transform(holes), expected, rtol=1e-9, atol=1e-9)


def test_correlated_columns_are_filled_better_than_by_means() -> None:
    _, holes = drawn(600)
    test, gaps = drawn(600, seed=1)
    gone = np.isnan(gaps)
    for shape in (np.copy, np.exp, lambda part: part**3):
        filled = CopulaImputation().fit(shape(holes)).transform(shape(gaps))
        truth = shape(test)
        means = np.broadcast_to(np.nanmean(shape(holes), axis=0), truth.shape)
        error, plain = (np.square(part - truth)[gone].mean() for part in (filled, means))
        assert error < 0.8 * plain


def test_only_ranks_count() -> None:
    """A monotone map of the columns maps what is filled in to the same place among the values."""
    _, holes = drawn(300)
    plain = CopulaImputation(strengths=(0.1,)).fit(holes).transform(holes)
    mapped = CopulaImputation(strengths=(0.1,)).fit(np.exp(holes)).transform(np.exp(holes))
    for column, ours, theirs in zip(holes.T, plain.T, mapped.T, strict=True):
        values = np.sort(column[~np.isnan(column)])
        places = [np.searchsorted(v, f) for v, f in ((values, ours), (np.exp(values), theirs))]
        np.testing.assert_array_equal(*places)


def test_a_row_alone_is_as_in_a_cohort_and_every_subset_is_filled() -> None:
    _, holes = drawn(200)
    fitted = CopulaImputation().fit(holes)
    together = fitted.transform(holes)
    alone = np.concatenate([fitted.transform(row[None]) for row in holes])
    np.testing.assert_allclose(alone, together, rtol=1e-10)
    for known in itertools.product((True, False), repeat=3):
        row = np.where(known, 0.5, np.nan)[None]
        assert np.isfinite(fitted.transform(row)).all()
    medians = [np.median(column[~np.isnan(column)]) for column in holes.T]
    nothing = fitted.transform(np.full((1, 3), np.nan))[0]
    np.testing.assert_allclose(nothing, medians, atol=0.2)


def test_more_columns_than_rows_are_drawn_to_independence() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 80))
    x[:, 40:] = np.where(rng.random((30, 1)) < 0.5, np.nan, x[:, 40:])
    fitted = CopulaImputation().fit(x)
    assert fitted.strength_ == max(fitted.strengths), "there is nothing to learn"
    assert np.isfinite(fitted.transform(x)).all()


def test_scores_go_there_and_back_and_know_weights() -> None:
    x = np.array([[3.0, 1.0], [1.0, 1.0], [2.0, np.nan], [2.0, 5.0]])
    scores = NormalScores().fit(x)
    np.testing.assert_allclose(scores.inverse_transform(scores.transform(x)), x)
    # Ranks 1, 2.5, 2.5 and 4 of four, less a half.
    np.testing.assert_allclose(scores.transform(x)[:, 0], norm.ppf(np.array([3.5, 0.5, 2, 2]) / 4))
    weighted = NormalScores().fit(x, None, np.array([2.0, 1.0, 1.0, 3.0]))
    repeated = NormalScores().fit(x[[0, 0, 1, 2, 3, 3, 3]])
    np.testing.assert_allclose(weighted.transform(x), repeated.transform(x))


@pytest.mark.usefixtures("small_models")
def test_columns_are_those_of_the_fit_and_finite() -> None:
    frame = pd.DataFrame(drawn(60)[1], columns=list("abc"))
    found = CopulaImputation().fit(frame)
    before = found.transform(frame)
    with pytest.raises(ValueError, match="feature names"):
        found.transform(frame[["b", "a", "c"]])
    for call in (found.fit, found.transform):
        with pytest.raises(ValueError, match="has text in columns 'a'") as error:
            call(frame.assign(a="JohnSmith"))
        assert "JohnSmith" not in str(error.value)
        with pytest.raises(ValueError, match="infinite values in columns 'b'"):
            call(frame.assign(b=np.inf))
    with pytest.raises(ValueError, match="no value in columns 'c'"):
        found.fit(frame.assign(c=np.nan))
    np.testing.assert_array_equal(found.transform(frame), before)


def test_a_rival_predicts_from_what_a_row_has() -> None:
    X, y = make_world("shared", 400, 0)
    X = remove(X, 0.4, 1)
    rival = CopulaImputed().fit(X, y)
    proba = rival.predict_proba(X)
    alone = rival.predict_proba({name: block[7:8] for name, block in X.items()})
    np.testing.assert_allclose(alone, proba[7:8], rtol=1e-10)


def test_a_row_without_weight_is_as_one_left_out() -> None:
    _, holes = drawn(300)
    holes[0] = -9.0  # the least of each column
    weight = np.where(np.arange(300) == 0, 0.0, 1.0)
    patient = np.arange(300) // 2
    row = np.array([[-5.0, np.nan, 0.0]])
    for groups in (None, patient):
        weighed = CopulaImputation().fit(holes, sample_weight=weight, groups=groups)
        without = CopulaImputation().fit(holes[1:], groups=None if groups is None else groups[1:])
        np.testing.assert_array_equal(weighed.transform(row), without.transform(row))
    weight[holes[:, 1] == holes[:, 1]] = 0.0
    with pytest.raises(ValueError, match="X has no value in columns"):
        CopulaImputation().fit(holes, sample_weight=weight)
