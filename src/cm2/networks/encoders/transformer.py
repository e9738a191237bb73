"""A Transformer over time series, at regular steps or of measurements at any times.

Sources: Vaswani et al. (2017), Attention is all you need, https://arxiv.org/abs/1706.03762;
measurements one by one as in Tipirneni and Reddy (2022), Self-supervised transformer for sparse and
irregularly sampled multivariate clinical time-series, https://arxiv.org/abs/2107.14293.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.records import Events, Padded, Steps
from cm2.networks.attention import Block, hidden, sinusoids
from cm2.networks.encoders.base import (
    Encoder,
    Staged,
    check_codes,
    each,
    register,
    regular,
    stepped,
)
from cm2.networks.encoders.projection import Projection
from cm2.networks.encoders.series import check_hours, check_series

FEATURES = 76
"""Columns of a step where nothing is said, those of the usual benchmark."""


class Grid(nn.Module):
    """Reads steps at one distance, a linear map of each.

    Args:
        features: Number of columns of a step.
        width: Width of what is made of it.
        hours_per_step: Length of a step.
    """

    takes: ClassVar[type] = Padded

    def __init__(self, features: int, width: int, hours_per_step: float) -> None:
        super().__init__()
        self.features = features
        self.hours_per_step = check_hours(hours_per_step)
        self.inner = nn.Linear(features, width)

    def forward(self, x: Padded) -> Float[Tensor, "row step width"]:
        """Returns a vector of each step."""
        values, mask = check_series(x, self.features)
        out: Tensor = self.inner(torch.where(mask.unsqueeze(-1), values, 0.0))
        return out

    def hours(self, x: Padded) -> Float[Tensor, "row step"]:
        """Returns when each step is from."""
        return regular(x.mask, self.hours_per_step)


class Measurements(nn.Module):
    """Reads measurements one by one: a vector of the variable, and one times the value.

    Args:
        vocabulary: Number of variables.
        width: Width of what is made of a measurement.
    """

    takes: ClassVar[type] = Events

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.variable = nn.Embedding(vocabulary, width)
        self.slope = nn.Embedding(vocabulary, width)

    def forward(self, x: Events) -> Float[Tensor, "row event width"]:
        """Returns a vector of each measurement."""
        check_codes(x.variable, x.mask, self.variable.num_embeddings)
        which = torch.where(x.mask, x.variable, 0)
        value = torch.where(x.mask, x.value, 0.0).unsqueeze(-1)
        out: Tensor = self.variable(which) + value * self.slope(which)
        return out

    def hours(self, x: Events) -> Float[Tensor, "row event"]:
        """Returns when each measurement was made."""
        return x.hour


@register("transformer")
class Transformer(Encoder):
    """The mean state of a Transformer over the real steps of each series.

    Steps are told apart by sines and cosines of their hours, which need not be regular. Each step
    sees all others, those after it too. A series without any step gets a state of zeros. Its steps
    are the states at each step.

    Args:
        dim: Width of the embedding.
        features: Number of columns of a step, of series on a grid; 76 if neither is given.
        vocabulary: Number of variables, of measurements at irregular times (``Events``), in the
            place of ``features``.
        width: Width of a state.
        layers: Number of layers.
        heads: Number of attention heads.
        dropout: Probability of dropping an attention weight, a hidden unit or a pooled feature.
        frozen: Whether the Transformer stays as it is.
        hours_per_step: Length of a step of a grid.

    Example:
        >>> steps = Padded(torch.zeros(3, 48, 76), torch.ones(3, 48, dtype=torch.bool))
        >>> Transformer(dim=4, width=8)(steps).shape
        torch.Size([3, 4])
    """

    timed: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        *,
        features: int | None = None,
        vocabulary: int | None = None,
        width: int = 256,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
        frozen: bool = False,
        hours_per_step: float = 1.0,
    ) -> None:
        super().__init__(dim)
        if features is not None and vocabulary is not None:
            raise ValueError(
                "give features, of series on a grid, or the vocabulary of measurements, not both"
            )
        size = vocabulary if vocabulary is not None else FEATURES if features is None else features
        if min(size, width, layers, heads) < 1:
            raise ValueError(
                "features or vocabulary, width, layers and heads must be at least 1, "
                f"but are {size}, {width}, {layers} and {heads}"
            )
        self.width = width
        self.read: Any = (
            Grid(size, width, hours_per_step)
            if vocabulary is None
            else Measurements(vocabulary, width)
        )
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads=heads,
                then=hidden(width, 4 * width, nn.GELU(), dropout),
                dropout=dropout,
            )
            for _ in range(layers)
        )
        self.after = nn.LayerNorm(width)
        self.projection = Projection(width, dim, dropout)
        if frozen:
            self.freeze()

    def forward(self, x: Padded | Events) -> Float[Tensor, "row dim"]:
        """Embeds series, or measurements."""
        return self.pooled(self.states(x, self.hours(x)), x.mask)

    @property
    def stages(self) -> tuple[int, ...]:
        """Width of a state, after each layer."""
        return (self.width,) * len(self.blocks)

    def staged(self, x: Padded | Events) -> Staged:
        """Embeds in the layers of the Transformer, whose places are the steps."""
        state = self.read_at(x, self.hours(x))
        for block in self.blocks:
            state = state if state.shape[1] == 0 else block(state, x.mask)
            state = yield state, x.mask
        return self.pooled(self.after(state), x.mask)

    def pooled(
        self, states: Float[Tensor, "row step width"], mask: Bool[Tensor, "row step"]
    ) -> Float[Tensor, "row dim"]:
        """Embeds the mean of the real states."""
        share = mask / mask.sum(dim=1, keepdim=True).clamp_min(1)
        out: Tensor = self.projection(torch.einsum("bs,bsf->bf", share.to(states), states))
        return out

    def steps(self, x: Padded | Events, hours: Float[Tensor, "row ..."] | None = None) -> Steps:
        """Embeds the state at each step; hours that are given are those that it sees."""
        when = self.hours(x) if hours is None else each(hours, x.mask)
        return stepped(self.projection(self.states(x, when)), x.mask, when)

    def hours(self, x: Padded | Events) -> Float[Tensor, "row step"]:
        """Returns when each step is from."""
        if not isinstance(x, self.read.takes):
            raise ValueError(
                f"a Transformer with a vocabulary reads Events, and one with features Padded; this "
                f"one reads {self.read.takes.__name__}, but got {type(x).__name__}"
            )
        found: Tensor = self.read.hours(x)
        return found

    def states(
        self, x: Padded | Events, hours: Float[Tensor, "row step"]
    ) -> Float[Tensor, "row step width"]:
        """Returns the state of each step, of padding too."""
        state = self.read_at(x, hours)
        if state.shape[1] == 0:
            return state
        for block in self.blocks:
            state = block(state, x.mask)
        out: Tensor = self.after(state)
        return out

    def read_at(
        self, x: Padded | Events, hours: Float[Tensor, "row step"]
    ) -> Float[Tensor, "row step width"]:
        """Returns what enters the first layer: steps, told apart by their hours."""
        out: Tensor = self.read(x) + sinusoids(torch.where(x.mask, hours, 0.0), self.width)
        return out
