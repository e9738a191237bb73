"""No fusion, the paper's ablation: embeddings side by side."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from cm2.networks.fusions.base import Fusion, register


@register("beside")
class Beside(Fusion):
    """Concatenates the embeddings of all modalities, and nothing else.

    With ``classifier="linear"`` that is the paper's row "without fusion".

    Args:
        modalities: Number of modalities.
        dim: Width of an embedding.
        width: Not used: the fused vector has ``modalities * dim`` numbers.

    Example:
        >>> import torch
        >>> present = torch.tensor([[True, False]])
        >>> Beside(modalities=2, dim=3)(torch.zeros(1, 2, 3), present).shape
        torch.Size([1, 6])
    """

    def __init__(self, modalities: int, dim: int, *, width: int = 64) -> None:
        super().__init__(modalities, dim, modalities * dim)

    def forward(
        self, z: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
    ) -> Float[Tensor, "batch width"]:
        """Returns all embeddings as one vector."""
        return self.typed(z, present).flatten(-2)
