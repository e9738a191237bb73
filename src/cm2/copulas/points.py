"""Points of the unit cube as callers give them: read, checked, and said what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.distributions import constraints

from cm2.core.records import Unit

Points = Shaped[Tensor, "*#shape dim"] | Unit | np.ndarray | Sequence[Any]
"""Points of the cube: a tensor of any real dtype, both logarithms, an array or a list."""
Presence = Bool[Tensor, "*#shape dim"] | np.ndarray | Sequence[Any]
"""Which coordinates of points are there."""


def as_tensor(value: Any) -> Shaped[Tensor, ...]:
    """Arrays and lists as tensors; a tensor stays where it is, whatever the default device."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        value = np.array(value)  # torch warns of memory that must not be written to
    return torch.as_tensor(value)


def as_float(value: Any) -> Float[Tensor, ...]:
    """Numbers as a tensor in single precision at least, which the formulas need.

    Raises:
        ValueError: If they are complex.
    """
    tensor = as_tensor(value)
    if tensor.is_complex():
        raise ValueError(f"real numbers are needed, got {tensor.dtype}")
    if not tensor.is_floating_point():
        return tensor.to(torch.get_default_dtype())
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def to_unit(value: Tensor | Unit) -> Unit:
    """Points by both logarithms."""
    return value if isinstance(value, Unit) else Unit.from_u(value)


def to_point(value: Tensor | Unit) -> Tensor:
    """Points as numbers."""
    return value.u if isinstance(value, Unit) else value


def dtype_of(value: Tensor | Unit) -> torch.dtype:
    """The dtype of points."""
    if isinstance(value, Unit):
        return torch.promote_types(value.log_u.dtype, value.log_1mu.dtype)
    return value.dtype


def cast(value: Tensor | Unit, dtype: torch.dtype) -> Tensor | Unit:
    """Points in a dtype."""
    return value.map(lambda part: part.to(dtype)) if isinstance(value, Unit) else value.to(dtype)


def by_column(value: Tensor, rows: int) -> list[Tensor]:
    """Pieces of some rows in which the entries of a coordinate lie side by side in memory."""
    return [part.movedim(-1, 0).contiguous().movedim(0, -1) for part in value.split(rows)]


def check_range(family: str, what: str, value: Tensor, low: float, high: float) -> None:
    """Raises a ``ValueError`` with the first entry that is NaN or outside ``[low, high]``."""
    if value.numel() == 0:
        return
    # One pass over memory: both ends are NaN if any entry is.
    least, most = torch.aminmax(value.detach())
    if least >= low and most <= high:
        return
    wrong = ~((value >= low) & (value <= high))
    place = tuple(wrong.nonzero()[0].tolist())
    raise ValueError(
        f"{family}: {what} must lie in [{low:g}, {high:g}] and not be NaN where it is present, "
        f"got {value[place].item():g} at index {place} ({int(wrong.sum())} such entries)"
    )


def described(constraint: constraints.Constraint) -> str:
    """A constraint in words."""
    low, high = (getattr(constraint, end, None) for end in ("lower_bound", "upper_bound"))
    if isinstance(constraint, constraints.greater_than_eq):
        return f"at least {low:g}"
    if isinstance(constraint, constraints.greater_than):
        return f"greater than {low:g}"
    if low is not None and high is not None:
        return f"between {low:g} and {high:g}"
    words = {
        id(constraints.real): "a real number",
        id(constraints.simplex): "non-negative numbers that sum to one",
        id(constraints.corr_cholesky): "the Cholesky factor of a correlation matrix",
    }
    return words.get(id(constraint), f"in the set {constraint}")
