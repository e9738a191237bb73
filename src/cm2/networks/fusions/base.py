"""The interface of a fusion, and how it is told which embeddings are imputed.

Every modality takes part for every sample: where one is missing its imputed embedding is read like
the others, with a learned vector added that says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.registry import Registry


class Fusion(nn.Module, ABC):
    """Fuses completed embeddings.

    Args:
        modalities: Number of modalities.
        dim: Width of an embedding.
        width: Width of the fused vector.
    """

    def __init__(self, modalities: int, dim: int, width: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.dim = width
        self.imputed = nn.Parameter(torch.randn(modalities, dim) * 0.1)

    def typed(
        self, z: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
    ) -> Float[Tensor, "batch modality dim"]:
        """Adds the type embedding of imputed steps where a modality is not present."""
        if z.shape[-2] != self.modalities:
            raise ValueError(
                f"the fusion was built for {self.modalities} modalities, but got {z.shape[-2]}"
            )
        return z + (~present).unsqueeze(-1) * self.imputed

    @abstractmethod
    def forward(
        self, z: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
    ) -> Float[Tensor, "batch width"]:
        """Fuses completed embeddings; ``present`` tells which of them were observed."""


REGISTRY: Registry[Fusion] = Registry("fusion")
register = REGISTRY.register
