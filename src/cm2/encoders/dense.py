"""A residual multilayer perceptron for tables.

Pre-norm residual blocks as in Gorishniy et al. (2021), Revisiting deep learning models for tabular
data, https://arxiv.org/abs/2106.11959.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

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
        self.hidden = nn.Sequential(
            nn.Linear(features, width),
            nn.GELU(),
            nn.Dropout(dropout),
            *(Block(width, dropout) for _ in range(blocks)),
            nn.LayerNorm(width),
            nn.Linear(width, dim),
        )
        self.bounded = Ball()

    def forward(self, x: Float[Tensor, "row feature"]) -> Float[Tensor, "row dim"]:
        """Embeds standardised columns."""
        if x.shape[-1] != self.features:
            raise ValueError(f"the encoder expects {self.features} columns, but got {x.shape[-1]}")
        out: Tensor = self.bounded(self.linear(x) + self.hidden(x))
        return out
