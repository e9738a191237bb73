"""Models that attend over steps: order and hours matter, padding and absence do not."""

from itertools import product
from typing import ClassVar

import pytest
import torch

from cm2.core.records import Batch, Padded, Steps
from cm2.networks import models
from cm2.networks.encoders import Encoder
from cm2.networks.encoders.base import regular, stepped
from cm2.networks.models import Late, Model
from laws import FLOAT32
from small_clinical import CLINICAL, clinical_batch, encoder

OPTIONS = {
    "healnet": {"depth": 1, "latents": 3, "heads": 2},
    "interleaved": {"layers": 1, "heads": 2, "points": 4, "waves": 8},
    "lsmt": {"depth": 1, "heads": 2, "latents": 3, "readings": 1},
    "umse": {"depth": 2, "heads": 2, "bottlenecks": 2},
}
names = pytest.mark.parametrize("name", sorted(OPTIONS))


class Each(Encoder):
    """Steps as they are given; their mean, which their order does not change, is the embedding."""

    timed: ClassVar[bool] = True

    def forward(self, x: Padded) -> torch.Tensor:
        return torch.where(x.mask.unsqueeze(-1), x.values, 0.0).sum(1) / x.mask.sum(1, keepdim=True)

    def steps(self, x: Padded, hours: torch.Tensor | None = None) -> Steps:
        return stepped(x.values, x.mask, regular(x.mask) if hours is None else hours)


def build(name: str, kinds: tuple[str, ...], dim: int = 8) -> Model:
    encoders = {kind: encoder(kind, dim) for kind in kinds}
    torch.manual_seed(1)
    return models.REGISTRY[name](encoders, 3, dropout=0.0, **OPTIONS[name]).eval()


@names
def test_permuting_the_hours_of_a_series_changes_the_logits(name: str) -> None:
    """Also where it changes no embedding, so that it cannot change what reads embeddings."""
    torch.manual_seed(0)
    x = Padded(torch.randn(4, 6, 8), torch.ones(4, 6, dtype=torch.bool))
    present = torch.ones(4, 2, dtype=torch.bool)
    table = torch.randn(4, 5)
    batch = Batch({"series": x, "dense": table}, present)
    turned = Batch({"series": x._replace(values=x.values.flip(1)), "dense": table}, present)
    encoders = {"series": Each(8), "dense": encoder("dense", 8)}
    late = Late(encoders, 3, dropout=0.0).eval()
    torch.testing.assert_close(late(turned).logits, late(batch).logits)
    model = models.REGISTRY[name](encoders, 3, dropout=0.0, **OPTIONS[name]).eval()
    assert ((model(turned).logits - model(batch).logits).abs().amax(dim=1) > 1e-4).all()


@names
@pytest.mark.parametrize("kind", ["series", "transformer"])
def test_permuting_the_hours_of_an_encoded_series(name: str, kind: str) -> None:
    model, batch = build(name, (kind, "image")), clinical_batch((kind, "image"))
    batch.present[:] = True
    x = batch.inputs[kind]
    whole = Padded(x.values[:1], x.mask[:1])
    first = Batch({kind: whole, "image": batch.inputs["image"][:1]}, batch.present[:1])
    turned = {**first.inputs, kind: whole._replace(values=whole.values.flip(1))}
    change = model(first._replace(inputs=turned)).logits - model(first).logits
    assert change.abs().max() > 1e-5, "rounding is below 1e-6"


@names
def test_the_hours_of_a_note_change_its_rows(name: str) -> None:
    """Of an image, which has one hour only, they do where every event has an hour."""
    model, batch = build(name, ("image", "text")), clinical_batch(("image", "text"), 12)
    hours = {"text": torch.tensor([1.0, 20.0, 47.0]).expand(12, 3), "image": torch.ones(12)}
    logits = model(batch._replace(hours=hours)).logits
    later = model(batch._replace(hours=hours | {"text": hours["text"].flip(1)})).logits
    several = batch.present[:, 1] & (batch.inputs["text"].mask.any(-1).sum(1) > 1)
    assert several.any()
    change = (later - logits).abs().amax(dim=1)
    assert (change[several] > 1e-6).all()
    assert not change[~batch.present[:, 1]].any()
    other = model(batch._replace(hours=hours | {"image": torch.full((12,), 30.0)})).logits
    moved = (other - logits).abs().amax(dim=1) > 1e-6
    assert torch.equal(moved, batch.present[:, 0] & (name == "umse"))


@names
def test_padding_changes_nothing(name: str) -> None:
    model, batch = build(name, CLINICAL), clinical_batch(CLINICAL)
    longer = {
        kind: Padded(*(torch.cat([part, torch.zeros_like(part)], dim=1) for part in x))
        if isinstance(x, Padded)
        else x
        for kind, x in batch.inputs.items()
    }
    torch.testing.assert_close(
        model(batch._replace(inputs=longer)).logits, model(batch).logits, **FLOAT32
    )


@names
def test_every_subset_predicts_and_none_like_another(name: str) -> None:
    model, batch = build(name, CLINICAL), clinical_batch(CLINICAL, 1)
    subsets = list(product([False, True], repeat=3))
    logits = torch.cat(
        [model(batch._replace(present=torch.tensor([subset]))).logits for subset in subsets]
    )
    assert logits.isfinite().all()
    apart = torch.cdist(logits, logits) + torch.eye(len(subsets))
    assert apart.min() > 1e-5


@names
def test_a_series_without_a_step_is_one_that_is_missing(name: str) -> None:
    model, batch = build(name, ("series", "image")), clinical_batch(("series", "image"))
    batch.present[:] = True
    x = batch.inputs["series"]
    gone = x._replace(mask=torch.zeros_like(x.mask))
    absent = batch._replace(present=batch.present & torch.tensor([False, True]))
    for given in (gone, Padded(x.values[:, :0], x.mask[:, :0])):
        found = model(batch._replace(inputs={**batch.inputs, "series": given})).logits
        torch.testing.assert_close(found, model(absent).logits)


def test_the_interleaved_state_of_what_is_missing_is_zeros() -> None:
    model, batch = build("interleaved", CLINICAL), clinical_batch(CLINICAL)
    given: list[torch.Tensor] = []
    model.residual.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    model(batch)
    there = given[0].unflatten(1, (3, 8)).any(dim=-1)
    assert torch.equal(there, batch.present)


@names
def test_what_pools_steps_is_dropped(name: str) -> None:
    assert not [key for key in build(name, ("text",)).state_dict() if "score" in key]


def test_mistakes_are_named() -> None:
    encoders = {"a": encoder("dense", 8)}
    with pytest.raises(ValueError, match=r"at least 1 and horizon positive, .* 0\.0"):
        models.LSMT(encoders, 2, horizon=0.0)
    with pytest.raises(ValueError, match=r"at least 1 and horizon positive, .* 8, 0 and"):
        models.Interleaved(encoders, 2, points=0)
    with pytest.raises(ValueError, match="waves must be a multiple of heads, 8, but is 12"):
        models.Interleaved(encoders, 2, waves=12)
