r"""The Gumbel copula: upper tail dependence.

:math:`\psi(t) = \exp(-t^{1/\alpha})`, :math:`\alpha \ge 1`.

Gumbel (1960); derivatives of the generator by a recursion with positive terms only, see
:func:`_derivative_coefficients`; compare Hofert, Mächler and McNeil (2012), section 3.
"""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.types import _size

from cm2.copulas.archimedean import LARGEST_DIM, Archimedean
from cm2.copulas.base import check_tau, register
from cm2.copulas.points import as_float
from cm2.core.numerics import log_cloglog, log_neg_log, log_polynomial
from cm2.core.records import Unit


@register("gumbel")
class Gumbel(Archimedean):
    r"""The Gumbel copula, :math:`C(u) = \exp(-(\sum_m (-\log u_m)^\alpha)^{1/\alpha})`.

    Args:
        dim: Number of coordinates.
        alpha: At least 1; 1 is independence. Kendall's tau is ``1 - 1 / alpha``.
        validate_args: Whether to check parameters and arguments.

    Example:
        >>> Gumbel(dim=3, alpha=2.0).log_prob(torch.tensor([0.3, 0.6, 0.8])).shape
        torch.Size([])
    """

    arg_constraints = {"alpha": constraints.greater_than_eq(1.0)}
    largest_dim = LARGEST_DIM

    def __init__(self, dim: int, alpha: float | Tensor, validate_args: bool | None = None) -> None:
        self.alpha = as_float(alpha)
        super().__init__(dim, batch_shape=self.alpha.shape, validate_args=validate_args)

    @classmethod
    def start(cls, dim: int, batch_shape: _size = ()) -> dict[str, Any]:
        return {"alpha": torch.full(tuple(batch_shape), 1.5)}

    @classmethod
    def from_kendall_tau(cls, tau: float | Tensor, dim: int = 2) -> Self:
        tau = check_tau("Gumbel", tau, 0.0, 1.0)
        return cls(dim, 1 / (1 - tau))

    def _tau(self) -> Tensor:
        return 1 - 1 / self.alpha

    def _upper_tail(self) -> Tensor:
        return 2 - torch.exp2(1 / self.alpha)

    def _log_frailty(self, shape: Size) -> Tensor:
        # The positive stable law of index 1 / alpha: Kanter (1975), "Stable densities under...".
        alpha = self.alpha.double().expand(shape)
        angle, uniform = (torch.rand_like(alpha) for _ in range(2))
        tiny = torch.finfo(alpha.dtype).tiny
        small, whole, rest = (
            (angle * factor).sin().clamp_min(tiny).log()
            for factor in (math.pi / alpha, math.pi, math.pi * (1 - 1 / alpha))
        )
        log_exponential = uniform.clamp_min(tiny).log().neg().log()
        return small - alpha * whole + (alpha - 1) * (rest - log_exponential)

    def log_inverse(self, unit: Unit) -> Tensor:
        return self.alpha[..., None] * log_neg_log(*unit)

    def generator(self, log_t: Tensor) -> Unit:
        y = log_t / self.alpha[..., None]
        return Unit(-y.exp(), log_cloglog(y))

    def _log_margin(self, unit: Unit, log_t: Tensor) -> Tensor:
        alpha = self.alpha[..., None]
        return unit.log_u - (1 - 1 / alpha) * log_t - alpha.log()

    def log_derivative(self, log_t: Tensor, order: Tensor | int) -> Tensor:
        log_x = log_t / self.alpha
        coefficients = _derivative_coefficients(self._wide(1 / self.alpha), self.dim)
        polynomial = log_polynomial(coefficients, log_x, order)
        return polynomial - log_x.exp() - order * log_t


def _derivative_coefficients(beta: Tensor, order: int) -> Tensor:
    r"""Coefficients :math:`a_{nk}` of the derivatives of the generator.

    They are those of :math:`(-1)^n \psi^{(n)}(t) = \psi(t) t^{-n} \sum_k a_{nk} t^{k\beta}`.
    Differentiating the right side gives
    :math:`a_{n+1,k} = \beta a_{n,k-1} + (n - k\beta) a_{nk}`, in which nothing cancels since
    :math:`n \ge k \ge k\beta`.

    Args:
        beta: ``1 / alpha``, of any shape.
        order: The largest n.

    Returns:
        Of shape ``(*beta.shape, order + 1, order + 1)``, indexed by n and k.
    """
    k = torch.arange(order + 1, dtype=beta.dtype, device=beta.device)
    beta = beta[..., None]
    row = (k == 0).to(beta.dtype).expand(*beta.shape[:-1], order + 1)
    rows = [row]
    for n in range(order):
        shifted = torch.nn.functional.pad(row, (1, 0))[..., :-1]
        row = beta * shifted + (n - k * beta).clamp_min(0.0) * row
        rows.append(row)
    return torch.stack(rows, -2)
