"""MedFuse: an LSTM that reads the modalities that are there.

Source: Hayat, Geras, Shamout (2022), MedFuse: multi-modal fusion with clinical time-series data
and chest X-ray images, section 3.3, https://arxiv.org/abs/2207.07027.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks import recurrent
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, register

MISSING = ("skipped", "learned")
"""What stands where a modality is missing: no step, or a learned vector."""


@register("medfuse")
class MedFuse(Model):
    """Classifies the last state of an LSTM over the embeddings that a row has, in their order.

    Nothing is imputed: a row with one modality is a sequence of one step, and one without any is
    a state of zeros. With ``missing="learned"`` all rows have all steps, and a learned vector
    stands where a modality is missing, as Wu et al. (2025) ran it. All modalities but the first
    are projected to its space.

    Beyond the source: any number of modalities. Not here: its pretraining of each encoder on its
    own labels, which users do by giving encoders with weights.

    Args:
        encoders: Encoder of each modality, all of one ``dim``; the first is read first.
        labels: Number of logits.
        width: Width of the LSTM's state; 512 in the source, ``dim`` if ``None``.
        missing: ``"skipped"``, as in the source, or ``"learned"``.
        dropout: Probability of dropping a coordinate of the state.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = MedFuse({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        width: int | None = None,
        missing: str = "skipped",
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        if missing not in MISSING:
            raise ValueError(f"missing must be one of {list(MISSING)}, but is {missing!r}")
        width = self.dim if width is None else width
        self.projections = nn.ModuleList(
            nn.Linear(self.dim, self.dim) for _ in range(len(encoders) - 1)
        )
        self.filler = (
            nn.Parameter(torch.randn(len(encoders), self.dim) * 0.1)
            if missing == "learned"
            else None
        )
        self.recurrent = recurrent.LSTM(self.dim, width, batch_first=True)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, labels))

    def forward(self, batch: Batch) -> Output:
        """Returns logits of the state after the last modality that is there."""
        z, present = self.raw(batch), batch.present
        projected = [project(z[:, i]) for i, project in enumerate(self.projections, start=1)]
        steps = torch.stack([z[:, 0], *projected], dim=1)
        if self.filler is not None:
            steps = torch.where(present.unsqueeze(-1), steps, self.filler)
            present = torch.ones_like(present)
        # Present ones move to the front in their order; what follows them is read but not used.
        order = present.int().argsort(dim=1, descending=True, stable=True)
        states: Tensor
        states, _ = self.recurrent(steps.take_along_dim(order.unsqueeze(-1), dim=1))
        count = present.sum(dim=1)
        last = (count - 1).clamp_min(0).view(-1, 1, 1)
        state = states.take_along_dim(last, dim=1).squeeze(1) * (count > 0).unsqueeze(-1)
        return Output(self.classifier(state), {}, {})
