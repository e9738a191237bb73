"""LSMT: one Transformer over the steps of all modalities.

Source: Khader et al. (2023), Medical diagnosis with large scale multimodal transformers: leveraging
diverse data for more accurate diagnosis, https://arxiv.org/abs/2212.09162.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.records import Batch, Output, Steps
from cm2.networks.attention import Block, fourier, gated, hidden, sinusoids
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, register

BANDS = 6
"""Number of waves by which an hour is told, each as sine and cosine."""

FASTEST = 5.0
"""Periods of the shortest of them in half of the window."""

Read = tuple[Float[Tensor, "batch token dim"], Bool[Tensor, "batch token"]]
"""Tokens of a modality, and which of them are real."""


@register("lsmt")
class LSMT(Model):
    """Classifies a learned token that attends to the steps of all modalities that are there.

    Steps in time, such as the states of a series, are many and differ in number: a fixed number of
    learned vectors reads them first, again and again (a Perceiver), told their hours. Steps that
    are not in time, such as the patches of an image, are tokens as they are. What is missing has no
    tokens, and nothing is imputed. Beyond the source: any number of modalities.

    Unlike the source: the Perceiver reads what an encoder makes of a series, on one scale, and not
    the standardised series itself; all widths are ``dim``. Hours have their place in ``horizon``;
    the source spreads the steps of a series evenly, whatever their number. Tokens are numbered
    within their modality and carry a learned vector that says which it is; the source numbers them
    through, and doubles each of them by adding it to its sum with the number's waves. What is
    missing is zeros as input there.

    Args:
        encoders: Encoder of each modality, all of one ``dim``; what only pools their steps is
            dropped.
        labels: Number of logits.
        depth: Number of blocks of the Transformer.
        heads: Number of attention heads.
        latents: Number of learned vectors that read a modality in time; 128 in the source.
        readings: How often they read; 6 in the source.
        horizon: Hours of the window.
        dropout: Probability of dropping an attention weight or a hidden unit; 0 in the source.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = LSMT({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        depth: int = 4,
        heads: int = 4,
        latents: int = 32,
        readings: int = 2,
        horizon: float = 48.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        if min(depth, latents, readings) < 1 or not horizon > 0:
            raise ValueError(
                "depth, latents and readings must be at least 1 and horizon positive, "
                f"but are {depth}, {latents}, {readings} and {horizon}"
            )
        self.unpool()
        self.readers = nn.ModuleList(
            Perceiver(self.dim, latents, readings, heads, horizon, dropout)
            if encoder.timed
            else Tokens()
            for encoder in encoders.values()
        )
        self.which = nn.Parameter(torch.randn(len(encoders), self.dim) * 0.1)
        self.token = nn.Parameter(torch.randn(self.dim))
        self.blocks = nn.ModuleList(
            Block(
                self.dim,
                heads=heads,
                then=hidden(self.dim, self.dim, nn.GELU(), dropout),
                dropout=dropout,
                bias=False,
            )
            for _ in range(depth)
        )
        self.classifier = nn.Sequential(nn.LayerNorm(self.dim), nn.Linear(self.dim, labels))

    def forward(self, batch: Batch) -> Output:
        """Returns logits of the learned token after all blocks."""
        size = len(batch.present)
        tokens = [self.token.expand(size, 1, -1)]
        masks = [torch.ones_like(batch.present[:, :1])]
        for which, reader, steps in zip(self.which, self.readers, self.steps(batch), strict=True):
            read, mask = reader(steps)
            place = torch.arange(mask.shape[1], device=mask.device)
            tokens.append(read + sinusoids(place.to(read.dtype), self.dim) + which)
            masks.append(mask)
        x, there = torch.cat(tokens, dim=1), torch.cat(masks, dim=1)
        for block in self.blocks:
            x = block(x, there)
        return Output(self.classifier(x[:, 0]), {}, {})


class Tokens(nn.Module):
    """Steps as they are."""

    def forward(self, steps: Steps) -> Read:
        """Returns the steps."""
        return steps.values, steps.mask


class Perceiver(nn.Module):
    """Learned vectors that read steps of any number, at any hours.

    Source: Jaegle, Gimeno, Brock, Zisserman, Vinyals, Carreira (2021), Perceiver: general
    perception with iterative attention, https://arxiv.org/abs/2103.03206.

    Args:
        dim: Width of a step and of a vector.
        latents: Number of vectors.
        readings: How often they attend to the steps, and then to each other.
        heads: Number of heads with which they attend to each other; to steps it is one.
        horizon: Hours of the window.
        dropout: Probability of dropping an attention weight or a hidden unit.
    """

    def __init__(
        self, dim: int, latents: int, readings: int, heads: int, horizon: float, dropout: float
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.before = nn.LayerNorm(dim)
        self.latents = nn.Parameter(torch.randn(latents, dim))
        told = dim + 2 * BANDS + 1
        options: dict[str, Any] = {"dropout": dropout, "bias": False}
        blocks = [
            (
                Block(dim, told, heads=1, then=gated(dim, nn.GELU(), dropout), **options),
                Block(dim, heads=heads, then=gated(dim, nn.GELU(), dropout), **options),
            )
            for _ in range(readings)
        ]
        self.reading = nn.ModuleList(block for block, _ in blocks)
        self.thinking = nn.ModuleList(block for _, block in blocks)

    def forward(self, steps: Steps) -> Read:
        """Returns what the vectors have read, of rows that have a step."""
        values = self.before(steps.values)
        told = torch.cat([values, self.waves(steps.hours).to(values)], dim=-1)
        x = self.latents.expand(len(told), -1, -1)
        some = steps.mask.any(dim=1, keepdim=True).expand(-1, x.shape[1])
        for reading, thinking in zip(self.reading, self.thinking, strict=True):
            x = reading(x, steps.mask, told)
            x = thinking(x, some)
        return x, some

    def waves(self, hours: Float[Tensor, "batch step"]) -> Float[Tensor, "batch step wave"]:
        """Returns sines and cosines of each hour, and its place in the window, from -1 to 1."""
        return fourier(2 * hours / self.horizon - 1, BANDS, FASTEST)
