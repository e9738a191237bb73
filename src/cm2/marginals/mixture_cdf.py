"""The distribution function of a one-dimensional Gaussian mixture, exact in both tails.

Sums run over probabilities, not their logarithms, which is several times faster; the rare points
whose tail underflows are done again in log space. The backward pass is written out for the same
reason.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cm2.records import Unit

# Below this, a float32 sum of probabilities has lost digits to underflow.
_SMALLEST_SUM = 1e-30


class _MixtureCdf(torch.autograd.Function):
    @staticmethod
    def forward(log_weights: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        log_w = log_weights.log_softmax(-2)
        w = log_w.exp()
        # torch's ndtr is (1 + erf) / 2 in float32: 4% off at -5, and 0 from -5.6 on.
        lower_parts = w * (0.5 * torch.special.erfc(x * -math.sqrt(0.5)))
        upper_parts = w * (0.5 * torch.special.erfc(x * math.sqrt(0.5)))
        lower, upper = lower_parts.sum(-2), upper_parts.sum(-2)
        is_lower = lower < upper
        small = torch.minimum(lower, upper)
        share = torch.where(is_lower.unsqueeze(-2), lower_parts, upper_parts) / small.unsqueeze(-2)
        log_small = small.log()
        deep = small < _SMALLEST_SUM
        if deep.any():
            deep_log_w, deep_x = (part.movedim(-2, -1)[deep] for part in (log_w, x))
            sign = torch.where(is_lower[deep], 1.0, -1.0).to(x.dtype)[:, None]
            log_parts = deep_log_w + torch.special.log_ndtr(sign * deep_x)
            log_small[deep] = log_parts.logsumexp(-1)
            share.movedim(-2, -1)[deep] = log_parts.softmax(-1)
        log_large = torch.log1p(-log_small.exp())
        log_u = torch.where(is_lower, log_small, log_large)
        log_1mu = torch.where(is_lower, log_large, log_small)
        return log_u, log_1mu, log_w, share, is_lower

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, ...]) -> None:
        log_u, log_1mu, log_w, share, is_lower = output
        ctx.mark_non_differentiable(log_w, share, is_lower)
        ctx.save_for_backward(inputs[1], log_u, log_1mu, log_w, share, is_lower)

    @staticmethod
    def backward(ctx: Any, grad_u: Tensor, grad_1mu: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        x, log_u, log_1mu, log_w, share, is_lower = ctx.saved_tensors
        log_small, log_large = torch.minimum(log_u, log_1mu), torch.maximum(log_u, log_1mu)
        # Derivative of the loss in log(small), where log(large) = log(1 - small).
        ratio = (log_small - log_large).exp()
        grad = torch.where(is_lower, grad_u - grad_1mu * ratio, grad_1mu - grad_u * ratio)
        sign = torch.where(is_lower, grad, -grad).unsqueeze(-2)
        log_hazard = (
            log_w - 0.5 * x.square() - (log_small + 0.5 * math.log(2 * math.pi)).unsqueeze(-2)
        )
        return grad.unsqueeze(-2) * (share - log_w.exp()), sign * log_hazard.exp()


def mixture_cdf(
    log_weights: Float[Tensor, "*shape component dim"], x: Float[Tensor, "*shape component dim"]
) -> Unit:
    """The mixture's distribution function, coordinate by coordinate.

    Args:
        log_weights: Log weights of the components at each coordinate, not normalised.
        x: The point in each component's standard deviations from its mean.
    """
    # Without gradients the plain call saves the machinery of a Function, which costs as much again.
    call = _MixtureCdf.apply if torch.is_grad_enabled() else _MixtureCdf.forward
    log_u, log_1mu, *_ = call(log_weights, x)
    return Unit(log_u, log_1mu)
