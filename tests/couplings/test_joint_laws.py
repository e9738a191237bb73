"""Laws of the joints: mass, margins, the closed Gaussian case, draws, completions, traps."""

from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from scipy import stats
from torch import Tensor

import oracles
from cm2 import CopulaJoint, copulas, couplings
from cm2.couplings import Joint, multivariate_cdf
from cm2.marginals import GaussianMixture
from cm2.networks.models.diagnostics import dependence
from families import factor_correlation
from laws import (
    EXACT,
    ORACLE,
    assert_kendall,
    assert_same_law,
    assert_uniform,
    gradients,
    ks_distance,
    monte_carlo,
)

DENSITIES = ("rosenblatt", "shared-components")
FAMILIES = ("independence", "gaussian", "factor", "gumbel", "frank", "clayton", "joe")
every_density = pytest.mark.parametrize("coupling", DENSITIES)
every_coupling = pytest.mark.parametrize("coupling", list(couplings.REGISTRY))
every_family = pytest.mark.parametrize("family", FAMILIES)


def test_every_coupling_is_covered() -> None:
    assert {*DENSITIES, "multivariate-cdf"} == set(couplings.REGISTRY)
    # the others are elliptical or reflect one of these, and meet the laws of copulas by themselves
    others = {f for f in copulas.REGISTRY if f.startswith(("survival-", "rotated"))} | {"student"}
    assert set(FAMILIES) == set(copulas.REGISTRY) - others


def correlations(modalities: int, count: int) -> Tensor:
    """Different correlation matrices for each coordinate, of mixed signs."""
    rng = np.random.default_rng(1)
    factor = rng.uniform(-0.85, 0.85, (count, modalities))
    matrix = factor[:, :, None] * factor[:, None]
    matrix[:, range(modalities), range(modalities)] = 1.0
    return torch.tensor(matrix)


def loadings(modalities: int, dim: int) -> Tensor:
    """Of two factors on all coordinates, of mixed signs and sizes."""
    rng = np.random.default_rng(3)
    return torch.tensor(0.9 * rng.normal(size=(modalities * dim, 2)))


def arguments(
    coupling: str, family: str, modalities: int, dim: int, components: int, shared: bool = False
) -> dict[str, Tensor]:
    """Parameters of a joint, all tensors: of the copula under "copula", the rest of the mixture."""
    rng = np.random.default_rng(0)
    count = couplings.REGISTRY[coupling].copula_batch_shape(dim, shared)
    size = count[0] if count else 1
    strong = 2.2 if modalities < 5 else 1.4  # beyond, the weights of importance sampling spread
    strengths = {
        "independence": torch.zeros(size).double(),
        "gaussian": correlations(modalities, size),
        # the paper's form takes one number of a modality
        "factor": loadings(modalities, 1 if coupling == "multivariate-cdf" else dim),
        "gumbel": torch.linspace(1.3, strong, size).double(),
        "frank": torch.linspace(5.0, 2.0, size).double(),
        "clayton": torch.linspace(0.6, 2 * strong - 2, size).double(),
        "joe": torch.linspace(1.5, strong + 0.3, size).double(),
    }
    copula = strengths[family] if count or family == "factor" else strengths[family][0]
    logits = torch.tensor(rng.normal(size=(modalities, components)) / 2)
    if coupling == "shared-components":
        logits = logits[:1].expand(modalities, -1).clone()
    return {
        "copula": copula,
        "logits": logits,
        "loc": torch.tensor(1.5 * rng.normal(size=(modalities, components, dim))),
        "scale": torch.tensor(rng.uniform(0.6, 1.1, size=(modalities, components, dim))),
    }


def build(
    coupling: str, family: str, copula: Tensor, logits: Tensor, loc: Tensor, scale: Tensor
) -> Joint:
    """The joint of these parameters."""
    modalities = loc.shape[0]
    key = {
        "gaussian": "correlation",
        "factor": "loading",
        "gumbel": "alpha",
        "frank": "theta",
        "clayton": "theta",
        "joe": "alpha",
    }.get(family)
    options: dict[str, Any] = {key: copula} if key else {"batch_shape": copula.shape}
    size = modalities
    if family == "factor":
        size, options["block"] = len(copula), len(copula) // modalities
    law = copulas.REGISTRY[family](size, **options)
    return couplings.REGISTRY[coupling](law, GaussianMixture(logits, loc, scale))


def make(
    coupling: str,
    family: str,
    modalities: int,
    dim: int,
    components: int = 2,
    *,
    shared: bool = False,
    dtype: torch.dtype = torch.float64,
) -> Joint:
    """A joint of the code under test."""
    given = arguments(coupling, family, modalities, dim, components, shared)
    return build(coupling, family, **{name: value.to(dtype) for name, value in given.items()})


def completed(joint: Joint, z: Tensor, present: Tensor) -> Tensor:
    """One imputation: the paper's form has no law given what is present, and takes the marginal."""
    if isinstance(joint, couplings.MultivariateCdfJoint):
        return joint.marginal_complete(z, present)
    return joint.complete(z, present)


