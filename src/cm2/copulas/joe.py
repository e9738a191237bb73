r"""The Joe copula: upper tail dependence, stronger than Gumbel's.

:math:`\psi(t) = 1 - (1 - e^{-t})^{1/\alpha}`, :math:`\alpha \ge 1`.

Joe (1993), "Parametric families of multivariate distributions with given margins"; derivatives of
the generator as polynomials with positive coefficients, Hofert, Mächler and McNeil (2012), section
3.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.types import _size

from cm2.copulas.archimedean import LARGEST_DIM, Archimedean
from cm2.copulas.base import check_tau, register
from cm2.copulas.points import as_float
from cm2.core.numerics import (
    flip_log_neg_log,
    inverse,
    log_cloglog,
    log_neg_log,
    log_polynomial,
)
from cm2.core.records import Unit

# Beyond, a frailty is as good as continuous: whole numbers lie closer than doubles can say.
_LARGEST_LOG_FRAILTY = 30.0


@register("joe")
class Joe(Archimedean):
    r"""The Joe copula, :math:`C(u) = 1 - (1 - \prod_m (1 - (1 - u_m)^\alpha))^{1/\alpha}`.

    Args:
        dim: Number of coordinates.
        alpha: At least 1; 1 is independence.
        validate_args: Whether to check parameters and arguments.

    Example:
        >>> Joe(dim=3, alpha=2.0).log_prob(torch.tensor([0.3, 0.6, 0.8])).shape
        torch.Size([])
    """

    arg_constraints = {"alpha": constraints.greater_than_eq(1.0)}
    largest_dim = LARGEST_DIM

    def __init__(self, dim: int, alpha: float | Tensor, validate_args: bool | None = None) -> None:
        self.alpha = as_float(alpha)
        super().__init__(dim, batch_shape=self.alpha.shape, validate_args=validate_args)

    @classmethod
    def start(cls, dim: int, batch_shape: _size = ()) -> dict[str, Any]:
        return {"alpha": torch.full(tuple(batch_shape), 1.7)}

    @classmethod
    def from_kendall_tau(cls, tau: float | Tensor, dim: int = 2) -> Self:
        value = check_tau("Joe", tau, 0.0, 1.0)
        # The inverse has no closed form; in 2 / alpha tau falls from 1 to 0.
        exact = value.double()
        low, high = torch.zeros_like(exact), torch.full_like(exact, 2.0)
        half = inverse(lambda x: -_digamma_tau(x), -exact, low, high)
        return cls(dim, (2 / half).to(value.dtype).clamp_min(1.0))

    def _tau(self) -> Tensor:
        return _digamma_tau(2 / self.alpha.double()).to(self.alpha.dtype)

    def _upper_tail(self) -> Tensor:
        return 2 - torch.exp2(1 / self.alpha)

    def _log_frailty(self, shape: Size) -> Tensor:
        r"""The Sibuya law by inversion of its tail, :math:`1 / (k B(k, 1 - 1/\alpha))`.

        Hofert (2011), "Efficiently sampling nested Archimedean copulas", proposition 3.2.
        """
        alpha = self.alpha.double()
        beta = 1 / alpha
        uniform = torch.rand(shape, dtype=alpha.dtype, device=alpha.device)
        log_tail = uniform.clamp_min_(torch.finfo(alpha.dtype).tiny).log_()
        log_gamma = torch.lgamma(1 - beta)  # infinite at independence, where V is 1
        log_k = -alpha * (log_tail + log_gamma)
        k = log_k.clamp(0.0, _LARGEST_LOG_FRAILTY).exp().floor_()
        log_tail_of_k = torch.lgamma(k + 1 - beta) - torch.lgamma(k + 1) - log_gamma
        # The tail falls short of its approximation, by less than one step.
        log_whole = (k + (log_tail < log_tail_of_k)).log()
        log_v = torch.where(log_k > _LARGEST_LOG_FRAILTY, log_k, log_whole)
        return torch.where(log_tail > torch.log1p(-beta), 0.0, log_v)

    def log_inverse(self, unit: Unit) -> Tensor:
        y = self.alpha[..., None].log() + log_neg_log(*unit.flip())
        return flip_log_neg_log(y)

    def generator(self, log_t: Tensor) -> Unit:
        y = flip_log_neg_log(log_t) - self.alpha[..., None].log()
        return Unit(log_cloglog(y), -y.exp())

    def _log_margin(self, unit: Unit, log_t: Tensor) -> Tensor:
        alpha = self.alpha[..., None]
        return (1 - alpha) * unit.log_1mu - log_t.exp() - alpha.log()

    def _log_prob(self, unit: Unit, present: Tensor | None) -> Tensor:
        if self.dim != 2 or present is not None:
            return super()._log_prob(unit, present)
        # The same for a pair, with fewer passes: w = (1 - u)^alpha, and the complement of the
        # product of the 1 - w is a sum of positive terms.
        y = self.alpha[..., None].log() + log_neg_log(*unit.flip())
        log_w = -y.exp()
        log_rest = torch.logaddexp(log_w[..., 0], log_w[..., 1] + log_cloglog(y[..., 0]))
        log_density = (1 / self.alpha - 2) * log_rest + (self.alpha - 1) * unit.log_1mu.sum(-1)
        return log_density + (self.alpha - 1 + log_rest.exp()).log()

    def log_derivative(self, log_t: Tensor, order: Tensor | int) -> Tensor:
        if isinstance(order, int) and order == 0:
            return self._log_psi(log_t)
        log_1mz = log_cloglog(log_t)
        log_ratio = -log_t.exp() - log_1mz
        coefficients = _derivative_coefficients(self._wide(1 / self.alpha), self.dim)
        derivative = log_polynomial(coefficients, log_ratio, order)
        derivative = derivative + log_1mz / self.alpha - self.alpha.log()
        if isinstance(order, int):
            return derivative
        return torch.where(order == 0, self._log_psi(log_t), derivative)

    def _log_psi(self, log_t: Tensor) -> Tensor:
        return log_cloglog(flip_log_neg_log(log_t) - self.alpha.log())


def _derivative_coefficients(beta: Tensor, order: int) -> Tensor:
    r"""Coefficients :math:`a_{nk}` of the derivatives of the generator, none of them negative.

    They are those of :math:`(-1)^n \psi^{(n)}(t) = \beta (1 - z)^\beta \sum_k a_{nk} r^k` with
    :math:`z = e^{-t}`, :math:`r = z / (1 - z)` and
    :math:`a_{nk} = S(n, k) \prod_{j=1}^{k-1} (j - \beta)`, S the Stirling numbers of the second
    kind.

    Args:
        beta: ``1 / alpha``, of any shape.
        order: The largest n.

    Returns:
        Of shape ``(*beta.shape, order + 1, order + 1)``, indexed by n and k.
    """
    factors = [torch.ones_like(beta), torch.ones_like(beta)]
    for j in range(1, order):
        factors.append(factors[-1] * (j - beta))
    return _stirling_numbers(order).to(beta) * torch.stack(factors, -1)[..., None, :]


@lru_cache
def _stirling_numbers(order: int) -> Tensor:
    table = np.zeros((order + 1, order + 1))
    table[0, 0] = 1.0
    for n in range(order):
        table[n + 1] = np.arange(order + 1) * table[n] + np.concatenate([[0.0], table[n, :-1]])
    return torch.from_numpy(table)


_EULER = 0.5772156649015329
# Derivatives of the digamma function at 2, (-1)^(n+1) n! (zeta(n+1) - 1), over n!, n = 1, 2, ...
_ZETA_MINUS_ONE = (
    math.pi**2 / 6 - 1,
    0.2020569031595943,
    math.pi**4 / 90 - 1,
    0.03692775514336993,
    math.pi**6 / 945 - 1,
    0.008349277381922827,
    math.pi**8 / 9450 - 1,
    0.0020083928260822145,
)


def _digamma_tau(x: Tensor) -> Tensor:
    r"""Kendall's tau at :math:`x = 2/\alpha`.

    It is :math:`1 - x (\digamma(1 + x) - \digamma(2)) / (x - 1)`, from the series in Joe (1997),
    section 5.1; around its removable singularity at 1 the series of the digamma function stands in.
    """
    step = x - 1
    near = step.abs() < 0.02
    series = torch.zeros_like(x)
    for n, zeta in reversed(list(enumerate(_ZETA_MINUS_ONE))):
        series = series * step + (-1) ** n * zeta
    far = torch.where(near, 1.0, step)
    quotient = (torch.digamma(2 + far) - (1 - _EULER)) / far
    return 1 - x * torch.where(near, series, quotient)
