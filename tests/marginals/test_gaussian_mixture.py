"""Laws of the Gaussian mixture: scipy's density, the Rosenblatt transform, draws, the EM fit."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

import oracles
from cm2.core.records import Unit
from cm2.marginals import GaussianMixture
from cm2.marginals.em import fit_mixtures
from laws import (
    EXACT,
    ORACLE,
    QUADRATURE,
    assert_uniform,
    gradients,
    ks_distance,
    monte_carlo,
)


def parameters(modalities: int, components: int, dim: int, seed: int = 0) -> dict[str, Tensor]:
    """Overlapping components of unequal weights, means and scales."""
    rng = np.random.default_rng(seed)
    return {
        "logits": torch.tensor(rng.normal(size=(modalities, components))),
        "loc": torch.tensor(1.5 * rng.normal(size=(modalities, components, dim))),
        "scale": torch.tensor(rng.uniform(0.4, 1.2, size=(modalities, components, dim))),
    }


def numpy_parameters(p: dict[str, Tensor], m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and scales of one modality."""
    return p["logits"].softmax(-1)[m].numpy(), p["loc"][m].numpy(), p["scale"][m].numpy()


def fit(z: Tensor, present: Tensor | None, components: int) -> GaussianMixture:
    """The mixtures that EM finds."""
    present = torch.ones(z.shape[:2], dtype=torch.bool) if present is None else present
    return GaussianMixture(*fit_mixtures(z, present, components, seed=0))


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("dim", [1, 2, 7])
def test_log_prob_equals_scipy(components: int, dim: int) -> None:
    p = parameters(2, components, dim)
    mixture = GaussianMixture(**p)
    assert mixture.batch_shape == (2,)
    assert mixture.event_shape == (dim,)
    z = 2 * torch.randn(20, 2, dim, dtype=torch.float64)
    found = mixture.log_prob(z)
    assert found.shape == (20, 2)
    for m in range(2):
        expected = oracles.mixture_log_density(*numpy_parameters(p, m), z[:, m].numpy())
        np.testing.assert_allclose(found[:, m].numpy(), expected, **ORACLE)


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_to_uniform_equals_the_oracle(dim: int) -> None:
    p = parameters(2, 3, dim)
    z = 2 * torch.randn(20, 2, dim, dtype=torch.float64)
    unit = GaussianMixture(**p).to_uniform(z)
    assert unit.log_u.shape == (20, 2, dim)
    for m in range(2):
        expected = oracles.mixture_rosenblatt(*numpy_parameters(p, m), z[:, m].numpy())
        np.testing.assert_allclose(unit.u[:, m].numpy(), expected, **ORACLE)
        np.testing.assert_allclose(1 - unit.log_1mu[:, m].exp().numpy(), expected, **ORACLE)


def test_to_uniform_is_the_conditional_cdf_by_quadrature() -> None:
    """d = 2: nothing but the joint density enters."""
    p = parameters(1, 3, 2)
    weight, loc, scale = numpy_parameters(p, 0)
    z = torch.tensor([[[0.3, -0.8]], [[-1.2, 1.9]], [[2.0, 0.1]]], dtype=torch.float64)
    found = GaussianMixture(**p).to_uniform(z).u.numpy()

    def density(a: float, b: float) -> float:
        return float(np.exp(oracles.mixture_log_density(weight, loc, scale, np.array([[a, b]])))[0])

    for row, u in zip(z[:, 0].numpy(), found[:, 0], strict=True):
        grid = np.linspace(-15, 15, 4001)
        slab = np.exp(
            oracles.mixture_log_density(
                weight, loc, scale, np.stack([np.full_like(grid, row[0]), grid], -1)
            )
        )
        total = slab.sum() * (grid[1] - grid[0])
        below = integrate.quad(lambda b: density(row[0], b), -15, row[1], epsabs=1e-12)[0]  # noqa: B023
        np.testing.assert_allclose(u[1], below / total, **QUADRATURE)
        outer = integrate.quad(
            lambda a: float(
                np.exp(
                    oracles.mixture_log_density(weight, loc[:, :1], scale[:, :1], np.array([[a]]))
                )[0]
            ),
            -15,
            row[0],
            epsabs=1e-12,
        )[0]
        np.testing.assert_allclose(u[0], outer, **QUADRATURE)


