"""Fixed base points, on which predictions and means are made.

Averages over them have the same value at every call, for every row, alone or beside others.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def fixed_points(draws: int, size: int) -> Float[Tensor, "draw coordinate"]:
    """Points of the unit cube that cover it evenly, in double precision on the CPU.

    The first half is a Latin hypercube (McKay, Beckman and Conover 1979): each coordinate has one
    point in each of equally many intervals, in an order of its own. The second half is its mirror
    image about the middle (antithetic), so that the mean of what is linear in normal scores is
    exact where the number is even.

    Args:
        draws: Number of points.
        size: Number of coordinates.

    Raises:
        ValueError: If there is no point.
    """
    if draws < 1:
        raise ValueError(f"at least one base point is needed, but draws is {draws}")
    half = -(-draws // 2)
    generator = torch.Generator("cpu").manual_seed(0)
    order, place = (
        torch.rand(half, size, dtype=torch.double, generator=generator, device="cpu")
        for _ in range(2)
    )
    points = (order.argsort(0) + place) / half
    return torch.cat([points, 1 - points])[:draws]
