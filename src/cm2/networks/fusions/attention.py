"""A transformer block over modalities, an ablation of the paper's fusion.

Source: Vaswani et al. (2017), Attention is all you need, https://arxiv.org/abs/1706.03762, with
normalisation before each part.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.networks.fusions.base import Fusion, register


@register("attention")
class Attention(Fusion):
    """Lets modalities attend to each other, and averages them.

    Each modality has a learned vector that says which it is. Imputed ones are read, but attention
    to them is damped by a learned amount.

    Args:
        modalities: Number of modalities.
        dim: Width of an embedding.
        width: Width of the block and of the fused vector.
        heads: Number of attention heads, of which ``width`` is a multiple.
        dropout: Probability of dropping an attention weight.

    Example:
        >>> present = torch.tensor([[True, False]])
        >>> Attention(modalities=2, dim=3)(torch.zeros(1, 2, 3), present).shape
        torch.Size([1, 64])
    """

    def __init__(
        self, modalities: int, dim: int, *, width: int = 64, heads: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__(modalities, dim, width)
        if heads < 1 or width % heads:
            raise ValueError(f"width must be a multiple of heads, but they are {width} and {heads}")
        self.which = nn.Parameter(torch.randn(modalities, width) * 0.1)
        self.damping = nn.Parameter(torch.zeros(modalities))
        self.project = nn.Linear(dim, width)
        self.before = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.hidden = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.after = nn.LayerNorm(width)

    def forward(
        self, z: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
    ) -> Float[Tensor, "batch width"]:
        """Returns the mean over modalities after one block."""
        h = self.project(self.typed(z, present)) + self.which
        read = self.before(h)
        damping = torch.where(present, 0.0, -F.softplus(self.damping)).to(read.dtype)
        mixed, _ = self.attention(read, read, read, key_padding_mask=damping, need_weights=False)
        h = h + mixed
        h = h + self.hidden(h)
        fused: Tensor = self.after(h).mean(dim=-2)
        return fused
