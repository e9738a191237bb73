"""A residual multilayer perceptron for tables.

Pre-norm residual blocks as in Gorishniy et al. (2021), Revisiting deep learning models for tabular
data, https://arxiv.org/abs/2106.11959.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from cm2.networks.encoders.base import Encoder, register
from cm2.networks.encoders.projection import Ball


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
        dropout: float = 0.3,
    ) -> None:
        super().__init__(dim)
        if features < 1:
            raise ValueError(f"a dense encoder needs columns, but features is {features}")
        self.features = features
        self._shape = (width, blocks, dropout)
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

    def kind(self) -> Hashable:
        """The shape of the hidden layers, unless a subclass embeds otherwise."""
        if type(self).forward is not Dense.forward:
            return super().kind()
        return (*self._shape, self.dim, self.hidden.training)

    @classmethod
    def together(
        cls, encoders: Sequence[Any], inputs: Sequence[Any]
    ) -> list[Float[Tensor, "row dim"]]:
        """Embeds the rows of several modalities, by the hidden layers of all encoders at once.

        An encoder's layers are so small that calling them costs more than what they compute.
        """
        if len(encoders) == 1:
            return super().together(encoders, inputs)
        linear, inner = (
            pad_sequence(list(part), batch_first=True)
            for part in zip(*map(cls._first, encoders, inputs), strict=True)
        )
        hidden = _abreast([encoder.hidden for encoder in encoders], inner)
        embedded = encoders[0].bounded(linear + hidden)
        return [z[: len(x)] for z, x in zip(embedded, inputs, strict=True)]

    def _first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The linear path and what enters the hidden layers."""
        if x.shape[-1] != self.features:
            raise ValueError(f"the encoder expects {self.features} columns, but got {x.shape[-1]}")
        return self.linear(x), self.inner(x)


def _abreast(
    layers: Sequence[Any], x: Float[Tensor, "encoder row feature"]
) -> Float[Tensor, "encoder row feature2"]:
    """What the same layer of several encoders makes of the rows of each."""
    first = layers[0]
    if isinstance(first, Block):
        return x + _abreast([layer.body for layer in layers], x)
    if isinstance(first, nn.Sequential):
        for parts in zip(*layers, strict=True):
            x = _abreast(parts, x)
        return x
    if isinstance(first, nn.Linear | nn.LayerNorm):
        weight, bias = (
            torch.stack([getattr(layer, name) for layer in layers]) for name in ("weight", "bias")
        )
        if isinstance(first, nn.Linear):
            return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)
        normal = nn.functional.layer_norm(x, first.normalized_shape, eps=first.eps)
        return normal * weight.unsqueeze(1) + bias.unsqueeze(1)
    out: Tensor = first(x)  # a layer without parameters
    return out
