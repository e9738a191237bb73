"""A linear classifier on the embedding of each modality, for deep supervision of its encoder."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Auxiliary(nn.Module):
    """One linear map for each modality, all computed at once.

    Args:
        modalities: Number of modalities.
        dim: Width of an embedding.
        labels: Number of logits.
    """

    def __init__(self, modalities: int, dim: int, labels: int) -> None:
        super().__init__()
        each = [nn.Linear(dim, labels) for _ in range(modalities)]
        self.weight = nn.Parameter(torch.stack([head.weight.detach() for head in each]))
        self.bias = nn.Parameter(torch.stack([head.bias.detach() for head in each]))

    def forward(
        self, z: Float[Tensor, "batch modality dim"]
    ) -> Float[Tensor, "batch modality label"]:
        """Returns logits of each embedding by itself."""
        return torch.einsum("bmd,mld->bml", z, self.weight) + self.bias
