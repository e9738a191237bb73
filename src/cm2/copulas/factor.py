r"""The factor copula: a Gaussian copula of coordinates in blocks that hang together by few factors.

A vector copula in the sense of Fan and Henry (2023), "Vector copulas": every block is exactly
standard normal in itself, and blocks depend on each other through r factors. With loadings
:math:`A_m` (d x r), :math:`R_m` upper triangular, :math:`R_m'R_m = I + A_m'A_m`, and
:math:`L_m = A_m R_m^{-1}`, the normal scores of block m are

.. math:: s_m = L_m w + (I - L_m L_m')^{1/2} e_m, \quad w \sim N(0, I_r).

:math:`L_m` is a strict contraction and every one can be reached, so that two blocks can have any
Gaussian dependence if r = d. Density, conditional laws and draws need r x r matrices only, and one
Cholesky factor for each pattern of presence.
"""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import constraints
from torch.types import _size

from cm2.copulas.base import Copula, check_tau, register
from cm2.copulas.elliptical import multiply
from cm2.copulas.factor_algebra import (
    Blocks,
    by_block,
    cholesky,
    explained,
    factor_mean,
    inverse,
    log_det,
    whole,
)
from cm2.copulas.gaussian import Gaussian
from cm2.copulas.measures import Estimate
from cm2.copulas.patterns import distinct, pick
from cm2.copulas.points import as_float
from cm2.core.numerics import normal_quantile
from cm2.core.records import Base, Unit

RANK = 8
"""Number of factors of vectors, unless another is asked for."""

_START = 0.3
# The largest canonical correlation with the factors from which to start.
_LARGEST = 0.98
_STEPS = 10


