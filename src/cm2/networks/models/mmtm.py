"""MMTM: modalities rescale each other's features.

Source: Joze, Shaban, Iuzzolino, Koishida (2020), MMTM: multimodal transfer module for CNN fusion,
equations 2 to 6, https://arxiv.org/abs/1911.08670.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, average, register


@register("mmtm")
class MMTM(Model):
    r"""Late fusion of embeddings that a joint squeeze has excited.

    .. math:: s = \mathrm{relu}(W [z_1, .., z_M] + b), \quad
        \tilde z_m = 2\,\sigma(W_m s + b_m) \odot z_m

    Modalities that are absent are zeros in the squeeze. Each modality has a linear classifier on
    its excited embedding; their logits are averaged over what is present.

    Simplified: the source places such modules between layers inside the networks of all
    modalities; here one stands on their embeddings, where spatial squeezing has nothing to do, so
    that encoders stay exchangeable. Beyond the source: any number of modalities, some absent.

    Args:
        encoders: Encoder of each modality, all of one ``dim``.
        labels: Number of logits.
        ratio: Width of all embeddings together over that of the squeeze; 4 in the source.
        dropout: Probability of dropping a coordinate of an excited embedding.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = MMTM({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        ratio: float = 4.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        together = self.dim * len(encoders)
        if not 0 < ratio <= together:
            raise ValueError(f"ratio must be positive and at most {together}, but is {ratio}")
        self.squeeze = nn.Sequential(nn.Linear(together, int(together / ratio)), nn.ReLU())
        self.excite = nn.Linear(int(together / ratio), together)
        self.dropout = nn.Dropout(dropout)
        self.classifiers = nn.ModuleList(nn.Linear(self.dim, labels) for _ in encoders)

    def forward(self, batch: Batch) -> Output:
        """Returns the average logits, and those of each modality."""
        z = self.raw(batch)
        gates: Tensor = 2 * self.excite(self.squeeze(z.flatten(1))).sigmoid()
        excited = self.dropout(z * gates.view_as(z))
        votes = [head(excited[:, column]) for column, head in enumerate(self.classifiers)]
        logits = average(torch.stack(votes, dim=1), batch.present)
        return Output(logits, {}, dict(zip(self.modalities, votes, strict=True)))
