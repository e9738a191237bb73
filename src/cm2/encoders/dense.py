"""A residual multilayer perceptron for tables.

Pre-norm residual blocks as in Gorishniy et al. (2021), Revisiting deep learning models for tabular
data, https://arxiv.org/abs/2106.11959.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.utils.rnn import pad_sequence

from cm2.encoders.base import Encoder, register
from cm2.encoders.projection import Ball


class Block(nn.Module):
    """A residual block: layer norm, hidden layer, dropout, and back to the same width.

    Args:
        width: Width of input and output.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: Float[Tensor, "row width"]) -> Float[Tensor, "row width"]:
        """Adds the block's correction to its input."""
        out: Tensor = x + self.body(x)
        return out


@register("dense")
class Dense(Encoder):
    """A residual multilayer perceptron on standardised columns.

    The defaults are small, for about a thousand rows of 6 to 300 columns. A linear path around the
    hidden layers keeps what a linear model would see.

    Args:
        features: Number of columns.
        dim: Width of the embedding.
        width: Width of the hidden layers.
        blocks: Number of residual blocks.
        dropout: Probability of dropping a hidden unit.

    Example:
        >>> import torch
        >>> Dense(features=6, dim=4)(torch.zeros(3, 6)).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        features: int,
        dim: int,
        *,
        width: int = 32,
        blocks: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(dim)
        if features < 1:
            raise ValueError(f"a dense encoder needs columns, but features is {features}")
        self.features = features
        self.linear = nn.Linear(features, dim)
        self.inner = nn.Linear(features, width)
        self.hidden = nn.Sequential(
            nn.GELU(),
            nn.Dropout(dropout),
            *(Block(width, dropout) for _ in range(blocks)),
            nn.LayerNorm(width),
            nn.Linear(width, dim),
        )
        self.bounded = Ball()

    def forward(self, x: Float[Tensor, "row feature"]) -> Float[Tensor, "row dim"]:
        """Embeds standardised columns."""
        linear, inner = self._first(x)
        out: Tensor = self.bounded(linear + self.hidden(inner))
        return out

    @classmethod
    def together(
        cls, encoders: Sequence[Self], inputs: Sequence[Any]
    ) -> list[Float[Tensor, "row dim"]]:
        """Embeds the rows of several modalities, by all encoders of the same hidden layers at once.

        An encoder's layers are so small that calling them costs more than what they compute.
        """
        first = encoders[0]
        if len(encoders) == 1 or len({encoder._layers() for encoder in encoders}) > 1:
            return super().together(encoders, inputs)
        linear, inner = (
            pad_sequence(list(part), batch_first=True)
            for part in zip(*map(cls._first, encoders, inputs), strict=True)
        )
        layers = [dict(encoder.hidden.named_parameters()) for encoder in encoders]
        stacked = {name: torch.stack([layer[name] for layer in layers]) for name in layers[0]}
        hidden = vmap(partial(functional_call, first.hidden), randomness="different")(stacked, inner)
        embedded = first.bounded(linear + hidden)
        return [z[: len(x)] for z, x in zip(embedded, inputs, strict=True)]

    def _layers(self) -> tuple[str, bool]:
        """What two encoders must have in common to work together."""
        return str(self.hidden), self.hidden.training

    def _first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The linear path and what enters the hidden layers."""
        if x.shape[-1] != self.features:
            raise ValueError(f"the encoder expects {self.features} columns, but got {x.shape[-1]}")
        return self.linear(x), self.inner(x)
