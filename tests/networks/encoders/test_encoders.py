"""Encoders: bounded embeddings, clear errors, and no influence of neighbours or absent rows."""

import pytest
import torch

from cm2.networks import encoders
from cm2.networks.encoders import Dense, embed_together
from cm2.networks.encoders.dense import Ball
from cm2.networks.models import encode_present
from small_networks import Identity


def test_dense_is_registered() -> None:
    assert encoders.REGISTRY["dense"] is Dense


@pytest.mark.parametrize("dim", [1, 2, 16])
def test_an_embedding_cannot_run_away_and_no_direction_collapses(dim: int) -> None:
    torch.manual_seed(0)
    encoder = Dense(6, dim).eval()
    x = torch.randn(400, 6)
    assert encoder(x * 1e6).square().mean(-1).sqrt().max() <= 3.0 + 1e-4
    z = encoder(x).detach()
    variance = torch.linalg.eigvalsh(torch.cov(z.T).reshape(dim, dim))
    assert (variance > 1e-4).all()


def test_ball_is_nearly_the_identity_on_small_vectors() -> None:
    x = torch.randn(5, 4, dtype=torch.float64) * 1e-3
    torch.testing.assert_close(Ball()(x), x, rtol=1e-5, atol=0)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    encoder = Dense(6, 4)
    x = torch.randn(10, 6)
    encoder.eval()
    torch.testing.assert_close(encoder(x)[3:4], encoder(x[3:4]))


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="expects 6 columns, but got 5"):
        Dense(6, 4)(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="dim is 0"):
        Dense(6, 0)
    with pytest.raises(ValueError, match="features is 0"):
        Dense(0, 4)


def test_encoders_meet_only_present_rows() -> None:
    seen = []

    class Spy(Identity):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    x = torch.randn(5, 3)
    x[[1, 4]] = torch.nan
    present = torch.tensor([[True], [False], [True], [True], [False]])
    z = encode_present({"a": Spy(3)}, {"a": x}, present)
    assert torch.equal(seen[0], x[[0, 2, 3]])
    assert torch.equal(z[[0, 2, 3], 0], x[[0, 2, 3]])
    assert (z[[1, 4]] == 0).all()


def test_an_encoder_is_not_called_without_rows() -> None:
    class Refuses(Identity):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("called")

    z = encode_present({"a": Refuses(3)}, {"a": torch.ones(2, 3)}, torch.zeros(2, 1).bool())
    assert z.shape == (2, 1, 3)
    assert (z == 0).all()


def test_encoders_that_embed_together_embed_as_each_by_itself() -> None:
    """Of other columns, other rows, other layers and another class; gradients too."""

    class Doubled(Dense):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    dense = [Dense(n, 4, dropout=0.0) for n in (6, 3, 5)]
    others = [Dense(6, 4, width=8, dropout=0.0), Doubled(6, 4).eval(), Identity(4)]
    every = [encoder.double() for encoder in (*dense, *others)]
    sizes = [(7, 6), (9, 3), (4, 5), (5, 6), (3, 6), (2, 4)]
    inputs = [torch.randn(size, dtype=torch.float64) for size in sizes]
    together = embed_together(every, inputs)
    apart = [encoder(x) for encoder, x in zip(every, inputs, strict=True)]
    parameters = [value for encoder in every for value in encoder.parameters()]
    for given, expected in zip(together, apart, strict=True):
        torch.testing.assert_close(given, expected)
    loss, other = (sum(z.square().sum() for z in parts) for parts in (together, apart))
    for given, expected in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(other, parameters), strict=True
    ):
        torch.testing.assert_close(given, expected)


def test_one_picture_alone_can_be_learned_from() -> None:
    """The last map of so small a picture is one place, of which there is no deviation."""
    encoder = encoders.Image(4, crop=7)
    x = torch.randint(0, 255, (1, 8, 8), dtype=torch.uint8)
    stages = encoder.staged(x)
    for made in (encoder(x), encoder.steps(x).values, next(stages)[0]):
        assert torch.isfinite(made).all()
        made.sum().backward()
    assert encoder.body.training
    averages = [value.clone() for name, value in encoder.named_buffers() if "mean" in name]
    encoder(x.expand(2, -1, -1))
    after = [value for name, value in encoder.named_buffers() if "mean" in name]
    assert any(not torch.equal(*pair) for pair in zip(averages, after, strict=True))
