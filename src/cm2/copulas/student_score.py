r"""Student's t law beside the normal law: exact maps between their scores, for any real df.

A point x of the t law with :math:`\nu` degrees of freedom is written as its signed root deviance
:math:`y = \mathrm{sign}(x) \sqrt{\nu \log(1 + x^2 / \nu)}`, which overflows in no dtype. With
:math:`\cosh s = e^{y^2 / 2\nu}`, :math:`x = \sqrt\nu \sinh s`, the density of y is

.. math:: f(y) = \varphi(y)\, e^{\rho(\nu/2) + B(y^2/\nu)/2}, \quad
    B(v) = \log \frac{v}{1 - e^{-v}}, \quad
    \rho(a) = \log \frac{\Gamma(a + 1/2)}{\Gamma(a) \sqrt a},

a mild factor on the normal density (the root deviance of Barndorff-Nielsen and Cox 1989,
"Asymptotic techniques for use in statistics", chapter 4). So tails come from a short quadrature
with no cancellation, and the normal score :math:`z = \Phi^{-1}(F(y))` is a smooth, nearly straight,
odd function of y. Where many points share their degrees of freedom, both maps are read from
piecewise Chebyshev polynomials of :math:`z / y` and :math:`y / z`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cm2.core.numerics import log1mexp, normal_quantile

_NODES = 64
# Tables: cells of |x| (u to 1e-38), octaves of df, degrees within them, and fewer points than that
# are evaluated directly.
_CELL, _CELLS, _DEGREE = 0.5, 26, 9
_OCTAVES, _ORDER = (-1, 24), 14
_FEW = 256
# Elements that go through the quadrature at once, each with all its nodes: a few MB.
_CHUNK = 1 << 13
# Elements that go through a table at once: their intermediate values stay in cache.
_SLICE = 1 << 15
# Newton's method on a nearly straight line.
_STEPS = 12
# The integrand is cut where it has fallen by exp(-40).
_CUT = 80.0
# From here the asymptotic series of rho is exact in float64.
_SERIES = 20.0
# Coefficients of 1 / a, 1 / a^3, ... in it.
_RHO = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432)


def log_gamma_ratio(a: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r""":math:`\rho(a) = \log \Gamma(a + 1/2) - \log \Gamma(a) - \frac12 \log a`.

    Tricomi and Erdélyi (1951) for the series at large ``a``, where the difference would cancel.
    """
    large = a > _SERIES
    small = torch.where(large, 1.0, a)
    direct = torch.lgamma(small + 0.5) - torch.lgamma(small) - 0.5 * small.log()
    r = 1 / torch.where(large, a, _SERIES)
    series = sum(c * r ** (2 * k + 1) for k, c in enumerate(_RHO))
    return torch.where(large, series, direct)


def _log_gamma_ratio_slope(a: Tensor) -> Tensor:
    """Its derivative."""
    large = a > _SERIES
    small = torch.where(large, 1.0, a)
    direct = torch.digamma(small + 0.5) - torch.digamma(small) - 0.5 / small
    r = 1 / torch.where(large, a, _SERIES)
    series = sum(-(2 * k + 1) * c * r ** (2 * k + 2) for k, c in enumerate(_RHO))
    return torch.where(large, series, direct)


def log_slope(v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r""":math:`B(v) = \log(v / (1 - e^{-v}))` for ``v >= 0``."""
    tiny = v < 1e-4
    safe = torch.where(tiny, 1.0, v)
    return torch.where(tiny, v / 2 - v.square() / 24, safe.log() - log1mexp(-safe))


def to_normal(
    y: Float[Tensor, "*#shape"],
    df: Float[Tensor, "*#shape"],
    order: Int[Tensor, "*#shape"] | None = None,
) -> Float[Tensor, "*shape"]:
    r"""The normal score of a point of the t law: :math:`\Phi^{-1}(F(y))`.

    Args:
        y: Signed root deviance.
        df: Degrees of freedom, positive, broadcast against ``y``.
        order: Small whole numbers that are added to ``df``, one for each point.
    """
    shape = torch.broadcast_shapes(y.shape, df.shape, () if order is None else order.shape)
    z: Tensor = _Score.apply(y.expand(shape), df, order, True)
    return z


def to_student(
    z: Float[Tensor, "*#shape"], df: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """The signed root deviance of the point of the t law at a normal score; inverts `to_normal`.

    Args:
        z: Normal score.
        df: Degrees of freedom, positive, broadcast against ``z``.
    """
    shape = torch.broadcast_shapes(z.shape, df.shape)
    y: Tensor = _Score.apply(z.expand(shape), df, None, False)
    return y


class _Score(torch.autograd.Function):
    """Either map; derivatives by the implicit function theorem, to any order."""

    @staticmethod
    def forward(x: Tensor, df: Tensor, order: Tensor | None, normal: bool) -> Tensor:
        return _evaluate(_direct_normal if normal else _direct_student, x, df, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, df, order, ctx.normal = inputs
        ctx.save_for_backward(x, df, order, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, df, order, output = ctx.saved_tensors
        y, z = (x, output) if ctx.normal else (output, x)
        total = df if order is None else df + order
        # log dy/dz = log phi(z) - log f(y)
        excess = log_gamma_ratio(total.double() / 2).to(df) + 0.5 * log_slope(y.square() / total)
        log_dy_dz = 0.5 * (y - z) * (y + z) - excess
        # Far out that cancels; the hazards of both laws are then y and z but for a factor
        # 1 + O(1/z^2). From here the second error is the smaller.
        far = z.abs() > torch.finfo(z.dtype).eps ** -0.25
        if far.any():
            ratio = torch.where(far, z, 1.0) / torch.where(far, y, 1.0)
            log_dy_dz = torch.where(far, ratio.log(), log_dy_dz)
        grad_x = grad * (-log_dy_dz if ctx.normal else log_dy_dz).exp()
        if not ctx.needs_input_grad[1]:
            return grad_x, None, None, None
        # T is the upper tail at |y|: dz = -dT / phi(z) at fixed y, dy = dT / f(y) at fixed z.
        if torch.is_grad_enabled():
            slope = _student_slope(y.double(), total.double().expand(y.shape)).to(y)
        else:
            slope = _evaluate(_student_slope, y, df, order)
        if ctx.normal:
            slope = -slope * (-log_dy_dz).exp()
        return grad_x, (grad * slope).sum_to_size(df.shape), None, None


# Direct evaluation, in float64 ------------------------------------------------------------------


class _Rule(NamedTuple):
    """Gauss-Legendre nodes and weights on the unit interval, closer together at 0."""

    nodes: Tensor
    weights: Tensor


@cache
def _rule(device: torch.device) -> _Rule:
    t, weights = np.polynomial.legendre.leggauss(_NODES)
    t = (t + 1) / 2
    return _Rule(torch.tensor(t**2, device=device), torch.tensor(t * weights, device=device))


def _integrand(y: Tensor, df: Tensor) -> tuple[Tensor, Tensor]:
    """Terms of the quadrature of ``T(y) / (phi(y) exp rho)`` for y >= 0, and ``v`` at the nodes."""
    rule = _rule(y.device)
    length = (_CUT / ((y.square() + _CUT).sqrt() + y)).detach()
    r = length[..., None] * rule.nodes
    v = (y[..., None] + r).square() / df[..., None]
    terms = (0.5 * log_slope(v) - (y[..., None] + 0.5 * r) * r).exp()
    return terms * rule.weights * length[..., None], v


def _direct_normal(y: Tensor, df: Tensor) -> Tensor:
    size = y.abs()
    log_density = -0.5 * size.square() - 0.5 * math.log(2 * math.pi) + log_gamma_ratio(df / 2)
    terms, _ = _integrand(size, df)
    log_tail = (log_density + terms.sum(-1).log()).clamp_max(-math.log(2.0))
    return -y.sign() * normal_quantile(log_tail, log1mexp(log_tail))


def _direct_student(z: Tensor, df: Tensor) -> Tensor:
    y = z
    rho = log_gamma_ratio(df / 2)
    for _ in range(_STEPS):
        found = _direct_normal(y, df)
        slope = (0.5 * (y - found) * (y + found) - rho - 0.5 * log_slope(y.square() / df)).exp()
        step = (z - found) * slope
        y = y + step
        if not (step.abs() > 1e-14 * (1 + y.abs())).any():
            break
    return y


def _student_slope(y: Tensor, df: Tensor) -> Tensor:
    """``dy / d df`` at a fixed probability: ``dT / d df`` over the density of y."""
    size = y.abs()
    terms, v = _integrand(size, df)
    rho_slope = 0.5 * _log_gamma_ratio_slope(df / 2)
    shift = rho_slope[..., None] - (1 - _bernoulli(v)) / (2 * df[..., None])
    density = (0.5 * log_slope(size.square() / df)).exp()
    return y.sign() * (terms * shift).sum(-1) / density


def _bernoulli(v: Tensor) -> Tensor:
    """``v / (exp(v) - 1)``."""
    tiny = v < 1e-5
    safe = torch.where(tiny, 1.0, v)
    return torch.where(
        tiny, 1 - v / 2 + v.square() / 12, -safe * (-safe).exp() / torch.expm1(-safe)
    )


# Tables -----------------------------------------------------------------------------------------


def _evaluate(
    function: Callable[[Tensor, Tensor], Tensor], x: Tensor, df: Tensor, order: Tensor | None
) -> Tensor:
    """An odd function of x: by itself at a few points and far out, else by a table."""
    total = df if order is None else df + order
    if x.numel() < _FEW:
        return _direct(function, x, total.expand(x.shape))
    index = torch.arange(df.numel(), device=x.device).view(df.shape)
    every = df.double().reshape(-1)
    if order is not None:
        every = every + torch.arange(int(order.max()) + 1, device=x.device)[:, None]
        index = index + df.numel() * order
    value = _look_up(_tabulate(function, every.reshape(-1)).to(x.dtype), x, index)
    low, high = (2.0**octave for octave in _OCTAVES)
    beyond = (x.abs() > _CELLS * _CELL) | (total < low) | (total >= high)
    if beyond.any():
        value[beyond] = _direct(function, x[beyond], total.expand(x.shape)[beyond])
    return value


def _direct(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, df: Tensor) -> Tensor:
    flat = (part.double().reshape(-1).split(_CHUNK) for part in (x, df))
    parts = [function(*part) for part in zip(*flat, strict=True)]
    return torch.cat(parts).view(x.shape).to(x.dtype) if parts else x.clone()


def _tabulate(
    function: Callable[[Tensor, Tensor], Tensor], df: Tensor
) -> Float[Tensor, "power entry"]:
    """Coefficients of polynomials for ``function(x) / x``, for each df and each cell of |x|.

    Within an octave of df the coefficients are themselves polynomials, in its logarithm.
    """
    octave = df.log2().floor().clamp(_OCTAVES[0], _OCTAVES[1] - 1)
    local = (2 * (df.log2() - octave) - 1).clamp(-1, 1)
    waves = (local.arccos()[:, None] * torch.arange(_ORDER, device=df.device)).cos()
    coefficients = df.new_empty(_DEGREE + 1, len(df), _CELLS)
    for which in octave.unique().tolist():
        inside = octave == which
        piece = _octave(function, int(which), df.device)
        coefficients[:, inside] = torch.einsum("no,okc->knc", waves[inside], piece)
    return coefficients.view(_DEGREE + 1, -1)


@cache
def _octave(
    function: Callable[[Tensor, Tensor], Tensor], octave: int, device: torch.device
) -> Float[Tensor, "wave power cell"]:
    """The coefficients of :func:`_tabulate` as Chebyshev series in the logarithm of df."""
    nodes, orders = (np.cos(np.pi * (np.arange(n) + 0.5) / n) for n in (_DEGREE + 1, _ORDER))
    to_powers = torch.tensor(np.linalg.inv(np.vander(nodes, increasing=True)))
    to_waves = torch.tensor(np.linalg.inv(np.polynomial.chebyshev.chebvander(orders, _ORDER - 1)))
    x = _CELL * (torch.arange(_CELLS)[:, None] + 0.5 * (1 + torch.tensor(nodes)))
    df = 2.0 ** (octave + 0.5 * (1 + torch.tensor(orders)))
    x, df = torch.broadcast_tensors(x, df[:, None, None])
    ratio = _direct(function, x.to(device), df.to(device)).cpu() / x
    return torch.einsum("wo,kn,ocn->wkc", to_waves, to_powers, ratio).to(device)


def _look_up(coefficients: Tensor, x: Tensor, index: Tensor) -> Tensor:
    flat, where = x.reshape(-1), index.expand(x.shape).reshape(-1)
    parts = zip(flat.split(_SLICE), where.split(_SLICE), strict=True)
    return torch.cat([_look_up_flat(coefficients, *part) for part in parts]).view(x.shape)


def _look_up_flat(coefficients: Tensor, x: Tensor, index: Tensor) -> Tensor:
    scaled = x.abs().mul_(1 / _CELL)
    cell = scaled.long().clamp_(0, _CELLS - 1)
    local = scaled.sub_(cell).mul_(2).sub_(1)
    entry = cell.add_(index, alpha=_CELLS)
    rows = coefficients.flip(0).unbind(0)
    value = rows[0].index_select(0, entry)
    for row in rows[1:]:
        value = value.mul_(local).add_(row.index_select(0, entry))
    return value.mul_(x)
