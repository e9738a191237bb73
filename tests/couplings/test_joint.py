"""CopulaJoint: dependence and mixtures recovered from complete and incomplete embeddings.

Simulated from the model by numpy (`oracles.simulate_joint`): Gaussian copula of known Kendall tau
in every coordinate, well separated three-component margins. Sizes: the error of a tau fitted by
maximum likelihood is at most (2 / pi) / sqrt(pairs), so 2,600 pairs make 0.05 four standard errors;
at 75% missing a pair is seen in 14% (M = 2) or 11% (M = 3) of the rows.
"""

import copy
import pickle
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from scipy import special, stats

import oracles
from cm2 import CopulaJoint
from laws import EXACT, ks_distance, monte_carlo

TAU_TOLERANCE = 0.05
COMPONENTS = 3


def pairwise(tau: float, modalities: int) -> np.ndarray:
    """Kendall tau between modalities; three of them cannot all be strongly negative: (-, -, +)."""
    matrix = np.full((modalities, modalities), abs(tau))
    matrix[0, 1:] = matrix[1:, 0] = tau
    np.fill_diagonal(matrix, 1.0)
    return matrix


def mixtures(modalities: int, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (M, K), means and scales (M, K, d) with components at least five deviations apart."""
    rng = np.random.default_rng(seed)
    weight = np.array([[0.25, 0.35, 0.4], [0.5, 0.2, 0.3], [0.3, 0.4, 0.3]])[:modalities]
    order = np.stack([[rng.permutation(3) for _ in range(dim)] for _ in range(modalities)])
    loc = np.array([-5.0, 0.0, 5.0])[order].transpose(0, 2, 1)
    loc = loc + rng.uniform(-0.5, 0.5, loc.shape)
    return weight, loc, rng.uniform(0.5, 0.9, loc.shape)


def rows(dim: int, modalities: int, rate: float, shared: bool) -> int:
    """Rows with enough pairs for each copula (one for all coordinates if shared).

    That is 2,600; 4,000, five standard errors, where the largest error of 64 or more is looked at.
    """
    pairs = 2600 / dim if shared else 4000 if dim >= 64 else 2600
    seen = {0.0: 1.0, 0.75: {2: 0.142, 3: 0.108}[modalities]}[rate]
    return max(int(pairs / seen), 600 if rate == 0 else 1600)


def assert_mixture_recovered(
    fitted: torch.distributions.Distribution,
    truth: tuple[np.ndarray, np.ndarray, np.ndarray],
    count: int,
    what: str,
) -> None:
    """Up to the order of components: means, scales and weights within 5 standard errors."""
    weight, loc, scale = truth
    for m in range(len(weight)):
        found_loc = fitted.loc[m].detach().double().numpy()
        nearest = np.abs(found_loc[None] - loc[m][:, None]).mean(-1).argmin(-1)
        assert sorted(nearest) == list(range(COMPONENTS)), f"{what}: a component is missing"
        slack = 5.0 * scale[m] / np.sqrt(count * weight[m])[:, None]
        found_scale = fitted.scale[m].detach().double().numpy()[nearest]
        found_weight = fitted.logits[m].detach().double().softmax(-1).numpy()[nearest]
        assert (np.abs(found_loc[nearest] - loc[m]) < slack).all(), f"{what}: means"
        assert (np.abs(found_scale - scale[m]) < slack / np.sqrt(2)).all(), f"{what}: scales"
        slack = monte_carlo(count, 0.5)
        assert (np.abs(found_weight - weight[m]) < slack).all(), f"{what}: weights"


def half(cells: list[Any]) -> tuple[list[Any], list[Any]]:
    """Every other tau of M = 2 and the others of M = 3, and what that leaves out."""
    kept = [cell for cell in cells if (TAUS.index(cell.values[0]) + cell.values[2]) % 2]
    return kept, [cell for cell in cells if cell not in kept]


def grid(cells: list[tuple[int, float, bool]], taus: tuple[float, ...]) -> list[Any]:
    """All taus and numbers of modalities at these dimensions, missing rates and sharings."""
    return [
        pytest.param(
            tau,
            dim,
            modalities,
            rate,
            shared,
            id=f"tau{tau}-d{dim}-M{modalities}-{rate:.0%}-{'shared' if shared else 'each'}",
        )
        for dim, rate, shared in cells
        for modalities in (2, 3)
        for tau in taus
    ]


TAUS = (-0.5, 0.0, 0.3, 0.7)
QUICK = [(1, 0.0, False), (1, 0.75, False), (8, 0.0, False), (8, 0.75, True)]
WIDE = [(64, 0.0, True), (64, 0.75, True)]
FULL = [(8, 0.75, False), (64, 0.0, False), (64, 0.75, False)]
KEPT, LEFT = half(grid(QUICK, TAUS) + grid(WIDE, (-0.5, 0.7)))


def recover(tau: float, dim: int, modalities: int, rate: float, shared: bool) -> None:
    """Simulates, fits, and checks every tau and every parameter of every mixture."""
    rng = np.random.default_rng(dim + 100 * modalities)
    n = rows(dim, modalities, rate, shared)
    expected = pairwise(tau, modalities)
    present = oracles.drop(n, modalities, rate, rng)
    truth = mixtures(modalities, dim, seed=dim)
    z = oracles.simulate_joint(*truth, oracles.tau_to_rho(expected), n, rng, present)
    joint = CopulaJoint(modalities, dim, copula="gaussian", components=COMPONENTS, shared=shared)
    given = None if rate == 0 else torch.tensor(present)
    assert joint.fit(torch.tensor(z, dtype=torch.float32), given, seed=0) is joint
    with torch.no_grad():
        found = joint().kendall_tau().double().numpy()
    assert found.shape == (dim, modalities, modalities)
    error = np.abs(found - expected).max()
    assert error < TAU_TOLERANCE, f"largest error of tau {error:.3f}"
    assert_mixture_recovered(joint().marginals, truth, int(present.sum(0).min()), f"rate {rate}")


@pytest.mark.parametrize(("tau", "dim", "modalities", "rate", "shared"), KEPT)
def test_dependence_is_real(
    tau: float, dim: int, modalities: int, rate: float, shared: bool
) -> None:
    """Kendall tau within .05, mixtures within 5 standard errors, at 0% and 75% missing."""
    recover(tau, dim, modalities, rate, shared)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tau", "dim", "modalities", "rate", "shared"),
    LEFT + grid(WIDE, (0.0, 0.3)) + grid(FULL, TAUS),
)
def test_dependence_is_real_in_the_rest_of_the_grid(
    tau: float, dim: int, modalities: int, rate: float, shared: bool
) -> None:
    """One copula for each of many coordinates needs as many rows as one coordinate does."""
    recover(tau, dim, modalities, rate, shared)


@pytest.mark.parametrize("rho", [0.8, 0.0, -0.8])
def test_trap_sign_and_size_of_dependence(rho: float) -> None:
    """theta must not grow alike on correlations +.8, 0 and -.8."""
    rng = np.random.default_rng(7)
    z = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=2600)[..., None]
    tau = 2 / np.pi * np.arcsin(rho)
    for family in ("gaussian", "frank"):
        joint = CopulaJoint(2, 1, copula=family, components=1).fit(torch.tensor(z).float())
        found = joint().kendall_tau()[0, 0, 1].item()
        assert abs(found - tau) < TAU_TOLERANCE, family
    lacks = pytest.warns(UserWarning, match="no negative") if rho < 0 else nullcontext()
    with lacks:
        gumbel = CopulaJoint(2, 1, copula="gumbel", components=1).fit(torch.tensor(z).float())
    found = gumbel().kendall_tau()[0, 0, 1].item()
    # Gumbel has no negative dependence: its best member is then independence
    assert abs(found - max(tau, 0.0)) < 1.6 * TAU_TOLERANCE


@pytest.mark.parametrize("family", ["gumbel", "frank"])
@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_archimedean_families_recover_their_tau(family: str, modalities: int, rate: float) -> None:
    """Data drawn from the family itself, three coordinates, one parameter each or shared."""
    rng = np.random.default_rng(8)
    n, tau = 3000, 0.5
    theta = {"gumbel": 2.0, "frank": 5.736282707}[family]
    u = np.stack(
        [oracles.archimedean_sample(family, theta, modalities, n, rng) for _ in range(3)], -1
    )
    z = torch.tensor(special.ndtri(u)).float()
    present = torch.tensor(oracles.drop(n, modalities, rate, rng))
    for shared in (False, True):
        joint = CopulaJoint(modalities, 3, copula=family, components=1, shared=shared)
        found = joint.fit(z, present, seed=0)().kendall_tau()
        assert found.shape == (3, modalities, modalities)
        error = (found[:, 0, 1:] - tau).abs().max()
        assert error < TAU_TOLERANCE
        if shared:
            assert (found - found[0]).abs().max() < 1e-6


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_shared_components_recover_their_tau_and_their_mixture(rate: float) -> None:
    """One component for the whole row, a copula inside it; some rows lack some modalities."""
    rng = np.random.default_rng(19)
    n, modalities, dim = {0.0: 3000, 0.5: 7000}[rate], 3, 2
    weight, (_, loc, scale) = np.array([0.2, 0.3, 0.5]), mixtures(modalities, dim, seed=7)
    expected = pairwise(-0.5, modalities)
    root = np.linalg.cholesky(oracles.tau_to_rho(expected))
    noise = np.einsum("ij,njd->nid", root, rng.standard_normal((n, modalities, dim)))
    k = rng.choice(3, n, p=weight)
    z = loc.transpose(1, 0, 2)[k] + scale.transpose(1, 0, 2)[k] * noise
    present = torch.tensor(oracles.drop(n, modalities, rate, rng))
    joint = CopulaJoint(modalities, dim, copula="gaussian", coupling="shared-components")
    found = joint.fit(torch.tensor(z).float(), present, seed=0)().kendall_tau().detach().numpy()
    assert np.abs(found - expected).max() < TAU_TOLERANCE
    fitted = joint().marginals
    count = int(present.sum(0).min())
    for m in range(modalities):
        nearest = (fitted.loc[m].detach() - torch.tensor(loc[m])[:, None]).abs().mean(-1).argmin(-1)
        slack = 5 * scale[m] / np.sqrt(count * weight)[:, None]
        assert (np.abs(fitted.loc[m].detach().numpy()[nearest] - loc[m]) < slack).all()
        assert (np.abs(fitted.scale[m].detach().numpy()[nearest] - scale[m]) < slack).all()
    share = fitted.weights[0].detach().numpy()[nearest]
    assert (np.abs(share - weight) < monte_carlo(count, 0.5)).all()


def test_five_modalities_recover_every_pair() -> None:
    rng = np.random.default_rng(20)
    factor = np.array([0.9, -0.7, 0.5, 0.8, -0.3])
    correlation = np.outer(factor, factor)
    np.fill_diagonal(correlation, 1.0)
    n = 6000
    noise = np.einsum("ij,njd->nid", np.linalg.cholesky(correlation), rng.normal(size=(n, 5, 2)))
    present = torch.tensor(oracles.drop(n, 5, 0.3, rng))
    joint = CopulaJoint(5, 2, copula="gaussian", components=1)
    found = joint.fit(torch.tensor(noise).float(), present)().kendall_tau().detach().numpy()
    assert np.abs(found - 2 / np.pi * np.arcsin(correlation)).max() < TAU_TOLERANCE


def test_trap_scales_do_not_run_away_when_most_is_missing() -> None:
    """Imputed draws never enter the likelihood: sigma at 75% missing in one modality stays put."""
    rng = np.random.default_rng(9)
    n = 6000
    z = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=(n, 4)).transpose(0, 2, 1)
    present = np.ones((n, 2), bool)
    present[:, 1] = rng.random(n) < 0.25
    joint = CopulaJoint(2, 4, copula="gaussian", components=1)
    joint.fit(torch.tensor(z.copy()).float(), torch.tensor(present))
    scale = joint().marginals.scale.detach()
    assert (scale - 1).abs().max() < 0.1


@pytest.mark.parametrize("rho", [0.3, 0.8])
def test_imputation_explains_the_variance_theory_says(rho: float) -> None:
    """K = 1, Gaussian: R^2 = rho^2 of the mean of draws, (1 - rho^2) / S lost to S draws."""
    rng = np.random.default_rng(10)
    n, draws = 4000, 30
    covariance = np.array([[1, rho], [rho, 1]])
    z = rng.multivariate_normal([0, 0], covariance, size=(2 * n, 3)).transpose(0, 2, 1).copy()
    train, test = torch.tensor(z[:n]).float(), torch.tensor(z[n:]).float()
    joint = CopulaJoint(2, 3, copula="gaussian", components=1).fit(train)()
    present = torch.tensor([True, False])
    with torch.no_grad():
        drawn = torch.stack([joint.complete(test, present.expand(n, 2)) for _ in range(draws)])
    residual = (drawn[:, :, 1].mean(0) - test[:, 1]).square().mean()
    explained = float(1 - residual / test[:, 1].var())
    theory = rho**2 - (1 - rho**2) / draws
    assert abs(explained - theory) < 0.03
    spread = drawn[:, :, 1].var(0).mean()
    assert abs(float(spread) - (1 - rho**2)) < 0.03


def test_imputation_explains_the_variance_of_a_mixture() -> None:
    """K = 3, d = 2: E[z_2 | z_1] by quadrature over the copula's conditional law."""
    rng = np.random.default_rng(11)
    n, rho, draws = 2500, 0.85, 30
    weight, loc, scale = mixtures(2, 2, seed=3)
    correlation = np.array([[1, rho], [rho, 1]])
    z = oracles.simulate_joint(weight, loc, scale, correlation, 2 * n, rng)
    train, test = torch.tensor(z[:n]).float(), torch.tensor(z[n:]).float()
    joint = CopulaJoint(2, 2, copula="gaussian", components=3).fit(train, seed=0)()
    with torch.no_grad():
        given = torch.tensor([True, False]).expand(n, 2)
        drawn = torch.stack([joint.complete(test, given) for _ in range(draws)])
    imputed = drawn[:, :, 1].mean(0).double().numpy()
    scores = special.ndtri(oracles.mixture_rosenblatt(weight[0], loc[0], scale[0], z[n:, 0]))
    noise = special.ndtri((np.arange(30) + 0.5) / 30)
    grid = np.stack(np.meshgrid(noise, noise), -1).reshape(-1, 2)
    # the conditional law of both coordinates, on a grid of 900 equally likely pairs
    u = special.ndtr(rho * scores[:400, None] + np.sqrt(1 - rho**2) * grid)
    truth = oracles.mixture_inverse(weight[1], loc[1], scale[1], u.reshape(-1, 2))
    expected = truth.reshape(400, -1, 2).mean(1)
    target = z[n:, 1]
    total = target.var(0)
    theory = expected.var(0) / total
    found = 1 - ((imputed - target) ** 2).mean(0) / total
    assert (theory > 0.3).all()
    np.testing.assert_allclose(found, theory, atol=0.06)
    spread = truth.reshape(400, -1, 2).std(1)
    assert (np.abs(imputed[:400] - expected) < 5 * spread / np.sqrt(draws) + 0.3).all()


def test_trap_what_the_copula_sees_is_uniform_once_initialized() -> None:
    rng = np.random.default_rng(12)
    for dim in (2, 256):
        truth = mixtures(2, dim, seed=4)
        z = oracles.simulate_joint(*truth, np.array([[1, 0.5], [0.5, 1]]), 1500, rng)
        data = torch.tensor(z).float()
        joint = CopulaJoint(2, dim, copula="gaussian", components=3).initialize(data, seed=0)()
        u = joint.to_uniform(data).u.detach().numpy()
        assert ks_distance(u) < 2.2 / np.sqrt(1500)


def test_initialize_separates_components_and_leaves_no_dead_one() -> None:
    """Trap: components that start equal get equal gradients and never differ."""
    rng = np.random.default_rng(13)
    truth = mixtures(2, 4, seed=5)
    z = torch.tensor(oracles.simulate_joint(*truth, np.eye(2), 600, rng)).float()
    joint = CopulaJoint(2, 4, copula="gumbel", components=3)
    joint.initialize(z)
    marginals = joint().marginals
    assert (marginals.loc[:, 0] - marginals.loc[:, 1]).abs().max() > 1
    assert_mixture_recovered(marginals, truth, 100, "initialize")
    tau = joint().kendall_tau()[:, 0, 1]
    assert ((tau > 0.01) & (tau < 0.9)).all()
    (-joint().log_prob(z).mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in joint.parameters())
    assert all(p.grad.abs().sum() > 0 for p in joint.parameters())


def test_fit_raises_the_likelihood_and_is_deterministic() -> None:
    rng = np.random.default_rng(14)
    truth = mixtures(2, 3, seed=6)
    z = oracles.simulate_joint(*truth, np.array([[1, 0.7], [0.7, 1]]), 800, rng)
    data = torch.tensor(z).float()
    first = CopulaJoint(2, 3, copula="gaussian", components=3).fit(data, seed=3)
    torch.manual_seed(99)
    second = CopulaJoint(2, 3, copula="gaussian", components=3).fit(data, seed=3)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    independent = CopulaJoint(2, 3, copula="independence", components=3).fit(data, seed=3)
    assert first().log_prob(data).mean() > independent().log_prob(data).mean() + 0.1


def test_scales_of_components_far_apart_are_not_inflated() -> None:
    """A prior on the variance of all rows would make 70 rows of scale .5 look like .7."""
    rng = np.random.default_rng(18)
    label = rng.integers(0, 3, 210)
    z = 8.0 * (label - 1)[:, None, None] + 0.5 * rng.standard_normal((210, 2, 64))
    fitted = CopulaJoint(2, 64, copula="independence").fit(torch.tensor(z).float())().marginals
    ratio = (fitted.scale / 0.5).detach().double().numpy()
    assert abs(ratio.mean() - 1) < 0.02


def test_weights_of_rows_count() -> None:
    """Rows of weight zero are not there; weight two is the row twice."""
    rng = np.random.default_rng(15)
    z = torch.tensor(rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=1200)).float()
    z = z[..., None].clone()
    z[600:] = 8 + 3 * torch.randn(600, 2, 1)
    weights = torch.cat([torch.ones(600), torch.zeros(600)])
    weighted = CopulaJoint(2, 1, copula="gaussian", components=1).fit(z, weights=weights)()
    subset = CopulaJoint(2, 1, copula="gaussian", components=1).fit(z[:600])()
    torch.testing.assert_close(weighted.marginals.loc, subset.marginals.loc, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(weighted.kendall_tau(), subset.kendall_tau(), atol=1e-2, rtol=1e-2)


def test_bad_embeddings_and_sizes_are_named() -> None:
    z = torch.randn(50, 2, 2)
    bad = z.clone()
    bad[3, 1, 0] = float("inf")
    with pytest.raises(ValueError, match=r"finite|inf"):
        CopulaJoint(2, 2, components=1).fit(bad)
    bad[3, 1, 0] = float("nan")
    with pytest.raises(ValueError, match=r"finite|nan|NaN"):
        CopulaJoint(2, 2, components=1).fit(bad)
    for weights, message in (
        (torch.zeros(50), "weights of all rows that have a modality are zero"),
        (-torch.ones(50), "weights of rows should be finite and not negative, but row 0 has -1"),
        (torch.full((50,), torch.inf), "row 0 has inf"),
        (torch.ones(49), "parameter 'weights'|weights should have shape"),
    ):
        for method in (CopulaJoint(2, 2).fit, CopulaJoint(2, 2).initialize):
            with pytest.raises((ValueError, TypeCheckError), match=message):
                method(z, weights=weights)
    few = torch.zeros(50)
    few[:2] = 1.0
    with pytest.raises(ValueError, match="present in 2 samples of positive weight; 3 components"):
        CopulaJoint(2, 2, components=3).fit(z, weights=few)
    with pytest.raises(ValueError, match="components"):
        CopulaJoint(2, 2, components=60).fit(z)
    with pytest.raises(ValueError, match=r"3"):
        CopulaJoint(3, 2, components=1).fit(z)
    with pytest.raises(ValueError, match=r"unknown copula 'gumbl'; did you mean 'gumbel'"):
        CopulaJoint(2, 2, copula="gumbl")
    with pytest.raises(ValueError, match=r"unknown coupling"):
        CopulaJoint(2, 2, coupling="rosenblat")


def test_state_dict_pickle_and_deepcopy() -> None:
    z = torch.randn(200, 2, 3)
    joint = CopulaJoint(2, 3, copula="frank", components=2).fit(z, seed=0)
    blank = CopulaJoint(2, 3, copula="frank", components=2)
    blank.load_state_dict(joint.state_dict())
    for twin in (blank, copy.deepcopy(joint), pickle.loads(pickle.dumps(joint))):
        torch.testing.assert_close(twin().log_prob(z), joint().log_prob(z), **EXACT)


def test_rows_of_nothing_add_nothing() -> None:
    z = torch.randn(80, 2, 2)
    present = torch.ones(100, 2, dtype=torch.bool)
    present[80:] = False
    padded = CopulaJoint(2, 2, components=1).fit(torch.cat([z, z[:20]]), present)
    plain = CopulaJoint(2, 2, components=1).fit(z)
    for a, b in zip(padded.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_fit_on_absent_junk_equals_fit_on_zeros() -> None:
    rng = np.random.default_rng(16)
    z = torch.randn(300, 2, 2)
    present = torch.tensor(oracles.drop(300, 2, 0.4, rng))
    zero = torch.where(present[..., None], z, 0.0)
    junk = torch.where(present[..., None], z, float("nan"))
    first = CopulaJoint(2, 2, components=2).fit(zero, present, seed=0)
    second = CopulaJoint(2, 2, components=2).fit(junk, present, seed=0)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_oracle_simulation_is_what_it_says() -> None:
    """The simulator itself: uniform margins after its own transform, tau as asked."""
    rng = np.random.default_rng(17)
    truth = mixtures(2, 2, seed=1)
    z = oracles.simulate_joint(*truth, oracles.tau_to_rho(pairwise(0.3, 2)), 3000, rng)
    u = [oracles.mixture_rosenblatt(*(part[m] for part in truth), z[:, m]) for m in range(2)]
    for j in range(2):
        assert stats.kstest(u[0][:, j], "uniform").pvalue > 1e-4
        assert abs(stats.kendalltau(u[0][:, j], u[1][:, j])[0] - 0.3) < 0.05


def test_a_modality_whose_embeddings_all_coincide_is_started():
    """A collapsed encoder stops nothing: k-means++ then draws its centres evenly."""
    z = torch.randn(40, 2, 3)
    z[:, 0] = 0.7
    joint = CopulaJoint(2, 3, "gumbel", 2).initialize(z)
    assert bool(joint().log_prob(z).isfinite().all())


def test_the_multivariate_cdf_has_its_slope_in_single_precision() -> None:
    """Of a coordinate far below all components, as that of double precision."""
    slopes = []
    for dtype in (torch.float32, torch.float64):
        joint = CopulaJoint(2, 2, "gaussian", 2, coupling="multivariate-cdf").to(dtype)()
        z = torch.full((1, 2, 2), -1e4, dtype=dtype, requires_grad=True)
        joint.to_scalar(z).log_u.sum().backward()
        slopes.append(z.grad.double())
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=0.0)
