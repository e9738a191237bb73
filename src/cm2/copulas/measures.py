r"""Measures of dependence that are computed alike for every family.

Spearman's rho is :math:`12 \int\!\!\int C(u, v)\,du\,dv - 3` (Nelsen 2006, theorem 5.1.6);
estimates by simulation come with their standard errors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_NODES = 64


class Estimate(NamedTuple):
    """A Monte Carlo estimate.

    Attributes:
        value: The estimate.
        standard_error: Its standard error.
    """

    value: Float[Tensor, ...]
    standard_error: Float[Tensor, ...]

    @classmethod
    def of_mean(cls, draws: Float[Tensor, "draw ..."]) -> Self:
        """The mean of independent draws along the first dimension."""
        return cls(draws.mean(0), draws.std(0) / len(draws) ** 0.5)


@lru_cache
def _triangles() -> tuple[Tensor, Tensor]:
    """Points of the unit square and their weights: Gauss-Legendre on both sides of the diagonal.

    A copula of strong dependence has a ridge along the diagonal, where the distribution function
    nearly has a kink; with the diagonal as an edge, nodes are dense beside it.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    x, w = (torch.from_numpy(part) for part in ((nodes + 1) / 2, weights / 2))
    larger, ratio = torch.meshgrid(x, x, indexing="ij")
    smaller = larger * ratio
    weight = (w[:, None] * w * larger).flatten()
    below = torch.stack([larger.flatten(), smaller.flatten()], -1)
    return torch.cat([below, below.flip(-1)]), weight.repeat(2)


def spearman_from_cdf(
    cdf: Callable[[Tensor], Tensor], like: Float[Tensor, ...]
) -> Float[Tensor, "*batch"]:
    """Spearman's rho of a pair of coordinates from its distribution function.

    Args:
        cdf: From points ``(node, *1, 2)`` to probabilities ``(node, *batch)``.
        like: A tensor whose dtype and device to use; its first ``dim() - 2`` dimensions are those
            of the batch.

    Returns:
        Rho of each element of the batch.
    """
    points, weights = (part.to(like) for part in _triangles())
    batch = like.dim() - 2
    values = cdf(points.view(-1, *[1] * batch, 2))
    return 12 * (weights.view(-1, *[1] * batch) * values).sum(0) - 3


def spearman_from_rosenblatt(
    conditional_cdf: Callable[[Tensor, Tensor], Tensor], like: Float[Tensor, ...]
) -> Float[Tensor, "*batch"]:
    r"""Spearman's rho of a pair, :math:`12 \int\!\!\int (1 - u)\,\partial_u C\,du\,dv - 3`.

    It is :func:`spearman_from_cdf` integrated by parts, for families whose distribution function
    has no closed form; exact to about 1e-5.

    Args:
        conditional_cdf: The h-function: of points ``(node, *1, 2)`` and of what is present.
        like: As in :func:`spearman_from_cdf`.

    Returns:
        Rho of each element of the batch.
    """
    points, weights = (part.to(like) for part in _triangles())
    batch = like.dim() - 2
    points = points.view(-1, *[1] * batch, 2)
    first = torch.tensor([True, False], device=like.device)
    values = (1 - points[..., 0]) * conditional_cdf(points, first)[..., 1]
    return 12 * (weights.view(-1, *[1] * batch) * values).sum(0) - 3


def kendall_from_rosenblatt(
    conditional_cdf: Callable[[Tensor, Tensor], Tensor], like: Float[Tensor, ...]
) -> Float[Tensor, "*batch"]:
    r"""Kendall's tau of a pair, :math:`1 - 4 \int\!\!\int \partial_u C\,\partial_v C\,du\,dv`.

    Nelsen (2006), theorem 5.1.5.

    Args:
        conditional_cdf: The h-functions: of points ``(node, *1, 2)`` and of what is present.
        like: As in :func:`spearman_from_cdf`.

    Returns:
        Tau of each element of the batch.
    """
    points, weights = (part.to(like) for part in _triangles())
    batch = like.dim() - 2
    points = points.view(-1, *[1] * batch, 2)
    first = torch.tensor([True, False], device=like.device)
    product = conditional_cdf(points, first)[..., 1] * conditional_cdf(points, ~first)[..., 0]
    return 1 - 4 * (weights.view(-1, *[1] * batch) * product).sum(0)
