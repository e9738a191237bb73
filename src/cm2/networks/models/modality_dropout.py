"""Modality dropout: whole modalities are hidden at random in training, zeros stand in their place.

Source: Neverova, Wolf, Taylor, Nebout (2016), ModDrop: adaptive multi-modal gesture recognition,
section 4.3, https://arxiv.org/abs/1501.00102.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, hide, register


@register("modality-dropout")
class ModalityDropout(Model):
    """Classifies embeddings side by side by a hidden layer, with zeros for what is missing.

    In training each modality that a row has is hidden with probability ``rate``, independently;
    its embedding is zeros then, as that of one that is missing, and neither is scaled. The hidden
    layer so learns not to lean on any modality alone.

    Unlike the source: at least one modality of a row stays, since a row without any would teach
    nothing of its encoders; there is one hidden layer of one width, and it starts at random rather
    than from networks that were trained for each modality. Its code was not published.

    Args:
        encoders: Encoder of each modality, all of one ``dim``.
        labels: Number of logits.
        rate: Probability of hiding a modality.
        width: Width of the hidden layer; that of all embeddings together if ``None``.
        dropout: Probability of dropping a unit of the hidden layer.

    Example:
        >>> import torch
        >>> from cm2.networks.encoders import Dense
        >>> model = ModalityDropout({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        rate: float = 0.2,
        width: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        if not 0 <= rate < 1:
            raise ValueError(f"rate is a probability below one, but is {rate}")
        self.rate = rate
        together = self.dim * len(encoders)
        width = together if width is None else width
        self.classifier = nn.Sequential(
            nn.Linear(together, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, labels)
        )

    def forward(self, batch: Batch) -> Output:
        """Returns logits of what is there, in training of what is left of it."""
        z: Tensor = self.raw(batch)
        left = hide(batch.present, self.rate) if self.training else batch.present
        return Output(self.classifier((z * left.unsqueeze(-1)).flatten(1)), {}, {})
