"""The incomplete-data Gaussian against scipy, against closed forms, and against the truth."""

import tracemalloc

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from cm2.estimators.heads.block_gaussian import BlockGaussian
from cm2.estimators.heads.block_patterns import Completed, Direct, Expected, Law
from laws import EXACT, ORACLE

SIZES = (2, 1, 3)
BLOCK = np.repeat(np.arange(3), SIZES)


def draw(n: int, missing: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((6, 6))
    covariance = root @ root.T / 6 + 0.3 * np.eye(6)
    mean = rng.standard_normal((3, 6))
    y = rng.integers(0, 3, n)
    x = mean[y] + rng.multivariate_normal(np.zeros(6), covariance, n)
    present = rng.random((n, 3)) >= missing
    return x, present, y, mean, covariance


def fit(n: int = 600, missing: float = 0.4, **settings: float) -> tuple[BlockGaussian, tuple]:
    data = draw(n, missing)
    x, present, y = data[:3]
    return BlockGaussian(SIZES, **settings).fit(x, present, y, np.ones(n), 3), data


def test_log_density_is_that_of_the_observed_coordinates() -> None:
    model, (x, present, _, _, _) = fit(strength=20.0)
    ours = model.log_density(x, present)
    for row in range(60):
        seen = present[row][BLOCK]
        for label in range(3):
            expected = 0.0
            if seen.any():
                law = multivariate_normal(
                    model.mean_[label, seen], model.covariance_[np.ix_(seen, seen)]
                )
                expected = law.logpdf(x[row, seen])
            np.testing.assert_allclose(ours[row, label], expected, **ORACLE)


@pytest.mark.parametrize("near", [0.0, 0.9999])
def test_both_ways_to_complete_are_that_of_scipy(near: float) -> None:
    """Patterns of few and of many coordinates, of which one may nearly be another."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((7, 7))
    root[1] = near * root[0] + (1 - near) * root[1]
    covariance = root @ root.T
    seen = np.array([[0, 1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 0, 1, 1], [1] * 7, [1, 0, 0, 0, 0, 0, 0]])
    scatter, mean = np.zeros((7, 7)), np.zeros((1, 7))
    law, found = Law(covariance), Expected(covariance, 1)
    for there in seen.astype(bool):
        observed = np.flatnonzero(there)
        d = root[observed] @ rng.standard_normal((7, 3))
        part = law.of(observed[None])
        assert isinstance(part, Direct if there.sum() <= 3 else Completed)
        of_seen = covariance[np.ix_(observed, observed)]
        told = covariance[:, observed] @ np.linalg.solve(of_seen, d)
        left = covariance - covariance[:, observed] @ np.linalg.solve(of_seen, covariance[observed])
        left[np.ix_(observed, np.arange(7))] = left[np.ix_(np.arange(7), observed)] = 0.0
        scatter += told @ told.T + 3 * left
        mean += told.sum(axis=1)
        weights = np.ones((1, 3, 1))
        found.add(part, d.T[None], weights)
        expected = multivariate_normal(np.zeros(len(observed)), of_seen).logpdf(d.T)
        ours = -0.5 * (
            part.squares(d.T[None])[0] + part.log_det + len(observed) * np.log(2 * np.pi)
        )
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-6 if near else 1e-9)
    # A correlation of .9999.. costs as many digits as the condition of the covariance has.
    tolerance = {"rtol": 1e-6, "atol": 1e-7} if near else {"rtol": 1e-9, "atol": 1e-10}
    np.testing.assert_allclose(found.scatter(), scatter, **tolerance)
    np.testing.assert_allclose(found.completed(), mean, **tolerance)


@pytest.mark.parametrize("strength", [0.0, 5.0, 600.0])
@pytest.mark.parametrize("pull", [0.0, 3.0])
def test_em_never_lowers_its_objective(strength: float, pull: float) -> None:
    model, _ = fit(strength=strength, pull=pull, tolerance=1e-12)
    objective = np.array(model.objective_)
    assert len(objective) > 3
    assert (np.diff(objective) > -1e-9 * np.abs(objective[1:])).all()


def test_objective_is_the_log_likelihood_plus_the_log_prior() -> None:
    model, (x, present, y, _, _) = fit(strength=7.0, pull=0.0, tolerance=1e-12, max_iter=2000)
    likelihood = model.log_density(x, present)[np.arange(len(y)), y].sum()
    prior = np.linalg.slogdet(model.covariance_)[1] + np.trace(
        np.linalg.solve(model.covariance_, model.center_)
    )
    # The stored value is one step old; steps have become smaller than the tolerance.
    np.testing.assert_allclose(model.objective_[-1], likelihood - 3.5 * prior, rtol=1e-9)


def test_complete_data_need_no_iteration() -> None:
    model, (x, _, y, _, _) = fit(missing=0.0, strength=0.0, pull=0.0, ridge=0.0)
    mean = np.stack([x[y == c].mean(axis=0) for c in range(3)])
    residual = x - mean[y]
    np.testing.assert_allclose(model.mean_, mean, **EXACT)
    np.testing.assert_allclose(model.covariance_, residual.T @ residual / len(x), **EXACT)


def test_infinite_strength_is_naive_bayes_over_blocks() -> None:
    model, (x, present, y, _, _) = fit(strength=np.inf, pull=0.0, ridge=0.0)
    naive = np.zeros((len(x), 3))
    for block in range(3):
        columns, there = block == BLOCK, present[:, block]
        part, codes = x[np.ix_(there, columns)], y[there]
        mean = np.stack([part[codes == c].mean(axis=0) for c in range(3)])
        residual = part - mean[codes]
        covariance = residual.T @ residual / len(part)
        for label in range(3):
            naive[there, label] += multivariate_normal(mean[label], covariance).logpdf(part)
    np.testing.assert_allclose(model.log_density(x, present), naive, **ORACLE)


def test_large_strength_tends_to_naive_bayes() -> None:
    (strong, _), (independent, _) = fit(strength=1e9), fit(strength=np.inf)
    np.testing.assert_allclose(strong.covariance_, independent.covariance_, atol=1e-5)
    np.testing.assert_allclose(strong.mean_, independent.mean_, atol=1e-5)


def test_parameters_are_recovered_with_half_of_the_blocks_missing() -> None:
    n = 8000
    model, (_, present, _, mean, covariance) = fit(n=n, missing=0.5, strength=0.0, pull=0.0)
    both = present[:, BLOCK].T.astype(float) @ present[:, BLOCK]
    variance = np.diag(covariance)
    # Standard errors of the available-pairs estimate, which maximum likelihood does not exceed;
    # four of them.
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / both)
    assert (np.abs(model.covariance_ - covariance) < 4 * error).all()
    of_mean = np.sqrt(3 * variance / np.diag(both))
    assert (np.abs(model.mean_ - mean) < 4 * of_mean).all()
    across = BLOCK[:, None] != BLOCK
    assert np.abs(covariance[across]).max() > 10 * error.max()


def test_weights_are_repetitions_and_zero_drops() -> None:
    x, present, y, _, _ = draw(300, 0.4)
    weight = np.random.default_rng(1).integers(0, 3, 300)
    weighted = BlockGaussian(SIZES, strength=10.0).fit(x, present, y, weight.astype(float), 3)
    rows = np.repeat(np.arange(300), weight)
    repeated = BlockGaussian(SIZES, strength=10.0).fit(
        x[rows], present[rows], y[rows], np.ones(len(rows)), 3
    )
    np.testing.assert_allclose(weighted.covariance_, repeated.covariance_, **ORACLE)
    np.testing.assert_allclose(weighted.mean_, repeated.mean_, **ORACLE)


def test_values_in_absent_blocks_are_ignored() -> None:
    x, present, y, _, _ = draw(200, 0.4)
    junk = np.where(present[:, BLOCK], x, np.nan)
    ones = np.ones(200)
    clean = BlockGaussian(SIZES, strength=10.0).fit(x, present, y, ones, 3)
    dirty = BlockGaussian(SIZES, strength=10.0).fit(junk, present, y, ones, 3)
    np.testing.assert_array_equal(clean.covariance_, dirty.covariance_)
    np.testing.assert_array_equal(clean.log_density(x, present), clean.log_density(junk, present))


def test_a_block_that_no_row_has_tells_nothing() -> None:
    x, present, y, _, _ = draw(200, 0.3)
    present[:, 1] = False
    model = BlockGaussian(SIZES, strength=10.0).fit(x, present, y, np.ones(200), 3)
    alone = np.tile([False, True, False], (200, 1))
    density = model.log_density(x, alone)
    assert np.isfinite(density).all()
    np.testing.assert_allclose(density - density[:, :1], 0.0, atol=1e-9)


def test_one_coordinate_is_a_normal_law() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 1)), rng.integers(0, 2, 50)
    there = np.ones((50, 1), dtype=bool)
    model = BlockGaussian((1,), pull=0.0, ridge=0.0).fit(x, there, y, np.ones(50), 2)
    expected = norm(model.mean_[:, 0], np.sqrt(model.covariance_[0, 0])).logpdf(x)
    np.testing.assert_allclose(model.log_density(x, there), expected, **EXACT)


def test_negative_strength_is_refused() -> None:
    with pytest.raises(ValueError, match="should not be negative"):
        BlockGaussian((1,), strength=-1.0)


def test_memory_does_not_grow_with_the_number_of_patterns() -> None:
    """Twenty modalities of ten coordinates: nearly every row is a pattern of its own."""
    rows, modalities, dim = 1500, 20, 10
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((rows, modalities * dim)), rng.integers(0, 2, rows)
    present = rng.random((rows, modalities)) >= 0.3
    assert len(np.unique(present, axis=0)) > 0.95 * rows
    model = BlockGaussian((dim,) * modalities, strength=float(rows), max_iter=1)
    data = model.statistics(x, present, y, np.ones(rows), 2)
    tracemalloc.start()
    model.fit_statistics(data)
    model.log_density(x, present)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # One array of (pattern, dim, dim) would take 480 MB.
    assert peak < 200e6
    # What is kept of the data is no larger than they are, but for the indicators of the classes.
    kept = sum(array.nbytes for group in data for array in group)
    assert kept < 2.5 * x.nbytes


@pytest.mark.slow
def test_twenty_thousand_rows_of_twenty_modalities_fit_in_two_gigabytes() -> None:
    rows, modalities, dim = 20_000, 20, 10
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((rows, modalities * dim)), rng.integers(0, 2, rows)
    present = rng.random((rows, modalities)) >= 0.3
    tracemalloc.start()
    model = BlockGaussian((dim,) * modalities, strength=float(rows), max_iter=2)
    model.fit(x, present, y, np.ones(rows), 2).log_density(x, present)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e9


def test_a_class_is_shrunk_to_the_centre_that_is_given() -> None:
    x, present, y, _, _ = draw(300, 0.0)
    own = y == 0
    mean, covariance = np.zeros(6), 2.0 * np.eye(6)
    model = BlockGaussian(SIZES, strength=50.0, pull=0.0, tolerance=0.0)
    data = model.statistics(x[own], present[own], 0 * y[own], np.ones(own.sum()), 1)
    model.fit_statistics(data, center=(mean, covariance))
    scatter = np.cov(x[own].T, bias=True) * own.sum()
    expected = (scatter + 50.0 * covariance) / (own.sum() + 50.0)
    np.testing.assert_allclose(model.covariance_, expected, **ORACLE)
    np.testing.assert_allclose(model.mean_[0], x[own].mean(axis=0), **ORACLE)
