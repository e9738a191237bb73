"""Learnable: any distribution made trainable through its constraints."""

import copy
import pickle

import pytest
import torch
from torch.distributions import Gamma, Normal

from cm2 import copulas
from cm2.core.learnable import Learnable
from cm2.marginals import GaussianMixture
from laws import EXACT


def test_starts_where_it_is_told() -> None:
    law = Learnable(Gamma, concentration=torch.tensor([2.0, 3.0]), rate=torch.tensor([0.5, 4.0]))
    torch.testing.assert_close(law().mean, torch.tensor([4.0, 0.75]))
    copula = Learnable(copulas.Gumbel, dim=3, alpha=torch.tensor([1.2, 7.0]))
    assert copula().event_shape == (3,)
    torch.testing.assert_close(copula().alpha, torch.tensor([1.2, 7.0]))
    correlation = torch.tensor([[1.0, 0.6, -0.2], [0.6, 1.0, 0.1], [-0.2, 0.1, 1.0]])
    factor = torch.linalg.cholesky(correlation)
    gaussian = Learnable(copulas.Gaussian, dim=3, scale_tril=factor)
    torch.testing.assert_close(gaussian().correlation, correlation)


def test_parameters_stay_valid_wherever_the_optimiser_goes() -> None:
    for law in (
        Learnable(copulas.Gumbel, dim=2, alpha=torch.tensor([1.5])),
        Learnable(copulas.Frank, dim=3, theta=torch.tensor([1.5])),
        Learnable(copulas.Gaussian, dim=3, scale_tril=torch.eye(3)),
        Learnable(
            GaussianMixture, logits=torch.zeros(3), loc=torch.zeros(3, 2), scale=torch.ones(3, 2)
        ),
    ):
        for parameter in law.parameters():
            with torch.no_grad():
                parameter.copy_(4 * torch.randn_like(parameter))
        built = law()
        type(built)(  # validated, unlike the one in training
            **law.options,
            **{name: getattr(built, name) for name in law.unconstrained},
            validate_args=True,
        )


def test_gradients_reach_parameters_unless_frozen() -> None:
    law = Learnable(Normal, loc=torch.zeros(2), scale=torch.ones(2))
    assert {name for name, _ in law.named_parameters()} == {
        "unconstrained.loc",
        "unconstrained.scale",
    }
    value = torch.tensor([1.0, -2.0], requires_grad=True)
    law().log_prob(value).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in law.parameters())
    law.zero_grad()
    law(frozen=True).log_prob(value).sum().backward()
    assert all(p.grad is None for p in law.parameters())
    assert value.grad is not None


def test_set_moves_parameters() -> None:
    law = Learnable(copulas.Gumbel, dim=2, alpha=torch.tensor([1.5]))
    law.set(alpha=torch.tensor([4.0]))
    torch.testing.assert_close(law().alpha, torch.tensor([4.0]))


def test_state_dict_pickle_and_deepcopy() -> None:
    law = Learnable(copulas.Frank, dim=2, theta=torch.tensor([2.0, -3.0]))
    u = torch.rand(5, 1, 2)
    blank = Learnable(copulas.Frank, dim=2, theta=torch.tensor([1.0, 1.0]))
    blank.load_state_dict(law.state_dict())
    for twin in (blank, copy.deepcopy(law), pickle.loads(pickle.dumps(law))):
        torch.testing.assert_close(twin().log_prob(u), law().log_prob(u), **EXACT)


def test_no_parameters_without_constraints() -> None:
    law = Learnable(copulas.Independence, dim=2, batch_shape=(3,))
    assert not list(law.parameters())
    assert law().batch_shape == (3,)


def test_bad_start_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"(?i)gumbel.*alpha"):
        Learnable(copulas.Gumbel, dim=2, alpha=torch.tensor([0.5]))
