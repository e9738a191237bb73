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

    def forward(  # type: ignore[override]
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if input.device.type != "cpu":
            return super().forward(input, hx)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.to(next(self.parameters()).dtype), hx)
