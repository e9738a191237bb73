"""Distances from the components of mixtures in their deviations, with a written-out gradient.

Large arrays are few here: getting fresh memory from the system costs more than the arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cm2.core.numerics import refuse_second_derivatives


def standardize(
    z: Float[Tensor, "*batch modality dim"],
    loc: Float[Tensor, "component modality dim"],
    scale: Float[Tensor, "component modality dim"],
) -> tuple[
    Float[Tensor, "*batch component modality dim"], Float[Tensor, "*batch component modality"]
]:
    """``(z - loc) / scale`` of every component, and its squared length in each modality."""
    x, square = _Standardize.apply(z, loc, scale)
    return x, square


class _Standardize(torch.autograd.Function):
    @staticmethod
    def forward(z: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        x = (z.unsqueeze(-3) - loc).div_(scale)
        return x, torch.linalg.vecdot(x, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(inputs[2], output[0])

    @staticmethod
    def backward(ctx: Any, in_x: Tensor, in_square: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives("the shared-components coupling")
        scale, x = ctx.saved_tensors
        slope = torch.addcmul(in_x, in_square.unsqueeze(-1), x, value=2.0).div_(scale)
        in_z = in_loc = in_scale = None
        if ctx.needs_input_grad[0]:
            in_z = slope.sum(-3)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            in_loc = slope.sum_to_size(scale.shape).neg_()
            in_scale = slope.mul_(x).sum_to_size(scale.shape).neg_()
        return in_z, in_loc, in_scale
