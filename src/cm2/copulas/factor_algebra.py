"""The matrices of the factor copula, and its quadratic form with a gradient that is written out."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.types import _size

from cm2.copulas.elliptical import sub_factor
from cm2.numerics import refuse_second_derivatives


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
    """Half of ``|s|^2 - |e|^2 - |A'e|^2``, summed over blocks, with ``e = s - L w``.

    Its gradient is that at the factors w of least ``|e|^2 + |A'e|^2``, summed over blocks, plus
    ``|w|^2``: that way none in w is needed.
    """

    @staticmethod
    def forward(
        s: Tensor, mean: Tensor, loading: Tensor, reach: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        fitted = by_block(mean, reach.mT)
        error = s - fitted
        inner = by_block(error, loading)
        value = fitted.mul_(s + error).sum((-2, -1)) - inner.square().sum((-2, -1))
        return value.mul_(0.5), error, torch.cat([mean, inner.neg_()], -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, error, both = output
        ctx.mark_non_differentiable(error, both)
        ctx.size = inputs[0].shape
        ctx.save_for_backward(error, both, *inputs[-2:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        refuse_second_derivatives("the density of the factor copula")
        error, both, loading, reach = ctx.saved_tensors
        rank, batch_shape = loading.shape[-1], loading.shape[:-3]
        weighted = both * grad[..., None, None]
        in_s = in_loading = in_reach = None
        if ctx.needs_input_grad[0]:
            in_s = by_block(weighted, torch.cat([reach, loading], -1).mT).sum_to_size(ctx.size)
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
            summed = sum_outer(error, weighted, batch_shape)
            in_loading = summed[..., rank:]
            cross = sum_outer(both[..., rank:], weighted[..., :rank], batch_shape)
            in_reach = summed[..., :rank] - loading @ cross
        return in_s, None, in_loading, in_reach


def explained(
    s: Float[Tensor, "*#shape block coordinate"],
    mean: Float[Tensor, "*#shape rank"],
    here: Bool[Tensor, "*#shape block"] | None,
    loading: Float[Tensor, "*batch block coordinate rank"],
    reach: Float[Tensor, "*batch block coordinate rank"],
) -> Tensor:
    """What the factors explain at their mean; see :class:`Blocks` for the matrices.

    Args:
        s: Normal scores, 0 where absent.
        mean: The mean of the factors given the present blocks.
        here: Which blocks are present; all if ``None``.
        loading: A.
        reach: L.
    """
    blocks = loading.shape[-3]
    by_part = mean.unsqueeze(-2)
    if here is None:
        by_part = by_part.expand(*mean.shape[:-1], blocks, -1)
    else:
        by_part = by_part * here[..., None]
    value, *_ = _Explained.apply(s, by_part, loading, reach)
    return value


def by_block(
    x: Float[Tensor, "*shape block a"], matrix: Float[Tensor, "*batch block a b"]
) -> Tensor:
    """Rows of each block times its matrix, ``(*shape, block, b)``."""
    if matrix.dim() > 3:
        return (x.unsqueeze(-2) @ matrix).squeeze(-2)
    rows = x.reshape(-1, *x.shape[-2:]).transpose(0, 1)
    return (rows @ matrix).transpose(0, 1).reshape(*x.shape[:-1], matrix.shape[-1])


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
