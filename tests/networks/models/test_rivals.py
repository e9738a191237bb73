"""What each rival's paper calls its method, on small networks."""

from typing import Any

import pytest
import torch

from cm2.networks import models
from cm2.networks.models import Model
from small_clinical import clinical_batch, encoder

KINDS = ("dense", "precomputed", "codes")


def build(name: str, kinds: tuple[str, ...] = KINDS, dim: int = 8, **options: Any) -> Model:
    encoders = {kind: encoder(kind, dim) for kind in kinds}
    torch.manual_seed(1)
    return models.REGISTRY[name](encoders, 3, dropout=0.0, **options)


def test_missing_token_is_learned_where_its_modality_is_missing() -> None:
    model, batch = build("missing-token", depth=1, heads=2), clinical_batch(KINDS, 6)
    batch.present[:] = True
    batch.present[2, 1] = False
    before = model(batch).logits
    model(batch).logits.square().sum().backward()
    assert model.missing.grad.any(dim=1).tolist() == [False, True, False]
    with torch.no_grad():
        model.missing[1, 0] += 1.0  # a norm does not see what is added to all
    changed = (model(batch).logits - before).abs().amax(dim=1) > 1e-6
    assert changed.tolist() == [False, False, True, False, False, False]
    with pytest.raises(ValueError, match="depth must be at least 1, but is 0"):
        build("missing-token", depth=0)


def test_modality_dropout_hides_in_training_only() -> None:
    """As often as it says, never the last one, and as one that is missing."""
    model, batch = build("modality-dropout", rate=0.5), clinical_batch(KINDS, 400)
    batch.present[:] = True
    seen: list[torch.Tensor] = []
    model.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(batch)
    z = seen[0].view(400, 3, 8)
    hidden = (z == 0).all(dim=-1)
    assert not hidden.all(dim=1).any()
    wanted = 0.5 - 0.5**3 / 3  # one of those that would all be hidden stays
    assert abs(hidden.float().mean().item() - wanted) < 4 * (0.25 / 1200) ** 0.5
    whole = model.raw(batch)
    torch.testing.assert_close(z[~hidden], whole[~hidden])
    model.eval()
    logits = model(batch._replace(present=~hidden)).logits
    torch.testing.assert_close(logits, model.classifier(z.flatten(1)))
    with pytest.raises(ValueError, match=r"rate is a probability below one, but is 1\.0"):
        build("modality-dropout", rate=1.0)


def test_healnet_skips_what_is_missing() -> None:
    """As if the network had no such modality, but for one more reading of the latents."""
    model, batch = build("healnet", depth=2, latents=3, heads=2).eval(), clinical_batch(KINDS, 6)
    batch.present[:, 1] = False
    batch.present[:, 0] = True
    calls: list[int] = []
    for thinking in model.thinking:
        thinking.register_forward_hook(lambda *_: calls.append(1))
    logits = model(batch).logits
    assert len(calls) == 2 * 3
    logits.sum().backward()
    for layer in model.crossing:
        assert not any(p.grad.any() for p in layer[1].parameters() if p.grad is not None)
        assert all(p.grad.isfinite().all() for p in layer[0].parameters())
    with pytest.raises(ValueError, match="depth and latents must be at least 1"):
        build("healnet", latents=0)
