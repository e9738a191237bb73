"""Encoders stage by stage, and the models whose modalities exchange between their stages."""

from typing import Any

import pytest
import torch

from cm2.core.records import Batch, Padded
from cm2.networks import models
from cm2.networks.models import Model
from cm2.networks.models.staged import MISSING, PLACES
from cm2.networks.tasks import Multiclass
from laws import FLOAT32
from small_clinical import (
    CASES,
    CLINICAL,
    check_absent_rows,
    clinical_batch,
    encoder,
    inputs,
    rows_of,
    spoiled,
)

names = pytest.mark.parametrize("name", ["daft", "mmtm"])
read = pytest.mark.parametrize("missing", ["skipped", "zeros"])
TABLES = ("dense", "precomputed")
LAYERS: dict[str, dict[str, Any]] = {
    "series": {"layers": 2},
    "transformer": {"layers": 2},
    "image": {"depths": (1, 1), "widths": (4, 8)},
}
"""Encoders of several stages, where there can be some."""


def build(name: str, kinds: tuple[str, ...], place: str = "inside", **options: Any) -> Model:
    encoders = {kind: encoder(kind, 8, **LAYERS.get(kind, {})) for kind in kinds}
    torch.manual_seed(1)
    return models.REGISTRY[name](encoders, 3, place=place, dropout=0.0, **options)


def loss(model: Model, batch: Batch) -> torch.Tensor:
    output = model(batch)
    every = [output.logits, *output.logits_by_modality.values()]
    return sum(Multiclass(3).loss(logits, batch.target).mean() for logits in every)


@pytest.mark.parametrize("kind", sorted(CASES))
def test_stages_without_a_change_are_the_encoder(kind: str) -> None:
    model, x = encoder(kind, **LAYERS.get(kind, {})).eval(), inputs(kind)
    running = model.staged(x)
    values, mask = next(running)
    widths = []
    try:
        while True:
            widths.append(values.shape[-1])
            assert values.shape[:2] == mask.shape
            values, mask = running.send(values)
    except StopIteration as end:
        torch.testing.assert_close(end.value, model(x), **FLOAT32)
    assert tuple(widths) == model.stages
    assert len(widths) == (2 if kind in LAYERS else 1)


@names
def test_inside_encoders_of_one_stage_is_on_their_embeddings(name: str) -> None:
    """Where the only stage is the whole encoder, both places are one."""
    inside, outside = (build(name, TABLES, place).eval() for place in ("inside", "embeddings"))
    state = {key.removeprefix("transfers.0."): v for key, v in inside.state_dict().items()}
    outside.load_state_dict(state)
    batch = clinical_batch(TABLES)
    if name == "daft":  # which inside needs the main modality
        batch.present[:, 0] = True
    torch.testing.assert_close(inside(batch).logits, outside(batch).logits, **FLOAT32)


@names
@read
def test_whatever_stands_in_an_absent_row_changes_nothing(name: str, missing: str) -> None:
    check_absent_rows(lambda: build(name, CLINICAL, missing=missing), loss)


@names
@read
def test_a_row_alone_is_the_row_in_a_cohort_and_every_subset_predicts(
    name: str, missing: str
) -> None:
    model, batch = build(name, CLINICAL, missing=missing).eval(), clinical_batch(CLINICAL)
    logits = model(batch).logits
    for row in (1, 4):
        given = {kind: rows_of(x, slice(row, row + 1)) for kind, x in batch.inputs.items()}
        alone = model(Batch(given, batch.present[row : row + 1])).logits
        torch.testing.assert_close(alone, logits[row : row + 1], **FLOAT32)
    for number in range(8):
        subset = torch.tensor([number & 1, number & 2, number & 4]).bool()
        assert model(batch._replace(present=subset.expand(8, 3))).logits.isfinite().all()


@names
@pytest.mark.parametrize("place", PLACES)
def test_zeros_are_read_for_what_is_missing(name: str, place: str) -> None:
    """As if all had all, black images and empty series among them; skipped, they are not."""
    kinds = ("series", "image")
    batch = clinical_batch(kinds)
    given = {
        kind: spoiled(x, ~there)
        for (kind, x), there in zip(batch.inputs.items(), batch.present.T, strict=True)
    }
    black = torch.where(batch.present[:, 1, None, None], batch.inputs["image"], 0)
    gone = batch.present[:, 0, None]
    empty = Padded(batch.inputs["series"].values, batch.inputs["series"].mask & gone)
    whole = Batch({"series": empty, "image": black.to(torch.uint8)}, torch.ones(8, 2).bool())
    skipped, zeros = (build(name, kinds, place, missing=one).eval() for one in MISSING)
    found = zeros(batch._replace(inputs=given)).logits
    torch.testing.assert_close(found, zeros(whole).logits, **FLOAT32)
    torch.testing.assert_close(found, skipped(whole).logits, **FLOAT32)
    apart = (found - skipped(batch).logits).abs().amax(dim=1) > 1e-6
    assert torch.equal(apart, ~batch.present.all(dim=1))


@names
@pytest.mark.parametrize("kinds", [("series",), CLINICAL])
@read
def test_a_gradient_reaches_every_parameter(
    name: str, kinds: tuple[str, ...], missing: str
) -> None:
    model = build(name, kinds, missing=missing)
    loss(model, clinical_batch(kinds, 40)).backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]


@names
def test_overfits_eight_rows(name: str) -> None:
    model, batch = build(name, TABLES), clinical_batch(TABLES, 8, seed=4)
    batch.present[:, 0] = True
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
    right = model.predict(batch).mean.gather(1, batch.target[:, None])
    assert right.min() > 0.7


def test_modalities_meet_after_each_stage_that_all_have() -> None:
    """With gates of one, nothing is exchanged, and each is classified by itself."""
    kinds = ("series", "image")
    model, batch = build("mmtm", kinds).eval(), clinical_batch(kinds)
    assert [transfer.widths for transfer in model.transfers] == [[8, 4], [8, 8]]
    before = model(batch).logits_by_modality
    for transfer in model.transfers:
        for part in (transfer.excite.weight, transfer.excite.bias):
            part.data.zero_()
    z = model.raw(batch)
    after = model(batch).logits_by_modality
    for column, (kind, head) in enumerate(zip(kinds, model.classifiers, strict=True)):
        torch.testing.assert_close(after[kind], head(z[:, column]), **FLOAT32)
        assert (after[kind] - before[kind]).abs().max() > 1e-5


def test_places_are_named() -> None:
    for name in ("daft", "mmtm"):
        with pytest.raises(ValueError, match="place must be one of"):
            build(name, TABLES, "outside")
        with pytest.raises(ValueError, match="missing must be one of"):
            build(name, TABLES, missing="learned")
        with pytest.raises(ValueError, match="present needs a column for each of"):
            build(name, ("dense",), missing="zeros")(clinical_batch(TABLES))
