"""Penalties: values by hand, pairs that are present only, and their place in the network."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cm2.networks import penalties
from cm2.networks.models import objectives
from small_networks import network, sample

NAMES = sorted(penalties.REGISTRY)
names = pytest.mark.parametrize("name", NAMES)


def pair(name: str, a: Tensor, b: Tensor) -> Tensor:
    """The distance of two embeddings by another route."""
    if name == "none":
        return torch.zeros(())
    if name == "cosine":
        return 1 - F.cosine_similarity(a, b, dim=0)
    left, right = (a / 0.2).log_softmax(0), (b / 0.2).log_softmax(0)
    return F.kl_div(right, left, reduction="sum", log_target=True)


@names
def test_mean_over_present_pairs(name: str) -> None:
    z = torch.randn(6, 3, 4, dtype=torch.float64)
    present = torch.rand(6, 3) < 0.7
    weight = torch.rand(6, dtype=torch.float64)
    total = share = torch.zeros((), dtype=torch.float64)
    for row in range(6):
        for a in range(3):
            for b in range(3):
                if a != b and present[row, a] and present[row, b]:
                    total = total + weight[row] * pair(name, z[row, a], z[row, b])
                    share = share + weight[row]
    torch.testing.assert_close(penalties.REGISTRY[name]()(z, present, weight), total / share)


@names
@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_nothing_to_compare_is_zero(name: str, modalities: int) -> None:
    z = torch.randn(4, modalities, 3, requires_grad=True)
    present = torch.zeros(4, modalities, dtype=torch.bool)
    present[:, 0] = True
    value = penalties.REGISTRY[name]()(z, present)
    assert value == 0
    if name != "none":
        value.backward()
        assert (z.grad == 0).all()


@names
def test_absent_embeddings_change_nothing(name: str) -> None:
    present = torch.rand(8, 3) < 0.6
    results = []
    clean = torch.randn(8, 3, 4)
    for junk in (0.0, torch.nan, 1e30):
        z = torch.where(present.unsqueeze(-1), clean, junk).requires_grad_()
        value = penalties.REGISTRY[name]()(z, present)
        (value + 0 * torch.where(present.unsqueeze(-1), z, 0.0).sum()).backward()
        results.append((value.detach(), z.grad))
    for value, grad in results[1:]:
        assert torch.equal(value, results[0][0])
        assert torch.equal(grad, results[0][1])


@pytest.mark.parametrize("name", ["cosine", "kl"])
def test_descent_aligns(name: str) -> None:
    torch.manual_seed(0)
    z = torch.randn(5, 3, 4, requires_grad=True)
    present = torch.ones(5, 3, dtype=torch.bool)
    penalty = penalties.REGISTRY[name]()
    start = penalty(z, present).item()
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        penalty(z, present).backward()
        optimizer.step()
    assert penalty(z, present).item() < 0.05 * start


def test_every_penalty_is_an_objective() -> None:
    assert set(NAMES) <= set(objectives.REGISTRY)


@names
def test_in_the_network(name: str) -> None:
    """The joint is fitted as ever; encoders feel the penalty and never the joint's density."""
    model, batch = network(objective=name).eval(), sample()
    terms = model(batch).penalties
    assert set(terms) == {"joint_nll", "alignment"}
    expected = penalties.REGISTRY[name]()(model.embed(batch), batch.present)
    torch.testing.assert_close(terms["alignment"], expected)
    terms["joint_nll"].backward(retain_graph=True)
    assert all(p.grad is None for e in model.encoders.values() for p in e.parameters())
    if name == "none":
        assert not terms["alignment"].requires_grad
        return
    terms["alignment"].backward()
    felt = [p.grad for e in model.encoders.values() for p in e.parameters() if p.grad is not None]
    assert any(g.any() for g in felt)


def test_temperature_must_be_positive() -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        penalties.KL(0.0)
