"""An LSTM that runs under autocast on every processor."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LSTM(nn.LSTM):
    """As torch's own, but in the precision of its weights on a CPU.

    There autocast asks oneDNN for kernels in half precision, which it has for some processors only
    ("could not create a primitive descriptor for the LSTM").

    Example:
        >>> lstm = LSTM(3, 4, batch_first=True)
        >>> with torch.autocast("cpu", dtype=torch.bfloat16):
        ...     lstm(torch.zeros(2, 5, 3))[0].shape
        torch.Size([2, 5, 4])
    """

    def layer(self, number: int, input: Tensor) -> Tensor:
        """Returns the states of one layer, given those of the layer below.

        Args:
            number: Which of the layers, from zero.
            input: What enters it, ``(row, step, feature)``; there may be no step.
        """
        if input.shape[1] == 0:
            return input.new_zeros(*input.shape[:2], self.hidden_size)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(self, f"{name}_l{number}") for name in names]
        with torch.autocast(input.device.type, enabled=False):
            given = input.to(weights[0].dtype)
            start = given.new_zeros(1, len(given), self.hidden_size)
            options = (True, 1, 0.0, self.training, False, True)
            states: Tensor = torch.lstm(given, (start, start), weights, *options)[0]
        return states

    def forward(  # type: ignore[override]
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if input.device.type != "cpu":
            return super().forward(input, hx)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.to(next(self.parameters()).dtype), hx)
