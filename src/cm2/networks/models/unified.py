"""Unified training: a classifier for each modality, and one for all together.

Source: Hayat, Geras, Shamout (2021), Towards dynamic multi-modal phenotyping using chest
radiographs and physiological data, https://arxiv.org/abs/2111.02710.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, average, register


@register("unified")
class Unified(Model):
    """Trains encoders on all that is there, and a joint classifier on complete rows.

    A complete row gets the logits of a linear classifier on all embeddings side by side; any other
    row the average of the classifiers of what it has. Each modality's own loss
    (``logits_by_modality``) trains its encoder on rows that lack the others.

    Simplified: the source takes batches of single modalities and of pairs in turn; here one batch
    has rows of both kinds, and each row contributes the losses that it can. Beyond the source: any
    number of modalities. The code that its authors published (https://github.com/nyuad-cai/MedFuse,
    fusion ``unified``) has the joint classifier alone: from the same weights its logits of complete
    rows are these, where an image is absent it reads one of zeros, and nothing trains the
    classifiers of single modalities.

    Args:
        encoders: Encoder of each modality, all of one ``dim``.
        labels: Number of logits.
        dropout: Probability of dropping a coordinate of an embedding.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = Unified({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
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
        self.together = nn.Linear(self.dim * len(encoders), labels)

    def forward(self, batch: Batch) -> Output:
        """Returns logits by the classifier that fits each row, and those of each modality."""
        z: Tensor = self.dropout(self.raw(batch))
        votes = [head(z[:, column]) for column, head in enumerate(self.classifiers)]
        single = average(torch.stack(votes, dim=1), batch.present)
        complete = batch.present.all(dim=1, keepdim=True)
        logits = torch.where(complete, self.together(z.flatten(1)), single)
        return Output(logits, {}, dict(zip(self.modalities, votes, strict=True)))
