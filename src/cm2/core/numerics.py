"""Elementary functions that stay exact where the textbook form rounds to 0, 1 or infinity.

Mächler (2012), "Accurately computing ``log(1 - exp(-|a|))``", is the source of the branch points.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

ALONE = threading.RLock()
"""Held by whoever sets the process's generators, so that another thread does not draw from them."""

# Below this, 1 - exp(-exp(v)) and exp(v) agree to the last bit of float64.
_TINY_EXPONENT = -37.0
# Below this log of 1 - u, log u and its reciprocal leave the range of float32.
_FAR = -80.0
# Down to this log probability exp() does not underflow in float32 and ndtri is exact.
_NDTRI_RANGE = -80.0


class _Log1mExp(torch.autograd.Function):
    """``log(1 - exp(x))``; neither branch needs a guard, since the slope is written down."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        near = torch.expm1(x).neg_().log_()
        return torch.where(x > -math.log(2.0), near, torch.exp(x).neg_().log1p_())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return -grad / torch.expm1(-x)


class _LogCLogLog(torch.autograd.Function):
    """``log(1 - exp(-exp(v)))``."""

    @staticmethod
    def forward(v: Tensor) -> Tensor:
        return torch.where(v < _TINY_EXPONENT, v, _Log1mExp.forward(v.exp().neg_()))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        v, value = ctx.saved_tensors
        return grad * (v - v.exp() - value).exp()


class _FlipLogNegLog(torch.autograd.Function):
    """``log(-log(1 - exp(-exp(y))))``."""

    @staticmethod
    def forward(y: Tensor) -> Tensor:
        log_u = y.exp().neg_()
        near_one = torch.where(y < _TINY_EXPONENT, y, _Log1mExp.forward(log_u)).neg_().log_()
        return torch.where(log_u < _TINY_EXPONENT, log_u, near_one)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        y, value = ctx.saved_tensors
        return -grad * (y - value + (value.exp() - y.exp())).exp()


def refuse_second_derivatives(what: str) -> None:
    """For the backward pass of a function whose gradient is written out once.

    Raises:
        RuntimeError: If the gradient is to be differentiated again, which would be wrong.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{what} has no second derivatives by autograd; take differences of its gradients"
        )


def log1mexp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``log(1 - exp(x))`` for negative ``x``."""
    value: Tensor = _Log1mExp.apply(x)
    return value


def log_cloglog(v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``log(1 - exp(-exp(v)))`` for any real ``v``."""
    value: Tensor = _LogCLogLog.apply(v)
    return value


