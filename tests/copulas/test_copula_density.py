"""Laws of a copula's density: oracles, mass, derivative of the cdf, absent coordinates."""

import numpy as np
import pytest
import pyvinecopulib as pv
import torch
from scipy import special, stats

import oracles
from cm2 import copulas
from cm2.core.records import Unit
from families import ARCHIMEDEAN, CASES, GENERATED, MODERATE, Case, dims, elliptical, names, points
from laws import EXACT, ORACLE, QUADRATURE, gradients

every_case = pytest.mark.parametrize("case", CASES, ids=names(CASES))
moderate_case = pytest.mark.parametrize("case", MODERATE, ids=names(MODERATE))


def subset_log_density(case: Case, u: np.ndarray, keep: np.ndarray) -> float:
    """The oracle on the coordinates of one row that are kept."""
    if keep.sum() < 2:
        return 0.0
    if case.correlation is not None:
        correlation = case.correlation[np.ix_(keep, keep)]
        df = float(case.arguments["df"]) if "df" in case.arguments else None
        case = elliptical(correlation, case.label, df)
    return float(case.log_density(u[None, keep])[0])


def test_every_family_has_a_case_in_every_dimension() -> None:
    assert {case.family for case in CASES} == set(copulas.REGISTRY)
    for family in copulas.REGISTRY:
        assert {case.dim for case in CASES if case.family == family} == set(dims(family))


@every_case
def test_density_equals_the_oracle(case: Case) -> None:
    u = points(case, 24)
    found = case().log_prob(torch.tensor(u))
    np.testing.assert_allclose(found.numpy(), case.log_density(u), **ORACLE)


@pytest.mark.parametrize(
    ("family", "oracle", "parameters"),
    [
        ("gumbel", pv.BicopFamily.gumbel, (1.001, 1.5, 4.0, 20.0)),
        ("frank", pv.BicopFamily.frank, (-20.0, -3.0, 0.01, 5.0, 30.0)),
        ("clayton", pv.BicopFamily.clayton, (0.01, 0.5, 3.0, 20.0)),
        ("joe", pv.BicopFamily.joe, (1.001, 1.5, 4.0, 20.0)),
        ("gaussian", pv.BicopFamily.gaussian, (-0.9, -0.2, 0.3, 0.95)),
    ],
)
def test_density_equals_pyvinecopulib(
    family: str, oracle: pv.BicopFamily, parameters: tuple[float, ...]
) -> None:
    grid = np.linspace(0.01, 0.99, 21)
    u = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    for parameter in parameters:
        reference = pv.Bicop(family=oracle, parameters=np.array([[parameter]]))
        argument = ARCHIMEDEAN.get(family, "correlation")
        value = torch.tensor(parameter, dtype=torch.float64)
        if family == "gaussian":
            value = torch.eye(2).double() + value * (1 - torch.eye(2).double())
        found = copulas.REGISTRY[family](2, **{argument: value}).log_prob(torch.tensor(u))
        # pyvinecopulib trims densities to [1e-20, 1e20]
        known = np.log(reference.pdf(u))
        inside = np.abs(known) < 40
        np.testing.assert_allclose(found.numpy()[inside], known[inside], **ORACLE)


@pytest.mark.parametrize(
    "case", [c for c in MODERATE if c.dim < 5], ids=names([c for c in MODERATE if c.dim < 5])
)
def test_density_has_mass_one_by_quadrature(case: Case) -> None:
    """Trapezoidal rule on the normal scale, where integrands are smooth and decay."""
    size = {2: 241, 3: 91}[case.dim]
    x = np.linspace(-9.0, 9.0, size)
    grid = np.stack(np.meshgrid(*[x] * case.dim, indexing="ij"), -1).reshape(-1, case.dim)
    log_u, log_1mu = special.log_ndtr(grid), special.log_ndtr(-grid)

    density = case().log_prob(Unit(torch.tensor(log_u), torch.tensor(log_1mu))).numpy()
    mass = np.exp(density + stats.norm.logpdf(grid).sum(-1)).sum() * (x[1] - x[0]) ** case.dim
    np.testing.assert_allclose(mass, 1.0, **QUADRATURE)


@pytest.mark.parametrize(
    "case", [c for c in MODERATE if c.dim == 5], ids=names([c for c in MODERATE if c.dim == 5])
)
def test_density_has_mass_one_by_monte_carlo(case: Case) -> None:
    """Draws of an independent sampler: E[1{u in box} / c(u)] is the volume of the box."""
    u = case.sample(200_000, np.random.default_rng(5))
    inside = ((u > 0.2) & (u < 0.8)).all(-1)
    density = case().log_prob(torch.tensor(u[inside])).numpy()
    weight = np.zeros(len(u))
    weight[inside] = np.exp(-density) / 0.6**case.dim
    error = weight.std() / np.sqrt(len(u))
    assert error < 0.05
    assert abs(weight.mean() - 1) < 4 * error + 1e-12


closed_cdf = [case for case in MODERATE if case.correlation is None or case.dim == 2]
closed_cdf_case = pytest.mark.parametrize("case", closed_cdf, ids=names(closed_cdf))


