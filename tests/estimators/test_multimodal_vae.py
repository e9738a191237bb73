"""The multimodal autoencoder: products of experts, bounds, and what is not there."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.distributions import Normal

from cm2.core.numerics import seeded
from cm2.estimators.multimodal_vae import MultimodalVAE, ProductOfExperts
from cm2.samples.worlds import make_world, remove


def drawn(*shape: int) -> torch.Tensor:
    """Normal numbers, the same in each call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network() -> ProductOfExperts:
    with seeded(0):
        return ProductOfExperts([3, 2, 4], dim=5)


@pytest.fixture(scope="module")
def fitted() -> tuple[MultimodalVAE, dict[str, np.ndarray], np.ndarray]:
    X, y = make_world("shared", 900, 0)
    X = remove(X, 0.3, 1)
    return MultimodalVAE(max_epochs=30).fit(X, y), X, y


def test_the_posterior_is_the_product_of_prior_and_experts(network: ProductOfExperts) -> None:
    mean, precision = drawn(1, 3, 5), drawn(1, 3, 5).abs() + 0.2
    shown = torch.tensor([[True, False, True]])
    found, total = network.posterior(mean, precision, shown)
    z = torch.linspace(-2, 2, 7)[:, None].expand(-1, 5)
    product = Normal(0.0, 1.0).log_prob(z) + sum(
        Normal(mean[0, m], precision[0, m].rsqrt()).log_prob(z) for m in (0, 2)
    )
    gap = product - Normal(found[0], total[0].rsqrt()).log_prob(z)
    torch.testing.assert_close(gap, gap[:1].expand_as(gap), rtol=1e-4, atol=1e-4)


def test_nothing_shown_is_the_prior_and_a_bound_of_zero(network: ProductOfExperts) -> None:
    x, none = drawn(4, 9), torch.zeros(4, 3, dtype=torch.bool)
    mean, total = network.posterior(*network.experts(x), none)
    assert (mean == 0).all()
    assert (total == 1).all()
    assert (network.elbo(x, none.unsqueeze(0)) == 0).all()


def test_what_stands_in_an_absent_modality_changes_nothing(network: ProductOfExperts) -> None:
    x = drawn(6, 9)
    junk = x.clone()
    junk[:, 3:5] = 1e3
    shown = torch.tensor([True, False, True]).expand(1, 6, 3)
    for part in (x, junk):
        with seeded(3):
            bound = network.elbo(part, shown)
        if part is x:
            expected = bound
    torch.testing.assert_close(bound, expected, rtol=0, atol=0)


def test_the_bound_is_below_the_evidence(network: ProductOfExperts) -> None:
    """The evidence by draws from the prior; its logarithm has a standard error below .05."""
    x, shown = drawn(1, 9) * 0.3, torch.ones(1, 1, 3, dtype=torch.bool)
    with seeded(5), torch.no_grad():
        z = torch.randn(200_000, 5)
        again = torch.cat([decode(z) for decode in network.decoders], dim=-1)
        each = Normal(again, 1.0).log_prob(x).sum(dim=-1)
        evidence = each.logsumexp(0) - np.log(len(z))
        bounds = torch.cat([network.elbo(x, shown) for _ in range(400)])
    constant = 9 * 0.5 * np.log(2 * np.pi)  # which the bound leaves out
    assert bounds.mean() - constant < evidence + 0.2
    assert bounds.mean() - constant > evidence - 20


def test_all_subsets_predict_and_a_row_alone_is_as_in_a_cohort(fitted) -> None:
    rival, X, _ = fitted
    proba = rival.predict_proba(X)
    for row in (0, 5):
        alone = rival.predict_proba({name: block[row : row + 1] for name, block in X.items()})
        np.testing.assert_allclose(alone, proba[row : row + 1], rtol=1e-4)
    whole, _ = make_world("shared", 5, 3)
    said = []
    for size in range(1, 5):
        for names in itertools.combinations(whole, size):
            said.append(rival.predict_proba({name: whole[name] for name in names}))
    assert np.isfinite(said).all()
    assert len(np.unique(np.round(said, 12), axis=0)) == 15, "every modality counts"


def test_what_is_missing_is_told_better_than_by_its_mean(fitted) -> None:
    rival, _, _ = fitted
    whole, _ = make_world("shared", 2000, 4)
    truth = rival._tensors(whole)[0]
    network = rival.network_
    # Of the four views, the last is hidden; the first three share two factors with it.
    shown = torch.tensor([True, True, True, False]).expand(len(truth), 4)
    with torch.no_grad():
        mean, _ = network.posterior(*network.experts(truth), shown)
        told = network.decoders[3](mean)
    hidden = truth[:, -told.shape[1] :]
    error = (told - hidden).square().mean()
    assert error < 0.9 * (hidden - hidden.mean(0)).square().mean()


def test_it_learns_and_repeats_itself(fitted) -> None:
    rival, X, y = fitted
    test, truth = make_world("shared", 2000, 5)
    proba = rival.predict_proba(test)
    assert roc_auc_score(truth, proba[:, 1]) > 0.8
    again = MultimodalVAE(max_epochs=30).fit(X, y).predict_proba(test)
    np.testing.assert_array_equal(again, proba)
