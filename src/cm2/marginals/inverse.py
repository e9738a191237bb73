r"""The inverse Rosenblatt transform of a mixture, many coordinates at once.

Coordinate j depends on those before it through the weights of the components only, and these soon
settle on one component. So Newton steps of all coordinates at once, with weights from the current
point, arrive for nearly every row. The others are solved window by window: within a window,
repeating "weights from the current point, then every coordinate by itself" is exact after at most
as many sweeps as it is wide, and after two where the weights have settled; windows double as long
as that lasts (parallel solution of triangular systems: Song et al. 2021, "Accelerating feedforward
computation via parallel nonlinear equation solving").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cm2.core.numerics import log_normal_density, normal_quantile
from cm2.core.records import Unit
from cm2.marginals.rosenblatt import evaluate, mixture_tails

if TYPE_CHECKING:
    from cm2.marginals.gaussian_mixture import GaussianMixture

_SOLVER_STEPS = 60
_JOINT_STEPS = 32


def invert(mixture: GaussianMixture, unit: Unit) -> Tensor:
    """The point whose Rosenblatt transform is ``unit``."""
    score = normal_quantile(*unit)
    if mixture.loc.shape[-2] == 1:
        return mixture.loc.squeeze(-2) + mixture.scale.squeeze(-2) * score
    z: Tensor = _Inverse.apply(score, mixture.logits, mixture.loc, mixture.scale)
    return z


class Rows(NamedTuple):
    """Equations to be solved, one a row: the normal score of z is ``score``."""

    score: Tensor
    log_prior: Tensor
    loc: Tensor
    scale: Tensor

    def take(self, rows: Tensor) -> Rows:
        """Some of the rows."""
        return Rows(*(part[rows] for part in self))


class _Inverse(torch.autograd.Function):
    """Solves ``normal score of z = score``; the derivatives follow from the equation itself."""

    @staticmethod
    def forward(score: Tensor, logits: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(score.shape[:-1], loc.shape[:-2])
        shape = (*batch, *loc.shape[-2:])
        rows = Rows(
            score.expand(*batch, -1).reshape(-1, shape[-1]),
            logits.log_softmax(-1).expand(shape[:-1]).reshape(-1, shape[-2]),
            loc.expand(shape).reshape(-1, *shape[-2:]),
            scale.expand(shape).reshape(-1, *shape[-2:]),
        )
        z, rest = _solve_jointly(rows)
        if len(rest) > 0:
            z[rest] = _solve_by_windows(*rows.take(rest))
        return z.reshape(*batch, -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, loc, scale, z = (part.detach().requires_grad_() for part in ctx.saved_tensors)
        with torch.enable_grad():
            score = normal_quantile(*evaluate(z, logits, loc, scale)[1])
        with torch.no_grad():
            log_weights, _ = _log_weights(z, logits.log_softmax(-1), loc, scale)
            diagonal = _slope((z.unsqueeze(-2) - loc) / scale, log_weights, scale, score)
        # J' v = grad with J lower triangular: the same sweeps, on the transposed system.
        v = grad / diagonal
        for _ in range(z.shape[-1]):
            (product,) = torch.autograd.grad(score, z, v, retain_graph=True)
            residual = (grad - product) / diagonal
            v = v + residual
            if (residual.abs() <= torch.finfo(v.dtype).eps * 8 * v.abs().amax()).all():
                break
        return v, *torch.autograd.grad(score, (logits, loc, scale), -v)


def _solve_jointly(rows: Rows) -> tuple[Tensor, Tensor]:
    """Newton steps of all coordinates at once; the points, and the rows that have not settled."""
    result = torch.empty_like(rows.score)
    quantiles = rows.loc + rows.scale * rows.score.unsqueeze(-2)
    z = (rows.log_prior[..., None].softmax(-2) * quantiles).sum(-2)
    low, high = quantiles.amin(-2), quantiles.amax(-2)
    close = torch.finfo(z.dtype).eps ** 0.75 * rows.scale.amin(-2)
    number = torch.arange(len(z), device=z.device)
    for _ in range(_JOINT_STEPS):
        log_weights, _ = _log_weights(z, *rows[1:])
        x = (z.unsqueeze(-2) - rows.loc) / rows.scale
        value = _score(log_weights, x)
        step = (value - rows.score) / _slope(x, log_weights, rows.scale, value)
        z = torch.clamp(z - step, low, high)
        active = ~(step.abs() <= close).all(-1)
        if 2 * int(active.sum()) > len(z):
            continue
        result[number[~active]] = z[~active]
        rows = rows.take(active)
        z, low, high, close, number = (part[active] for part in (z, low, high, close, number))
        if len(number) == 0:
            break
    return result, number


def _solve_by_windows(score: Tensor, log_prior: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Points by bracketed steps, a window of coordinates at a time."""
    windows = []
    start, width = 0, 1
    while start < score.shape[-1]:
        window = (..., slice(start, start + width))
        z, sweeps, log_prior = _solve_window(score[window], log_prior, loc[window], scale[window])
        windows.append(z)
        start, width = start + width, width * 2 if sweeps <= 2 else max(1, width // 2)
    return torch.cat(windows, -1)


def _solve_window(
    score: Tensor, log_prefix: Tensor, loc: Tensor, scale: Tensor
) -> tuple[Tensor, int, Tensor]:
    """Coordinates of one window, the sweeps that they took, and the log weights after it."""
    quantiles = loc + scale * score.unsqueeze(-2)
    # Between the quantiles of the components lies that of every mixture of them.
    bounds = quantiles.amin(-2), quantiles.amax(-2)
    log_weights = log_prefix[..., None].expand_as(quantiles)
    z = (log_weights.softmax(-2) * quantiles).sum(-2)
    close = torch.finfo(z.dtype).eps ** 0.75 * scale.amin(-2)
    sweeps = 0
    while True:
        solved = _solve(z, score, log_weights, loc, scale, *bounds)
        settled = ((solved - z).abs() <= close).all()
        z, sweeps = solved, sweeps + 1
        log_weights, log_after = _log_weights(z, log_prefix, loc, scale)
        if (settled and sweeps > 1) or sweeps == z.shape[-1]:
            return z, sweeps, log_after


def _log_weights(
    z: Tensor, log_prefix: Tensor, loc: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Log weights of the components before each coordinate, and after the last."""
    log_components = log_normal_density((z.unsqueeze(-2) - loc) / scale) - scale.log()
    cumulative = log_components.cumsum(-1)
    # Before the first coordinate the sum is zero without rounding, however far the components are.
    before = log_prefix[..., None] + (cumulative - log_components)
    return before, log_prefix + cumulative[..., -1]


def _score(log_weights: Tensor, x: Tensor) -> Tensor:
    """Normal score of each coordinate."""
    tails = mixture_tails(log_weights.softmax(-2), x, lambda: log_weights.log_softmax(-2))
    return normal_quantile(*tails.unit())


def _slope(x: Tensor, log_weights: Tensor, scale: Tensor, score: Tensor) -> Tensor:
    """Derivative of the normal score of each coordinate in that coordinate."""
    log_density = log_weights.log_softmax(-2) + log_normal_density(x) - scale.log()
    return (log_density.logsumexp(-2) - log_normal_density(score)).exp()


def _solve(
    z: Tensor,
    score: Tensor,
    log_weights: Tensor,
    loc: Tensor,
    scale: Tensor,
    low: Tensor,
    high: Tensor,
) -> Tensor:
    """Each coordinate's quantile for fixed weights: Newton on the normal score inside a bracket."""
    close = torch.finfo(z.dtype).eps ** 0.75 * scale.amin(-2)
    size = torch.full_like(z, torch.inf)
    done = high - low <= close
    for _ in range(_SOLVER_STEPS):
        x = (z.unsqueeze(-2) - loc) / scale
        value = _score(log_weights, x)
        below = value < score
        low, high = torch.where(below, z, low), torch.where(below, high, z)
        newton = z - (value - score) / _slope(x, log_weights, scale, value)
        done = done | ((newton - z).abs() <= close) | (high - low <= close)
        good = (newton > low) & (newton < high) & ((newton - z).abs() <= size / 2)
        step = torch.where(done | good, torch.clamp(newton, low, high), (low + high) / 2)
        z, size = step, (step - z).abs()
        if done.all():
            break
    return z
