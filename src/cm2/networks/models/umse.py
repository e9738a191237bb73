"""UMSE: one embedding of events of all modalities, and bottlenecks that skip what is missing.

Source: Lee, Lee, Hahn, Hyun, Choi, Ahn, Lee (2023), Learning missing modal electronic health
records with unified multi-modal data embedding and modality-aware attention, MLHC, section 3,
https://arxiv.org/abs/2305.02504, and its code, https://github.com/AITRICS/Medical_Tri_Modal_Pilot.
Bottlenecks: Nagrani et al. (2021), Attention bottlenecks for multimodal fusion,
https://arxiv.org/abs/2107.00135.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.attention import Block, hidden
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, average, register

Streams = list[Float[Tensor, "batch ..."]]
"""The tokens of each modality."""

Masks = list[Bool[Tensor, "batch ..."]]
"""Which of them are real."""


@register("umse")
class UMSE(Model):
    """Classifies tokens of modalities that share what they know through a few bottlenecks.

    Every step of every modality is an event: what the encoder makes of it, plus an embedding of its
    hour by one network for all, plus a vector of its modality (unified set embedding); order tells
    nothing, hours do. Each modality has layers of its own, in which its class token and its events
    attend to each other and to the bottlenecks, not to other modalities. After each layer the
    bottlenecks are averaged over the modalities that a row has, and so skip what is missing
    (modality-aware attention with skip bottleneck). The mean class token of the modalities that are
    there is classified. Nothing is imputed or carried forward.

    The layers with their bottlenecks compute what the authors' code does from the same weights,
    with and without modalities, to 1e-5, once normalisations agree (there by the unbiased
    deviation) and attention has no last map, which the code has not. Unlike it: any modality may be
    missing, where the code's series is always there and alone gives the class token; a measurement
    is its encoder's state, which knows variable and value; age and sex are a modality like others;
    hours count in ``horizon``, and are zero where they are not known; texts have no positions but
    their hours; the classifier is linear, without batch normalisation.

    Args:
        encoders: Encoder of each modality, all of one ``dim``; what only pools their steps is
            dropped.
        labels: Number of logits.
        depth: Number of layers; 6 in the source.
        heads: Number of attention heads.
        bottlenecks: Number of bottleneck tokens.
        horizon: Hours of the window.
        dropout: Probability of dropping an attention weight or a hidden unit.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = UMSE({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
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
        bottlenecks: int = 4,
        horizon: float = 48.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        if min(depth, bottlenecks) < 1 or not horizon > 0:
            raise ValueError(
                "depth and bottlenecks must be at least 1 and horizon positive, "
                f"but are {depth}, {bottlenecks} and {horizon}"
            )
        self.unpool()
        count, dim = len(encoders), self.dim
        self.horizon = horizon
        self.time = nn.Sequential(nn.Linear(1, dim), nn.LayerNorm(dim), nn.ReLU())
        self.which = nn.Parameter(torch.randn(count, dim))
        self.tokens = nn.Parameter(torch.randn(count, dim))
        self.bottlenecks = nn.Parameter(torch.randn(bottlenecks, dim))
        self.before = nn.ModuleList(nn.LayerNorm(dim) for _ in encoders)
        self.dropout = nn.Dropout(dropout)
        options: dict[str, Any] = {"heads": heads, "dropout": dropout}
        self.layers = nn.ModuleList(
            nn.ModuleList(
                Block(dim, then=hidden(dim, 4 * dim, nn.ReLU(), dropout), **options)
                for _ in encoders
            )
            for _ in range(depth)
        )
        self.classifier = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, labels))

    def forward(self, batch: Batch) -> Output:
        """Returns logits of the mean class token after all layers."""
        streams, masks = self.events(batch)
        # A modality without any event is one that is missing.
        there = torch.stack([mask[:, 1:].any(dim=1) for mask in masks], dim=1)
        streams = self.attend(streams, masks, there)
        tokens = torch.stack([x[:, 0] for x in streams], dim=1)
        return Output(self.classifier(average(tokens, there)), {}, {})

    def events(self, batch: Batch) -> tuple[Streams, Masks]:
        """Returns the class token and the events of each modality, and which are real."""
        streams, masks = [], []
        for column, (steps, norm) in enumerate(zip(self.steps(batch), self.before, strict=True)):
            when = self.time((steps.hours / self.horizon).unsqueeze(-1))
            token = self.tokens[column].expand(len(when), 1, -1)
            x = torch.cat([token, steps.values + when + self.which[column]], dim=1)
            streams.append(self.dropout(norm(x)))
            masks.append(nn.functional.pad(steps.mask, (1, 0), value=True))
        return streams, masks

    def attend(
        self, streams: Streams, masks: Masks, there: Bool[Tensor, "batch modality"]
    ) -> Streams:
        """Returns the tokens of each modality after all layers."""
        count = len(self.bottlenecks)
        shared: Tensor = self.bottlenecks.expand(len(there), -1, -1)
        masks = [nn.functional.pad(mask, (count, 0), value=True) for mask in masks]
        layers: list[Any] = list(self.layers)
        for blocks in layers:
            read = [
                block(torch.cat([shared, x], dim=1), mask)
                for block, x, mask in zip(blocks, streams, masks, strict=True)
            ]
            streams = [x[:, count:] for x in read]
            heard = torch.stack([x[:, :count] for x in read], dim=1)
            shared = average(heard.flatten(2), there).view_as(shared)
        return streams
