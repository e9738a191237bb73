"""Mixtures and reflections of copulas beyond the common laws."""

import copy
import pickle

import numpy as np
import pytest
import pyvinecopulib as pv
import torch
from scipy import stats

from cm2 import copulas
from cm2.copulas import Clayton, Gaussian, Gumbel, Joe, Mixture, Rotated, StudentT
from cm2.core.learnable import Learnable
from cm2.couplings.joint import CopulaJoint
from laws import EXACT, assert_kendall, assert_same_law, assert_uniform, monte_carlo

TWO = torch.tensor(2.0, dtype=torch.float64)


def mixture(dim: int = 3) -> Mixture:
    """An asymmetric one, of three kinds of copula."""
    parts = [
        Gumbel(dim, alpha=TWO + 1),
        Rotated.survival(Joe(dim, alpha=TWO)),
        Gaussian(dim, torch.eye(dim).double()),
    ]
    return Mixture(parts, weights=torch.tensor([0.3, 0.5, 0.2]).double())


@pytest.mark.parametrize(
    ("degrees", "word"), [(90, "rotated90"), (180, "survival"), (270, "rotated270")]
)
@pytest.mark.parametrize("family", ["gumbel", "clayton", "joe"])
def test_rotations_equal_pyvinecopulib(family: str, degrees: int, word: str) -> None:
    u = np.random.default_rng(0).random((100, 2))
    points, first = torch.tensor(u), torch.tensor([True, False])
    inside = copulas.REGISTRY[family](2, TWO)
    (name,) = inside.parameters
    reference = pv.Bicop(
        family=getattr(pv.BicopFamily, family), rotation=degrees, parameters=np.array([[2.0]])
    )
    by_name = copulas.REGISTRY[f"{word}-{family}"](2, **{name: TWO})
    for copula in (by_name, Rotated.by_degrees(inside, degrees)):
        np.testing.assert_allclose(copula.log_prob(points), np.log(reference.pdf(u)), **EXACT)
        np.testing.assert_allclose(copula.cdf(points), reference.cdf(u), **EXACT)
        for present, h in ((first, reference.hfunc1(u)), (~first, reference.hfunc2(u))):
            found = copula.conditional_cdf(points, present)[:, ~present].squeeze(-1)
            np.testing.assert_allclose(found, h, rtol=1e-9, atol=1e-9)
        assert copula.kendall_tau()[0, 1].item() == pytest.approx(reference.tau)


def test_a_reflected_elliptical_copula_is_one_of_the_other_sign() -> None:
    matrix = torch.tensor([[1.0, 0.5, 0.3], [0.5, 1.0, -0.2], [0.3, -0.2, 1.0]]).double()
    sign = torch.tensor([-1.0, 1.0, -1.0]).double()
    turned = Rotated(StudentT(3, matrix, 4.0), flip=(True, False, True))
    other = StudentT(3, matrix * sign[:, None] * sign, 4.0)
    u = torch.rand(40, 3, dtype=torch.float64)
    present = torch.rand(40, 3) < 0.6
    for law in (
        lambda c: c.log_prob(u),
        lambda c: c.log_prob(u, present),
        lambda c: c.conditional_cdf(u, present),
        lambda c: c.kendall_tau(),
        lambda c: c.lower_tail_dependence(),
        lambda c: c.upper_tail_dependence(),
        lambda c: c.mixed_tail_dependence(),
    ):
        torch.testing.assert_close(law(turned), law(other), **EXACT)
    torch.testing.assert_close(turned.cdf(u), other.cdf(u), rtol=0, atol=1e-4)


def test_reflection_swaps_tails_and_bad_flips_are_named() -> None:
    gumbel = Gumbel(2, alpha=TWO)
    turned = Rotated.survival(gumbel)
    assert torch.equal(turned.lower_tail_dependence(), gumbel.upper_tail_dependence())
    assert torch.equal(turned.upper_tail_dependence(), gumbel.lower_tail_dependence())
    with pytest.raises(ValueError, match=r"Rotated: flip .* 2 coordinates.* 3"):
        Rotated(gumbel, (True, False, True))
    with pytest.raises(ValueError, match=r"Rotated: .*45"):
        Rotated.by_degrees(gumbel, 45)
    with pytest.raises(ValueError, match=r"Rotated90Gumbel: dim must be 2, got 3"):
        copulas.REGISTRY["rotated90-gumbel"].start(3)


