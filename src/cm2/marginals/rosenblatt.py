r"""Density and Rosenblatt transform of a Gaussian mixture in one pass, with a written-out gradient.

With :math:`L_{kj} = \log \pi_k + \sum_{i \le j} \log N(z_i; \mu_{ki}, \sigma_{ki}^2)`, the weights
before coordinate j are the softmax of column j - 1, the log density is the log-sum-exp of the last
column, and the conditional density of coordinate j is the difference of two neighbours. All that
the backward pass needs follows from these, without another exponential of the full array. This is
most of the cost of the joint model, hence the care.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cm2.core.numerics import mills_ratio
from cm2.core.records import Unit

# Below this, a float32 sum of probabilities has lost digits to underflow.
_SMALLEST_SUM = 1e-30
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Tails(NamedTuple):
    """The distribution function of a one-dimensional mixture, by its smaller tail.

    The log of the smaller of u and 1 - u, whether that one is u, and each component's share in it.
    """

    log_small: Float[Tensor, "*shape dim"]
    is_lower: Bool[Tensor, "*shape dim"]
    share: Float[Tensor, "*shape component dim"]

    def unit(self) -> Unit:
        """The point of the unit cube."""
        log_large = torch.log1p(-self.log_small.exp())
        return Unit(
            torch.where(self.is_lower, self.log_small, log_large),
            torch.where(self.is_lower, log_large, self.log_small),
        )


def mixture_tails(
    weights: Float[Tensor, "*shape component dim"],
    x: Float[Tensor, "*shape component dim"],
    log_weights: Callable[[], Float[Tensor, "*shape component dim"]],
) -> Tails:
    """The distribution function of mixtures, coordinate by coordinate; carries no gradient.

    Sums run over probabilities, not their logarithms, which is several times faster; the rare
    points whose tail underflows are done again in log space. Large arrays are written in place:
    getting fresh memory from the system costs more than the arithmetic.

    Args:
        weights: Weights of the components at each coordinate.
        x: The point in each component's standard deviations from its mean.
        log_weights: Gives the logarithms of the weights, should they be needed.
    """
    # Upper tail of |x|, with the sign of x. (torch's ndtr is 4% off at -5 in float32.)
    tail = x.abs().mul_(math.sqrt(0.5)).erfc_().mul_(0.5).copysign_(x).mul_(weights)
    positive = weights * ~x.signbit()  # as copysign_ has it: at a mean itself, too
    lower = torch.sub(positive.sum(-2), tail.sum(-2))
    negative = weights - positive
    upper = torch.add(negative.sum(-2), tail.sum(-2))
    is_lower = lower < upper
    small = torch.minimum(lower, upper)
    side = is_lower.unsqueeze(-2)
    share = torch.where(side, positive.sub_(tail), negative.add_(tail)).div_(small.unsqueeze(-2))
    deep = small < _SMALLEST_SUM
    log_small = small.log_()
    if deep.any():
        deep_log_w, deep_x = (part.movedim(-2, -1)[deep] for part in (log_weights(), x))
        sign = torch.where(is_lower[deep], 1.0, -1.0).to(x.dtype)[:, None]
        log_parts = deep_log_w + torch.special.log_ndtr(sign * deep_x)
        log_small[deep] = log_parts.logsumexp(-1)
        share.movedim(-2, -1)[deep] = log_parts.softmax(-1)
    return Tails(log_small, is_lower, share)


def evaluate(
    z: Float[Tensor, "*shape dim"],
    logits: Float[Tensor, "*batch component"],
    loc: Float[Tensor, "*batch component dim"],
    scale: Float[Tensor, "*batch component dim"],
) -> tuple[Float[Tensor, "*shape"], Unit]:
    """Log density and Rosenblatt transform of ``z``."""
    log_prob, log_u, log_1mu, *_ = _Evaluate.apply(z, logits, loc, scale)
    return log_prob, Unit(log_u, log_1mu)


class _Evaluate(torch.autograd.Function):
    @staticmethod
    def forward(z: Tensor, logits: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        x = (z.unsqueeze(-2) - loc).div_(scale)
        prior = logits.softmax(-1)[..., None]
        after, log_total = _posterior(x, logits, scale)
        before = torch.cat([prior.expand(*after.shape[:-1], 1), after[..., :-1]], -1)
        tails = mixture_tails(before, x, lambda: _log_weights(x, logits, scale))
        log_u, log_1mu = tails.unit()
        log_density = torch.diff(log_total, prepend=torch.zeros_like(log_total[..., :1]))
        saved = (x, after, log_density, tails.log_small, tails.is_lower, tails.share)
        return log_total[..., -1].clone(), log_u, log_1mu, *saved

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[3:])
        ctx.save_for_backward(*inputs, *output[3:])
        ctx.set_materialize_grads(True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_u: Tensor, grad_1mu: Tensor, *_: Any) -> Any:
        z, logits, loc, scale, x, after, log_density, log_small, is_lower, share = ctx.saved_tensors
        # They come transposed from the copula; the large arrays below are not.
        grad_u, grad_1mu = grad_u.contiguous(), grad_1mu.contiguous()
        # Of the loss in log(small), where log(large) = log(1 - small).
        small = log_small.exp()
        ratio = small / (1 - small)
        in_small = torch.where(is_lower, grad_u - grad_1mu * ratio, grad_1mu - grad_u * ratio)
        hazard = _hazard(log_density, log_small, is_lower, share, x, scale)
        signed = torch.where(is_lower, in_small, -in_small) * hazard

        prior = logits.softmax(-1)
        in_prior = in_small[..., None, 0] * (share[..., 0] - prior)
        in_cumulative = torch.empty_like(after)
        later = in_cumulative[..., :-1]
        torch.sub(share[..., 1:], after[..., :-1], out=later).mul_(in_small[..., None, 1:])
        torch.mul(after[..., -1], grad[..., None], out=in_cumulative[..., -1])
        # Sum over all later coordinates.
        sums = in_cumulative.cumsum(-1)
        in_components = in_cumulative.sub_(sums).add_(sums[..., -1:])
        in_prior = in_prior + in_components[..., 0]

        # Of the loss in z by component, from its density and from its distribution function.
        in_components.div_(scale)
        in_z = torch.mul(after, signed.unsqueeze(-2), out=sums)
        in_z.addcmul_(x, in_components, value=-1.0)
        in_scale = in_components.addcmul_(x, in_z)
        in_logits = in_prior - prior * in_prior.sum(-1, keepdim=True)
        return (
            in_z.sum(-2).sum_to_size(z.shape),
            in_logits.sum_to_size(logits.shape),
            -in_z.sum_to_size(loc.shape),
            -in_scale.sum_to_size(scale.shape),
        )


def _hazard(
    log_density: Tensor,
    log_small: Tensor,
    is_lower: Tensor,
    share: Tensor,
    x: Tensor,
    scale: Tensor,
) -> Tensor:
    """The density over the smaller tail: deep in it, by component, as the difference cancels."""
    deep = log_small < math.log(_SMALLEST_SUM)
    hazard = torch.where(deep, 0.0, log_density - log_small).exp_()
    if deep.any():
        deep_share, deep_x, deep_scale = (
            part.expand_as(x).movedim(-2, -1)[deep] for part in (share, x, scale)
        )
        sign = torch.where(is_lower[deep], 1.0, -1.0).to(x.dtype)[:, None]
        hazard[deep] = (deep_share / mills_ratio(sign * deep_x) / deep_scale).sum(-1)
    return hazard


def _log_joint(x: Tensor, logits: Tensor, scale: Tensor) -> Tensor:
    """Log weight plus log density of the coordinates up to each."""
    log_components = torch.addcmul(-(scale.log() + _HALF_LOG_2PI), x, x, value=-0.5)
    return log_components.cumsum_(-1).add_(logits.log_softmax(-1)[..., None])


def _posterior(x: Tensor, logits: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the components after each coordinate, and the log density up to it."""
    weights = _log_joint(x, logits, scale)
    largest = weights.amax(-2, keepdim=True)
    total = weights.sub_(largest).exp_().sum(-2, keepdim=True)
    return weights.div_(total), (largest + total.log_()).squeeze(-2)


def _log_weights(x: Tensor, logits: Tensor, scale: Tensor) -> Tensor:
    """Log weights of the components before each coordinate."""
    after = _log_joint(x, logits, scale).log_softmax(-2)
    prior = logits.log_softmax(-1)[..., None].expand(*after.shape[:-1], 1)
    return torch.cat([prior, after[..., :-1]], -1)
