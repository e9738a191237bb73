"""A learned token in the place of what is missing, and a Transformer over all modalities.

Common practice rather than one method. Source of the token that stands where input is hidden:
Devlin, Chang, Lee, Toutanova (2019), BERT: pre-training of deep bidirectional transformers,
https://arxiv.org/abs/1810.04805; a Transformer over modalities of which some are missing: Ma, Ren,
Zhao, Testuggine, Peng (2022), Are multimodal transformers robust to missing modality?,
https://arxiv.org/abs/2204.05454.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.attention import Block, hidden
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, register


@register("missing-token")
class MissingToken(Model):
    """Classifies a token that has attended to a token of every modality, learned where it lacks.

    Each modality has a vector of its own for being missing, and one that says which modality it is.
    Attention goes to what is missing as to what is there, so that the network can learn what it
    means that a modality is not there.

    Args:
        encoders: Encoder of each modality, all of one ``dim``.
        labels: Number of logits.
        depth: Number of blocks of the Transformer.
        heads: Number of attention heads.
        dropout: Probability of dropping an attention weight or a hidden unit.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = MissingToken({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        depth: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, but is {depth}")
        self.missing = nn.Parameter(torch.randn(len(encoders), self.dim) * 0.1)
        self.which = nn.Parameter(torch.randn(len(encoders), self.dim) * 0.1)
        self.token = nn.Parameter(torch.randn(self.dim) * 0.1)
        self.blocks = nn.ModuleList(
            Block(
                self.dim,
                heads=heads,
                then=hidden(self.dim, 4 * self.dim, nn.GELU(), dropout),
                dropout=dropout,
            )
            for _ in range(depth)
        )
        self.classifier = nn.Sequential(nn.LayerNorm(self.dim), nn.Linear(self.dim, labels))

    def forward(self, batch: Batch) -> Output:
        """Returns logits of the token after all blocks."""
        z: Tensor = torch.where(batch.present.unsqueeze(-1), self.raw(batch), self.missing)
        x = torch.cat([self.token.expand(len(z), 1, -1), z + self.which], dim=1)
        everything = torch.ones_like(x[..., 0], dtype=torch.bool)
        for block in self.blocks:
            x = block(x, everything)
        return Output(self.classifier(x[:, 0]), {}, {})
