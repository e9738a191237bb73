"""Encoders run stage by stage, for models whose modalities exchange inside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cm2.core.records import Batch
from cm2.networks.attention import mean_of
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import select, single

PLACES = ("embeddings", "inside")
"""Where modalities exchange: on their embeddings, or between the stages of their encoders."""


def check_place(place: str) -> str:
    """Raises unless there is such a place."""
    if place not in PLACES:
        raise ValueError(f"place must be one of {list(PLACES)}, but is {place!r}")
    return place


MISSING = ("skipped", "zeros")
"""What encoders read where a modality is missing: nothing, or zeros as if it were there."""


def check_missing(missing: str) -> str:
    """Raises unless that is something to read."""
    if missing not in MISSING:
        raise ValueError(f"missing must be one of {list(MISSING)}, but is {missing!r}")
    return missing


def filled(batch: Batch, modalities: Sequence[str]) -> Batch:
    """Gives all rows all modalities, with zeros to read where one was missing.

    Args:
        batch: Some rows.
        modalities: Names, in the order of the columns of ``present``.
    """
    columns = zip(modalities, batch.present.T, strict=True)
    inputs = {name: _zeroed(batch.inputs[name], there) for name, there in columns}
    return batch._replace(inputs=inputs, present=torch.ones_like(batch.present))


def _zeroed(x: Any, there: Bool[Tensor, " batch"]) -> Any:
    """An input, a tensor or a tuple of some, with zeros in rows that are not there."""
    if isinstance(x, Tensor):
        return torch.where(there.view(-1, *[1] * (x.dim() - 1)), x, x.new_zeros(()))
    return type(x)(*(_zeroed(part, there) for part in x))


class Run:
    """An encoder on the rows that have its modality, held after a stage.

    Args:
        encoder: The encoder.
        name: Its modality.
        batch: What is embedded.
        column: That of the modality in ``present``.
        stage: After which stage to stop first, counted from zero.

    Attributes:
        embedding: What the encoder has made, zeros in other rows; None while it is under way.
    """

    def __init__(self, encoder: Encoder, name: str, batch: Batch, column: int, stage: int) -> None:
        rows = batch.present[:, column].nonzero().squeeze(1)
        size = len(batch.present)
        self.rows = rows
        self.size = size
        self._widths = encoder.stages
        self._number = stage
        self.embedding: Tensor | None = None
        self._stages = None
        if len(rows) == 0:
            self.embedding = torch.zeros(size, encoder.dim, device=rows.device)
            return
        self._stages = encoder.staged(select(batch.inputs[name], rows))
        self._at: tuple[Tensor, Tensor] = next(self._stages)
        for _ in range(stage):
            self._at = self._stages.send(self._at[0])

    def mean(self) -> Float[Tensor, "batch width"]:
        """Averages the features over real places; zeros in rows without the modality."""
        if self._stages is None:
            return torch.zeros(self.size, self._widths[self._number], device=self.rows.device)
        return self._among(mean_of(*self._at))

    def go(
        self,
        scale: Float[Tensor, "batch width"] | None = None,
        shift: Float[Tensor, "batch width"] | None = None,
    ) -> None:
        """Goes on to the end of the next stage, with features that are scaled and shifted."""
        self._number += 1
        if self._stages is None:
            return
        values = self._at[0]
        if scale is not None:
            values = values * scale[self.rows].unsqueeze(1).to(values.dtype)
        if shift is not None:
            values = values + shift[self.rows].unsqueeze(1).to(values.dtype)
        try:
            self._at = self._stages.send(values)
        except StopIteration as end:
            self.embedding = self._among(end.value)

    def finish(self) -> Float[Tensor, "batch dim"]:
        """Goes through all stages that are left, and returns the embedding."""
        while self.embedding is None:
            self.go()
        return self.embedding

    def _among(self, part: Float[Tensor, "row width"]) -> Float[Tensor, "batch width"]:
        part = single(part)
        return part.new_zeros(self.size, part.shape[-1]).index_copy(0, self.rows, part)


def shared_stages(encoders: Mapping[str, Encoder]) -> list[tuple[int, ...]]:
    """Widths of each modality after the last stages, of which there are as many as all have."""
    every = [encoder.stages for encoder in encoders.values()]
    count = min(len(stages) for stages in every)
    return list(zip(*(stages[-count:] for stages in every), strict=True))
