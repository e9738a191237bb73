"""An LSTM over time series of different lengths.

Source: Harutyunyan et al. (2019), Multitask learning and benchmarking with clinical time series
data, https://doi.org/10.1038/s41597-019-0103-9, whose 76 columns are the usual input.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cm2.core.records import Padded, Steps
from cm2.networks import recurrent
from cm2.networks.encoders.base import Encoder, Staged, register, regular, stepped
from cm2.networks.encoders.projection import Projection


@register("series")
class Series(Encoder):
    """The state of an LSTM at the last real step of each series.

    The LSTM reads forward only, so that steps of padding, which come last, cannot reach that
    state. A series without any step gets a state of zeros. Its steps are the states at each step,
    of which the last is the embedding.

    Args:
        dim: Width of the embedding.
        features: Number of columns of a step.
        width: Width of the hidden state.
        layers: Number of recurrent layers.
        dropout: Probability of dropping a unit between layers and before the projection.
        frozen: Whether the LSTM stays as it is.
        hours_per_step: Length of a step, of which the hours of steps are made.

    Example:
        >>> steps = Padded(torch.zeros(3, 48, 76), torch.ones(3, 48, dtype=torch.bool))
        >>> Series(dim=4, width=8)(steps).shape
        torch.Size([3, 4])
    """

    timed: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        *,
        features: int = 76,
        width: int = 256,
        layers: int = 2,
        dropout: float = 0.1,
        frozen: bool = False,
        hours_per_step: float = 1.0,
    ) -> None:
        super().__init__(dim)
        if min(features, width, layers) < 1:
            raise ValueError(
                "features, width and layers must be at least 1, "
                f"but are {features}, {width} and {layers}"
            )
        self.hours_per_step = check_hours(hours_per_step)
        self.features = features
        between = dropout if layers > 1 else 0.0
        self.recurrent = recurrent.LSTM(
            features, width, num_layers=layers, batch_first=True, dropout=between
        )
        self.projection = Projection(width, dim, dropout)
        if frozen:
            self.freeze()

    def forward(self, x: Padded) -> Float[Tensor, "row dim"]:
        """Embeds series with their masks."""
        return self.last(self.states(x), x.mask)

    @property
    def stages(self) -> tuple[int, ...]:
        """Width of the state, after each layer."""
        return (self.recurrent.hidden_size,) * self.recurrent.num_layers

    def staged(self, x: Padded) -> Staged:
        """Embeds in the layers of the LSTM, whose places are the steps."""
        values, mask = check_series(x, self.features)
        state = torch.where(mask.unsqueeze(-1), values, 0.0)
        for number in range(self.recurrent.num_layers):
            if number > 0:
                state = F.dropout(state, self.recurrent.dropout, self.recurrent.training)
            state = self.recurrent.layer(number, state)
            state = yield state, mask
        return self.last(state, mask)

    def last(
        self, states: Float[Tensor, "row step width"], mask: Bool[Tensor, "row step"]
    ) -> Float[Tensor, "row dim"]:
        """Embeds the state at the last real step."""
        rows, steps = mask.shape
        if steps == 0:
            state = states.new_zeros(rows, states.shape[-1])
        else:
            order = torch.arange(1, steps + 1, device=mask.device)
            last = (mask * order).amax(dim=1)  # zero where there is no step
            index = (last - 1).clamp_min(0).view(-1, 1, 1).expand(-1, 1, states.shape[-1])
            state = states.gather(1, index).squeeze(1) * (last > 0).unsqueeze(-1)
        out: Tensor = self.projection(state)
        return out

    def steps(self, x: Padded, hours: Float[Tensor, "row ..."] | None = None) -> Steps:
        """Embeds the state at each step."""
        when = regular(x.mask, self.hours_per_step) if hours is None else hours
        return stepped(self.projection(self.states(x)), x.mask, when)

    def states(self, x: Padded) -> Float[Tensor, "row step width"]:
        """Returns the LSTM's state after each step."""
        values, mask = check_series(x, self.features)
        if mask.shape[1] == 0:
            return values.new_zeros(*mask.shape, self.recurrent.hidden_size)
        states: Tensor = self.recurrent(torch.where(mask.unsqueeze(-1), values, 0.0))[0]
        return states


def check_series(x: Padded, features: int) -> Padded:
    """Raises unless series and their mask have the shapes that an encoder reads."""
    values, mask = x
    if values.dim() != 3 or values.shape[-1] != features or mask.shape != values.shape[:2]:
        raise ValueError(
            f"a series needs values (rows, steps, {features}) and a mask (rows, steps), "
            f"but got {tuple(values.shape)} and {tuple(mask.shape)}"
        )
    return x


def check_hours(hours_per_step: float) -> float:
    """Raises unless a step has a length."""
    if not hours_per_step > 0:
        raise ValueError(f"hours_per_step must be positive, but is {hours_per_step}")
    return hours_per_step
