"""Interleaved: time attention over irregular steps, then self and cross attention in turn.

Source: Zhang, Li, Chen, Yan, Petzold (2023), Improving medical predictions by irregular multimodal
electronic health records modeling, ICML, https://arxiv.org/abs/2210.12156, sections 3.2 to 3.4; the
time attention is that of Shukla and Marlin (2021), Multi-time attention networks for irregularly
sampled time series, https://arxiv.org/abs/2101.10318.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.records import Batch, Output, Steps
from cm2.networks.attention import Attention, hidden, mean_of, readable, sinusoids
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, register

Streams = list[Float[Tensor, "batch ..."]]
"""The steps of each modality."""

Masks = list[Bool[Tensor, "batch ..."]]
"""Which of them are real."""


@register("interleaved")
class Interleaved(Model):
    """Classifies the states of all modalities after layers in which each attends to the others.

    Steps in time, such as the states of a series or the chunks of notes, are first read at regular
    hours, by attention that compares learned functions of the hours (time attention). Steps that
    are not in time, such as the patches of an image, are mapped linearly. Each layer lets the steps
    of a modality attend to each other, then to those of all other modalities, and then through a
    hidden layer. A modality's state is its last hour, or the mean of its steps if they are not in
    time; all states side by side are classified. What is missing has no steps, and a state of
    zeros. Beyond the source: any number of modalities, any of them absent.

    Unlike the source: time attention reads what an encoder makes of each step, and so attends with
    one weight to all its features, where the source has each variable's own measurements. What it
    reads of a series is mixed there, by a gate, with the series on a grid; here the encoder has
    read the grid. All regular hours have a learned position, the first one too.

    Args:
        encoders: Encoder of each modality, all of one ``dim``; what only pools their steps is
            dropped.
        labels: Number of logits.
        layers: Number of layers.
        heads: Number of attention heads.
        points: Number of regular hours, the last of them at the end of the window.
        waves: Width of what is learned of an hour, a multiple of ``heads``.
        horizon: Hours of the window.
        dropout: Probability of dropping an attention weight or a hidden unit.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = Interleaved({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        layers: int = 3,
        heads: int = 8,
        points: int = 48,
        waves: int = 64,
        horizon: float = 48.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        if min(layers, heads, points) < 1 or not horizon > 0:
            raise ValueError(
                "layers, heads and points must be at least 1 and horizon positive, "
                f"but are {layers}, {heads}, {points} and {horizon}"
            )
        if waves < 2 or waves % heads:
            raise ValueError(f"waves must be a multiple of heads, {heads}, but is {waves}")
        self.unpool()
        count, dim = len(encoders), self.dim
        timed = [encoder.timed for encoder in encoders.values()]
        self.clock: nn.Module | None = Clock(waves, horizon) if any(timed) else None
        self.readers = nn.ModuleList(
            Timed(dim, points, waves, heads, horizon, dropout) if one else Still(dim)
            for one in timed
        )
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(count, dim, heads, dropout) for _ in range(layers))
        self.after = nn.ModuleList(nn.LayerNorm(dim) for _ in encoders)
        together = count * dim
        self.residual = nn.Sequential(
            nn.Linear(together, together),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(together, together),
        )
        self.classifier = nn.Linear(together, labels)

    def forward(self, batch: Batch) -> Output:
        """Returns logits of the states of all modalities."""
        readers: list[Any] = list(self.readers)
        streams, masks = [], []
        for reader, steps in zip(readers, self.steps(batch), strict=True):
            values, mask = reader(steps, self.clock)
            streams.append(self.dropout(values))
            masks.append(mask)
        for layer in self.layers:
            streams = layer(streams, masks)
        states = []
        for reader, norm, values, mask in zip(readers, self.after, streams, masks, strict=True):
            state = reader.state(norm(values), mask)
            states.append(state * mask.any(dim=1, keepdim=True))
        together = torch.cat(states, dim=1)
        return Output(self.classifier(together + self.residual(together)), {}, {})


class Clock(nn.Module):
    """Learned functions of an hour: one linear, the others periodic.

    Args:
        width: Number of functions.
        horizon: Hours that count as one.
    """

    def __init__(self, width: int, horizon: float) -> None:
        super().__init__()
        self.horizon = horizon
        self.linear = nn.Linear(1, 1)
        self.periodic = nn.Linear(1, width - 1)

    def forward(self, hours: Float[Tensor, "*step"]) -> Float[Tensor, "*step wave"]:
        """Returns all functions at each hour."""
        place = (hours / self.horizon).unsqueeze(-1)
        return torch.cat([self.linear(place), self.periodic(place).sin()], dim=-1)


class TimeAttention(nn.Module):
    """Reads steps at given hours, with a softmax over how alike hours are.

    Each head reads all features; their answers are mapped to one.

    Args:
        dim: Width of a step.
        waves: Width of what is known of an hour.
        heads: Number of heads, of which ``waves`` is a multiple.
        dropout: Probability of dropping an attention weight.
    """

    def __init__(self, dim: int, waves: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = nn.Dropout(dropout)
        self.query = nn.Linear(waves, waves)
        self.key = nn.Linear(waves, waves, bias=False)  # a bias would cancel in the softmax
        self.out = nn.Linear(heads * dim, dim)

    def forward(
        self,
        at: Float[Tensor, "point wave"],
        hours: Float[Tensor, "batch step wave"],
        values: Float[Tensor, "batch step dim"],
        mask: Bool[Tensor, "batch step"],
    ) -> Float[Tensor, "batch point dim"]:
        """Returns what stands at each point; anything for a row without a step."""
        query = self.query(at).unflatten(-1, (self.heads, -1))
        key = self.key(hours).unflatten(-1, (self.heads, -1))
        score = torch.einsum("phw,bshw->bhps", query, key) / math.sqrt(query.shape[-1])
        score = score.masked_fill(~readable(mask)[:, None, None], -torch.inf)
        share = self.dropout(score.softmax(dim=-1))
        out: Tensor = self.out(torch.einsum("bhps,bsd->bphd", share, values).flatten(2))
        return out


class Timed(nn.Module):
    """Steps in time, read at regular hours.

    Args:
        dim: Width of a step.
        points: Number of regular hours.
        waves: Width of what is known of an hour.
        heads: Number of heads of the time attention.
        horizon: The last of the regular hours.
        dropout: Probability of dropping an attention weight.
    """

    hours: Tensor

    def __init__(
        self, dim: int, points: int, waves: int, heads: int, horizon: float, dropout: float
    ) -> None:
        super().__init__()
        # The last is the end of the window, also where there is one only.
        hours = torch.linspace(horizon, 0.0, points).flip(0)
        self.register_buffer("hours", hours, persistent=False)
        self.attention = TimeAttention(dim, waves, heads, dropout)
        self.place = nn.Parameter(torch.randn(points, dim) * 0.02)

    def forward(
        self, steps: Steps, clock: nn.Module
    ) -> tuple[Float[Tensor, "batch point dim"], Bool[Tensor, "batch point"]]:
        """Returns what stands at each hour, of rows that have a step."""
        read = self.attention(clock(self.hours), clock(steps.hours), steps.values, steps.mask)
        some = steps.mask.any(dim=1, keepdim=True).expand(-1, len(self.hours))
        return math.sqrt(read.shape[-1]) * read + self.place, some

    def state(
        self, values: Float[Tensor, "batch point dim"], mask: Bool[Tensor, "batch point"]
    ) -> Float[Tensor, "batch dim"]:
        """Returns the last hour."""
        return values[:, -1]


class Still(nn.Module):
    """Steps that are not in time, mapped linearly, with waves that say which is which.

    Args:
        dim: Width of a step.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, dim, bias=False)

    def forward(
        self, steps: Steps, clock: nn.Module | None
    ) -> tuple[Float[Tensor, "batch step dim"], Bool[Tensor, "batch step"]]:
        """Returns the steps; no clock is asked."""
        mapped = self.map(steps.values)
        place = torch.arange(mapped.shape[1], device=mapped.device)
        waves = sinusoids(place.to(mapped.dtype), mapped.shape[-1])
        return math.sqrt(mapped.shape[-1]) * mapped + waves, steps.mask

    def state(
        self, values: Float[Tensor, "batch step dim"], mask: Bool[Tensor, "batch step"]
    ) -> Float[Tensor, "batch dim"]:
        """Returns the mean of the real steps."""
        return mean_of(values, mask)


class Layer(nn.Module):
    """Self attention of each modality, attention to all others, and a hidden layer of each.

    Args:
        modalities: Number of modalities; one alone has nobody else to attend to.
        dim: Width of a step.
        heads: Number of attention heads.
        dropout: Probability of dropping an attention weight or a hidden unit.
    """

    def __init__(self, modalities: int, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        others = modalities if modalities > 1 else 0

        def attentions(number: int) -> nn.ModuleList:
            return nn.ModuleList(
                Attention(dim, heads=heads, dropout=dropout) for _ in range(number)
            )

        self.before = nn.ModuleList(nn.LayerNorm(dim) for _ in range(modalities))
        self.own = attentions(modalities)
        self.between = nn.ModuleList(nn.LayerNorm(dim) for _ in range(others))
        self.cross = attentions(others)
        self.then = nn.ModuleList(
            hidden(dim, 4 * dim, nn.ReLU(), dropout) for _ in range(modalities)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, streams: Streams, masks: Masks) -> Streams:
        """Returns the steps of each modality after the layer."""
        read = [norm(x) for norm, x in zip(self.before, streams, strict=True)]
        streams = [
            x + self.dropout(attention(one, one, mask))
            for x, attention, one, mask in zip(streams, self.own, read, masks, strict=True)
        ]
        read = [norm(x) for norm, x in zip(self.between, streams, strict=False)]
        for place, attention in enumerate(self.cross):
            context = torch.cat([*read[:place], *read[place + 1 :]], dim=1)
            mask = torch.cat([*masks[:place], *masks[place + 1 :]], dim=1)
            told = self.dropout(attention(read[place], context, mask))
            streams[place] = streams[place] + told
        return [x + then(x) for x, then in zip(streams, self.then, strict=True)]
