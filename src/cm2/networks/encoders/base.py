"""The interface of an encoder: rows of one modality in, embeddings of a common width out.

An encoder meets only rows in which its modality is present (``models.base.encode_present`` sees to
that), so what stands in an absent row can reach neither an embedding nor a batch statistic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, Self

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cm2.core.registry import Registry


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
        self._frozen: list[nn.Module] = []

    @abstractmethod
    def forward(self, x: Any) -> Float[Tensor, "row dim"]:
        """Embeds the rows in which the modality is present."""

    def kind(self) -> Hashable:
        """What encoders of one class that embed together have in common; by default, nothing."""
        return id(self)

    @classmethod
    def together(
        cls, encoders: Sequence[Any], inputs: Sequence[Any]
    ) -> list[Float[Tensor, "row dim"]]:
        """Embeds the rows of several modalities, each by its own encoder, all of one kind.

        One after the other, unless a subclass can do it faster.
        """
        return [encoder(x) for encoder, x in zip(encoders, inputs, strict=True)]

    def freeze(self, *, projection: bool = False) -> Self:
        """Keeps the encoder as it is: no gradient, and evaluation mode throughout training.

        Args:
            projection: Whether to freeze the last linear map to the embedding as well.
        """
        self._frozen = [
            child for name, child in self.named_children() if projection or name != "projection"
        ]
        for module in self._frozen:
            module.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


def embed_together(
    encoders: Sequence[Encoder], inputs: Sequence[Any]
) -> list[Float[Tensor, "row dim"]]:
    """Embeds the rows of several modalities, those with encoders of one kind together."""
    kinds: dict[Any, list[int]] = {}
    for place, encoder in enumerate(encoders):
        kinds.setdefault((type(encoder), encoder.kind()), []).append(place)
    embedded: dict[int, Tensor] = {}
    for (family, _), places in kinds.items():
        parts = family.together([encoders[i] for i in places], [inputs[i] for i in places])
        embedded.update(zip(places, parts, strict=True))
    return [embedded[place] for place in range(len(encoders))]


def check_codes(codes: Int[Tensor, ...], mask: Bool[Tensor, ...], size: int) -> None:
    """Raises unless every real code can be looked up in a vocabulary of the given size."""
    unknown = int((mask & ((codes < 0) | (codes >= size))).sum())
    if unknown:
        raise ValueError(
            f"codes must lie in 0 to {size - 1}, the encoder's vocabulary, but {unknown} do not"
        )


REGISTRY: Registry[Encoder] = Registry("encoder")
register = REGISTRY.register
