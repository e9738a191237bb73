"""The simplest fusion: the mean of all embeddings."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.networks.fusions.base import Fusion, register


@register("mean")
class Mean(Fusion):
    """A linear map of the mean over modalities.

    Args:
        modalities: Number of modalities.
        dim: Width of an embedding.
        width: Width of the fused vector.

    Example:
        >>> import torch
        >>> present = torch.tensor([[True, False]])
        >>> Mean(modalities=2, dim=3)(torch.zeros(1, 2, 3), present).shape
        torch.Size([1, 64])
    """

    def __init__(self, modalities: int, dim: int, *, width: int = 64) -> None:
        super().__init__(modalities, dim, width)
        self.linear = nn.Linear(dim, width)

    def forward(
        self, z: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
    ) -> Float[Tensor, "batch width"]:
        """Returns a map of the mean embedding."""
        fused: Tensor = self.linear(self.typed(z, present).mean(dim=-2))
        return fused
