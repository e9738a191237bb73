"""HEALNet: latent vectors that read one modality after the other, again and again.

Source: Hemker, Simidjievski, Jamnik (2024), HEALNet: multimodal fusion for heterogeneous biomedical
data, NeurIPS, section 3, https://arxiv.org/abs/2311.09115, and its code,
https://github.com/konst-int-i/healnet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.records import Batch, Output, Steps
from cm2.networks.attention import Attention, fourier, gated
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, register

BANDS = 2
"""Number of waves by which a step's place is told, each as sine and cosine."""

FASTEST = 5.0
"""Periods of the shortest of them in half of the place's range."""

TEMPERATURE = 0.5
"""What the source divides attention scores by, beside the root of a head's width."""


@register("healnet")
class HEALNet(Model):
    """Classifies the mean of latent vectors after layers in which they read each modality in turn.

    The latent vectors are the same for all modalities and pass from one to the next (hybrid early
    fusion). In a layer they attend to the steps of the first modality, then to each other, then to
    the steps of the second, and so on; every modality has its own cross attention in each layer,
    and attention among latent vectors has one set of weights a layer. A modality that is missing is
    skipped: its cross attention changes nothing, and the latent vectors attend to each other only,
    as in the source's code. Steps are told their place, by waves.

    Computes what the authors' code does from the same weights, with and without modalities, to
    1e-5. Unlike it: what is read are the steps of an encoder (one, for a table) and not raw pixels
    or columns; steps in time have their place by their hour within ``horizon`` rather than by
    number, and steps of padding are not read; each row may lack other modalities, where the source
    drops a modality for a whole batch. Sizes are smaller by default (there ``latents=128``,
    ``depth=3`` and heads of width 64), and weights start as all attention here does.

    Args:
        encoders: Encoder of each modality, all of one ``dim``, which is the width of a latent
            vector too; the first is read first. What only pools their steps is dropped.
        labels: Number of logits.
        depth: Number of layers.
        latents: Number of latent vectors.
        heads: Number of attention heads.
        width: Width of a head; the least at which all of them together have ``dim``, if ``None``.
        horizon: Hours of the window.
        dropout: Probability of dropping an attention weight or a unit; 0 in the source.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = HEALNet({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
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
        latents: int = 16,
        heads: int = 4,
        width: int | None = None,
        horizon: float = 48.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        if min(depth, latents) < 1 or not horizon > 0:
            raise ValueError(
                "depth and latents must be at least 1 and horizon positive, "
                f"but are {depth}, {latents} and {horizon}"
            )
        self.unpool()
        self.horizon = horizon
        self.timed = [encoder.timed for encoder in encoders.values()]
        self.latents = nn.Parameter(torch.randn(latents, self.dim))
        told = self.dim + 2 * BANDS + 1

        def update(context: int | None) -> Update:
            return Update(self.dim, context, heads, width, dropout)

        self.crossing = nn.ModuleList(
            nn.ModuleList(update(told) for _ in encoders) for _ in range(depth)
        )
        self.thinking = nn.ModuleList(update(None) for _ in range(depth))
        self.classifier = nn.Sequential(nn.LayerNorm(self.dim), nn.Linear(self.dim, labels))

    def forward(self, batch: Batch) -> Output:
        """Returns logits of the mean latent vector after all layers."""
        read = [
            (self.told(steps, timed), steps.mask)
            for steps, timed in zip(self.steps(batch), self.timed, strict=True)
        ]
        x: Tensor = self.latents.expand(len(batch.present), -1, -1)
        everyone = torch.ones_like(x[..., 0], dtype=torch.bool)
        layers: list[Any] = list(self.crossing)
        for crossing, thinking in zip(layers, self.thinking, strict=True):
            for cross, (context, mask) in zip(crossing, read, strict=True):
                x = torch.where(mask.any(dim=1)[:, None, None], cross(x, mask, context), x)
                x = thinking(x, everyone)
        return Output(self.classifier(x.mean(dim=1)), {}, {})

    def told(self, steps: Steps, timed: bool) -> Float[Tensor, "batch step feature"]:
        """Returns steps with waves of their place: their hour, or their number among the real."""
        if timed:
            place = 2 * steps.hours / self.horizon - 1
        else:
            last = (steps.mask.sum(dim=1, keepdim=True) - 1).clamp_min(1)
            order = torch.arange(steps.mask.shape[1], device=last.device)
            place = 2 * order.to(steps.values.dtype) / last - 1
        return torch.cat([steps.values, fourier(place, BANDS, FASTEST).to(steps.values)], dim=-1)


class Update(nn.Module):
    """Attention and a gated hidden layer of SELUs, each added to the latent vectors.

    Args:
        dim: Width of a latent vector.
        context: Width of the steps that are read; ``None`` if vectors read each other.
        heads: Number of heads.
        width: Width of a head; see ``Attention``.
        dropout: Probability of dropping an attention weight or a unit.
    """

    def __init__(
        self, dim: int, context: int | None, heads: int, width: int | None, dropout: float
    ) -> None:
        super().__init__()
        self.before = nn.LayerNorm(dim)
        self.before_context = None if context is None else nn.LayerNorm(context)
        self.attention = Attention(
            dim,
            context,
            heads=heads,
            width=width,
            dropout=dropout,
            bias=False,
            temperature=TEMPERATURE,
        )
        self.then = gated(dim, nn.SELU(), dropout)

    def forward(
        self,
        x: Float[Tensor, "batch latent dim"],
        mask: Bool[Tensor, "batch other"],
        context: Float[Tensor, "batch other feature"] | None = None,
    ) -> Float[Tensor, "batch latent dim"]:
        """Returns the latent vectors after both parts.

        Args:
            x: The latent vectors.
            mask: Which of what is read is real.
            context: What is read; the vectors themselves in an update that was built so.
        """
        read = self.before(x)
        if self.before_context is not None and context is not None:
            told = self.attention(read, self.before_context(context), mask)
        else:
            told = self.attention(read, read, mask)
        x = x + F.leaky_relu(told)
        out: Tensor = x + self.then(x)
        return out