def test_jacobian_of_to_uniform_is_the_density() -> None:
    """log det dU/dz = log f(z): triangular Jacobian by autograd, d = 3."""
    mixture = GaussianMixture(**parameters(1, 3, 3))
    for z in torch.randn(6, 1, 3, dtype=torch.float64):
        jacobian = torch.autograd.functional.jacobian(lambda x: mixture.to_uniform(x).u[0], z)[:, 0]
        assert jacobian.triu(1).abs().max() == 0
        torch.testing.assert_close(
            torch.linalg.slogdet(jacobian).logabsdet, mixture.log_prob(z)[0], rtol=1e-8, atol=1e-8
        )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("dim", [1, 8, 64])
def test_from_uniform_inverts(dim: int, dtype: torch.dtype, tolerance: float) -> None:
    p = {name: value.to(dtype) for name, value in parameters(3, 3, dim).items()}
    mixture = GaussianMixture(**p)
    z = mixture.sample((200,))
    back = mixture.from_uniform(mixture.to_uniform(z))
    assert back.dtype == dtype
    # Where the distribution function is flat, between modes, the last bit of a float32 u is worth
    # more than 1e-4 of z; then the point found must have the same u.
    off = ((back - z).abs() > tolerance * (1 + z.abs())).double().mean()
    assert off <= (2e-3 if dtype == torch.float32 else 0)
    torch.testing.assert_close(
        mixture.to_uniform(back).u, mixture.to_uniform(z).u, rtol=tolerance, atol=tolerance
    )
    u = torch.rand(200, 3, dim, dtype=dtype).clamp(0.01, 0.99)
    torch.testing.assert_close(
        mixture.to_uniform(mixture.from_uniform(u)).u, u, rtol=tolerance, atol=tolerance
    )


