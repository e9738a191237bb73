"""Measures of dependence of the Archimedean families, and their Rosenblatt transforms."""

import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate

import oracles
from cm2 import copulas
from cm2.core.records import Base, Unit
from families import ARCHIMEDEAN, GENERATED, Case, names, points
from laws import EXACT, ORACLE, assert_kendall, assert_uniform

SAMPLES = 1500
TAUS = (0.001, 0.02, 0.2, 0.5, 0.8, 0.95, 0.98)
every_archimedean = pytest.mark.parametrize("family", list(ARCHIMEDEAN))
every_case = pytest.mark.parametrize("case", GENERATED, ids=names(GENERATED))
ends = [case for case in GENERATED if case.label != "strong"]
pairs = [case for case in GENERATED if case.dim == 2]


def at_taus(family: str, dim: int = 2) -> copulas.Copula:
    """A batch of weak to nearly degenerate members."""
    return copulas.REGISTRY[family].from_kendall_tau(torch.tensor(TAUS).double(), dim=dim)


@every_archimedean
def test_spearman_rho_equals_adaptive_quadrature(family: str) -> None:
    """1 - 24 times the integral of u - C below the diagonal, in logit u and log t_u - log t_v."""
    found = at_taus(family).spearman_rho()
    assert found.shape == (len(TAUS), 2, 2)
    torch.testing.assert_close(found, found.mT)
    assert (found[:, [0, 1], [0, 1]] == 1).all()
    for i in (1, 3, 4):
        copula = copulas.REGISTRY[family].from_kendall_tau(torch.tensor(TAUS[i]).double())
        theta = float(next(iter(copula.parameters.values())))

        def gap(v: float, u: float, theta: float = theta) -> float:
            t = oracles.inverse(family, np.array([u, v]), theta, np).sum()
            return u - float(oracles.archimedean_generator(family, t, theta))

        value, _ = integrate.dblquad(gap, 0.0, 1.0, lambda u: u, 1.0, epsabs=1e-9, epsrel=1e-9)
        assert abs(1 - 24 * value - float(found[i, 0, 1])) < 3e-8


def test_spearman_rho_of_frank_equals_the_quadrature_and_changes_sign() -> None:
    theta = torch.tensor([1e-4, 9.9e-3, 1.01e-2, 3.0, 80.0], dtype=torch.float64)
    closed = copulas.Frank(3, theta=theta).spearman_rho()[:, 0, 1]
    wide = super(copulas.Frank, copulas.Frank(3, theta=theta))._spearman()
    torch.testing.assert_close(closed, wide, rtol=0, atol=1e-8)
    torch.testing.assert_close(copulas.Frank(2, theta=-theta).spearman_rho()[:, 0, 1], -closed)


@every_archimedean
def test_spearman_rho_of_draws_and_its_gradient(family: str) -> None:
    copula = copulas.REGISTRY[family].from_kendall_tau(torch.tensor(0.4).double(), dim=3)
    u = copula.sample((10_000,)).numpy()
    product = 12 * (u[:, 0] - 0.5) * (u[:, 2] - 0.5)
    error = product.std() / np.sqrt(len(u))
    assert abs(product.mean() - float(copula.spearman_rho()[0, 2])) < 4 * error
    (name, value), *_ = copula.parameters.items()
    leaf = value.clone().requires_grad_()

    def rho(parameter: torch.Tensor) -> torch.Tensor:
        return copulas.REGISTRY[family](3, **{name: parameter}).spearman_rho()

    assert torch.autograd.gradcheck(rho, (leaf,))
    single = copulas.REGISTRY[family](3, **{name: value.float()}).spearman_rho()
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), copula.spearman_rho(), rtol=1e-5, atol=1e-5)


