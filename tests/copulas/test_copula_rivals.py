"""Against other libraries beyond pairs, and completions against rejection sampling."""

import numpy as np
import openturns
import pytest
import torch
from scipy import stats
from statsmodels.distributions.copula.api import ClaytonCopula

from cm2.copulas import Clayton, Gaussian, StudentT
from families import MODERATE, Case, constant, names
from laws import ORACLE, assert_same_law

SMALL = [case for case in MODERATE if case.dim <= 3]
every_dim = pytest.mark.parametrize("dim", [3, 5, 10])
every_tau = pytest.mark.parametrize("tau", [0.02, 0.2, 0.5, 0.8, 0.95])


def inner(dim: int) -> np.ndarray:
    """Points that other libraries can still tell from the ends of the interval."""
    return np.random.default_rng(0).uniform(1e-6, 1 - 1e-6, (200, dim))


@every_dim
@every_tau
def test_gaussian_density_equals_openturns(tau: float, dim: int) -> None:
    u, rho = inner(dim), float(np.sin(tau * np.pi / 2))
    law = openturns.NormalCopula(openturns.CorrelationMatrix(constant(rho, dim).tolist()))
    expected = np.asarray(law.computeLogPDF(u)).ravel()
    found = Gaussian(dim, torch.tensor(constant(rho, dim))).log_prob(torch.tensor(u)).numpy()
    told = expected > -600  # its densities underflow
    assert told.any()
    assert (found[~told] < -599).all()
    np.testing.assert_allclose(found[told], expected[told], **ORACLE)


@every_dim
@every_tau
def test_student_density_equals_scipy(tau: float, dim: int) -> None:
    u, matrix = inner(dim), constant(float(np.sin(tau * np.pi / 2)), dim)
    x = stats.t.ppf(u, 4)
    expected = stats.multivariate_t(shape=matrix, df=4).logpdf(x) - stats.t.logpdf(x, 4).sum(-1)
    found = StudentT(dim, torch.tensor(matrix), 4.0).log_prob(torch.tensor(u))
    np.testing.assert_allclose(found.numpy(), expected, **ORACLE)


@every_dim
@pytest.mark.parametrize("tau", [0.02, 0.2, 0.5])
def test_clayton_density_equals_statsmodels(tau: float, dim: int) -> None:
    """Beyond these tau its powers overflow."""
    u, theta = inner(dim), 2 * tau / (1 - tau)
    expected = ClaytonCopula(theta, k_dim=dim).logpdf(u)
    found = Clayton(dim, torch.tensor(theta).double()).log_prob(torch.tensor(u))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", SMALL, ids=names(SMALL))
def test_completions_agree_with_rejection_sampling(case: Case) -> None:
    """Joint draws whose first coordinate lies in a window, and completions given the same."""
    joint = case().sample((20_000,))
    kept = joint[(joint[:, 0] > 0.2) & (joint[:, 0] < 0.25)]
    assert len(kept) > 500
    present = torch.arange(case.dim) == 0
    completed = case().complete(kept[torch.randperm(len(kept))], present)
    both = [torch.cat([u[:, 1:], u[:, 1:].amax(-1, keepdim=True)], -1) for u in (completed, kept)]
    assert_same_law(both[0], both[1], "completions and accepted draws")
