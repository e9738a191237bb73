"""Late fusion: every modality is classified by itself, and the votes are averaged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, average, register


@register("late")
class Late(Model):
    """Averages the logits of one linear classifier a modality over what is present.

    Averaging logits is averaging log probabilities, up to a constant; that is the stronger rival
    than averaging probabilities. Each classifier has its own loss (``logits_by_modality``), and
    all have that of their average. A row without any modality gets the average intercept.

    Args:
        encoders: Encoder of each modality, all of one ``dim``.
        labels: Number of logits.
        dropout: Probability of dropping a coordinate of an embedding.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = Late({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    def __init__(
        self, encoders: Mapping[str, Encoder], labels: int, *, dropout: float = 0.1
    ) -> None:
        super().__init__(encoders, labels)
        self.dropout = nn.Dropout(dropout)
        self.classifiers = nn.ModuleList(nn.Linear(self.dim, labels) for _ in encoders)

    def forward(self, batch: Batch) -> Output:
        """Returns the average logits, and those of each modality."""
        z: Tensor = self.dropout(self.raw(batch))
        votes = [head(z[:, column]) for column, head in enumerate(self.classifiers)]
        logits = average(torch.stack(votes, dim=1), batch.present)
        return Output(logits, {}, dict(zip(self.modalities, votes, strict=True)))
