"""A bag of embedded codes, such as diagnoses, drugs or procedures."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cm2.core.records import Padded
from cm2.networks.encoders.base import Encoder, check_codes, register
from cm2.networks.encoders.projection import Projection


@register("codes")
class CodeBag(Encoder):
    """The mean of the embeddings of a sample's codes, zeros where there is none.

    Args:
        dim: Width of the embedding.
        vocabulary: Number of different codes; codes are numbers below it.
        width: Width of the embedding of a code.
        dropout: Probability of dropping a coordinate of the mean.
        frozen: Whether the embeddings of codes stay as they are.

    Example:
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> codes = Padded(torch.tensor([[3, 1], [2, 0]]), mask)
        >>> CodeBag(dim=4, vocabulary=5)(codes).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        dim: int,
        *,
        vocabulary: int,
        width: int = 64,
        dropout: float = 0.1,
        frozen: bool = False,
    ) -> None:
        super().__init__(dim)
        if min(vocabulary, width) < 1:
            raise ValueError(
                f"vocabulary and width must be at least 1, but are {vocabulary} and {width}"
            )
        self.bag = nn.EmbeddingBag(vocabulary, width, mode="sum")
        self.projection = Projection(width, dim, dropout)
        if frozen:
            self.freeze()

    def forward(self, x: Padded) -> Float[Tensor, "row dim"]:
        """Embeds codes with their masks."""
        codes, mask = x
        if codes.dim() != 2 or mask.shape != codes.shape:
            raise ValueError(
                "codes and their mask need one shape (rows, codes), "
                f"but have {tuple(codes.shape)} and {tuple(mask.shape)}"
            )
        check_codes(codes, mask, self.bag.num_embeddings)
        weight = mask.to(self.bag.weight.dtype)
        if codes.shape[1] == 0:
            total = weight.new_zeros(len(codes), self.bag.embedding_dim)
        else:
            total = self.bag(torch.where(mask, codes, 0), per_sample_weights=weight)
        out: Tensor = self.projection(total / weight.sum(dim=1, keepdim=True).clamp_min(1))
        return out