@every_archimedean
def test_tail_dependence_is_the_limit_of_the_cdf(family: str) -> None:
    """C(u, u) / u towards 0 and (1 - 2 u + C(u, u)) / (1 - u) towards 1, in 400 digits."""
    copula = at_taus(family, dim=3)
    lower, upper = copula.lower_tail_dependence(), copula.upper_tail_dependence()
    thetas = next(iter(copula.parameters.values()))
    for i in (2, 3, 4):
        theta = float(thetas[i])
        with mpmath.workdps(oracles.DIGITS):
            small = mpmath.mpf(10) ** -80
            ends = {}
            for name, u in (("lower", small), ("upper", 1 - small)):
                t = 2 * oracles.inverse(family, u, mpmath.mpf(theta))
                both = oracles.archimedean_generator(family, t, mpmath.mpf(theta), mpmath)
                ends[name] = float((both if name == "lower" else 1 - 2 * u + both) / small)
        assert abs(ends["lower"] - float(lower[i, 0, 2])) < 1e-6
        assert abs(ends["upper"] - float(upper[i, 0, 2])) < 1e-6
    for matrix in (lower, upper):
        assert matrix.shape == (len(TAUS), 3, 3)
        assert (matrix.diagonal(dim1=-2, dim2=-1) == 1).all()


def test_kendall_tau_of_joe_equals_its_series() -> None:
    """1 - 4 sum 1 / (k (alpha k + 2) (alpha (k - 1) + 2)), around the removable singularity too."""
    alphas = [1.0, 1 + 1e-6, 1.001, 1.5, 1.97, 1.99, 2 - 1e-5, 2.0, 2 + 1e-9, 2.03, 2.05, 30.0, 1e4]

    def series(a: mpmath.mpf) -> mpmath.mpf:
        terms = mpmath.nsum(lambda k: 1 / (k * (a * k + 2) * (a * (k - 1) + 2)), [1, mpmath.inf])
        return 1 - 4 * terms

    with mpmath.workdps(30):
        expected = [float(series(mpmath.mpf(alpha))) for alpha in alphas]
    alpha = torch.tensor(alphas, dtype=torch.float64, requires_grad=True)
    tau = copulas.Joe(2, alpha=alpha).kendall_tau()[:, 0, 1]
    np.testing.assert_allclose(tau.detach().numpy(), expected, rtol=1e-9, atol=1e-13)
    (slope,) = torch.autograd.grad(tau.sum(), alpha)
    width = 1e-5
    shifted = [
        copulas.Joe(2, alpha=alpha.detach()[3:] + s * width).kendall_tau()[:, 0, 1] for s in (-1, 1)
    ]
    numeric = (shifted[1] - shifted[0]) / (2 * width)
    torch.testing.assert_close(slope[3:], numeric, rtol=1e-6, atol=1e-9)
    assert (slope[:3] > 0.5).all()


# Rosenblatt transform ---------------------------------------------------------------------------


@pytest.mark.parametrize("case", pairs, ids=names(pairs))
def test_the_h_function_is_the_derivative_of_the_cdf(case: Case) -> None:
    u = torch.tensor(points(case, 30)).clamp(1e-6, 1 - 1e-6).requires_grad_()
    copula = case()
    (slope,) = torch.autograd.grad(copula.cdf(u).sum(), u)
    for m in range(2):
        present = torch.arange(2) == m
        found = copula.conditional_cdf(u, present).detach()
        torch.testing.assert_close(found[:, 1 - m], slope[:, m], rtol=1e-6, atol=1e-8)
        assert torch.equal(found[:, m], u.detach()[:, m])


@pytest.mark.parametrize("case", ends, ids=names(ends))
def test_conditional_cdf_inverts_complete(case: Case) -> None:
    """With the numbers that completed it; presence differs by row, and may be empty."""
    rng = np.random.default_rng(7)
    given = torch.tensor(case.sample(150, rng)).clamp(1e-6, 1 - 1e-6)
    present = torch.tensor(rng.random(given.shape) < 0.5)
    unit = Unit.from_u(given)
    copula = case()
    transformed = copula._conditional_cdf(copula.complete_unit(unit, present), present)
    missing = ~present
    values = transformed.u[missing]
    assert ((values >= 0) & (values <= 1)).all()
    assert_uniform(values, "Rosenblatt transform of completions")
    complements = transformed.log_u.exp() + transformed.log_1mu.exp()
    torch.testing.assert_close(complements, torch.ones_like(complements), **ORACLE)
    assert torch.equal(transformed.log_u[present], unit.log_u[present])


