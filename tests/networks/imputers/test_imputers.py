"""Imputers: what is present stays bit for bit, what is missing follows the law that is promised."""

import pytest
import torch

from cm2 import CopulaJoint
from cm2.networks import imputers
from laws import monte_carlo

NAMES = sorted(imputers.REGISTRY)


def joint(modalities: int = 3, dim: int = 2) -> CopulaJoint:
    torch.manual_seed(3)
    module = CopulaJoint(modalities, dim, copula="gaussian", components=2)
    z = torch.randn(300, 1, dim) + 0.5 * torch.randn(300, modalities, dim)
    module.fit(z)
    return module


@pytest.fixture(scope="module")
def fitted() -> CopulaJoint:
    return joint()


@pytest.mark.parametrize("name", NAMES)
def test_present_entries_are_bit_equal(name: str, fitted: CopulaJoint) -> None:
    z, present = torch.randn(20, 3, 2), torch.rand(20, 3) < 0.5
    present[0], present[1] = False, True
    completed = imputers.REGISTRY[name]()(z, present, fitted())
    assert torch.equal(completed[present], z[present])
    assert completed.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_absent_entries_are_not_read(name: str, fitted: CopulaJoint) -> None:
    z, present = torch.randn(20, 3, 2), torch.rand(20, 3) < 0.5
    results = []
    for junk in (0.0, 1e30, torch.nan):
        torch.manual_seed(0)
        dirty = torch.where(present.unsqueeze(-1), z, junk)
        results.append(imputers.REGISTRY[name]()(dirty, present, fitted()))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("name", NAMES)
def test_imputed_values_carry_no_gradient(name: str, fitted: CopulaJoint) -> None:
    z = torch.randn(6, 3, 2, requires_grad=True)
    present = torch.tensor([[True, False, True]]).expand(6, 3)
    fitted.zero_grad()
    completed = imputers.REGISTRY[name]()(z, present, fitted())
    completed.square().sum().backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in fitted.parameters())
    torch.testing.assert_close(z.grad, 2 * z.detach() * present.unsqueeze(-1))


@pytest.mark.parametrize("name", NAMES)
def test_draws_says_whether_values_vary(name: str, fitted: CopulaJoint) -> None:
    imputer = imputers.REGISTRY[name]()
    z, present = torch.zeros(4, 3, 2), torch.zeros(4, 3).bool()
    same = torch.equal(imputer(z, present, fitted()), imputer(z, present, fitted()))
    assert same is not imputer.draws


def test_conditional_draws_follow_what_is_present_and_marginal_draws_do_not(
    fitted: CopulaJoint,
) -> None:
    """Correlation 0.8 in each coordinate, by construction."""
    n = 2000
    z = torch.randn(n, 1, 2) + 0.5 * torch.randn(n, 3, 2)
    present = torch.tensor([True, False, False]).expand(n, 3)
    found = {}
    for name in ("conditional", "marginal"):
        completed = imputers.REGISTRY[name]()(z, present, fitted())
        found[name] = torch.corrcoef(completed[:, :2, 0].T)[0, 1]
        spread = completed[:, 1].std(0)
        assert ((spread - 1.25**0.5).abs() < 0.2).all()
    assert abs(found["conditional"] - 0.8) < 0.1
    assert abs(found["marginal"]) < monte_carlo(n)


def test_mean_is_the_mean_of_the_mixture(fitted: CopulaJoint) -> None:
    z, present = torch.zeros(1, 3, 2), torch.zeros(1, 3).bool()
    mean = imputers.REGISTRY["mean"]()(z, present, fitted())
    torch.testing.assert_close(mean[0], fitted().marginals.mean.detach())


def test_conditional_mean_is_the_mean_of_conditional_draws(fitted: CopulaJoint) -> None:
    draws = 400
    z, present = torch.randn(1, 3, 2), torch.tensor([[True, False, True]])
    mean = imputers.REGISTRY["conditional-mean"]()(z, present, fitted())[0, 1]
    many = z.expand(draws, 3, 2), present.expand(draws, 3)
    found = imputers.REGISTRY["conditional"]()(*many, fitted())[:, 1]
    # The mean may be one of 64 draws.
    error = found.std(0) * (1 / draws + 1 / 64) ** 0.5
    assert ((found.mean(0) - mean).abs() < 4 * error).all()
    assert ((mean - fitted().marginals.mean[1]).abs() > 0.1).any()
