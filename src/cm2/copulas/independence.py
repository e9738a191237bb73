"""The independence copula: the baseline in which nothing is coupled."""

from __future__ import annotations

from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.types import _size

from cm2.copulas.base import Copula, register
from cm2.copulas.measures import Estimate
from cm2.copulas.points import as_tensor
from cm2.core.records import Base, Unit


@register("independence")
class Independence(Copula):
    """The copula of independent coordinates; its density is one.

    Args:
        dim: Number of coordinates.
        batch_shape: Shape of the batch of copulas.
        validate_args: Whether to check arguments.
    """

    gaussian_scores = True

    def __init__(
        self, dim: int, *, batch_shape: _size = (), validate_args: bool | None = None
    ) -> None:
        super().__init__(dim, batch_shape=batch_shape, validate_args=validate_args)

    @classmethod
    def start(cls, dim: int, batch_shape: _size = ()) -> dict[str, Any]:
        return {"batch_shape": tuple(batch_shape)}

    @classmethod
    def from_kendall_tau(cls, tau: float | Tensor, dim: int = 2) -> Self:
        value = as_tensor(tau)
        if (value != 0).any():
            raise ValueError(f"Independence: Kendall's tau must be 0, got {tau}")
        return cls(dim, batch_shape=value.shape)

    def expand(self, batch_shape: _size, _instance: Any = None) -> Self:
        return type(self)(self.dim, batch_shape=batch_shape, validate_args=False)

    def marginal(self, present: Bool[Tensor, " dim"]) -> Independence:
        return Independence(int(present.sum()), batch_shape=self.batch_shape)

    def kendall_tau(self) -> Float[Tensor, "*batch dim dim"]:
        return torch.eye(self.dim).expand(*self.batch_shape, self.dim, self.dim)

    def spearman_rho(self) -> Float[Tensor, "*batch dim dim"]:
        return self.kendall_tau()

    def lower_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        """None between any two coordinates."""
        return self.kendall_tau()

    def upper_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        """None between any two coordinates."""
        return self.kendall_tau()

    def mutual_information(self, samples: int = 10_000) -> Estimate:
        """Zero, exactly."""
        return Estimate(torch.zeros(self.batch_shape), torch.zeros(self.batch_shape))

    def lautum_information(self) -> Float[Tensor, "*batch"]:
        """Zero, exactly."""
        return torch.zeros(self.batch_shape)

    def _mean_normal(self, x: Tensor, present: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def _conditional_cdf(self, unit: Unit, present: Tensor) -> Unit:
        shape = torch.broadcast_shapes(
            unit.log_u.shape, present.shape, (*self.batch_shape, self.dim)
        )
        return unit.map(lambda part: part.expand(shape))

    def _log_prob(self, unit: Unit, present: Tensor | None) -> Tensor:
        shape = torch.broadcast_shapes(unit.log_u.shape[:-1], self.batch_shape)
        return unit.log_u.new_zeros(shape)

    def _cdf(self, unit: Unit) -> Tensor:
        shape = torch.broadcast_shapes(unit.log_u.shape[:-1], self.batch_shape)
        return unit.log_u.sum(-1).exp().expand(shape)

    def _complete(self, unit: Unit, present: Tensor, base: Base | None) -> Unit:
        shape = torch.broadcast_shapes(
            unit.log_u.shape, present.shape, (*self.batch_shape, self.dim)
        )
        like = unit.log_u
        drawn = Unit.from_u(
            torch.rand(shape, dtype=like.dtype, device=like.device)
            if base is None
            else base.coordinate.expand(torch.broadcast_shapes(shape, base.coordinate.shape))
        )
        return unit.map(lambda given, new: torch.where(present, given, new), drawn)