@closed_cdf_case
def test_density_is_the_mixed_derivative_of_the_cdf(case: Case) -> None:
    u = torch.tensor(points(case, 12))
    copula = case()
    columns = [u[:, m].clone().requires_grad_() for m in range(case.dim)]
    value = copula.cdf(torch.stack(columns, -1))
    for column in columns:
        (value,) = torch.autograd.grad(value.sum(), column, create_graph=True)
    # an elliptical one is integrated numerically, and loses digits in each derivative
    tolerance = 1e-5 if case.correlation is not None else 1e-7
    np.testing.assert_allclose(
        value.detach().log().numpy(), copula.log_prob(u).numpy(), rtol=tolerance, atol=tolerance
    )


@closed_cdf_case
def test_cdf_is_one_at_the_top_and_grounded_and_has_uniform_margins(case: Case) -> None:
    copula = case()
    u = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    for m in range(case.dim):
        corner = torch.ones(9, case.dim, dtype=torch.float64)
        corner[:, m] = u
        torch.testing.assert_close(copula.cdf(corner), u, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", GENERATED, ids=names(GENERATED))
def test_cdf_of_a_generator(case: Case) -> None:
    u = points(case, 12)
    (theta,) = (float(value) for value in case.arguments.values())
    expected = [oracles.archimedean_cdf(case.family, theta, row) for row in u]
    np.testing.assert_allclose(case().cdf(torch.tensor(u)).numpy(), expected, **ORACLE)


@every_case
def test_absent_coordinates_drop_out_row_by_row(case: Case) -> None:
    rng = np.random.default_rng(2)
    u = points(case, 32)
    present = rng.random(u.shape) < 0.5
    found = case().log_prob(torch.tensor(u), torch.tensor(present))
    expected = [subset_log_density(case, *row) for row in zip(u, present, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, **ORACLE)
    none_or_one = found[torch.tensor(present.sum(-1) < 2)]
    torch.testing.assert_close(none_or_one, torch.zeros_like(none_or_one), **EXACT)


@every_case
def test_marginal_equals_the_present_mask(case: Case) -> None:
    u = torch.tensor(points(case, 16))
    copula = case()
    for order in range(2, case.dim + 1):
        present = torch.zeros(case.dim, dtype=torch.bool)
        present[torch.randperm(case.dim)[:order]] = True
        margin = copula.marginal(present)
        assert margin.event_shape == (order,)
        torch.testing.assert_close(
            margin.log_prob(u[:, present]), copula.log_prob(u, present), **EXACT
        )
        torch.testing.assert_close(
            margin.kendall_tau(), copula.kendall_tau()[present][:, present], **QUADRATURE
        )


@pytest.mark.parametrize(
    "case", [c for c in MODERATE if c.dim == 3], ids=names([c for c in MODERATE if c.dim == 3])
)
def test_absent_coordinate_is_integrated_out(case: Case) -> None:
    pairs = points(case, 10)[:, :2]
    x = np.linspace(-9.0, 9.0, 1201)
    u = np.broadcast_to(pairs[:, None], (10, len(x), 2))
    full = np.concatenate([u, np.broadcast_to(special.ndtr(x)[None, :, None], (10, len(x), 1))], -1)
    full = np.clip(full, 1e-300, 1 - 1e-16)
    density = case().log_prob(torch.tensor(full)).numpy()
    integral = np.exp(density + stats.norm.logpdf(x)).sum(-1) * (x[1] - x[0])
    present = torch.tensor([True, True, False])
    found = case().log_prob(torch.tensor(full[:, 0]), present).numpy()
    np.testing.assert_allclose(np.log(integral), found, rtol=1e-5, atol=1e-5)


@every_case
def test_junk_in_absent_entries_changes_no_value_and_no_gradient(case: Case) -> None:
    u = torch.tensor(points(case, 16))
    present = torch.rand(u.shape, generator=torch.Generator().manual_seed(0)) < 0.6
    copula = case()
    names_ = list(case.arguments)

    def value(u: torch.Tensor, *arguments: torch.Tensor) -> torch.Tensor:
        return case(**dict(zip(names_, arguments, strict=True))).log_prob(u, present)

    clean = copula.log_prob(u, present)
    clean_gradients = gradients(value, u, *case.arguments.values())
    for junk in (float("nan"), float("inf"), -3.0, 0.5):
        dirty = torch.where(present, u, torch.full_like(u, junk))
        torch.testing.assert_close(copula.log_prob(dirty, present), clean, rtol=0, atol=0)
        for a, b in zip(
            gradients(value, dirty, *case.arguments.values()), clean_gradients, strict=True
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert (clean_gradients[0][~present] == 0).all()


def test_tends_to_independence() -> None:
    u = torch.rand(50, 3, dtype=torch.float64)
    one = torch.tensor(1.0, dtype=torch.float64)
    for copula in (
        copulas.Gumbel(3, alpha=one + 1e-9),
        copulas.Frank(3, theta=one * 1e-9),
        copulas.Clayton(3, theta=one * 1e-9),
        copulas.Joe(3, alpha=one + 1e-9),
        copulas.Gaussian(3, correlation=torch.eye(3, dtype=torch.float64)),
    ):
        torch.testing.assert_close(copula.log_prob(u), torch.zeros(50).double(), atol=5e-6, rtol=0)