def mixture_of(joint: Joint, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and scales of one modality, for the oracles."""
    marginals = joint.marginals
    return (
        marginals.logits.softmax(-1)[m].numpy(),
        marginals.loc[m].numpy(),
        marginals.scale[m].numpy(),
    )


def draw_mixture(joint: Joint, m: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws of one modality's mixture by numpy."""
    weight, loc, scale = mixture_of(joint, m)
    k = rng.choice(len(weight), n, p=weight)
    return loc[k] + scale[k] * rng.standard_normal((n, loc.shape[1]))


def rows(joint: Joint, n: int) -> Tensor:
    """Some rows where the joint lives."""
    rng = np.random.default_rng(2)
    modalities = joint.event_shape[0]
    return torch.tensor(np.stack([draw_mixture(joint, m, n, rng) for m in range(modalities)], 1))


# Mass and margins -------------------------------------------------------------------------------


@every_density
@every_family
@pytest.mark.parametrize("modalities", [2, 3])
def test_mass_is_one_by_quadrature(coupling: str, family: str, modalities: int) -> None:
    """d = 1: trapezoidal rule in two and three dimensions."""
    joint = make(coupling, family, modalities, 1)
    x = np.linspace(-9.5, 9.5, {2: 301, 3: 64}[modalities])
    grid = np.stack(np.meshgrid(*[x] * modalities, indexing="ij"), -1).reshape(-1, modalities, 1)
    mass = joint.log_prob(torch.tensor(grid)).exp().sum() * (x[1] - x[0]) ** modalities
    np.testing.assert_allclose(float(mass), 1.0, rtol=1e-5)


@every_density
@every_family
@pytest.mark.parametrize(("modalities", "dim"), [(2, 5), (3, 2), (5, 2)])
def test_mass_is_one_by_importance_sampling(
    coupling: str, family: str, modalities: int, dim: int
) -> None:
    """Proposals from the product of the margins, half of them with wider components."""
    joint = make(coupling, family, modalities, dim)
    n = 60_000
    marginals = joint.marginals
    wide = GaussianMixture(marginals.logits, marginals.loc, 1.4 * marginals.scale)
    z = torch.where(torch.rand(n, 1, 1) < 0.5, marginals.sample((n,)), wide.sample((n,)))
    narrow = sum(
        oracles.mixture_log_density(*mixture_of(joint, m), z[:, m].numpy())
        for m in range(modalities)
    )
    wider = sum(
        oracles.mixture_log_density(w, loc, 1.4 * scale, z[:, m].numpy())
        for m in range(modalities)
        for w, loc, scale in [mixture_of(joint, m)]
    )
    proposal = np.logaddexp(narrow, wider) - np.log(2)
    weight = np.exp(joint.log_prob(z).numpy() - proposal)
    error = weight.std() / np.sqrt(n)
    assert error < 0.05
    assert abs(weight.mean() - 1) < 4 * error


@every_density
@every_family
@pytest.mark.parametrize("dim", [1, 2])
def test_margin_of_a_subset_is_the_joint_of_the_subset(
    coupling: str, family: str, dim: int
) -> None:
    """The second of three modalities integrated out by the trapezoidal rule."""
    joint = make(coupling, family, 3, dim)
    z = rows(joint, 4)
    x = np.linspace(-9.5, 9.5, {1: 801, 2: 121}[dim])
    grid = np.stack(np.meshgrid(*[x] * dim, indexing="ij"), -1).reshape(-1, dim)
    full = z[:, None].repeat(1, len(grid), 1, 1)
    full[:, :, 1] = torch.tensor(grid)
    integral = joint.log_prob(full).exp().sum(-1) * (x[1] - x[0]) ** dim
    present = torch.tensor([True, False, True]).expand(4, 3)
    found = joint.log_prob(z, present)
    np.testing.assert_allclose(integral.log().numpy(), found.numpy(), rtol=1e-5, atol=1e-5)


@every_density
@every_family
def test_margin_of_one_modality_is_its_mixture(coupling: str, family: str) -> None:
    joint = make(coupling, family, 3, 4, components=3)
    z = rows(joint, 10)
    for m in range(3):
        present = (torch.arange(3) == m).expand(10, 3)
        expected = oracles.mixture_log_density(*mixture_of(joint, m), z[:, m].numpy())
        np.testing.assert_allclose(joint.log_prob(z, present).numpy(), expected, **ORACLE)
    nothing = torch.zeros(10, 3, dtype=torch.bool)
    assert (joint.log_prob(z, nothing) == 0).all()


@pytest.mark.parametrize("family", ["gaussian", "gumbel", "frank", "clayton", "joe"])
@pytest.mark.parametrize("shared", [False, True])
def test_rosenblatt_joint_is_its_formula(family: str, shared: bool) -> None:
    """sum_m log f_m + sum_j log c_j, with every piece from an oracle."""
    modalities, dim = 3, 3
    joint = make("rosenblatt", family, modalities, dim, shared=shared)
    given = arguments("rosenblatt", family, modalities, dim, 2, shared)["copula"]
    strengths = given.numpy() if not shared else np.stack([given.numpy()] * dim)
    z = rows(joint, 8)
    u = np.stack(
        [oracles.mixture_rosenblatt(*mixture_of(joint, m), z[:, m].numpy()) for m in range(3)], 1
    )
    expected = sum(
        oracles.mixture_log_density(*mixture_of(joint, m), z[:, m].numpy()) for m in range(3)
    )
    for j in range(dim):
        if family == "gaussian":
            expected = expected + oracles.gaussian_log_density(strengths[j], u[:, :, j])
        else:
            expected = expected + np.array(
                [oracles.archimedean_log_density(family, strengths[j], row) for row in u[:, :, j]]
            )
    np.testing.assert_allclose(joint.log_prob(z).numpy(), expected, **ORACLE)
    terms = joint.log_prob_terms(z)
    assert terms["marginal"].shape == (8, 3)
    np.testing.assert_allclose(
        (terms["marginal"].sum(-1) + terms["copula"]).numpy(), expected, **ORACLE
    )


@pytest.mark.parametrize("family", ["gumbel", "frank", "clayton", "joe", "gaussian", "factor"])
def test_couplings_agree_where_they_must(family: str) -> None:
    """One component: shared or not is the same. One coordinate: the paper's form is Sklar's."""
    given = arguments("rosenblatt", family, 3, 2, 1)
    z = rows(build("rosenblatt", family, **given), 10)
    present = torch.rand(10, 3) < 0.7
    torch.testing.assert_close(
        build("rosenblatt", family, **given).log_prob(z, present),
        build("shared-components", family, **given).log_prob(z, present),
        **ORACLE,
    )
    scalar = arguments("rosenblatt", family, 3, 1, 3, shared=True)
    z = rows(build("rosenblatt", family, **scalar), 10)
    torch.testing.assert_close(
        build("rosenblatt", family, **scalar).log_prob(z, present),
        build("multivariate-cdf", family, **scalar).log_prob(z, present),
        **ORACLE,
    )


# The Gaussian case ------------------------------------------------------------------------------


def gaussian_moments(joint: Joint, correlation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (M d,) and covariance (M d, M d) of K = 1 with these correlations of all coordinates."""
    loc, scale = (
        part[:, 0].numpy().ravel() for part in (joint.marginals.loc, joint.marginals.scale)
    )
    return loc, correlation * np.outer(scale, scale)


def correlation_of(family: str, modalities: int, dim: int) -> np.ndarray:
    """Correlations (M d, M d) of the normal scores of all coordinates, by numpy."""
    if family == "factor":
        return factor_correlation(loadings(modalities, dim).numpy(), dim)
    full = np.zeros((modalities, dim, modalities, dim))
    for j, matrix in enumerate(correlations(modalities, dim).numpy()):
        full[:, j, :, j] = matrix
    return full.reshape(modalities * dim, -1)


every_gaussian = pytest.mark.parametrize("family", ["gaussian", "factor"])


@every_density
@every_gaussian
def test_one_component_and_gaussian_copula_is_the_multivariate_normal(
    coupling: str, family: str
) -> None:
    modalities, dim = 3, 2
    joint = make(coupling, family, modalities, dim, components=1)
    mean, covariance = gaussian_moments(joint, correlation_of(family, modalities, dim))
    z = rows(joint, 20)
    expected = stats.multivariate_normal(mean, covariance).logpdf(z.reshape(20, -1).numpy())
    np.testing.assert_allclose(joint.log_prob(z).numpy(), expected, **ORACLE)
    for pattern in ([True, False, True], [False, True, True], [True, True, False]):
        keep = np.repeat(pattern, dim)
        partial = stats.multivariate_normal(mean[keep], covariance[np.ix_(keep, keep)])
        found = joint.log_prob(z, torch.tensor(pattern).expand(20, 3)).numpy()
        np.testing.assert_allclose(
            found, partial.logpdf(z.reshape(20, -1).numpy()[:, keep]), **ORACLE
        )


@every_density
@every_gaussian
def test_completions_of_the_multivariate_normal_have_its_conditional_moments(
    coupling: str, family: str
) -> None:
    modalities, dim, n = 3, 2, 20_000
    joint = make(coupling, family, modalities, dim, components=1)
    mean, covariance = gaussian_moments(joint, correlation_of(family, modalities, dim))
    for pattern in ([True, False, True], [False, True, False]):
        keep = np.repeat(pattern, dim)
        z = rows(joint, 1)
        given = z.reshape(-1).numpy()[keep]
        gain = np.linalg.solve(covariance[np.ix_(keep, keep)], covariance[np.ix_(keep, ~keep)]).T
        center = mean[~keep] + gain @ (given - mean[keep])
        spread = covariance[np.ix_(~keep, ~keep)] - gain @ covariance[np.ix_(keep, ~keep)]
        present = torch.tensor(pattern).expand(n, 3)
        exact = joint.conditional_mean(z, present[:1]).reshape(-1).numpy()
        np.testing.assert_allclose(exact[~keep], center, **ORACLE)
        np.testing.assert_array_equal(exact[keep], given)
        drawn = joint.complete(z.expand(n, -1, -1), present).reshape(n, -1).numpy()[:, ~keep]
        deviation = np.sqrt(np.diag(spread))
        assert (np.abs(drawn.mean(0) - center) < monte_carlo(n) * deviation).all()
        size = np.outer(deviation, deviation)
        assert (np.abs(np.cov(drawn.T) - spread) < monte_carlo(n, 1.5) * size).all()


@every_density
@every_family
@pytest.mark.parametrize("components", [1, 2])
def test_conditional_means_are_those_of_draws(
    coupling: str, family: str, components: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cm2.couplings.base._MEAN_ELEMENTS", 1)  # row by row
    n = 1000
    joint = make(coupling, family, 3, 2, components=components)
    z = rows(joint, 2)
    present = torch.tensor([True, False, True])
    drawn = joint.complete(z.repeat(n, 1, 1), present.expand(2 * n, 3)).unflatten(0, (n, 2))[
        :, :, 1
    ]
    found = joint.conditional_mean(z, present.expand(2, 3))
    assert torch.equal(found[:, present], z[:, present])
    # where it is the mean of 64 draws, their error comes on top
    error = drawn.std(0) * (1 / n + 1 / 64) ** 0.5
    assert ((found[:, 1] - drawn.mean(0)).abs() < 4.5 * error).all()
    if components == 1:  # twice the same; with more components it is the same fixed seed
        assert torch.equal(joint.conditional_mean(z, present.expand(2, 3)), found)


@every_density
@every_family
@pytest.mark.parametrize("components", [1, 2])
def test_a_coupling_knows_whether_its_means_take_draws(
    coupling: str, family: str, components: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    joint = make(coupling, family, 3, 2, components=components)
    drawn = []
    draw = type(joint)._draw
    monkeypatch.setattr(
        type(joint), "_draw", lambda law, *args: drawn.append(law) or draw(law, *args)
    )
    joint.conditional_mean(rows(joint, 2), torch.tensor([True, False, True]).expand(2, 3))
    assert bool(drawn) != type(joint).mean_is_closed(type(joint.copula), components)


@every_density
@every_family
@pytest.mark.parametrize("modalities", [2, 3, 5])
def test_fixed_draws_and_means_of_a_row_ignore_its_neighbours(
    coupling: str, family: str, modalities: int
) -> None:
    """To 1e-5 in float32; they are computed in float64 and rounded."""
    joint = make(coupling, family, modalities, 2, dtype=torch.float32)
    z = rows(joint, 6).float()
    present = torch.tensor(oracles.drop(6, modalities, 0.5, np.random.default_rng(4)))
    base = joint.base_points(4)
    drawn = joint.complete(z, present, base)
    assert drawn.shape == (4, *z.shape)
    mean = joint.conditional_mean(z, present)
    one = slice(1, 2)
    alone = joint.complete(z[one], present[one], base)
    torch.testing.assert_close(alone, drawn[:, one], rtol=0, atol=1e-5)
    alone = joint.conditional_mean(z[one], present[one])
    torch.testing.assert_close(alone, mean[one], rtol=0, atol=1e-5)


@every_density
@every_family
def test_draws_of_random_base_points_have_the_law_of_draws(coupling: str, family: str) -> None:
    joint = make(coupling, family, 3, 2)
    n = 1500
    z = rows(joint, 1).expand(n, -1, -1)
    present = torch.tensor([True, False, False]).expand(n, 3)
    base = joint.base_points(1).map(lambda part: torch.rand(n, *part.shape[2:]).double())
    found, known = joint.complete(z, present, base)[:, 1:], joint.complete(z, present)[:, 1:]
    assert_same_law(found.flatten(1), known.flatten(1), "completions")


def test_base_points_that_do_not_fit_are_refused() -> None:
    joint = make("shared-components", "factor", 3, 2)
    z, present = rows(joint, 2), torch.tensor([[True, False, True]]).expand(2, 3)
    base = joint.base_points(2)
    with pytest.raises(ValueError, match=r"base.coordinate must have shape \(\*, 3, 2\), got"):
        joint.complete(z, present, base._replace(coordinate=torch.rand(2, 1, 3, 4)))
    with pytest.raises(
        ValueError, match=r"Factor: base.factor must have shape \(\*, 4, 2\), got n"
    ):
        joint.complete(z, present, base._replace(factor=None))
    with pytest.raises(ValueError, match=r"base.component must say which component"):
        joint.complete(z, present, base._replace(component=None))
    with pytest.raises(ValueError, match="at least one base point"):
        joint.base_points(0)


@every_density
@every_family
@pytest.mark.parametrize("components", [1, 2])
def test_total_correlation_is_the_mean_of_its_term(
    coupling: str, family: str, components: int
) -> None:
    joint = make(coupling, family, 3, 2, components=components)
    found, error = joint.total_correlation(samples=4000), joint.total_correlation_error(4000)
    assert found.shape == error.shape == ()
    draws = joint.log_prob_terms(joint.sample((4000,)))["copula"]
    apart = (error**2 + draws.var() / len(draws)).sqrt()
    assert (found - draws.mean()).abs() <= 4 * apart
    closed = family in ("gaussian", "factor", "independence")
    assert (error == 0) == (closed and (components == 1 or coupling == "rosenblatt"))


@every_density
def test_one_set_of_draws_gives_the_total_correlation_and_its_error(
    coupling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    joint = make(coupling, "clayton", 3, 2)
    law, calls = type(joint)._total_correlation, []
    monkeypatch.setattr(
        type(joint), "_total_correlation", lambda s, n: calls.append(n) or law(s, n)
    )
    first = joint.total_correlation(200)
    assert joint.total_correlation_error(200) > 0
    assert calls == [200]
    joint.total_correlation_error(300)
    assert calls == [200, 300]
    joint.copula.theta.mul_(2)  # what is kept never outlives the parameters
    fresh = make(coupling, "clayton", 3, 2)
    fresh.copula.theta.mul_(2)
    assert torch.equal(joint.total_correlation(200), fresh.total_correlation(200))
    assert joint.total_correlation(200) != first


@every_density
def test_canonical_correlations_are_those_of_the_dense_matrix(coupling: str) -> None:
    joint = make(coupling, "factor", 3, 3)
    dense = factor_correlation(loadings(3, 3).numpy(), 3).reshape(3, 3, 3, 3)
    found = joint.canonical_correlations()
    assert found.shape == (3, 3, 2)
    for m in range(3):
        np.testing.assert_array_equal(found[m, m], 1.0)
        for n in set(range(3)) - {m}:
            exact = np.linalg.svd(dense[m, :, n], compute_uv=False)[:2]
            np.testing.assert_allclose(found[m, n], exact, **ORACLE)
    with pytest.raises(ValueError, match="Gumbel couples coordinate by coordinate"):
        make(coupling, "gumbel", 3, 3).canonical_correlations()


# Draws ------------------------------------------------------------------------------------------


@every_density
@every_family
def test_samples_have_their_margins_and_their_tau(coupling: str, family: str) -> None:
    modalities, dim, n = 3, 3, 1500
    joint = make(coupling, family, modalities, dim)
    z = joint.sample((n,))
    assert z.shape == (n, modalities, dim)
    u = joint.to_uniform(z).u
    for m in range(modalities):
        exact = oracles.mixture_rosenblatt(*mixture_of(joint, m), z[:, m].numpy())
        assert_uniform(exact, f"modality {m}")
        np.testing.assert_allclose(u[:, m].numpy(), exact, **ORACLE)
    torch.testing.assert_close(joint.from_uniform(joint.to_uniform(z)), z, rtol=1e-8, atol=1e-8)
    tau = joint.kendall_tau()
    assert tau.shape == (dim, modalities, modalities)
    if coupling == "rosenblatt":
        for j in range(dim):
            assert_kendall(u[:, :, j], tau[j], f"coordinate {j}")


def test_shared_components_couple_inside_a_component() -> None:
    """Components far apart: rows fall into K groups alike in all modalities; tau inside each."""
    given = arguments("shared-components", "frank", 2, 2, 2)
    given["loc"] = torch.tensor([[[-20.0, 0.0], [20.0, 0.0]], [[5.0, -30.0], [5.0, 30.0]]]).double()
    joint = build("shared-components", "frank", **given)
    z = joint.sample((3000,))
    first, second = z[:, 0, 0] > 0, z[:, 1, 1] > 0
    assert torch.equal(first, second)
    share = given["logits"][0].softmax(-1)[1]
    assert abs(first.double().mean() - share) < monte_carlo(3000, 0.5)
    for j in range(2):
        assert_kendall(z[first][:1500, :, j], joint.kendall_tau()[j], f"coordinate {j}")


@every_density
@pytest.mark.parametrize("family", ["frank", "gaussian"])
def test_completions_agree_with_rejection_sampling(coupling: str, family: str) -> None:
    """Proposals f_2, accepted in proportion to p(z_1, z_2) / f_2: same law as `complete`."""
    joint = make(coupling, family, 2, 2)
    z = rows(joint, 3)[2:3]
    rng = np.random.default_rng(5)
    proposed = torch.tensor(draw_mixture(joint, 1, 60_000, rng))
    pairs = torch.stack([z[:, 0].expand_as(proposed), proposed], 1)
    log_ratio = joint.log_prob(pairs).numpy() - oracles.mixture_log_density(
        *mixture_of(joint, 1), proposed.numpy()
    )
    accepted = proposed[torch.tensor(np.log(rng.random(60_000)) < log_ratio - log_ratio.max())]
    assert len(accepted) > 800
    present = torch.tensor([True, False]).expand(4000, 2)
    drawn = joint.complete(z.expand(4000, 2, 2), present)
    assert torch.equal(drawn[:, 0], z[:, 0].expand(4000, 2))
    found = torch.cat([drawn[:, 1], drawn[:, 1].sum(-1, keepdim=True)], -1)
    known = torch.cat([accepted, accepted.sum(-1, keepdim=True)], -1)
    assert_same_law(found, known, "completions")


@every_density
@every_family
def test_completed_rows_follow_the_joint(coupling: str, family: str) -> None:
    """Rows of a random pattern, completed, have every margin and every tau of complete rows."""
    n = 1500
    joint = make(coupling, family, 3, 2)
    z = joint.sample((n,))
    present = torch.tensor(oracles.drop(n, 3, 0.5, np.random.default_rng(6)))
    hidden = torch.where(present[..., None], z, float("nan"))
    filled = joint.complete(hidden, present)
    assert torch.equal(filled[present], z[present])
    u = joint.to_uniform(filled).u
    assert_uniform(u.reshape(n, -1), "completed rows")
    fresh = joint.sample((n,))
    for j in range(2):
        pairs = [x[:, :, j] for x in (filled, fresh)]
        gaps = [torch.stack([p[:, 0] - p[:, 1], p[:, 1] - p[:, 2]], -1) for p in pairs]
        assert_same_law(gaps[0], gaps[1], f"differences of coordinate {j}")
        if coupling == "rosenblatt":
            assert_kendall(u[:, :, j], joint.kendall_tau()[j], f"coordinate {j}")


@every_coupling
def test_the_imputations_of_the_paper(coupling: str) -> None:
    """From the marginal, whatever is present; and the mean."""
    n = 1500
    joint = make(coupling, "frank", 2, 2)
    z = joint.sample((n,))
    present = torch.tensor([True, False]).expand(n, 2)
    drawn = joint.marginal_complete(z, present)
    assert torch.equal(drawn[:, 0], z[:, 0])
    assert_uniform(joint.to_uniform(drawn).u[:, 1], "marginal draws")
    u = joint.to_uniform(drawn).u
    for j in range(2):
        assert_kendall(u[:, :, j], np.eye(2), "marginal draws ignore what is present")
    mean = joint.mean_complete(z, present)
    assert torch.equal(mean[:, 0], z[:, 0])
    weight, loc, _ = mixture_of(joint, 1)
    np.testing.assert_allclose(mean[:, 1].numpy(), np.tile(weight @ loc, (n, 1)), **EXACT)


# Rows, junk, batches ----------------------------------------------------------------------------


@every_coupling
@every_family
def test_trap_log_prob_of_a_row_ignores_its_neighbours(coupling: str, family: str) -> None:
    joint = make(coupling, family, 3, 2)
    z = rows(joint, 12)
    present = torch.tensor(oracles.drop(12, 3, 0.4, np.random.default_rng(7)))
    together = joint.log_prob(z, present)
    alone = torch.cat([joint.log_prob(z[i : i + 1], present[i : i + 1]) for i in range(12)])
    torch.testing.assert_close(together, alone, **EXACT)
    shuffled = torch.randperm(12)
    torch.testing.assert_close(
        joint.log_prob(z[shuffled], present[shuffled]), together[shuffled], **EXACT
    )
    torch.testing.assert_close(
        joint.log_prob(z), joint.log_prob(z, torch.ones(12, 3, dtype=torch.bool)), **EXACT
    )
    torch.testing.assert_close(joint.log_prob(z[0]), joint.log_prob(z)[0], **EXACT)
    assert joint.log_prob(z.view(3, 4, 3, 2)).shape == (3, 4)


@every_coupling
@every_family
def test_junk_in_absent_entries_changes_no_value_and_no_gradient(
    coupling: str, family: str
) -> None:
    given = arguments(coupling, family, 3, 2, 2)
    keys = [key for key in given if key != "copula" or family != "independence"]
    z = rows(build(coupling, family, **given), 10)
    present = torch.tensor(oracles.drop(10, 3, 0.5, np.random.default_rng(8)))

    def log_prob(z: Tensor, *values: Tensor) -> Tensor:
        return build(coupling, family, **(given | dict(zip(keys, values, strict=True)))).log_prob(
            z, present
        )

    values = [given[key] for key in keys]
    clean, clean_slopes = log_prob(z, *values), gradients(log_prob, z, *values)
    assert (clean_slopes[0][~present] == 0).all()
    for junk in (float("nan"), 1e30):
        dirty = torch.where(present[..., None], z, torch.tensor(junk).double())
        torch.testing.assert_close(log_prob(dirty, *values), clean, rtol=0, atol=0)
        for a, b in zip(gradients(log_prob, dirty, *values), clean_slopes, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        torch.manual_seed(0)
        filled = completed(build(coupling, family, **given), dirty, present)
        torch.manual_seed(0)
        torch.testing.assert_close(
            filled, completed(build(coupling, family, **given), z, present), rtol=0, atol=0
        )


@every_coupling
@every_family
def test_a_modality_absent_from_the_whole_batch_and_a_batch_of_one(
    coupling: str, family: str
) -> None:
    joint = make(coupling, family, 3, 2)
    for n in (1, 6):
        z = rows(joint, n)
        present = torch.tensor([True, True, False]).expand(n, 3)
        assert joint.log_prob(z, present).isfinite().all()
        filled = completed(joint, z, present)
        assert filled.shape == z.shape
        assert filled.isfinite().all()
        assert torch.equal(filled[:, :2], z[:, :2])
    empty = joint.log_prob(z[:0], present[:0])
    assert empty.shape == (0,)
    assert torch.equal(joint.complete(z, torch.ones(6, 3, dtype=torch.bool)), z)


@every_density
@every_family
def test_permuting_modalities_permutes(coupling: str, family: str) -> None:
    given = arguments(coupling, family, 3, 2, 2)
    order = torch.tensor([2, 0, 1])
    permuted = {key: value[order] for key, value in given.items() if key != "copula"}
    copula = given["copula"]
    if family == "gaussian":
        copula = copula[:, order][:, :, order]
    elif family == "factor":
        copula = copula.unflatten(0, (3, 2))[order].flatten(0, 1)
    permuted["copula"] = copula
    z = rows(build(coupling, family, **given), 8)
    torch.testing.assert_close(
        build(coupling, family, **permuted).log_prob(z[:, order]),
        build(coupling, family, **given).log_prob(z),
        **ORACLE,
    )


@every_coupling
@every_family
def test_five_modalities(coupling: str, family: str) -> None:
    joint = make(coupling, family, 5, 2)
    z = rows(joint, 7)
    present = torch.tensor(oracles.drop(7, 5, 0.5, np.random.default_rng(9)))
    assert joint.log_prob(z, present).isfinite().all()
    assert completed(joint, z, present).isfinite().all()
    assert joint.sample((3,)).shape == (3, 5, 2)
    assert joint.sample((0,)).shape == (0, 5, 2)


@every_density
@every_family
@pytest.mark.parametrize("dim", [1, 2])
def test_margin_of_five_modalities_is_the_joint_of_the_subset(
    coupling: str, family: str, dim: int
) -> None:
    """A joint built of the copula's margin and of the mixtures that are left."""
    joint = make(coupling, family, 5, dim)
    z = rows(joint, 12)
    for kept in ([0, 1, 2, 3], [1, 3, 4], [0, 4], [2, 3]):
        present = torch.zeros(5, dtype=torch.bool)
        present[kept] = True
        coordinates = present.repeat_interleave(joint.copula.block)
        smaller = type(joint)(joint.copula.marginal(coordinates), joint.marginals[kept])
        torch.testing.assert_close(
            joint.log_prob(z, present.expand(12, 5)), smaller.log_prob(z[:, kept]), **ORACLE
        )


@every_coupling
@pytest.mark.parametrize("family", ["gumbel", "frank", "clayton", "joe", "gaussian", "factor"])
@pytest.mark.parametrize(("modalities", "dim"), [(2, 2), (5, 1), (5, 2)])
def test_gradcheck(coupling: str, family: str, modalities: int, dim: int) -> None:
    """Of random combinations of all entries; entry by entry takes five times as long."""
    given = arguments(coupling, family, modalities, dim, 2)
    z = rows(build(coupling, family, **given), 3).requires_grad_()
    present = torch.ones(3, modalities, dtype=torch.bool)
    present[1, 1::2] = False
    leaves = [value.clone().requires_grad_() for value in given.values()]

    def log_prob(z: Tensor, copula: Tensor, *values: Tensor) -> Tensor:
        if family == "gaussian":
            eye = torch.eye(modalities).double()
            copula = (copula + copula.mT) / 2 * (1 - eye) + eye
        return build(coupling, family, copula, *values).log_prob(z, present)

    assert torch.autograd.gradcheck(log_prob, (z, *leaves), fast_mode=True)


@every_coupling
@every_family
def test_extremes_in_float32_are_finite_with_finite_gradients(coupling: str, family: str) -> None:
    given = {k: v.float() for k, v in arguments(coupling, family, 3, 4, 3).items()}
    keys = [key for key in given if key != "copula" or family != "independence"]
    z = torch.stack([s * torch.ones(3, 4) for s in (-1e3, -30.0, -8.0, 8.0, 30.0, 1e3)])
    z = torch.cat([z, z * torch.tensor([1.0, -1.0, 1.0])[:, None]])

    def log_prob(z: Tensor, *values: Tensor) -> Tensor:
        joint = build(coupling, family, **(given | dict(zip(keys, values, strict=True))))
        return joint.log_prob(z)

    values = [given[key] for key in keys]
    assert log_prob(z, *values).isfinite().all()
    for slope in gradients(log_prob, z, *values):
        assert slope.isfinite().all()
    joint = build(coupling, family, **given)
    drawn = completed(joint, z, torch.tensor([True, False, True]).expand(12, 3))
    assert drawn.isfinite().all()


@every_density
@every_family
def test_float32_agrees_with_float64(coupling: str, family: str) -> None:
    joint = make(coupling, family, 3, 16, components=3)
    z = rows(joint, 40).float()
    single = make(coupling, family, 3, 16, components=3, dtype=torch.float32)
    np.testing.assert_allclose(single.log_prob(z), joint.log_prob(z.double()), rtol=1e-4, atol=1e-3)


# The paper's form -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gumbel", "gaussian", "frank"])
def test_trap_the_multivariate_cdf_is_no_density_and_not_uniform(family: str) -> None:
    """Mass E[c(F_1(Z_1), F_2(Z_2))] under the margins, d = 3: ours is one, the paper's is not."""
    n, dim = 60_000, 3
    literal = make("multivariate-cdf", family, 2, dim)
    exact = make("rosenblatt", family, 2, dim)
    z = exact.marginals.sample((n,))
    mass, error = {}, {}
    for name, joint in (("literal", literal), ("exact", exact)):
        ratio = joint.log_prob_terms(z)["copula"].exp()
        mass[name], error[name] = float(ratio.mean()), float(ratio.std() / np.sqrt(n))
    assert abs(mass["exact"] - 1) < 4 * error["exact"]
    assert abs(mass["literal"] - 1) > max(20 * error["literal"], 0.03)
    scalar = literal.to_scalar(z).u
    assert ks_distance(scalar.numpy()) > 0.2
    assert ks_distance(exact.to_uniform(z).u.reshape(n, -1).numpy()) < 2.5 / np.sqrt(n)


@every_coupling
@pytest.mark.parametrize("dim", [1, 16])
def test_trap_the_logged_distance_is_that_of_what_the_copula_sees(coupling: str, dim: int) -> None:
    """On draws of the model itself, some of them incomplete."""
    joint = make(coupling, "gaussian", 3, dim)
    z = joint.sample((4000,))
    present = torch.tensor(oracles.drop(4000, 3, 0.4, np.random.default_rng(3)))
    logged = dependence(joint, torch.where(present[..., None], z, torch.nan), present)
    if coupling == "multivariate-cdf" and dim > 1:
        assert logged["ks"] > 0.3
    else:
        assert logged["ks_max"] < 0.1
        seen = joint.copula_arguments(z).u.reshape(4000, -1)
        assert ks_distance(seen) < 2.5 / np.sqrt(4000)


def test_the_multivariate_cdf_refuses_what_it_cannot_give() -> None:
    """It took draws of the marginal for draws given what is present, and said nothing."""
    joint = make("multivariate-cdf", "gumbel", 2, 3)
    with pytest.raises(ValueError, match="no law of what is missing given what is present"):
        joint.complete(rows(joint, 2), torch.tensor([[True, False]]).expand(2, 2))
    with pytest.raises(ValueError, match="no density"):
        joint.total_correlation()
    with pytest.raises(ValueError, match=r"makes one number of an embedding.*Factor couples vec"):
        CopulaJoint(2, 3, copula="factor", coupling="multivariate-cdf")


def test_the_multivariate_cdf_says_so() -> None:
    assert "not a density" in (multivariate_cdf.__doc__ or "")


# Errors -----------------------------------------------------------------------------------------


def test_errors_name_what_is_wrong() -> None:
    joint = make("rosenblatt", "frank", 2, 3)
    with pytest.raises(ValueError, match=r"couples 3 modalities.*marginals for 2"):
        couplings.RosenblattJoint(copulas.Frank(3, theta=2.0), joint.marginals)
    with pytest.raises(ValueError, match=r"\(\*, 2, 3\), got \(5, 2, 4\)"):
        joint.log_prob(torch.zeros(5, 2, 4).double())
    # the run-time type checker of the tests may speak first
    with pytest.raises((ValueError, TypeCheckError), match="present"):
        joint.log_prob(torch.zeros(5, 2, 3).double(), torch.ones(5, 3, dtype=torch.bool))
    bad = torch.zeros(5, 2, 3).double()
    bad[2, 1, 0] = float("nan")
    for rows in (bad, bad[2], bad[None]):
        with pytest.raises(ValueError, match=r"modalities \[1\] are not finite"):
            joint.log_prob(rows)
    with pytest.raises(ValueError, match=r"unknown coupling 'rosenblat'.*'rosenblatt'"):
        couplings.REGISTRY["rosenblat"]
