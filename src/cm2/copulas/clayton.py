r"""The Clayton copula: lower tail dependence.

:math:`\psi(t) = (1 + \theta t)^{-1/\theta}`, :math:`\theta > 0`; the limit at 0 is independence.

Clayton (1978), "A model for association in bivariate life tables"; Cook and Johnson (1981) for any
dimension. Conditional laws and their inverses are closed: given k coordinates whose t sum to T, the
frailty is gamma again, with shape :math:`1/\theta + k` and rate :math:`1/\theta + T`.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.types import _size

from cm2.copulas.archimedean import Archimedean
from cm2.copulas.base import check_tau, register
from cm2.copulas.points import as_float
from cm2.core.numerics import log_cloglog, log_expm1, log_neg_log, log_softplus, softplus
from cm2.core.records import Unit


@register("clayton")
class Clayton(Archimedean):
    r"""The Clayton copula, :math:`C(u) = (\sum_m u_m^{-\theta} - M + 1)^{-1/\theta}`.

    Args:
        dim: Number of coordinates.
        theta: Positive. Kendall's tau is ``theta / (theta + 2)``.
        validate_args: Whether to check parameters and arguments.

    Example:
        >>> Clayton(dim=3, theta=2.0).log_prob(torch.tensor([0.3, 0.6, 0.8])).shape
        torch.Size([])
    """

    arg_constraints = {"theta": constraints.positive}

    def __init__(self, dim: int, theta: float | Tensor, validate_args: bool | None = None) -> None:
        self.theta = as_float(theta)
        super().__init__(dim, batch_shape=self.theta.shape, validate_args=validate_args)

    @classmethod
    def start(cls, dim: int, batch_shape: _size = ()) -> dict[str, Any]:
        return {"theta": torch.full(tuple(batch_shape), 1.0)}

    @classmethod
    def from_kendall_tau(cls, tau: float | Tensor, dim: int = 2) -> Self:
        tau = check_tau("Clayton", tau, 0.0, 1.0)
        # Independence itself is the limit; the smallest theta stands for it.
        return cls(dim, (2 * tau / (1 - tau)).clamp_min(torch.finfo(tau.dtype).tiny ** 0.5))

    def _tau(self) -> Tensor:
        return self.theta / (self.theta + 2)

    def _lower_tail(self) -> Tensor:
        return torch.exp2(-1 / self.theta)

    def _log_frailty(self, shape: Size) -> Tensor:
        # A gamma variable of shape a, which may underflow, is one of shape a + 1 times U^(1/a).
        theta = self.theta.double().expand(shape)
        log_uniform = torch.rand_like(theta).clamp_min(torch.finfo(theta.dtype).tiny).log()
        return (theta * torch._standard_gamma(1 / theta + 1)).log() + theta * log_uniform

    def log_inverse(self, unit: Unit) -> Tensor:
        log_theta = self.theta.log()[..., None]
        return log_expm1(log_theta + log_neg_log(*unit)) - log_theta

    def generator(self, log_t: Tensor) -> Unit:
        theta = self.theta[..., None]
        y = log_softplus(theta.log() + log_t) - theta.log()
        return Unit(-y.exp(), log_cloglog(y))

    def _log_margin(self, unit: Unit, log_t: Tensor) -> Tensor:
        return (1 + self.theta[..., None]) * unit.log_u

    def _log_prob(self, unit: Unit, present: Tensor | None) -> Tensor:
        # The base's formula, without passing by log t: log(1 + theta sum t), where
        # theta t = exp(e) - 1 with e = -theta log u, from terms exp(e - largest e) (1 - exp(-e)).
        log_u = unit.log_u if present is None else torch.where(present, unit.log_u, 0.0)
        order = self.dim if present is None else present.sum(-1)
        exponent = -self.theta[..., None] * log_u
        largest = exponent.detach().amax(-1)
        terms = (exponent - largest[..., None]).exp() * -torch.expm1(-exponent)
        log_sum = largest + terms.sum(-1).clamp_min(torch.finfo(log_u.dtype).tiny).log()
        density = self._log_rising(order) - (1 / self.theta + order) * softplus(log_sum)
        density = density - (1 + self.theta) * log_u.sum(-1)
        return density if present is None else torch.where(present.sum(-1) > 1, density, 0.0)

    def log_derivative(self, log_t: Tensor, order: Tensor | int) -> Tensor:
        log_base = softplus(self.theta.log() + log_t)
        return self._log_rising(order) - (1 / self.theta + order) * log_base

    def _log_rising(self, order: Tensor | int) -> Tensor:
        r""":math:`\log \prod_{j<k} (1 + j \theta)`."""
        j = torch.arange(self.dim, device=self.theta.device)
        factors = torch.log1p(j * self.theta[..., None])
        below = j < (order[..., None] if torch.is_tensor(order) else order)
        return torch.where(below, factors, 0.0).sum(-1)

    def _given_cdf(self, log_t: Tensor, log_sum: Tensor, order: Tensor) -> Tensor:
        log_theta = self.theta.log()
        scaled = log_theta + log_t - softplus(log_theta + log_sum)
        return log_softplus(scaled) + (1 / self.theta + order).log()

    def _draw_given(self, log_sum: Tensor, order: Tensor, u: Tensor) -> Tensor:
        log_theta = self.theta.log()
        target = log_neg_log(*Unit.from_u(u))
        scaled = log_expm1(target - (1 / self.theta + order).log())
        return scaled - log_theta + softplus(log_theta + log_sum)
