"""Laws of the steps that every registered encoder gives to models that attend over them."""

import pytest
import torch

from cm2.core.records import Padded, Steps
from cm2.networks.encoders import Dense, Encoder, Image
from cm2.networks.models.base import encode_steps
from laws import FLOAT32
from small_clinical import CASES, encoder, inputs, rows_of, spoiled

kinds = pytest.mark.parametrize("kind", sorted(CASES))
MANY = ("image", "series", "text", "transformer", "vit")
"""Encoders of parts; the others give a row as a whole."""


def cut(steps: Steps, number: int) -> Steps:
    """The first of the steps."""
    return Steps(*(part[:, :number] for part in steps))


def same(left: Steps, right: Steps) -> None:
    """Equal but for rounding, up to steps that are not real."""
    length = max(left.mask.shape[1], right.mask.shape[1])
    for one, other in zip(left, right, strict=True):
        parts = []
        for part in (one, other):
            room = part.new_zeros(len(part), length, *part.shape[2:])
            room[:, : part.shape[1]] = part
            parts.append(room)
        torch.testing.assert_close(*parts, **FLOAT32)


@kinds
@pytest.mark.parametrize("rows", [1, 6])
def test_shapes_and_zeros(kind: str, rows: int) -> None:
    values, mask, hours = encoder(kind).steps(inputs(kind, rows))
    assert values.shape == (*mask.shape, 4)
    assert hours.shape == mask.shape
    assert values.dtype == hours.dtype == torch.float32
    assert mask.any(dim=1).all()
    assert values.square().mean(-1).sqrt().max() <= 3.0
    assert not values[~mask].any()
    assert not hours[~mask].any()
    assert (mask.shape[1] > 1) == (kind in MANY)


@kinds
def test_rows_depend_neither_on_neighbours_nor_on_padding(kind: str) -> None:
    model, x = encoder(kind).eval(), inputs(kind)
    steps = model.steps(x)
    order = torch.randperm(6)
    same(model.steps(rows_of(x, order)), rows_of(steps, order))
    same(model.steps(rows_of(x, slice(2, 3))), rows_of(steps, slice(2, 3)))
    if isinstance(x, Padded):
        longer = Padded(*(torch.cat([part, torch.zeros_like(part)], dim=1) for part in x))
        same(model.steps(longer), steps)


@kinds
def test_a_gradient_reaches_every_parameter_that_steps_are_made_of(kind: str) -> None:
    model = encoder(kind).unpooled()
    z = model.steps(inputs(kind, 30)).values
    (z * torch.randn_like(z)).sum().backward()
    dead = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert not dead


@kinds
def test_hours_are_those_of_the_batch(kind: str) -> None:
    """One a row or one a step; another number of them is refused."""
    model, x = encoder(kind).eval(), inputs(kind)
    mask = model.steps(x).mask
    given = torch.rand(mask.shape) + 1
    assert torch.equal(model.steps(x, given).hours, torch.where(mask, given, 0.0))
    assert torch.equal(model.steps(x, given[:, 0]).hours, torch.where(mask, given[:, :1], 0.0))
    with pytest.raises(ValueError, match="hours need one number a row or a step"):
        model.steps(x, torch.zeros(6, mask.shape[1] + 1))


@kinds
def test_what_stands_in_an_absent_row_changes_no_step(kind: str) -> None:
    x = inputs(kind)
    present = torch.tensor([[True], [False], [True], [True], [False], [True]])
    clean, other = (
        encode_steps({kind: encoder(kind).eval()}, {kind: given}, present, {})[0]
        for given in (x, spoiled(x, ~present.squeeze(1)))
    )
    assert all(torch.equal(*parts) for parts in zip(clean, other, strict=True))
    assert not clean.mask[~present.squeeze(1)].any()
    nothing = encode_steps({kind: encoder(kind)}, {kind: x}, torch.zeros_like(present), {})[0]
    assert nothing.values.shape == (6, 1, 4)
    assert not nothing.mask.any()


def test_the_last_state_of_a_series_is_its_embedding() -> None:
    model, x = encoder("series", hours_per_step=2.0).eval(), inputs("series")
    steps = model.steps(x)
    last = x.mask.sum(dim=1) - 1
    torch.testing.assert_close(steps.values[torch.arange(6), last], model(x), **FLOAT32)
    assert steps.hours[0].tolist() == [0, 2, 4, 6, 8, 10, 12]
    with pytest.raises(ValueError, match="hours_per_step must be positive"):
        encoder("series", hours_per_step=0.0)


def test_a_text_of_one_chunk_is_its_step() -> None:
    model, x = encoder("text").eval(), inputs("text")
    one = Padded(x.values[:, :1], x.mask[:, :1])
    torch.testing.assert_close(model.steps(one).values[:, 0], model(one), **FLOAT32)
    same(cut(model.steps(x), 1), model.steps(one))
    assert model.steps(x).hours[0].tolist() == [0, 1, 2]
    assert "score" not in dict(model.unpooled().named_children())


def test_places_of_an_image_are_its_last_map() -> None:
    """Their features average to what is pooled; a crop of 224 has 7 x 7."""
    model, x = encoder("image").eval(), inputs("image")
    features = model.body(pixel_values=model.colour(x)).last_hidden_state
    steps = model.steps(x)
    assert steps.mask.shape[1] == features.shape[2] * features.shape[3]
    one = model.projection(features[:, :, 0, 1])
    torch.testing.assert_close(steps.values[:, 1], one, **FLOAT32)
    large = Image(4, widths=(2, 2, 2, 2)).eval()
    assert large.steps(torch.zeros(1, 224, 224, dtype=torch.uint8)).mask.shape == (1, 49)


def test_patches_are_the_states_behind_the_class_token() -> None:
    model, x = encoder("vit").eval(), inputs("vit")
    states = model.body(pixel_values=model.colour(x)).last_hidden_state
    assert states.shape == (6, 1 + 4, 8)
    torch.testing.assert_close(model(x), model.projection(states[:, 0]), **FLOAT32)
    torch.testing.assert_close(model.steps(x).values, model.projection(states[:, 1:]), **FLOAT32)


def test_an_encoder_of_ones_own_has_one_step() -> None:
    class Own(Encoder):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    x = torch.randn(3, 2)
    steps = Own(2).steps(x)
    assert torch.equal(steps.values, x.unsqueeze(1))
    assert not Own.timed
    assert not Dense.timed
