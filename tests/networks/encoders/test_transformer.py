"""The Transformer over series: its blocks as torch has them, and measurements at any times."""

import pytest
import torch
from torch import nn

from cm2.core.records import Events, Padded
from cm2.networks.attention import Attention, Block, hidden, sinusoids
from cm2.networks.encoders import Transformer
from laws import FLOAT32
from small_clinical import encoder, inputs

VARIABLES = 6


def events(rows: int = 6, length: int = 9) -> Events:
    """Measurements at irregular hours, each row of another number."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=generator)
    hour = torch.rand(rows, length, generator=generator).mul(48).sort(dim=1).values * mask
    variable = torch.randint(1, VARIABLES, (rows, length), generator=generator) * mask
    return Events(hour, variable, torch.randn(rows, length, generator=generator) * mask, mask)


def measured() -> Transformer:
    torch.manual_seed(0)
    options = {"width": 8, "layers": 1, "heads": 2, "dropout": 0.0}
    return Transformer(4, vocabulary=VARIABLES, **options)


def test_measurements_are_padded_without_a_trace() -> None:
    model, x = measured().eval(), events()
    z = model(x)
    assert z.shape == (6, 4)
    junk = {"hour": torch.nan, "variable": 999, "value": torch.nan}
    spoilt = {name: torch.where(x.mask, getattr(x, name), value) for name, value in junk.items()}
    assert torch.equal(model(Events(**spoilt, mask=x.mask)), z)
    torch.testing.assert_close(model(Events(*(part[3:4] for part in x))), z[3:4], **FLOAT32)
    nothing = model(Events(*(part[:, :0] for part in x)))
    torch.testing.assert_close(nothing, model(x._replace(mask=torch.zeros_like(x.mask))))


def test_hour_variable_and_value_of_every_measurement_count() -> None:
    model, x = measured().eval(), events()
    z = model(x)
    for place in x.mask[0].nonzero().flatten():
        for name, change in (("hour", 5.0), ("variable", 1), ("value", 1.0)):
            part = getattr(x, name).clone()
            part[0, place] = part[0, place] % (VARIABLES - 2) + change
            assert (model(x._replace(**{name: part})) - z)[0].abs().max() > 1e-6


def test_the_order_in_which_measurements_are_listed_does_not() -> None:
    """Only their hours do."""
    model, x = measured().eval(), events()
    order = torch.arange(9).flip(0)
    turned = Events(*(part[:, order] for part in x))
    torch.testing.assert_close(model(turned), model(x), **FLOAT32)
    steps = model.steps(x)
    assert torch.equal(steps.hours, x.hour)
    torch.testing.assert_close(model.steps(turned).values, steps.values[:, order], **FLOAT32)


def test_a_gradient_reaches_every_parameter() -> None:
    model = measured()
    z = model(events(30))
    (z * torch.randn_like(z)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_irregular_hours_of_a_grid() -> None:
    """Given with the steps, they take the place of regular ones."""
    model, x = encoder("transformer", hours_per_step=2.0).eval(), inputs("transformer")
    regular = model.steps(x)
    assert regular.hours[0].tolist() == [0, 2, 4, 6, 8, 10, 12]
    torch.testing.assert_close(model.steps(x, regular.hours), regular)
    other = model.steps(x, regular.hours.square())
    assert (other.values - regular.values).abs().max() > 1e-4


def test_permuting_the_steps_of_a_series_changes_its_embedding() -> None:
    model, x = encoder("transformer").eval(), inputs("transformer")
    turned = Padded(x.values[:1].flip(1), x.mask[:1])
    assert (model(turned) - model(x)[:1]).abs().max() > 1e-4


def test_attention_is_that_of_torch() -> None:
    """With the same weights, keys with a bias too, since it cancels; and blocks likewise."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    nn.init.normal_(layer.self_attn.in_proj_bias)
    block = Block(8, heads=2, then=hidden(8, 16, nn.GELU()), dropout=0.0)
    weights, biases = layer.self_attn.in_proj_weight.chunk(3), layer.self_attn.in_proj_bias.chunk(3)
    parts = (block.attention.query, block.attention.key, block.attention.value)
    pairs = [(block.attention.out, layer.self_attn.out_proj), (block.before, layer.norm1)]
    pairs += [(block.then[0], layer.norm2), (block.then[1], layer.linear1)]
    pairs += [(block.then[4], layer.linear2)]
    with torch.no_grad():
        for part, weight, bias in zip(parts, weights, biases, strict=True):
            part.weight.copy_(weight)
            if part.bias is not None:
                part.bias.copy_(bias)
    for own, other in pairs:
        own.load_state_dict(other.state_dict())
    x, mask = torch.randn(5, 7, 8), inputs("series").mask[:5]
    expected = layer(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(block(x, mask)[mask], expected[mask], rtol=1e-5, atol=1e-5)


def test_attention_to_nothing_is_zero() -> None:
    attention = Attention(4, 6, heads=3)
    context = torch.randn(2, 5, 6, requires_grad=True)
    mask = torch.tensor([[False] * 5, [True] * 2 + [False] * 3])
    told = attention(torch.randn(2, 3, 4), context, mask)
    assert not told[0].any()
    told.sum().backward()
    assert not context.grad[0].any()
    assert not context.grad[1, 2:].any()
    assert context.grad.isfinite().all()
    with pytest.raises(ValueError, match="heads is 0"):
        Attention(4, heads=0)


def test_sinusoids_are_positions_at_whole_numbers() -> None:
    found = sinusoids(torch.arange(4.0), 6)
    for place in range(4):
        for pair in range(3):
            angle = torch.tensor(place / 10_000 ** (2 * pair / 6))
            expected = torch.stack([angle.sin(), angle.cos()])
            torch.testing.assert_close(found[place, 2 * pair : 2 * pair + 2], expected)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="not both"):
        Transformer(4, features=3, vocabulary=4)
    with pytest.raises(ValueError, match="at least 1, but are 76, 8, 0 and 4"):
        Transformer(4, width=8, layers=0)
    with pytest.raises(ValueError, match="this one reads Events, but got Padded"):
        measured()(inputs("series"))
    with pytest.raises(ValueError, match="this one reads Padded, but got Events"):
        encoder("transformer").steps(events())
    with pytest.raises(ValueError, match="hours_per_step must be positive"):
        Transformer(4, hours_per_step=-1.0)
    x = events()
    with pytest.raises(ValueError, match="must lie in 0 to 5"):
        measured()(x._replace(variable=x.variable + 9))
