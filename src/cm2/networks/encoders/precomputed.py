"""Embeddings that were computed before, such as those that ``cm2 embed`` keeps."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from cm2.networks.encoders.base import Encoder, register
from cm2.networks.encoders.projection import Projection


@register("precomputed")
class Precomputed(Encoder):
    """A linear map of given embeddings, which should be on the scale of one.

    ``Dense`` on the same input adds hidden layers.

    Args:
        features: Width of the given embeddings.
        dim: Width of the embedding.
        dropout: Probability of dropping a given coordinate.

    Example:
        >>> import torch
        >>> Precomputed(features=312, dim=4)(torch.zeros(3, 312)).shape
        torch.Size([3, 4])
    """

    def __init__(self, features: int, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__(dim)
        if features < 1:
            raise ValueError(f"embeddings need coordinates, but features is {features}")
        self.features = features
        self.projection = Projection(features, dim, dropout)

    def forward(self, x: Float[Tensor, "row feature"]) -> Float[Tensor, "row dim"]:
        """Projects given embeddings."""
        if x.shape[-1] != self.features:
            raise ValueError(
                f"the encoder expects embeddings of width {self.features}, but got {x.shape[-1]}"
            )
        out: Tensor = self.projection(x)
        return out
