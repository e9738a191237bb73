"""The matrices of the factor copula, and its quadratic form with a gradient that is written out."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.types import _size

from cm2.copulas.elliptical import multiply, sub_factor
from cm2.core.numerics import refuse_second_derivatives


class Blocks(NamedTuple):
    """The matrices of each block, of shape ``(*batch, block, ..)``."""

    loading: Tensor
    """A, d x r."""
    root: Tensor
    """R, r x r, upper triangular."""
    reach: Tensor
    """L, d x r."""
    information: Tensor
    """R R' - I, its precision on the factors, r x r."""


class _Explained(torch.autograd.Function):
    """Half of ``|s|^2 - |e|^2 - |A'e|^2 - |w|^2``, summed over blocks, with ``e = s - L w``.

    Its value needs vectors of as many numbers as there are factors only, and so does its gradient,
    which is that at the factors w of its greatest value: none in w is needed.
    """

    @staticmethod
    def forward(
        s: Tensor, loading: Tensor, reach: Tensor, root: Tensor, whiten: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        inner = by_block(s, loading)
        mean = factor_mean(inner, root, whiten)
        told = multiply(inverse(root, upper=True).flatten(-3, -2).mT, inner.flatten(-2))  # L's
        cross, square = loading.mT @ reach, reach.mT @ reach
        fitted = torch.einsum("...m,...mrq->...rq", share, square)
        by_part = mean.unsqueeze(-2) * share.unsqueeze(-1)
        inner -= by_block(by_part, cross.mT)
        value = (mean * (told - 0.5 * (mean + multiply(fitted, mean)))).sum(-1)
        return value - 0.5 * inner.square().sum((-2, -1)), by_part, inner

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, mean, inner = output
        ctx.mark_non_differentiable(mean, inner)
        ctx.save_for_backward(*inputs[:3], mean, inner)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives("the density of the factor copula")
        s, loading, reach, mean, inner = ctx.saved_tensors
        rank, batch_shape = loading.shape[-1], loading.shape[:-3]
        grad = grad[..., None, None]
        weighted = torch.cat([mean * grad, inner * -grad], -1)
        in_s = in_loading = in_reach = None
        if ctx.needs_input_grad[0]:
            in_s = by_block(weighted, torch.cat([reach, loading], -1).mT).sum_to_size(s.shape)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            # Outer products of e = s - L w, without it.
            of_mean = sum_outer(mean, weighted, batch_shape)
            summed = sum_outer(s.expand(*mean.shape[:-1], -1), weighted, batch_shape)
            summed = summed - reach @ of_mean
            in_loading = summed[..., rank:]
            in_reach = summed[..., :rank] - loading @ of_mean[..., rank:].mT
        return in_s, in_loading, in_reach, None, None, None


def explained(
    s: Float[Tensor, "*#shape block coordinate"], parts: Blocks, whiten: Tensor, share: Tensor
) -> Tensor:
    """What the factors explain, at their mean.

    Args:
        s: Normal scores, 0 where absent.
        parts: The matrices.
        whiten: Inverse of the Cholesky factor of the factors' precision.
        share: 1 for a block that is present, else 0.
    """
    value, *_ = _Explained.apply(
        s, parts.loading, parts.reach, parts.root.detach(), whiten.detach(), share
    )
    return value


def factor_mean(
    loaded: Float[Tensor, "*#shape block rank"], root: Tensor, whiten: Tensor
) -> Tensor:
    """The mean of the factors given the present blocks.

    Args:
        loaded: A's of each block, 0 where absent.
        root: R.
        whiten: Inverse of the Cholesky factor of the factors' precision.
    """
    said = multiply(root.mT.flatten(-3, -2).mT, loaded.flatten(-2))
    return multiply(whiten.mT, multiply(whiten, said))


def by_block(
    x: Float[Tensor, "*shape block a"], matrix: Float[Tensor, "*batch block a b"]
) -> Tensor:
    """Rows of each block times its matrix, ``(*shape, block, b)``."""
    if matrix.dim() > 3:
        return (x.unsqueeze(-2) @ matrix).squeeze(-2)
    rows = x.reshape(-1, *x.shape[-2:]).transpose(0, 1)
    # This way round is up to three times as fast where the matrix is narrow.
    product = matrix.mT @ rows.mT
    return product.permute(2, 0, 1).reshape(*x.shape[:-1], matrix.shape[-1])


def sum_outer(
    x: Float[Tensor, "*shape block a"], y: Float[Tensor, "*shape block b"], batch_shape: _size
) -> Float[Tensor, "*batch block a b"]:
    """Outer products of rows, summed over all that is not in the batch."""
    size = (*batch_shape, x.shape[-2])
    x, y = (part.reshape(-1, *size, part.shape[-1]).movedim(0, -2) for part in (x, y))
    return x.mT @ y


def whole(present: Bool[Tensor, "*shape block coordinate"]) -> Bool[Tensor, "*shape block"] | None:
    """Which blocks are present; None if a block is there in part."""
    first = present[..., 0]
    return first if bool((present == first[..., None]).all()) else None


def inverse(triangle: Float[Tensor, "*batch r r"], *, upper: bool) -> Float[Tensor, "*batch r r"]:
    """Inverse of triangular matrices.

    Solving with it is as accurate as solving with the matrix, and far faster where many vectors
    share few matrices.
    """
    eye = torch.eye(triangle.shape[-1], dtype=triangle.dtype, device=triangle.device)
    return torch.linalg.solve_triangular(triangle, eye.expand_as(triangle), upper=upper)


def cholesky(matrix: Tensor) -> Tensor:
    """Lower Cholesky factor of what is at least the identity, by way of its correlations.

    Where loadings are so strong that rounding makes these singular, they get a little more.
    """
    with torch.no_grad():  # what is scaled is scaled back
        scale = matrix.diagonal(dim1=-2, dim2=-1).sqrt()[..., None]
    return scale * sub_factor(matrix / (scale * scale.mT))


def log_det(triangle: Tensor) -> Tensor:
    """Log determinant of a triangular matrix with a positive diagonal."""
    return triangle.diagonal(dim1=-2, dim2=-1).log().sum(-1)
