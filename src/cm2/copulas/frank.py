r"""The Frank copula: no tail dependence, both signs for two coordinates.

Frank (1979); the derivatives of its generator are polylogarithms of negative order, here as
polynomials with positive coefficients (Hofert, Mächler and McNeil 2012, section 3).
"""

from __future__ import annotations

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
    inverse,
    log1mexp,
    log_cloglog,
    log_neg_log1mexp,
    log_polynomial,
    log_softplus,
)
from cm2.core.records import Base, Unit

# Below this |theta| the copula cannot be told from independence in float32 (its density is at
# most 1 + theta / 2).
_SMALLEST_THETA = 1e-6
# Beyond its exponential a number of draws is as good as its whole part and one more.
_FAR = 30.0


@register("frank")
class Frank(Archimedean):
    r"""The Frank copula, :math:`\psi(t) = -\log(1 - (1 - e^{-\theta}) e^{-t}) / \theta`.

    A negative ``theta``, for two coordinates only, is the copula of ``-theta`` with the second
    coordinate reflected: :math:`c_{-\theta}(u, v) = c_\theta(u, 1 - v)`.

    Args:
        dim: Number of coordinates.
        theta: Any number for two coordinates (0 stands for independence), positive for more.
        validate_args: Whether to check parameters and arguments.

    Example:
        >>> Frank(dim=2, theta=-5.0).kendall_tau()[0, 1] < 0
        tensor(True)
    """

    largest_dim = LARGEST_DIM

    def __init__(self, dim: int, theta: float | Tensor, validate_args: bool | None = None) -> None:
        self.theta = as_float(theta)
        self.arg_constraints = {"theta": constraints.real if dim == 2 else constraints.positive}
        super().__init__(dim, batch_shape=self.theta.shape, validate_args=validate_args)
        self._theta = self.theta.abs().clamp_min(_SMALLEST_THETA)
        self._log_p = log1mexp(-self._theta)

    @classmethod
    def start(cls, dim: int, batch_shape: _size = ()) -> dict[str, Any]:
        return {"theta": torch.full(tuple(batch_shape), 2.0)}

    @classmethod
    def from_kendall_tau(cls, tau: float | Tensor, dim: int = 2) -> Self:
        value = check_tau("Frank", tau, -1.0 if dim == 2 else 0.0, 1.0)
        # The inverse has no closed form. Tau grows with theta; in size it is at most theta / 9, and
        # at least 1 - 4 / theta.
        exact = value.double()
        size = exact.detach().abs()
        near, far = 9 * size, (9 * size).maximum(4 / (1 - size))
        ends = exact.detach().sign() * torch.stack([near, far])
        theta = inverse(_debye_tau, exact, ends.amin(dim=0), ends.amax(dim=0)).to(value.dtype)
        if dim == 2:
            return cls(dim, theta)
        # Independence itself is the limit; the smallest theta stands for it.
        return cls(dim, theta.clamp_min(torch.finfo(value.dtype).tiny ** 0.5))

    def _tau(self) -> Tensor:
        return _debye_tau(self.theta)

    def _spearman(self) -> Tensor:
        return _debye_rho(self.theta)

    def _log_frailty(self, shape: Size) -> Tensor:
        # The logarithmic series law: Kemp (1981), "Efficient generation of...".
        theta = self._theta.double().expand(shape)
        first, second = (torch.rand_like(theta) for _ in range(2))
        tiny = torch.finfo(theta.dtype).tiny
        # In logs, since q is one to all digits where theta is in the hundreds.
        log_rate = log_neg_log1mexp(-theta * first.clamp_min(tiny))
        log_size = (-second.clamp_min(tiny).log()).log() - log_rate
        near = log_size.clamp_max(_FAR).exp().floor().log1p()
        return torch.where(log_size > _FAR, log_size, near)

    def sample_unit(self, sample_shape: _size = ()) -> Unit:
        return self._reflect(super().sample_unit(sample_shape))

    def _log_prob(self, unit: Unit, present: Tensor | None) -> Tensor:
        if self.dim != 2 or present is not None:
            return super()._log_prob(self._reflect(unit), present)
        # The same for a pair, with fewer passes; the denominator is a sum of positive terms,
        # exp(-theta u) (1 - exp(-theta v)) + exp(-theta v) (1 - exp(-theta (1 - v))), here over
        # the larger of its two powers. A sum near 0 would need u, v and 1 - v near 0 at once.
        theta, negative = self._theta, self.theta < 0
        u, v, upper = unit.log_u[..., 0].exp(), unit.log_u[..., 1].exp(), unit.log_1mu[..., 1].exp()
        v, upper = torch.where(negative, upper, v), torch.where(negative, v, upper)
        step = theta * (v - u)
        above = step > 0
        gap = torch.where(above, -step, step)
        rise, fall = -torch.expm1(-theta * v), -torch.expm1(-theta * upper)
        far, near = torch.where(above, fall, rise), torch.where(above, rise, fall)
        log_sum = (near + far * gap.exp()).log()
        return theta.log() + self._log_p + gap - 2 * log_sum

    def _log_margin(self, unit: Unit, log_t: Tensor) -> Tensor:
        theta = self._theta[..., None]
        return self._log_p[..., None] - log_t.exp() + theta * unit.u - theta.log()

    def _cdf(self, unit: Unit) -> Tensor:
        cdf = super()._cdf(self._reflect(unit))
        return torch.where(self.theta < 0, unit.u[..., 0] - cdf, cdf)

    def _complete(self, unit: Unit, present: Tensor, base: Base | None) -> Unit:
        if base is not None and self.dim == 2:
            base = base.flip(self._reflected())
        return self._reflect(super()._complete(self._reflect(unit), present, base))

    def _conditional_cdf(self, unit: Unit, present: Tensor) -> Unit:
        return self._reflect(super()._conditional_cdf(self._reflect(unit), present))

    def _reflect(self, unit: Unit) -> Unit:
        """Swaps the ends of the second coordinate where theta is negative."""
        if self.dim != 2:
            return unit
        swap = self._reflected()
        return unit.map(lambda part, other: torch.where(swap, other, part), unit.flip())

    def _reflected(self) -> Tensor:
        """Which coordinates of a pair are reflected: the second, where theta is negative."""
        return (self.theta < 0)[..., None] & torch.tensor([False, True], device=self.theta.device)

    def log_inverse(self, unit: Unit) -> Tensor:
        theta, log_p = self._theta[..., None], self._log_p[..., None]
        log_theta = theta.log()
        # s = exp(-t) = (1 - exp(-theta u)) / p and 1 - s, each from the end where it is exact.
        log_s = log_cloglog(log_theta + unit.log_u) - log_p
        log_1ms = log_cloglog(log_theta + unit.log_1mu) - log_p - theta * unit.u
        upper = log_1ms < -1.0
        return torch.where(
            upper,
            log_neg_log1mexp(torch.where(upper, log_1ms, -2.0)),
            (-torch.where(upper, -1.0, log_s)).log(),
        )

    def generator(self, log_t: Tensor) -> Unit:
        theta, log_p = self._theta[..., None], self._log_p[..., None]
        log_1ms = log_cloglog(log_t)
        log_1mu = (log_softplus(theta + log_p + log_1ms) - theta.log()).clamp_max(0.0)
        # 1 - z = exp(-theta) + p (1 - exp(-t)), a sum of positive terms.
        log_1mz = torch.logaddexp(-theta, log_p + log_1ms)
        log_u = _log_neg_log(log_p - log_t.exp(), log_1mz) - theta.log()
        upper = log_1mu < -1.0
        log_u = torch.where(upper, log1mexp(torch.where(upper, log_1mu, -2.0)), log_u)
        return Unit(log_u.clamp_max(0.0), log_1mu)

    def log_derivative(self, log_t: Tensor, order: Tensor | int) -> Tensor:
        log_z = self._log_p - log_t.exp()
        # 1 - z = exp(-theta) + p (1 - exp(-t)), a sum of positive terms.
        log_1mz = torch.logaddexp(-self._theta, self._log_p + log_cloglog(log_t))
        table = _polylogarithm_coefficients(self.dim).to(self._wide(log_t))
        derivative = log_polynomial(table, log_z - log_1mz, order)
        if not isinstance(order, int):
            derivative = torch.where(order == 0, _log_neg_log(log_z, log_1mz), derivative)
        elif order == 0:
            derivative = _log_neg_log(log_z, log_1mz)
        return derivative - self._theta.log()