@register("factor")
class Factor(Copula):
    """A Gaussian copula of factor form, of coordinates or of vectors.

    Args:
        dim: Number of coordinates of all blocks together.
        loading: Loadings A of all coordinates on the factors, block after block; any real numbers.
        block: Number of coordinates of a block. Those of one block are independent of each other;
            with 1 it is the r-factor Gaussian copula of coordinates.
        validate_args: Whether to check parameters and arguments.

    Raises:
        ValueError: If the loading has not ``dim`` rows, or blocks do not divide them.

    Example:
        >>> copula = Factor(dim=4, loading=torch.tensor([[1.0], [0.0], [0.0], [1.0]]), block=2)
        >>> copula.canonical_correlations()[0, 1]
        tensor([0.5000])
    """

    arg_constraints = {"loading": constraints.independent(constraints.real, 2)}
    couples_vectors = True
    free_correlations = True
    gaussian_scores = True

    def __init__(
        self,
        dim: int,
        loading: Float[Tensor, "*batch dim rank"],
        block: int = 1,
        validate_args: bool | None = None,
    ) -> None:
        self.loading, self.block = as_float(loading), block
        if self.loading.dim() < 2 or self.loading.shape[-2] != dim or not self.loading.shape[-1]:
            raise ValueError(
                f"Factor: the loading must have shape ({dim}, rank) for dim={dim}, "
                f"got {tuple(self.loading.shape)}"
            )
        if block < 1 or dim % block:
            raise ValueError(f"Factor: blocks of {block} do not divide {dim} coordinates")
        super().__init__(dim, batch_shape=self.loading.shape[:-2], validate_args=validate_args)

    @property
    def rank(self) -> int:
        """Number r of factors."""
        return self.loading.shape[-1]

    @property
    def factor_shape(self) -> torch.Size:  # type: ignore[override]
        """One for each factor, and as many for each block."""
        return torch.Size((1 + self.dim // self.block, self.rank))

    @property
    def redundant(self) -> int:
        """Turns of the factors, and loadings beyond the number of correlations."""
        numbers, moved = self.dim * self.rank, min(self.rank, self.dim)
        turns = moved * self.rank - moved * (moved + 1) // 2  # in what the loadings span
        correlations = self.dim * (self.dim - self.block) // 2
        return numbers - min(numbers - turns, correlations)

    @property
    def correlation(self) -> Float[Tensor, "*batch dim dim"]:
        """The correlation matrix of the normal scores."""
        reach = self._blocks().reach.flatten(-3, -2)
        same = self._same_block(reach)
        eye = torch.eye(self.dim, dtype=reach.dtype, device=reach.device)
        return torch.where(same, eye, reach @ reach.mT)

    # Construction ----------------------------------------------------------------------------

    @classmethod
    def start(
        cls, dim: int, batch_shape: _size = (), *, block: int = 1, rank: int = 1
    ) -> dict[str, Any]:
        """Small loadings that differ, so that no two factors stay alike."""
        generator = torch.Generator().manual_seed(0)
        loading = (
            torch.randn(dim, rank, generator=generator, device="cpu")
            * _START
            / max(block, rank) ** 0.5
        )
        return {"loading": loading.expand(*batch_shape, dim, rank), "block": block}

    @classmethod
    def start_vectors(
        cls, modalities: int, dim: int, batch_shape: _size, rank: int | None = None
    ) -> dict[str, Any]:
        """All coordinates at once, by one copula."""
        most = max(1, (modalities - 1) * dim)
        rank = min(RANK, most) if rank is None else rank
        if rank < 1:
            raise ValueError(f"Factor: the rank must be at least 1, got {rank}")
        size = modalities * dim
        return {"dim": size, **cls.start(size, block=dim, rank=rank)}

    @classmethod
    def from_kendall_tau(cls, tau: float | Tensor, dim: int = 2) -> Self:
        """One factor, on which all coordinates have the same loading."""
        lowest = -1.0 if dim == 2 else 0.0
        rho = torch.sin(check_tau("Factor", tau, lowest, 1.0) * math.pi / 2)[..., None, None]
        size = (rho.abs() / (1 - rho.abs())).sqrt().expand(*rho.shape[:-2], dim, 1)
        sign = torch.ones_like(size)
        sign[..., 1:, :] = torch.where(rho < 0, -1.0, 1.0).to(rho)
        return cls(dim, sign * size)

    @torch.no_grad()
    def near(self, correlation: Float[Tensor, "dim dim"]) -> dict[str, Tensor]:
        """Arguments of a copula of this rank near a correlation matrix between blocks.

        Principal factors, block by block (Harman 1976, "Modern factor analysis", chapter 8); the
        entries inside blocks are not read. Noise of a hundredth keeps factors that find nothing
        from standing still.
        """
        size, rank = self.dim, self.rank
        same = self._same_block(correlation)
        reach = correlation.new_zeros(size, rank)
        for _ in range(_STEPS):
            target = torch.where(same, reach @ reach.mT, correlation)
            values, vectors = torch.linalg.eigh(target)
            kept = values[-rank:].clamp_min(0.0).sqrt() * vectors[:, -rank:]
            left, singular, right = torch.linalg.svd(self._split(kept), full_matrices=False)
            reach = torch.zeros_like(reach)
            reach[:, : kept.shape[1]] = (
                (left * singular.clamp_max(_LARGEST)[..., None, :]) @ right
            ).flatten(0, 1)
        noise = self.start(size, block=self.block, rank=rank)["loading"].to(reach)
        loading = self._loading_of(reach) + 0.01 / _START * noise
        # A factor may be turned round: its largest loading is positive.
        largest = loading.abs().argmax(0, keepdim=True)
        return {"loading": loading * loading.gather(0, largest).sign()}

    def _loading_of(self, reach: Tensor) -> Tensor:
        """A from L: the inverse of L = A R^-1."""
        parts = self._split(reach)
        eye = torch.eye(parts.shape[-1], dtype=parts.dtype, device=parts.device)
        product = torch.linalg.inv(eye - parts.mT @ parts)
        root = torch.linalg.cholesky(product.flip(-1, -2)).flip(-1, -2)  # upper, R R' = product
        return (parts @ root).flatten(-3, -2)

    def marginal(self, present: Bool[Tensor, " dim"]) -> Copula:
        kept = whole(self._split_last(present))
        if kept is None:
            return self._dense().marginal(present)
        loading = self.loading[..., present, :]
        return type(self)(loading.shape[-2], loading, self.block, validate_args=False)

    def _like(self, parameters: dict[str, Tensor]) -> Self:
        return type(self)(self.dim, parameters["loading"], self.block, validate_args=False)

    # Dependence ------------------------------------------------------------------------------

    def kendall_tau(self) -> Float[Tensor, "*batch dim dim"]:
        return self._dense().kendall_tau()

    def spearman_rho(self) -> Float[Tensor, "*batch dim dim"]:
        return self._dense().spearman_rho()

    def lower_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        """0 for two different coordinates."""
        return self._dense().lower_tail_dependence()

    def upper_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        """0 for two different coordinates."""
        return self._dense().upper_tail_dependence()

    def mixed_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        """0 for two different coordinates."""
        return self._dense().mixed_tail_dependence()

    def canonical_correlations(self) -> Float[Tensor, "*batch block block least"]:
        """Canonical correlations of every two blocks, descending; 1 of a block with itself.

        They are the singular values of ``L_m L_n'``, as many as the smaller of d and r.
        """
        reach = self._blocks().reach
        corner = torch.linalg.qr(reach).R  # (*batch, block, least, r)
        cross = corner.unsqueeze(-3) @ corner.unsqueeze(-4).mT
        blocks = corner.shape[-3]
        same = torch.eye(blocks, dtype=torch.bool, device=reach.device)[..., None]
        return torch.where(same, 1.0, torch.linalg.svdvals(cross))

    def mutual_information(self, samples: int = 10_000) -> Estimate:
        r"""The total correlation in nats, in closed form.

        :math:`\sum_m \log |R_m| - \tfrac12 \log |I + \sum_m (R_m R_m' - I)|`
        """
        parts = self._blocks()
        value = log_det(parts.root).sum(-1) - log_det(self._precision_tril(parts, None))
        return Estimate(value, torch.zeros_like(value))

    def lautum_information(self) -> Float[Tensor, "*batch"]:
        """As in the base class, in closed form."""
        parts = self._blocks()
        inside = parts.information
        tril = self._precision_tril(parts, None)
        said = inside.sum(-3) + (inside @ inside).sum(-3)  # covariance of b under independence
        known = torch.cholesky_solve(said, tril).diagonal(dim1=-2, dim2=-1).sum(-1)
        trace = inside.diagonal(dim1=-2, dim2=-1).sum((-2, -1))
        return 0.5 * (trace - known) + log_det(tril) - log_det(parts.root).sum(-1)

    # Laws ------------------------------------------------------------------------------------

    def _log_prob(self, unit: Unit, present: Tensor | None) -> Tensor:
        return self._log_prob_normal(normal_quantile(*unit), present)

    def _log_prob_normal(self, x: Tensor, present: Tensor | None) -> Tensor:
        r"""With w0 the mean of the factors and :math:`e = s - L w_0` for the present blocks.

        .. math:: \tfrac12 \sum \left( |s|^2 - |e|^2 - |A'e|^2 \right) - \tfrac12 |w_0|^2
            - \tfrac12 \log |P| + \sum \log |R|

        It is a quadratic form at its least point in the factors, so that an error of w0 enters
        squared, and w0 needs no gradient. The difference of two quadratic forms that textbooks have
        loses all digits of float32 where dependence is strong.
        """
        here = None
        if present is not None:
            x, here = torch.where(present, x, 0.0), whole(self._split_last(present))
            if here is None:
                return self._dense()._log_prob_normal(x, present)
        parts = self._blocks()
        if here is None:
            tril = self._precision_tril(parts, None)
            whiten = inverse(tril.detach(), upper=False)
            share = tril.new_ones(self.dim // self.block)
            value = explained(self._split_last(x), parts, whiten, share)
            return value - log_det(tril) + log_det(parts.root).sum(-1)
        patterns, index = distinct(here, self.batch_shape)
        tril = self._precision_tril(parts, patterns)
        whiten = pick(inverse(tril.detach(), upper=False), index)
        value = explained(self._split_last(x), parts, whiten, here.to(x.dtype))
        roots = (patterns * log_det(parts.root)).sum(-1)
        value = value + pick(roots - log_det(tril), index)
        return torch.where(here.sum(-1) > 1, value, 0.0)

    def _complete(self, unit: Unit, present: Tensor, base: Base | None) -> Unit:
        return Unit.from_normal(self._complete_normal(normal_quantile(*unit), present, base))

    def _complete_normal(self, x: Tensor, present: Tensor, base: Base | None) -> Tensor:
        """Of ``s = L (w + R^-T v - L'e) + e``: no root of a d x d matrix, and nothing cancels."""
        here = whole(self._split_last(present))
        if here is None:
            return self._dense()._complete_normal(x, present, base)
        parts = self._blocks()
        mean, whiten = self._given(parts, x, here)
        noise, inside, error = self._noise(mean, base)
        w = mean + multiply(whiten.mT, noise)
        spread = by_block(inside, inverse(parts.root, upper=True))
        inner = w.unsqueeze(-2) + spread - by_block(error, parts.reach)
        return (by_block(inner, parts.reach.mT) + error).flatten(-2)

    def _noise(self, like: Tensor, base: Base | None) -> tuple[Tensor, Tensor, Tensor]:
        """Normal noise: of all blocks' factors, of each block's, and of coordinates by block."""
        if base is None or base.factor is None:
            lead, blocks = like.shape[:-1], self.dim // self.block
            sizes = (self.rank,), (blocks, self.rank), (blocks, self.block)
            draw = [like.new_empty((*lead, *size)).normal_() for size in sizes]
            return draw[0], draw[1], draw[2]
        factor, error = (
            normal_quantile(*Unit.from_u(part)) for part in (base.factor, base.coordinate)
        )
        return factor[..., 0, :], factor[..., 1:, :], self._split_last(error)

    def _mean_normal(self, x: Tensor, present: Tensor) -> Tensor:
        here = whole(self._split_last(present))
        if here is None:
            return self._dense()._mean_normal(x, present)
        parts = self._blocks()
        mean, _ = self._given(parts, x, here)
        return multiply(parts.reach.flatten(-3, -2), mean)

    def _cdf(self, unit: Unit) -> Tensor:
        return self._dense()._cdf(unit)

    def _conditional_cdf(self, unit: Unit, present: Tensor) -> Unit:
        return self._dense()._conditional_cdf(unit, present)

    def _dense(self) -> Gaussian:
        """The same copula by its correlation matrix, for what has no shorter way.

        A correlation that is rounded to one is put just below it.
        """
        matrix = self.correlation
        near = 1 - torch.finfo(matrix.dtype).eps
        matrix = torch.where(self._same_block(matrix), matrix, matrix.clamp(-near, near))
        return Gaussian(self.dim, correlation=matrix, validate_args=False)

    def _same_block(self, like: Tensor) -> Bool[Tensor, "dim dim"]:
        """Which two coordinates are of one block."""
        block = torch.arange(self.dim, device=like.device) // self.block
        return block[:, None] == block

    # Matrices --------------------------------------------------------------------------------

    def _split(self, matrix: Tensor) -> Tensor:
        """Rows of a matrix by block."""
        return matrix.unflatten(-2, (-1, self.block))

    def _split_last(self, value: Tensor) -> Tensor:
        """Coordinates by block."""
        return value.unflatten(-1, (-1, self.block))

    def _blocks(self) -> Blocks:
        loading = self._split(self.loading)
        eye = torch.eye(self.rank, dtype=loading.dtype, device=loading.device)
        root = cholesky(eye + loading.mT @ loading).mT
        reach = torch.linalg.solve_triangular(root, loading, upper=True, left=False)
        return Blocks(loading, root, reach, root @ root.mT - eye)

    def _precision_tril(self, parts: Blocks, patterns: Tensor | None) -> Tensor:
        """Cholesky factor of P = I + sum (R_m R_m' - I), over all blocks or by pattern."""
        eye = torch.eye(self.rank, dtype=parts.root.dtype, device=parts.root.device)
        if patterns is None:
            return cholesky(eye + parts.information.sum(-3))
        share = patterns.to(eye.dtype)
        return cholesky(eye + torch.einsum("...m,...mrq->...rq", share, parts.information))

    def _given(self, parts: Blocks, x: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of the factors given what is present, and what whitens them then."""
        patterns, index = distinct(here, self.batch_shape)
        whiten = pick(inverse(self._precision_tril(parts, patterns), upper=False), index)
        return factor_mean(by_block(self._split_last(x), parts.loading), parts.root, whiten), whiten
