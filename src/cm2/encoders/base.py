"""The interface of an encoder: rows of one modality in, embeddings of a common width out.

An encoder meets only rows in which its modality is present (``models.base.encode_present`` sees to
that), so what stands in an absent row can reach neither an embedding nor a batch statistic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from cm2.registry import Registry


class Encoder(nn.Module, ABC):
    """Maps the raw input of one modality to an embedding.

    Args:
        dim: Width of the embedding, the same for all modalities of a model.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"an embedding needs at least one coordinate, but dim is {dim}")
        super().__init__()
        self.dim = dim

    @abstractmethod
    def forward(self, x: Any) -> Float[Tensor, "row dim"]:
        """Embeds the rows in which the modality is present."""


REGISTRY: Registry[Encoder] = Registry("encoder")
register = REGISTRY.register