def softplus(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``log(1 + exp(x))`` to full precision (torch's own bound is for neural networks)."""
    return torch.nn.functional.softplus(x, threshold=40.0)


def log_softplus(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``log(log(1 + exp(x)))`` for any real ``x``."""
    tiny = x < -40.0
    return torch.where(tiny, x, softplus(torch.where(tiny, 0.0, x)).log())


def log_expm1(v: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``log(exp(exp(v)) - 1)`` for any real ``v``."""
    return v.exp() + log_cloglog(v)


def flip_log_neg_log(y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``log(-log(1 - u))`` from ``y = log(-log(u))``, any real number; its own inverse."""
    value: Tensor = _FlipLogNegLog.apply(y)
    return value


def log_neg_log1mexp(w: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``log(-log(1 - exp(w)))`` for negative ``w``; inverse of :func:`log_cloglog`."""
    tiny = w < _TINY_EXPONENT
    return torch.where(tiny, w, (-log1mexp(torch.where(tiny, -1.0, w))).log())


class _LogNegLog(torch.autograd.Function):
    """``log(-log u)``, from ``log u`` or, where that underflows, from ``log(1 - u)``."""

    @staticmethod
    def forward(log_u: Tensor, log_1mu: Tensor) -> Tensor:
        y = log_u.neg().log_()
        far = log_1mu < _FAR
        if far.any():
            y[far] = log_1mu[far]
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        log_u, log_1mu = ctx.saved_tensors
        far = log_1mu < _FAR
        if not far.any():
            return grad / log_u, None
        return torch.where(far, 0.0, grad / log_u), torch.where(far, grad, 0.0)


def log_neg_log(log_u: Tensor, log_1mu: Tensor) -> Tensor:
    """``log(-log(u))`` from both logarithms of ``u``, each exact at its own end."""
    y: Tensor = _LogNegLog.apply(log_u, log_1mu)
    return y


class _NormalQuantile(torch.autograd.Function):
    """Quantile of the standard normal law at ``exp(log_p)`` with ``p <= 1/2``."""

    @staticmethod
    def forward(log_p: Tensor) -> Tensor:
        x = torch.special.ndtri(log_p.clamp(min=_NDTRI_RANGE).exp())
        deep = log_p < _NDTRI_RANGE
        if deep.any():
            x[deep] = _tail_quantile(log_p[deep])
        return x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        log_p, x = ctx.saved_tensors
        deep = log_p < _NDTRI_RANGE
        slope = torch.where(deep, 0.0, log_p - log_normal_density(x)).exp()
        if deep.any():  # where the difference would cancel
            slope = torch.where(deep, mills_ratio(x), slope)
        return grad * slope


def _tail_quantile(log_p: Tensor) -> Tensor:
    """Newton steps on log Phi from the leading terms of the tail's series (log Phi is concave)."""
    x = -(-2 * log_p - (-4 * math.pi * log_p).log()).sqrt()
    for _ in range(4):
        x = x + (log_p - torch.special.log_ndtr(x)) * mills_ratio(x)
    return x


def mills_ratio(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The distribution function of the standard normal law over its density, however deep."""
    return math.sqrt(math.pi / 2) * torch.special.erfcx(-math.sqrt(0.5) * x)


def log_normal_density(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Log density of the standard normal law."""
    return -0.5 * x.square() - 0.5 * math.log(2 * math.pi)


class _LogNdtr(torch.autograd.Function):
    """The slope of torch's own is wrong in float32 from a hundred standard deviations on."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.special.log_ndtr(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, value = ctx.saved_tensors
        upper = (log_normal_density(x.clamp_min(0.0)) - value.clamp_min(-math.log(2.0))).exp()
        return grad * torch.where(x < 0, 1 / mills_ratio(x.clamp_max(0.0)), upper)


def log_ndtr(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Log distribution function of the standard normal law, with its slope however far out."""
    value: Tensor = _LogNdtr.apply(x)
    return value


def normal_quantile(log_u: Tensor, log_1mu: Tensor) -> Tensor:
    """The standard normal quantile of ``u``, from the smaller of its two tails."""
    lower = log_u < log_1mu
    x: Tensor = _NormalQuantile.apply(torch.where(lower, log_u, log_1mu))
    return torch.where(lower, x, -x)


def draw_index(
    logits: Float[Tensor, "*#shape k"], u: Float[Tensor, "*#shape"] | None = None
) -> Int[Tensor, "*shape"]:
    """Draws from the categorical laws with these logits, through their distribution functions.

    One uniform number a draw: ``torch.distributions.Categorical`` takes k exponential ones.

    Args:
        logits: Log probabilities up to a constant.
        u: The uniform numbers; drawn anew if ``None``.
    """
    cumulative = logits.softmax(-1).cumsum(-1)[..., :-1]
    if u is None:
        u = torch.rand(logits.shape[:-1], dtype=logits.dtype, device=logits.device)
    return (cumulative <= u.unsqueeze(-1)).sum(-1)


def log_polynomial(
    coefficients: Float[Tensor, "*batch n k"], log_x: Tensor, degree: Tensor | int
) -> Tensor:
    """``log sum_k a_nk x^k`` for polynomials with non-negative coefficients.

    Coefficients enter outside the logarithm, so that one which vanishes still has its gradient.

    Args:
        coefficients: Row n is the polynomial of degree n; its constant term is 0 unless n = 0.
        log_x: Logarithm of the argument, broadcast against the batch.
        degree: Which row: one for all, or one for each element.

    Returns:
        In the dtype of ``log_x``; the coefficients may have a wider one.
    """
    dtype, log_x = log_x.dtype, log_x.to(coefficients.dtype)
    powers: range
    if isinstance(degree, int):
        powers = range(min(degree, 1), degree + 1)
        columns = [coefficients[..., degree, k] for k in powers]
    else:
        powers = range(coefficients.shape[-1])
        shape = torch.broadcast_shapes(log_x.shape, degree.shape, coefficients.shape[:-2])
        index = degree.expand(shape)[..., None]
        columns = [
            coefficients[..., k].expand(*shape, -1).gather(-1, index).squeeze(-1) for k in powers
        ]
    if len(columns) == 1:
        return (columns[0].log() + powers[0] * log_x).to(dtype)
    with torch.no_grad():
        shift = torch.stack(
            [c.log() + k * log_x for c, k in zip(columns, powers, strict=True)]
        ).amax(0)
    # The cap touches only coefficients that are exactly 0, whose power could overflow.
    terms = [
        c * (k * log_x - shift).clamp_max(80.0).exp() for c, k in zip(columns, powers, strict=True)
    ]
    return (shift + torch.stack(terms).sum(0).log()).to(dtype)


@contextmanager
def seeded(seed: int, devices: Sequence[int] = ()) -> Iterator[None]:
    """Draws from a seed inside, one thread at a time, and leaves torch's generators as they were.

    Args:
        seed: Of what is drawn.
        devices: GPUs that are drawn on.
    """
    with ALONE, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class _Inverse(torch.autograd.Function):
    """A point that was found, whose derivative in the value is one over the slope there."""

    @staticmethod
    def forward(value: Tensor, point: Tensor, slope: Tensor) -> Tensor:
        return point.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        refuse_second_derivatives("an inverse that is found by bisection")
        (slope,) = ctx.saved_tensors
        return grad / slope, None, None


def inverse(
    f: Callable[[Tensor], Tensor],
    value: Float[Tensor, "*shape"],
    low: Float[Tensor, "*shape"],
    high: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """Where a growing function takes a value, with the first derivative of the inverse.

    Args:
        f: The function, differentiable, one entry after the other.
        value: Its values.
        low: Points at which it is no more than that.
        high: Points at which it is no less.
    """
    with torch.no_grad():
        for _ in range(100):
            middle = (low + high) / 2
            below = f(middle) < value
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    if not value.requires_grad:
        return high
    with torch.enable_grad():
        x = high.detach().requires_grad_()
        (slope,) = torch.autograd.grad(f(x).sum(), x)
    found: Tensor = _Inverse.apply(value, high.detach(), slope)
    return found