def test_reflections_work_by_name_in_joints_and_fits() -> None:
    joint = CopulaJoint(3, 2, copula="survival-clayton")
    assert joint().log_prob(torch.zeros(4, 3, 2)).shape == (4,)
    law = copulas.REGISTRY["rotated90-clayton"].from_kendall_tau(torch.tensor(-0.5).double())
    fit = copulas.fit(law.sample((1500,)), "rotated90-clayton")
    assert abs(fit.parameters["theta"] - 2) < 4 * fit.standard_errors["theta"]


def test_mixture_density_and_cdf_are_averages() -> None:
    law, u = mixture(), torch.rand(50, 3, dtype=torch.float64)
    parts = torch.stack([part.log_prob(u).exp() for part in law.copulas], -1)
    torch.testing.assert_close(law.log_prob(u).exp(), parts @ law.weights, **EXACT)
    present = torch.tensor([True, False, True])
    margin = law.marginal(present)
    torch.testing.assert_close(margin.log_prob(u[:, present]), law.log_prob(u, present), **EXACT)
    parts = torch.stack([part.cdf(u) for part in law.copulas], -1)
    torch.testing.assert_close(law.cdf(u), parts @ law.weights, **EXACT)


def test_mixture_draws_and_completions_follow_it() -> None:
    law, n = mixture(), 6000
    u = law.sample((n,))
    assert_uniform(u, "samples")
    nothing, first = torch.zeros(3, dtype=torch.bool), torch.tensor([True, False, False])
    assert_uniform(law.conditional_cdf(u, nothing), "Rosenblatt transform")
    completed = law.complete(u, first)
    assert torch.equal(completed[:, 0], u[:, 0])
    assert_uniform(law.conditional_cdf(completed, first)[:, 1:], "completions given the first")
    assert_same_law(completed.prod(-1), law.sample((n,)).prod(-1), "products")
    assert_kendall(u[:1500], law.kendall_tau(), "samples")
    rho = stats.spearmanr(u.numpy()).statistic
    assert np.abs(rho - law.spearman_rho().numpy()).max() < monte_carlo(n)


def test_mixture_kendall_tau_of_equal_components() -> None:
    law = Mixture([Clayton(2, theta=TWO), Clayton(2, theta=TWO)])
    assert law.kendall_tau()[0, 1].item() == pytest.approx(0.5, abs=1e-4)
    for tail in ("lower_tail_dependence", "upper_tail_dependence", "spearman_rho"):
        expected = getattr(Clayton(2, theta=TWO), tail)()
        torch.testing.assert_close(getattr(law, tail)(), expected, **EXACT)


def test_mixtures_batch_train_and_copy() -> None:
    parts = [Gumbel(2, alpha=torch.tensor([2.0, 3.0])), Clayton(2, theta=torch.tensor(1.0))]
    law = Learnable(Mixture, copulas=parts, weights=torch.full((2, 2), 0.5))
    assert {name for name, _ in law.named_parameters()} == {
        "unconstrained.weights",
        "unconstrained.alpha_0",
        "unconstrained.theta_1",
    }
    assert law().batch_shape == (2,)
    u = torch.rand(7, 1, 2)
    law().log_prob(u).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in law.parameters())
    with torch.no_grad():
        built = law()
    for twin in (copy.deepcopy(built), pickle.loads(pickle.dumps(built))):
        torch.testing.assert_close(twin.log_prob(u), law().log_prob(u), **EXACT)
    wide = law().expand((3, 2))
    torch.testing.assert_close(wide.log_prob(u[:, None])[:, 1], law().log_prob(u))
    with pytest.raises(ValueError, match="draws carry no gradients"):
        law().rsample((2,))


def test_a_mixture_is_fitted_from_its_start() -> None:
    truth = Mixture(
        [Gumbel(2, alpha=TWO + 2), Clayton(2, theta=TWO / 2)], logits=torch.zeros(2).double()
    )
    start = Mixture([Gumbel(2, alpha=TWO), Clayton(2, theta=TWO)])
    fit = copulas.fit(truth.sample((3000,)), start)
    assert abs(fit.parameters["alpha_0"] - 4) < 4 * fit.standard_errors["alpha_0"]
    assert abs(fit.parameters["theta_1"] - 1) < 4 * fit.standard_errors["theta_1"]


def test_bad_mixtures_are_named() -> None:
    gumbel = Gumbel(2, alpha=TWO)
    with pytest.raises(ValueError, match=r"Mixture: .*\[2, 3\]"):
        Mixture([gumbel, Gumbel(3, alpha=TWO)])
    with pytest.raises(ValueError, match="Mixture: 2 components"):
        Mixture([gumbel, gumbel], weights=torch.ones(3).double() / 3)
    with pytest.raises(ValueError, match="Mixture: weights must be"):
        Mixture([gumbel, gumbel], weights=torch.ones(2).double())