def _log_neg_log(log_z: Tensor, log_1mz: Tensor) -> Tensor:
    """``log(-log(1 - z))`` from whichever of z and 1 - z is the smaller."""
    lower = log_z < log_1mz
    return torch.where(
        lower,
        log_neg_log1mexp(torch.where(lower, log_z, -1.0)),
        (-torch.where(lower, -1.0, log_1mz)).log(),
    )


@lru_cache
def _polylogarithm_coefficients(order: int) -> Tensor:
    r"""The coefficients of :math:`\mathrm{Li}_{1-n}(z)` in powers of :math:`r = z/(1-z)`.

    :math:`\mathrm{Li}_{1-n} = \sum_{k=1}^{n} (k-1)!\, S(n, k)\, r^k` with Stirling numbers of the
    second kind; row n, column k. Applying :math:`z\,d/dz`, that is
    :math:`r^k \to k (r^k + r^{k+1})`, to row n gives row n + 1.
    """
    table = np.zeros((order + 1, order + 1))
    table[1, 1] = 1.0
    for n in range(1, order):
        for k in range(1, n + 1):
            table[n + 1, k] += k * table[n, k]
            table[n + 1, k + 1] += k * table[n, k]
    table[0, 0] = 1.0  # order 0 is not a polynomial and is not read from here
    return torch.from_numpy(table)


