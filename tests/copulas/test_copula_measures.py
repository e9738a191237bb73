"""Measures of dependence against closed forms, quadrature and simulation."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from cm2 import copulas
from cm2.copulas.measures import Estimate, spearman_from_cdf
from families import CASES, MODERATE, Case, names
from laws import EXACT, monte_carlo

moderate_case = pytest.mark.parametrize("case", MODERATE, ids=names(MODERATE))


@moderate_case
def test_spearman_is_that_of_draws(case: Case) -> None:
    u = case.sample(20_000, np.random.default_rng(1))
    rho = 12 * np.cov(u.T)
    # The standard deviation of 12 (u - 1/2)(v - 1/2) is at most 12 / (4 sqrt 5).
    bound = monte_carlo(20_000, 12 / (4 * 5**0.5))
    assert np.abs(np.asarray(case().spearman_rho()) - rho)[~np.eye(case.dim, dtype=bool)].max() < (
        bound
    )


@pytest.mark.parametrize("rho", [-0.7, 0.0, 0.3, 0.95])
def test_spearman_of_the_gaussian_copula(rho: float) -> None:
    matrix = torch.tensor([[1.0, rho], [rho, 1.0]]).double()
    found = copulas.Gaussian(2, matrix).spearman_rho()[0, 1].item()
    assert found == pytest.approx(6 / math.pi * math.asin(matrix[0, 1].item() / 2), abs=1e-8)


@pytest.mark.parametrize("theta", [-8.0, 0.5, 5.0, 40.0])
def test_spearman_of_frank_is_by_debye_functions(theta: float) -> None:
    """Nelsen (2006), exercise 5.9: 1 - 12 (D1 - D2) / theta."""

    def debye(n: int, x: float) -> float:
        return n / x**n * integrate.quad(lambda t: t**n / np.expm1(t), 0, x, epsrel=1e-12)[0]

    size = abs(theta)
    expected = math.copysign(1 - 12 / size * (debye(1, size) - debye(2, size)), theta)
    found = copulas.Frank(2, torch.tensor(theta).double()).spearman_rho()[0, 1].item()
    assert found == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("tau", [0.02, 0.5, 0.95])
def test_quadrature_of_a_known_distribution_function(tau: float) -> None:
    """Of the Farlie-Gumbel-Morgenstern copula rho is theta / 3; of min(u, v) it is 1."""
    like = torch.ones(3, 2, 2).double()
    theta = torch.tensor([tau, -tau, 0.0]).double()

    def cdf(u: torch.Tensor) -> torch.Tensor:
        return u.prod(-1) * (1 + theta * (1 - u).prod(-1))

    torch.testing.assert_close(spearman_from_cdf(cdf, like), theta / 3, rtol=0, atol=1e-12)
    upper = spearman_from_cdf(lambda u: u.amin(-1).expand(-1, 3), like)
    torch.testing.assert_close(upper, torch.ones(3).double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("family", ["gumbel", "clayton", "frank", "joe"])
def test_tail_dependence_is_the_limit_of_the_distribution_function(family: str, tau: float) -> None:
    copula = copulas.REGISTRY[family].from_kendall_tau(torch.tensor(tau).double(), dim=2)
    # Powers of q vanish slowly; only near 0 can q be so small.
    tiny, q = torch.full((2,), 1e-300, dtype=torch.float64), 1e-7
    below = (copula.cdf(tiny) / 1e-300).item()
    above = ((copula.cdf(torch.full((2,), 1 - q, dtype=torch.float64)) - (1 - 2 * q)) / q).item()
    lower, upper = copula.lower_tail_dependence(), copula.upper_tail_dependence()
    assert lower[0, 1].item() == pytest.approx(below, abs=1e-3)
    assert upper[0, 1].item() == pytest.approx(above, abs=1e-2)


def test_tail_dependence_of_student_is_that_of_demarta_and_mcneil() -> None:
    rho, df = 0.5, 4.0
    matrix = torch.tensor([[1.0, rho], [rho, 1.0]]).double()
    copula = copulas.StudentT(2, matrix, df=torch.tensor(df).double())
    expected = 2 * stats.t.cdf(-(((df + 1) * (1 - rho) / (1 + rho)) ** 0.5), df + 1)
    for matrix in (copula.lower_tail_dependence(), copula.upper_tail_dependence()):
        assert matrix[0, 1].item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("dim", [2, 5])
def test_mutual_information_of_the_gaussian_copula(dim: int) -> None:
    tau = torch.tensor([0.2, 0.7]).double()
    copula = copulas.Gaussian.from_kendall_tau(tau, dim=dim)
    found = copula.mutual_information(20_000)
    assert isinstance(found, Estimate)
    expected = -0.5 * torch.linalg.slogdet(copula.correlation)[1]
    torch.testing.assert_close(found.value, expected, **EXACT)
    assert (found.standard_error == 0).all()
    drawn = Estimate.of_mean(copula.log_prob(copula.sample((20_000,))))
    assert ((found.value - drawn.value).abs() < 4 * drawn.standard_error).all()


def test_mutual_information_of_independence_is_zero() -> None:
    found = copulas.Independence(3).mutual_information()
    assert found.value.item() == found.standard_error.item() == 0.0
    with pytest.raises(ValueError, match="samples must be at least 2, got 1"):
        copulas.Gumbel(2, 2.0).mutual_information(1)


def test_mutual_information_by_quadrature() -> None:
    copula = copulas.Frank(2, torch.tensor(5.0).double())
    nodes, weights = np.polynomial.legendre.leggauss(200)
    x, w = torch.tensor((nodes + 1) / 2), torch.tensor(weights / 2)
    grid = torch.stack(torch.meshgrid(x, x, indexing="ij"), -1)
    log_c = copula.log_prob(grid)
    expected = (w[:, None] * w * log_c.exp() * log_c).sum().item()
    found = copula.mutual_information(40_000)
    assert abs(found.value.item() - expected) < 4 * found.standard_error.item()


def test_every_case_has_tails_between_zero_and_one() -> None:
    for case in CASES:
        for matrix in (case().lower_tail_dependence(), case().upper_tail_dependence()):
            assert ((matrix >= 0) & (matrix <= 1)).all(), case.name
