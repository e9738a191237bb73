"""One modality alone, to see what the others add."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, encode_present, register


@register("unimodal")
class Unimodal(Model):
    """A linear classifier on the embedding of one modality; the others are never read.

    A row without the modality gets the classifier's intercept, which depends on no input.

    Args:
        encoders: Encoder of each modality, as for other models; one of them is kept.
        labels: Number of logits.
        modality: Name of the modality that is read; the first if ``None``.
        dropout: Probability of dropping a coordinate of the embedding.

    Example:
        >>> import torch
        >>> from cm2.networks.encoders import Dense
        >>> model = Unimodal({"labs": Dense(6, 4), "notes": Dense(9, 4)}, 3, modality="notes")
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    column: Tensor

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        modality: str | None = None,
        dropout: float = 0.1,
    ) -> None:
        modality = next(iter(encoders)) if modality is None else modality
        if modality not in encoders:
            raise ValueError(f"there is no modality {modality!r} among {list(encoders)}")
        super().__init__({modality: encoders[modality]}, labels)
        self.modalities = tuple(encoders)
        self.modality = modality
        # Kept with the weights: a model that is read again is built of its one encoder.
        self.register_buffer("column", torch.tensor(list(encoders).index(modality)))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.dim, labels))

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The encoder of the modality that is read."""
        return {self.modality: self._encoders[0]}  # type: ignore[dict-item]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Reads weights that were kept before the column was; it is that of the constructor."""
        state_dict.setdefault(f"{prefix}column", self.column)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, batch: Batch) -> Output:
        """Returns logits of the one modality."""
        return Output(self.classifier(self.raw(batch)[:, self.column]), {}, {})

    def raw(self, batch: Batch) -> Float[Tensor, "batch modality dim"]:
        """Embeds the one modality; zeros for the others, and where it is absent."""
        here = batch.present[:, self.column].unsqueeze(1)
        z = encode_present(self.encoders, batch.inputs, here)
        among = torch.arange(batch.present.shape[1], device=z.device) == self.column
        return z * among[:, None]