@pytest.mark.parametrize("family", sorted(set(copulas.REGISTRY) - {"factor"}))
def test_a_completion_is_the_conditional_quantile_at_its_base_point(family: str) -> None:
    """The factor copula takes uniforms of its factors besides: its draws have the law, not this."""
    turned = family.startswith("rotated")
    dim, tau = (2, -0.4) if turned else (3, 0.0 if family == "independence" else 0.4)
    law = copulas.REGISTRY[family].from_kendall_tau(torch.tensor(tau).double(), dim=dim)
    assert_quantile(law)


def test_a_completion_of_opposite_or_mixed_copulas_is_the_conditional_quantile() -> None:
    four = torch.tensor(4.0).double()
    assert_quantile(copulas.Frank(2, theta=-four))
    assert_quantile(copulas.Mixture([copulas.Gumbel(3, four / 2), copulas.Clayton(3, four / 2)]))


def assert_quantile(law: copulas.Copula) -> None:
    """Presence differs by row; several points for each row."""
    u, base = torch.rand(8, law.dim).double(), Base(torch.rand(2, 1, law.dim).double())
    present = (torch.rand(8, law.dim) < 0.5).expand(2, 8, -1)
    completed = law.complete(u, present[0], base)
    assert torch.equal(completed[present], u.expand_as(completed)[present])
    found = law.conditional_cdf(completed, present)
    expected = base.coordinate.expand_as(found)
    torch.testing.assert_close(found[~present], expected[~present], **ORACLE)
    with pytest.raises(
        ValueError, match=rf"base.coordinate must have shape \(\*, {law.dim}\), got"
    ):
        law.complete(u, present[0], Base(torch.rand(8, law.dim + 1)))


@every_archimedean
@pytest.mark.parametrize("dim", [3, 10])
def test_rosenblatt_transform_of_draws_is_independent_and_uniform(family: str, dim: int) -> None:
    copula = copulas.REGISTRY[family].from_kendall_tau(torch.tensor(0.6).double(), dim=dim)
    u = copula.sample((SAMPLES,))
    nothing = torch.zeros(dim, dtype=torch.bool)
    transformed = copula.conditional_cdf(u, nothing)
    assert_uniform(transformed, "Rosenblatt transform")
    assert_kendall(transformed, np.eye(dim), "Rosenblatt transform")
    torch.testing.assert_close(transformed[:, 0], u[:, 0], **EXACT)


@every_case
def test_conditional_cdf_is_finite_at_the_ends_in_float32(case: Case) -> None:
    ends = torch.tensor([1e-30, 1e-6, 0.4, 1 - 1e-7])
    u = torch.cartesian_prod(ends, ends).repeat_interleave(case.dim // 2, -1)
    u = torch.cat([u, ends[torch.arange(16) % 4, None]], -1)[:, : case.dim]
    present = torch.arange(case.dim) == 0
    keys = list(case.arguments)
    leaves = [value.float().requires_grad_() for value in case.arguments.values()]
    copula = case(torch.float32, **dict(zip(keys, leaves, strict=True)))
    found = copula.conditional_cdf(u, present)
    assert ((found >= 0) & (found <= 1)).all()
    double = case._replace(
        arguments={k: v.float().double() for k, v in case.arguments.items()}
    )().conditional_cdf(u.double(), present)
    torch.testing.assert_close(found.double(), double, rtol=0, atol=2e-3)
    for slope in torch.autograd.grad(found.sum(), leaves):
        assert slope.isfinite().all()