@lru_cache
def _quadrature() -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(64)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def _debye(theta: Tensor, order: int) -> Tensor:
    r"""Debye's function, :math:`D_n(\theta) = n \theta^{-n} \int_0^\theta t^n / (e^t - 1)\,dt`."""
    nodes, weights = (part.to(theta.device) for part in _quadrature())
    end = theta.clamp_max(50.0)[..., None]  # beyond, the integrand is below 1e-17
    t = end * nodes
    ratio = t / theta[..., None]
    return order * (weights * end * ratio**order / torch.expm1(t)).sum(-1)


def _debye_tau(theta: Tensor) -> Tensor:
    r"""Kendall's tau, :math:`1 - 4 (1 - D_1(\theta)) / \theta`; odd in theta."""
    dtype, theta = theta.dtype, theta.double()
    series = theta / 9 * (1 - theta.square() / 100)
    small = theta.abs() < 1e-2  # where the closed form cancels
    large = torch.where(small, 1.0, theta.abs())
    closed = 1 - 4 / large * (1 - _debye(large, 1))
    return torch.where(small, series, theta.sign() * closed).to(dtype)


def _debye_rho(theta: Tensor) -> Tensor:
    r"""Spearman's rho, :math:`1 - 12 (D_1(\theta) - D_2(\theta)) / \theta` (Nelsen 1986); odd."""
    dtype, theta = theta.dtype, theta.double()
    series = theta / 6 * (1 - theta.square() / 75)
    small = theta.abs() < 1e-2
    large = torch.where(small, 1.0, theta.abs())
    closed = 1 - 12 / large * (_debye(large, 1) - _debye(large, 2))
    return torch.where(small, series, theta.sign() * closed).to(dtype)