def test_from_uniform_equals_bisection_with_components_far_apart() -> None:
    """The hard case for Newton steps: a plateau of the distribution function between modes."""
    loc = torch.tensor([[[-40.0], [0.0], [300.0]]], dtype=torch.float64)
    scale = torch.tensor([[[0.1], [5.0], [1e-3]]], dtype=torch.float64)
    mixture = GaussianMixture(torch.zeros(1, 3).double(), loc, scale)
    u = torch.cat(
        [
            torch.linspace(0.001, 0.999, 201).double(),
            torch.tensor([1 / 3, 2 / 3, 1e-12, 1 - 1e-12]).double(),
        ]
    )[:, None, None]
    found = mixture.from_uniform(u)
    again = mixture.to_uniform(found).u
    torch.testing.assert_close(again, u, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_from_uniform_beyond_the_dtype(dtype: torch.dtype) -> None:
    """Pairs of logarithms at 1e-30 and 1 - 1e-30 land in the tails, and come back."""
    p = {name: value.to(dtype) for name, value in parameters(2, 3, 2).items()}
    mixture = GaussianMixture(**p)
    low = torch.full((1, 2, 2), -69.0, dtype=dtype)
    unit = Unit.from_log_u(low)
    for point in (unit, unit.flip()):
        z = mixture.from_uniform(point)
        assert z.isfinite().all()
        back = mixture.to_uniform(z)
        torch.testing.assert_close(back.log_u.minimum(back.log_1mu), low, rtol=1e-3, atol=1e-3)


def test_samples_are_uniform_after_the_transform() -> None:
    mixture = GaussianMixture(**parameters(2, 3, 3))
    z = mixture.sample((4000,))
    assert z.shape == (4000, 2, 3)
    assert_uniform(mixture.to_uniform(z).u, "to_uniform(samples)")
    u = torch.rand(4000, 2, 3, dtype=torch.float64)
    drawn = mixture.from_uniform(u)
    for m in range(2):
        p = numpy_parameters(parameters(2, 3, 3), m)
        assert_uniform(oracles.mixture_rosenblatt(*p, drawn[:, m].numpy()), "from_uniform")


def test_mean_and_variance_are_the_mixture_s() -> None:
    p = parameters(2, 3, 2)
    mixture = GaussianMixture(**p)
    for m in range(2):
        weight, loc, scale = numpy_parameters(p, m)
        mean = weight @ loc
        variance = weight @ (scale**2 + loc**2) - mean**2
        np.testing.assert_allclose(mixture.mean[m].numpy(), mean, **EXACT)
        np.testing.assert_allclose(mixture.variance[m].numpy(), variance, **EXACT)


@pytest.mark.parametrize("draw", ["sample", "rsample"])
def test_trap_sampling_picks_a_component(draw: str) -> None:
    """A weighted sum of component draws has 1/K of the variance and nothing near a mode."""
    loc = torch.tensor([[[-4.0, -4.0], [0.0, 4.0], [4.0, -4.0]]], dtype=torch.float64)
    scale = torch.full((1, 3, 2), 0.3, dtype=torch.float64)
    mixture = GaussianMixture(torch.zeros(1, 3).double(), loc, scale)
    n = 6000
    z = getattr(mixture, draw)((n,))[:, 0]
    variance = z.var(0)
    expected = mixture.variance[0]
    fourth = ((z - z.mean(0)) ** 2).std(0)
    assert ((variance - expected).abs() < monte_carlo(n) * fourth).all()
    nearest = (z[:, None] - loc[0]).norm(dim=-1).min(-1)
    assert (nearest.values < 5 * 0.3).double().mean() > 0.999
    share = nearest.indices.bincount(minlength=3).double() / n
    assert ((share - 1 / 3).abs() < monte_carlo(n, np.sqrt(2) / 3)).all()


def test_trap_em_finds_a_bimodal_embedding() -> None:
    """Components that start equal never differ; ours start from the data."""
    rng = np.random.default_rng(0)
    n = 4000
    label = rng.random((n, 2)) < np.array([0.3, 0.5])
    z = torch.tensor(np.where(label, -2.0, 2.0)[..., None] + 0.5 * rng.normal(size=(n, 2, 3)))
    mixture = fit(z, None, components=2)
    order = mixture.loc[..., 0].argsort(-1)
    weight = mixture.logits.softmax(-1).gather(-1, order)
    loc = torch.stack([mixture.loc[m, order[m]] for m in range(2)])
    scale = torch.stack([mixture.scale[m, order[m]] for m in range(2)])
    share = torch.tensor([[0.3, 0.7], [0.5, 0.5]], dtype=weight.dtype)
    assert (weight - share).abs().max() < monte_carlo(n, 0.5)
    assert (loc - torch.tensor([[-2.0], [2.0]])).abs().max() < monte_carlo(int(0.3 * n), 0.5)
    assert (scale - 0.5).abs().max() < monte_carlo(int(0.3 * n), 0.5 / np.sqrt(2))


@pytest.mark.parametrize("rate", [0.0, 0.75])
def test_em_recovers_a_mixture_from_incomplete_rows(rate: float) -> None:
    """Means to 4 sigma / sqrt(n_k), scales to that over sqrt 2, weights to 4 binomial errors."""
    rng = np.random.default_rng(1)
    n, weight = 8000, np.array([[0.2, 0.3, 0.5], [0.5, 0.25, 0.25]])
    loc = np.array([[-5.0, 0.0, 5.0], [-6.0, 1.0, 6.0]])[..., None] * np.array([1.0, 0.6])
    scale = np.array([[0.5, 1.0, 0.7], [0.8, 0.6, 1.1]])[..., None] * np.array([1.0, 1.4])
    present = oracles.drop(n, 2, rate, rng)
    z = oracles.simulate_joint(weight, loc, scale, np.eye(2), n, rng)
    z[~present] = np.nan
    fitted = fit(torch.tensor(z), torch.tensor(present), components=3)
    count = present.sum(0).min()
    order = fitted.loc[..., 0].argsort(-1)
    for m in range(2):
        found = [getattr(fitted, name)[m, order[m]].numpy() for name in ("loc", "scale")]
        slack = 4.5 * scale[m] / np.sqrt(count * weight[m])[:, None]
        assert (np.abs(found[0] - loc[m]) < slack).all()
        assert (np.abs(found[1] - scale[m]) < slack).all()
        share = fitted.logits.softmax(-1)[m, order[m]].numpy()
        assert (np.abs(share - weight[m]) < monte_carlo(count, 0.5)).all()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_em_makes_nothing_on_another_device_than_it_runs_on(
    shared: bool, dtype: torch.dtype
) -> None:
    """An array made on torch's default device would meet the data and fail."""
    z, present = torch.randn(60, 2, 3, dtype=dtype), torch.rand(60, 2) < 0.8
    expected = fit_mixtures(z, present, 2, shared=shared)
    with torch.device("meta"):
        found = fit_mixtures(z, present, 2, shared=shared)
    for left, right in zip(found, expected, strict=True):
        assert left.dtype == dtype
        assert torch.equal(left, right)


def test_em_never_lowers_the_likelihood_of_its_start() -> None:
    z = torch.randn(300, 1, 2, dtype=torch.float64) ** 3
    single = fit(z, None, components=1)
    np.testing.assert_allclose(single.loc[0, 0].numpy(), z.mean(0)[0].numpy(), **EXACT)
    triple = fit(z, None, components=3)
    assert triple.log_prob(z).mean() > single.log_prob(z).mean()


def test_gradcheck_of_density_and_transform() -> None:
    p = parameters(2, 3, 2)
    z = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    leaves = [value.clone().requires_grad_() for value in p.values()]

    def density(z: Tensor, *arguments: Tensor) -> Tensor:
        return GaussianMixture(*arguments).log_prob(z)

    def transform(z: Tensor, *arguments: Tensor) -> Tensor:
        return GaussianMixture(*arguments).to_uniform(z).log_u

    assert torch.autograd.gradcheck(density, (z, *leaves))
    assert torch.autograd.gradcheck(transform, (z, *leaves))


def test_gradient_of_from_uniform_equals_finite_differences() -> None:
    p = parameters(2, 3, 3)
    u = torch.rand(4, 2, 3, dtype=torch.float64).clamp(0.05, 0.95).requires_grad_()
    leaves = [value.clone().requires_grad_() for value in p.values()]

    def quantile(u: Tensor, *arguments: Tensor) -> Tensor:
        return GaussianMixture(*arguments).from_uniform(u)

    assert torch.autograd.gradcheck(quantile, (u, *leaves), eps=1e-6, atol=1e-4, rtol=1e-3)


def test_pathwise_gradient_of_rsample() -> None:
    """d E[z^2] / d parameters by reparameterised draws against the closed form."""
    p = parameters(1, 3, 1)
    leaves = [value.clone().requires_grad_() for value in p.values()]
    n = 40_000
    mixture = GaussianMixture(*leaves)
    drawn = mixture.rsample((n,))
    found = torch.autograd.grad(drawn.square().mean(), leaves)
    closed = (mixture.variance + mixture.mean**2).sum()
    expected = torch.autograd.grad(closed, leaves)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() < 0.15 * b.abs().max() + 0.02


@pytest.mark.parametrize("sigmas", [10.0, 100.0, 1e3])
def test_extremes_in_float32(sigmas: float) -> None:
    """A point a thousand deviations away: finite value and gradient, so training can return."""
    p = {name: value.float() for name, value in parameters(2, 3, 4).items()}
    z = torch.stack(
        [
            torch.full((2, 4), sigmas),
            torch.full((2, 4), -sigmas),
            torch.tensor([[sigmas, -sigmas, 0.0, sigmas]] * 2),
        ]
    )

    def density(z: Tensor, *arguments: Tensor) -> Tensor:
        return GaussianMixture(*arguments).log_prob(z)

    def transform(z: Tensor, *arguments: Tensor) -> Tensor:
        unit = GaussianMixture(*arguments).to_uniform(z)
        return unit.log_u + unit.log_1mu

    for function in (density, transform):
        assert function(z, *p.values()).isfinite().all()
        for slope in gradients(function, z, *p.values()):
            assert slope.isfinite().all()
    double = GaussianMixture(*(value.double() for value in p.values()))
    single = GaussianMixture(*p.values())
    for part, exact in zip(single.to_uniform(z), double.to_uniform(z.double()), strict=True):
        np.testing.assert_allclose(part.numpy(), exact.numpy(), rtol=1e-3, atol=1e-3)
    u = single.to_uniform(z[:1])
    assert single.from_uniform(u).isfinite().all()


def test_float32_agrees_with_float64() -> None:
    p = {name: value.float() for name, value in parameters(2, 3, 16).items()}
    z = 2 * torch.randn(50, 2, 16)
    single, double = GaussianMixture(**p), GaussianMixture(**{k: v.double() for k, v in p.items()})
    np.testing.assert_allclose(single.log_prob(z), double.log_prob(z.double()), rtol=1e-4)
    np.testing.assert_allclose(
        single.to_uniform(z).u, double.to_uniform(z.double()).u, rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("components", [1, 3])
def test_float32_is_exact_in_both_tails(components: int) -> None:
    """From one to forty deviations; torch.special.ndtr in float32 is zero from 5.6 on."""
    p = {name: value.float() for name, value in parameters(2, components, 1).items()}
    z = torch.linspace(-40, 40, 2001)[:, None, None].expand(-1, 2, 1)
    double = GaussianMixture(**{k: v.double() for k, v in p.items()}).to_uniform(z.double())
    for part, exact in zip(GaussianMixture(**p).to_uniform(z), double, strict=True):
        np.testing.assert_allclose(part.numpy(), exact.numpy(), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("dim", [2, 256])
def test_trap_what_the_copula_sees_is_uniform_in_any_dimension(dim: int) -> None:
    """The multivariate distribution function is not: KS distance .37 at d = 2, 1.00 at d = 256."""
    n = 2000
    mixture = GaussianMixture(**parameters(2, 3, dim))
    z = mixture.sample((n,))
    ours = ks_distance(mixture.to_uniform(z).u.numpy())
    assert ours < 2.5 / np.sqrt(n)
    weight, loc, scale = numpy_parameters(parameters(2, 3, dim), 0)
    literal = (weight * stats.norm.cdf(z[:, 0].numpy()[:, None], loc, scale).prod(-1)).sum(-1)
    assert ks_distance(literal) > 0.15


def test_rows_do_not_see_their_neighbours() -> None:
    mixture = GaussianMixture(**parameters(2, 3, 4))
    z = torch.randn(9, 2, 4, dtype=torch.float64)
    torch.testing.assert_close(
        torch.stack([mixture.log_prob(row) for row in z]), mixture.log_prob(z), **EXACT
    )
    assert mixture.log_prob(z[:1]).shape == (1, 2)


def test_copies_and_pickles() -> None:
    mixture = GaussianMixture(**parameters(2, 3, 2))
    z = torch.randn(4, 2, 2, dtype=torch.float64)
    for twin in (copy.deepcopy(mixture), pickle.loads(pickle.dumps(mixture))):
        assert torch.equal(twin.log_prob(z), mixture.log_prob(z))


def test_invalid_parameters_and_data_are_named() -> None:
    p = parameters(2, 3, 2)
    with pytest.raises(ValueError, match="scale"):
        GaussianMixture(p["logits"], p["loc"], -p["scale"])
    with pytest.raises(ValueError, match=r"modality 0 is present in 2 samples of positive weight"):
        fit(torch.randn(2, 1, 2), None, components=3)


@pytest.mark.parametrize("dim", [1, 2])
def test_a_coordinate_at_the_mean_of_a_component(dim: int) -> None:
    """The distribution function and its gradient have no gap there, at either zero."""
    loc = torch.tensor([-1.0, 0.0, 1.0]).double()[None, :, None].expand(1, 3, dim)
    mixture = GaussianMixture(torch.zeros(1, 3).double(), loc, torch.ones(1, 3, dim).double())
    for point in (-1.0, -0.0, 0.0, 1.0):
        z = torch.full((1, dim), point).double()
        found, near = mixture.to_uniform(z).u, mixture.to_uniform(z + 1e-9).u
        torch.testing.assert_close(found, near, rtol=0.0, atol=1e-8)
        expected = stats.norm.cdf(point - np.array([-1.0, 0.0, 1.0])).mean()
        assert float(found[0, 0]) == pytest.approx(expected, abs=1e-12)
    z = torch.zeros(1, dim, dtype=torch.float64, requires_grad=True)
    wide = (mixture.logits.clone(), mixture.loc.clone(), mixture.scale.clone())

    def ends(z: Tensor) -> Tensor:
        return GaussianMixture(*wide).to_uniform(z).log_u

    assert torch.autograd.gradcheck(ends, (z,), atol=1e-7)


def test_two_levels_have_two_places() -> None:
    """A column of zeros and ones: components sit on them."""
    z = torch.tensor([0.0, 1.0] * 4).double()[:, None, None]
    low, high = fit(z, None, 2).to_uniform(z).u[:2].flatten().tolist()
    assert low == pytest.approx(0.25, abs=0.02)
    assert high == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("rows", [3, 49, 103])
@pytest.mark.parametrize("level", [0.1, 0.5, -0.3, 0.0])
def test_a_constant_is_told_from_the_rounding_of_its_mean(level: float, rows: int) -> None:
    z = torch.full((rows, 1, 1), level).double()
    assert float(fit(z, None, 1).scale.min()) > 1e-4
