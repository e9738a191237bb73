"""Fusions: every modality counts, present or imputed, and the fusion knows which it is."""

import pytest
import torch

from cm2.networks import fusions

NAMES = sorted(fusions.REGISTRY)
SIZES = [1, 2, 3, 5]


def build(name: str, modalities: int) -> fusions.Fusion:
    torch.manual_seed(0)
    return fusions.REGISTRY[name](modalities, 4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("modalities", SIZES)
def test_trap_sequence_is_never_shortened(name: str, modalities: int) -> None:
    """Moving any embedding moves the fused vector, whatever is present."""
    fusion = build(name, modalities)
    z = torch.randn(1, modalities, 4)
    for present in (torch.ones(1, modalities).bool(), torch.zeros(1, modalities).bool()):
        base = fusion(z, present)
        assert base.shape == (1, fusion.dim)
        for step in range(modalities):
            moved = z.clone()
            moved[:, step] += 1.0
            assert (fusion(moved, present) - base).abs().max() > 1e-4, f"step {step} is not read"


@pytest.mark.parametrize("name", NAMES)
def test_fusion_knows_what_is_imputed(name: str) -> None:
    fusion = build(name, 3)
    z, present = torch.randn(1, 3, 4), torch.ones(1, 3).bool()
    for step in range(3):
        other = present.clone()
        other[:, step] = False
        assert (fusion(z, other) - fusion(z, present)).abs().max() > 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_independent_and_permute(name: str) -> None:
    fusion = build(name, 3)
    z, present = torch.randn(7, 3, 4), torch.rand(7, 3) < 0.5
    order = torch.randperm(7)
    torch.testing.assert_close(fusion(z[order], present[order]), fusion(z, present)[order])
    torch.testing.assert_close(fusion(z[:1], present[:1]), fusion(z, present)[:1])


def test_wrong_number_of_modalities_is_named() -> None:
    for name in NAMES:
        with pytest.raises(ValueError, match="built for 2 modalities, but got 3"):
            build(name, 2)(torch.zeros(1, 3, 4), torch.ones(1, 3).bool())


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_every_parameter(name: str) -> None:
    fusion = build(name, 3)
    present = torch.rand(9, 3) < 0.5
    h = fusion(torch.randn(9, 3, 4), present)
    (h * torch.randn_like(h)).sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in fusion.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16(name: str) -> None:
    fusion = build(name, 3)
    z, present = torch.randn(9, 3, 4), torch.rand(9, 3) < 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = fusion(z, present)
    torch.testing.assert_close(h.float(), fusion(z, present), rtol=0.1, atol=0.05)
    h.float().sum().backward()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        fusions.REGISTRY["attention"](3, 4, width=6)
