"""The Student-t copula beyond the common laws: scores, oracles, tails, degrees of freedom."""

import itertools

import mpmath
import numpy as np
import pytest
import pyvinecopulib as pv
import torch
from scipy import stats

import oracles
from cm2.copulas import Copula, Gaussian, StudentT
from cm2.copulas.student_score import log_gamma_ratio, to_normal, to_student
from families import constant
from laws import EXACT, ORACLE, gradients, monte_carlo


def pair(rho: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor([[1.0, rho], [rho, 1.0]], dtype=dtype)


@pytest.mark.parametrize("df", [0.5, 1.0, 1.7, 2.0, 4.0, 30.5, 1e3, 1e6])
def test_scores_equal_mpmath(df: float) -> None:
    """Root deviances to the normal score, through the incomplete beta function in 40 digits."""
    y = [1e-3, 0.4, 1.0, 2.5, 6.0, 11.0, 25.0]
    with mpmath.workdps(40):
        x = [mpmath.sqrt(df * mpmath.expm1(mpmath.mpf(v) ** 2 / df)) for v in y]
        log_tails = [
            float(mpmath.log(mpmath.betainc(df / 2, 0.5, 0, df / (df + v * v), True) / 2))
            for v in x
        ]
    few, at = torch.tensor(y, dtype=torch.float64), torch.tensor(df, dtype=torch.float64)
    many = few.repeat(100)  # by table
    for points in (few, many):
        z = to_normal(points, at)
        found = torch.special.log_ndtr(-z).numpy()
        np.testing.assert_allclose(found, np.resize(log_tails, len(points)), rtol=1e-10)
        torch.testing.assert_close(to_normal(-points, at), -z, **EXACT)
        torch.testing.assert_close(to_student(z, at), points, **EXACT)


def test_scores_have_the_derivatives_of_finite_differences() -> None:
    for size in (5, 400):
        x = torch.linspace(-6, 6, size, dtype=torch.float64)
        for function in (to_normal, to_student):
            for df in (0.8, 3.0, 50.0):
                at = torch.tensor(df, dtype=torch.float64)
                slopes = gradients(function, x, at)
                h = 1e-5
                by_x = (function(x + h, at) - function(x - h, at)) / (2 * h)
                by_df = (function(x, at + h * df) - function(x, at - h * df)) / (2 * h * df)
                torch.testing.assert_close(slopes[0], by_x, rtol=1e-7, atol=1e-7)
                # odd in x: weighted, so that the sum does not cancel
                slopes = gradients(lambda x, d: x.sign() * function(x, d), x, at)  # noqa: B023
                expected = (x.sign() * by_df).sum()
                torch.testing.assert_close(slopes[1], expected, rtol=1e-6, atol=1e-8)


def test_log_gamma_ratio_equals_mpmath() -> None:
    a = [0.05, 0.5, 3.0, 19.9, 20.1, 1e3, 1e8]
    with mpmath.workdps(40):
        exact = [
            float(mpmath.loggamma(v + 0.5) - mpmath.loggamma(v) - mpmath.log(v) / 2) for v in a
        ]
    found = log_gamma_ratio(torch.tensor(a, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("df", [2.0, 4.5, 12.0])
@pytest.mark.parametrize("rho", [-0.8, 0.05, 0.5, 0.95])
def test_everything_equals_pyvinecopulib(rho: float, df: float) -> None:
    reference = pv.Bicop(family=pv.BicopFamily.student, parameters=np.array([[rho], [df]]))
    grid = np.linspace(0.01, 0.99, 15)
    u = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    points, copula = torch.tensor(u), StudentT(2, pair(rho), df)
    np.testing.assert_allclose(copula.log_prob(points), np.log(reference.pdf(u)), **ORACLE)
    first = torch.tensor([True, False])
    given = copula.conditional_cdf(points, first)[:, 1]
    np.testing.assert_allclose(given, reference.hfunc1(u), **ORACLE)
    given = copula.conditional_cdf(points, ~first)[:, 0]
    np.testing.assert_allclose(given, reference.hfunc2(u), **ORACLE)
    if df != 4.5:  # pyvinecopulib rounds df in its distribution function
        np.testing.assert_allclose(copula.cdf(points), reference.cdf(u), atol=1e-8)


@pytest.mark.parametrize("dim", [3, 5, 10])
@pytest.mark.parametrize("tau", [0.02, 0.2, 0.5, 0.8, 0.95])
def test_density_equals_scipy_up_to_ten_coordinates(tau: float, dim: int) -> None:
    correlation = constant(float(oracles.tau_to_rho(tau)), dim)
    rng = np.random.default_rng(0)
    ends = np.array([1e-9, 1e-4, 0.3, 0.5, 0.9, 1 - 1e-4])
    u = np.concatenate([rng.random((20, dim)), rng.choice(ends, (40, dim))])
    for df in (1.5, 6.0):
        expected = oracles.student_log_density(correlation, df, u)
        copula = StudentT(dim, torch.tensor(correlation), df)
        np.testing.assert_allclose(copula.log_prob(torch.tensor(u)), expected, **ORACLE)


@pytest.mark.parametrize("df", [1.0, 4.0, 1e3])
@pytest.mark.parametrize("tau", [0.001, 0.5, 0.98])
def test_float32_reaches_into_the_corners_of_ten_dimensions(tau: float, df: float) -> None:
    ends = (1e-30, 1e-12, 1e-4, 0.5, 1 - 1e-3, 1 - 1e-7)
    u = torch.tensor(list(itertools.product(ends, repeat=3))).repeat(1, 4)[:, :10]
    matrix = torch.tensor(constant(float(oracles.tau_to_rho(tau)), 10)).float()

    def log_prob(u: torch.Tensor, matrix: torch.Tensor, df: torch.Tensor) -> torch.Tensor:
        return StudentT(10, matrix, df).log_prob(u)

    value = log_prob(u, matrix, torch.tensor(df))
    exact = log_prob(u.double(), matrix.double(), torch.tensor(df, dtype=torch.float64))
    np.testing.assert_allclose(value.numpy(), exact.numpy(), rtol=1e-3, atol=1e-3)
    for slope in gradients(log_prob, u, matrix, torch.tensor(df)):
        assert slope.isfinite().all()


def test_tail_dependence_equals_the_formula_and_the_copula() -> None:
    for rho, df in ((0.5, 4.0), (-0.3, 1.0), (0.9, 20.0)):
        copula = StudentT(2, pair(rho), df)
        expected = 2 * stats.t.cdf(-np.sqrt((df + 1) * (1 - rho) / (1 + rho)), df + 1)
        for tail in (copula.lower_tail_dependence(), copula.upper_tail_dependence()):
            np.testing.assert_allclose(tail, [[1, expected], [expected, 1]], rtol=1e-10)
        opposite = 2 * stats.t.cdf(-np.sqrt((df + 1) * (1 + rho) / (1 - rho)), df + 1)
        np.testing.assert_allclose(copula.mixed_tail_dependence()[0, 1], opposite, rtol=1e-10)
    copula = StudentT(2, pair(0.5), 1.0)
    q = torch.full((2,), 1e-5, dtype=torch.float64)
    limit = copula.lower_tail_dependence()[0, 1]
    torch.testing.assert_close(copula.cdf(q) / 1e-5, limit, rtol=1e-3, atol=0)


def test_spearman_rho_equals_the_expectation_over_the_scales() -> None:
    """(6 / pi) E asin(rho W / sqrt((W + W') (W + W''))), Heinen and Valdesogo (2020)."""
    rng = np.random.default_rng(0)
    n = 400_000
    for rho, df in ((0.5, 4.0), (-0.8, 1.5)):
        w, first, second = 1 / rng.chisquare(df, (3, n))
        draws = 6 / np.pi * np.arcsin(rho * w / np.sqrt((w + first) * (w + second)))
        found = float(StudentT(2, pair(rho), df).spearman_rho()[0, 1])
        assert abs(found - draws.mean()) < monte_carlo(n, draws.std())


def test_many_degrees_of_freedom_are_the_gaussian_copula() -> None:
    u = torch.rand(300, 3, dtype=torch.float64)
    matrix = torch.tensor(constant(0.6, 3))
    torch.testing.assert_close(
        StudentT(3, matrix, 1e9).log_prob(u), Gaussian(3, matrix).log_prob(u), rtol=1e-6, atol=1e-6
    )


def test_second_derivatives_reach_the_degrees_of_freedom() -> None:
    u = torch.rand(4, 2, dtype=torch.float64).clamp(0.05, 0.95).requires_grad_()
    df = torch.tensor(3.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(
        lambda u, df: StudentT(2, pair(0.4), df).log_prob(u), (u, df)
    )


@pytest.mark.parametrize("rho", [-0.95, -0.3, 0.0, 0.5, 0.99, 0.9999])
def test_bivariate_normal_cdf_equals_scipy(rho: float) -> None:
    u = np.random.default_rng(0).random((20, 2))
    u[:3] = [(0.5, 0.5), (0.5, 0.5000001), (1e-4, 0.9)]
    law = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]])
    expected = [law.cdf(row) for row in stats.norm.ppf(u)]
    found = Gaussian(2, pair(rho)).cdf(torch.tensor(u))
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("dim", [3, 5])
def test_multivariate_cdf_is_deterministic_and_equals_scipy(dim: int) -> None:
    rng = np.random.default_rng(1)
    root = rng.standard_normal((dim, dim + 1))
    matrix = root @ root.T
    matrix /= np.sqrt(np.outer(matrix.diagonal(), matrix.diagonal()))
    u = rng.random((6, dim)) ** 0.4
    normal = stats.multivariate_normal(np.zeros(dim), matrix, abseps=1e-7, maxpts=500_000)
    student = stats.multivariate_t(np.zeros(dim), matrix, 3.0)
    for copula, expected in (
        (Gaussian(dim, torch.tensor(matrix)), normal.cdf(stats.norm.ppf(u))),
        (
            StudentT(dim, torch.tensor(matrix), 3.0),
            student.cdf(stats.t.ppf(u, 3.0), random_state=0, maxpts=20_000),
        ),
    ):
        found = copula.cdf(torch.tensor(u))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert torch.equal(found, copula.cdf(torch.tensor(u)))


def test_gaussian_spearman_rho_and_tails() -> None:
    copula = Gaussian(2, pair(0.5))
    by_quadrature = Copula.spearman_rho(copula)
    torch.testing.assert_close(copula.spearman_rho(), by_quadrature, rtol=0, atol=1e-5)
    eye = torch.eye(2, dtype=torch.float64)
    assert torch.equal(copula.lower_tail_dependence(), eye)
    assert torch.equal(copula.upper_tail_dependence(), eye)


def test_bad_degrees_of_freedom_are_named() -> None:
    with pytest.raises(ValueError, match=r"StudentT: df must be .*-1"):
        StudentT(2, pair(0.5), -1.0)
