"""The last step of every encoder: from features to a bounded embedding."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Ball(nn.Module):
    r"""Squeezes vectors smoothly into a ball, row by row.

    .. math:: z = x \Big/ \sqrt{1 + \tfrac{1}{d}\lVert x\rVert^2 / r^2}

    An embedding on the scale of one passes almost unchanged, and none can run away: its root mean
    square stays below ``radius``. Layer normalisation would bound it too, but puts embeddings on a
    sphere, where the last coordinate follows from the others (all of them at ``dim = 1``), and a
    density in all coordinates does not exist.

    Args:
        radius: Limit of the root mean square of the coordinates.
    """

    def __init__(self, radius: float = 3.0) -> None:
        super().__init__()
        self.radius = radius

    def forward(self, x: Float[Tensor, "*row dim"]) -> Float[Tensor, "*row dim"]:
        """Scales every row by a factor between zero and one."""
        square = (x / self.radius).square().mean(dim=-1, keepdim=True)
        return x * torch.rsqrt(1 + square)


class Projection(nn.Module):
    """A linear map from an encoder's features to a bounded embedding.

    Args:
        features: Width of the encoder's features.
        dim: Width of the embedding.
        dropout: Probability of dropping a feature.
    """

    def __init__(self, features: int, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, dim)
        self.bounded = Ball()

    def forward(self, features: Float[Tensor, "*row feature"]) -> Float[Tensor, "*row dim"]:
        """Returns the embedding, in single precision also where features have half of it."""
        out: Tensor = self.linear(self.dropout(features))
        if out.dtype in (torch.bfloat16, torch.float16):
            out = out.float()
        bounded: Tensor = self.bounded(out)
        return bounded
