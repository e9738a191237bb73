"""The ablation of the paper's fusion: embeddings side by side through one hidden layer."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.networks.fusions.base import Fusion, register


@register("concat")
class Concat(Fusion):
    """Concatenates the embeddings of all modalities.

    Args:
        modalities: Number of modalities.
        dim: Width of an embedding.
        width: Width of the fused vector.

    Example:
        >>> import torch
        >>> present = torch.tensor([[True, False]])
        >>> Concat(modalities=2, dim=3)(torch.zeros(1, 2, 3), present).shape
        torch.Size([1, 64])
    """

    def __init__(self, modalities: int, dim: int, *, width: int = 64) -> None:
        super().__init__(modalities, dim, width)
        self.body = nn.Sequential(nn.Linear(modalities * dim, width), nn.GELU())

    def forward(
        self, z: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
    ) -> Float[Tensor, "batch width"]:
        """Returns the hidden layer on all embeddings at once."""
        fused: Tensor = self.body(self.typed(z, present).flatten(-2))
        return fused
