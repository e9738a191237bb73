"""A multilayer perceptron on embeddings side by side, an ablation of the paper's fusion."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.networks.fusions.base import Fusion, register


@register("mlp")
class MLP(Fusion):
    """Concatenates the embeddings of all modalities before two hidden layers.

    Args:
        modalities: Number of modalities.
        dim: Width of an embedding.
        width: Width of the hidden layers and of the fused vector.
        dropout: Probability of dropping a unit of the first hidden layer.

    Example:
        >>> import torch
        >>> present = torch.tensor([[True, False]])
        >>> MLP(modalities=2, dim=3)(torch.zeros(1, 2, 3), present).shape
        torch.Size([1, 64])
    """

    def __init__(self, modalities: int, dim: int, *, width: int = 64, dropout: float = 0.0) -> None:
        super().__init__(modalities, dim, width)
        self.body = nn.Sequential(
            nn.Linear(modalities * dim, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.GELU(),
        )

    def forward(
        self, z: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
    ) -> Float[Tensor, "batch width"]:
        """Returns the second hidden layer."""
        fused: Tensor = self.body(self.typed(z, present).flatten(-2))
        return fused
