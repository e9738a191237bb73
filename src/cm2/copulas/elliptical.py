"""Elliptical copulas: those of a multivariate law with a correlation matrix.

Missing coordinates are handled by the sub-matrix of the present ones, once for each pattern of
presence that occurs. Cambanis, Huang and Simons (1981) for conditional laws; Lindskog, McNeil and
Schmock (2003) for Kendall's tau, which is the same for all of them.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cm2.copulas.base import Copula, check_tau
from cm2.copulas.patterns import distinct, pick
from cm2.copulas.points import as_float
from cm2.core.numerics import normal_quantile
from cm2.core.records import Base, Unit

# What single precision may have taken from the entries of a matrix of correlations.
_ROUNDING = 1e-5


class Elliptical(Copula):
    """A copula with a correlation matrix, kept as its Cholesky factor ``scale_tril``.

    A subclass says what the scores of a point are, and what the density is at whitened scores.
    """

    scale_tril: Tensor

    free_correlations = True

    @property
    def correlation(self) -> Float[Tensor, "*batch dim dim"]:
        """The correlation matrix."""
        return self.scale_tril @ self.scale_tril.mT

    def marginal(self, present: Bool[Tensor, " dim"]) -> Self:
        index = present.nonzero().squeeze(-1)
        factor = sub_factor(self.correlation[..., index[:, None], index])
        arguments: dict[str, Any] = {**self.parameters, "scale_tril": factor}
        return type(self)(len(index), **arguments, validate_args=False)

    def kendall_tau(self) -> Float[Tensor, "*batch dim dim"]:
        return self._arc_sine(1.0, math.pi / 2)

    def _arc_sine(self, scale: float, unit: float) -> Tensor:
        """``asin(scale * correlation) / unit`` off the diagonal, 1 on it."""
        # The arc sine has no slope at 1: the diagonal must not pass through it.
        eye = self._eye().bool()
        off = torch.where(eye, 0.0, scale * self.correlation.clamp(-1, 1))
        return torch.where(eye, 1.0, torch.asin(off) / unit)

    def _eye(self) -> Tensor:
        return torch.eye(self.dim, dtype=self.scale_tril.dtype, device=self.scale_tril.device)

    # What a subclass says ------------------------------------------------------------------------

    @abstractmethod
    def _scores(self, unit: Unit) -> Tensor:
        """Scores of a point, 0 at the median."""

    @abstractmethod
    def _log_density(self, whitening: Whitening, scores: Tensor, order: Tensor | int) -> Tensor:
        """Log density at scores, of which ``order`` are present and the others 0."""

    @abstractmethod
    def _draw(self, error: Tensor, given: Given | None) -> Unit:
        """Draws all coordinates from normal errors, given the present scores if there are any."""

    @abstractmethod
    def _conditional(self, unit: Unit, whitening: Whitening, earlier: Tensor) -> Unit:
        """Distribution functions given earlier coordinates, by an ordered whitening."""

    @abstractmethod
    def _quantile(self, x: Tensor, scores: Tensor, present: Tensor, ordered: Ordered) -> Unit:
        """The inverse of :meth:`_conditional`: all coordinates from the present ones' scores.

        Args:
            x: Normal scores of the distribution functions.
            scores: Scores of the present coordinates, 0 elsewhere.
            present: Which are present.
            ordered: Matrices in which they come first.
        """

    # Laws --------------------------------------------------------------------------------------

    def _log_prob(self, unit: Unit, present: Tensor | None) -> Tensor:
        return self._log_prob_scores(self._scores(unit), present)

    def _log_prob_scores(self, scores: Tensor, present: Tensor | None) -> Tensor:
        if present is None:
            return self._log_density(Whitening.of(self.scale_tril), scores, self.dim)
        scores = torch.where(present, scores, 0.0)
        patterns, index = distinct(present, self.batch_shape)
        whitening = Whitening.of(sub_factor(self._masked(patterns))).pick(index)
        order = present.sum(-1)
        return torch.where(order > 1, self._log_density(whitening, scores, order), 0.0)

    def _complete(self, unit: Unit, present: Tensor, base: Base | None) -> Unit:
        scores = self._scores(unit) if bool(present.any()) else torch.zeros_like(unit.log_u)
        if base is None:
            return self._draw(*self._conditioned(scores, present))
        x = normal_quantile(*Unit.from_u(base.coordinate))
        scores = torch.where(present, scores, 0.0)
        return self._quantile(x, scores, present, self._ordered(present))

    def _conditioned(self, scores: Tensor, present: Tensor) -> tuple[Tensor, Given | None]:
        """Errors of a draw of all coordinates, and on what they are conditioned."""
        shape = torch.broadcast_shapes(scores.shape, present.shape, (*self.batch_shape, self.dim))
        draw = multiply(
            self.scale_tril, torch.randn(shape, dtype=scores.dtype, device=scores.device)
        )
        if not present.any():
            return draw, None
        scores = torch.where(present, scores, 0.0)
        gain, masked, index = self._regression(present)
        whitening = Whitening.of(sub_factor(masked)).pick(index)
        # Matheron: the error of the regression on what is present, at a draw from the joint.
        error = draw - multiply(gain, torch.where(present, draw, 0.0))
        return error, Given(scores, present.sum(-1), gain, whitening)

    def _regression(self, present: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Regression of all scores on the present ones; the masked correlations and their index."""
        patterns, index = distinct(present, self.batch_shape)
        masked = self._masked(patterns)
        cross = torch.where(patterns[..., None, :], self.correlation, 0.0)
        return pick(torch.linalg.solve(masked, cross, left=False), index), masked, index

    def _conditional_cdf(self, unit: Unit, present: Tensor) -> Unit:
        before = torch.ones(self.dim, self.dim, dtype=torch.bool, device=present.device).tril(-1)
        earlier = present[..., None, :] | (before & ~present[..., None, :])
        return self._conditional(unit, self._ordered(present).whitening, earlier)

    def _ordered(self, present: Tensor) -> Ordered:
        """Matrices in which present coordinates come first, the missing ones in their order."""
        patterns, index = distinct(present, self.batch_shape)
        rank = torch.argsort((~patterns).int(), dim=-1, stable=True)
        swap = self._eye()[rank]
        factor = sub_factor(swap @ self.correlation @ swap.mT)
        table = Whitening.of(factor)
        whitening = Whitening(swap.mT @ table.matrix @ swap, table.log_determinant)
        return Ordered(pick(swap.mT @ factor @ swap, index), whitening.pick(index))

    def _masked(self, patterns: Tensor) -> Tensor:
        """The correlation with identity rows and columns for the missing, by pattern."""
        both = patterns[..., :, None] & patterns[..., None, :]
        return torch.where(both, self.correlation, self._eye())


class Whitening(NamedTuple):
    """What whitens scores: the inverse of the Cholesky factor, and its log determinant."""

    matrix: Tensor
    log_determinant: Tensor

    @classmethod
    def of(cls, scale_tril: Tensor) -> Whitening:
        """Of a table of Cholesky factors."""
        eye = torch.eye(scale_tril.shape[-1], dtype=scale_tril.dtype, device=scale_tril.device)
        inverse = torch.linalg.solve_triangular(scale_tril, eye.expand_as(scale_tril), upper=False)
        return cls(inverse, -scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1))

    def pick(self, index: tuple[Tensor, ...]) -> Whitening:
        """Those of a table over patterns."""
        return Whitening(*(pick(part, index) for part in self))


class Ordered(NamedTuple):
    """A Cholesky factor in an order of the coordinates, and the whitening by it."""

    factor: Tensor
    whitening: Whitening


class Given(NamedTuple):
    """Present scores, their number, the regression of all scores on them, and their whitening."""

    scores: Tensor
    order: Tensor
    gain: Tensor
    whitening: Whitening


def factor_of(
    family: str, dim: int, correlation: Tensor | None, scale_tril: Tensor | None
) -> Tensor:
    """The Cholesky factor of the correlation matrix that a constructor was given.

    Either form may be rounded as single precision is, whatever its dtype.

    Raises:
        ValueError: If it was given both forms or none, or no correlation matrix of size ``dim``.
    """
    if (correlation is None) == (scale_tril is None):
        raise ValueError(f"{family}: give either correlation or scale_tril")
    matrix = as_float(correlation if scale_tril is None else scale_tril)
    if matrix.shape[-2:] != (dim, dim):
        raise ValueError(
            f"{family}: the matrix must be {dim} x {dim} for dim={dim}, got {tuple(matrix.shape)}"
        )
    if scale_tril is not None:
        norm = matrix.norm(dim=-1, keepdim=True)
        # Rows of length 1 but for rounding get it; the constraint judges all others.
        return torch.where((norm - 1).abs() < _ROUNDING, matrix / norm, matrix)
    factor = _rounded_factor(matrix.double())
    if factor is None:
        raise ValueError(
            f"{family}: correlation must be symmetric, positive definite, with diagonal 1"
        )
    return factor.to(matrix.dtype)


def _rounded_factor(matrix: Tensor) -> Tensor | None:
    """Cholesky factor of a correlation matrix; None if rounding does not explain what it lacks."""
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    scale = matrix.diagonal(dim1=-2, dim2=-1).clamp_min(0.5).rsqrt()
    symmetric = 0.5 * (matrix + matrix.mT)
    whole = scale[..., :, None] * symmetric * scale[..., None, :]
    lacking = torch.stack([matrix - matrix.mT, eye * (matrix - 1)]).abs().amax()
    if not lacking < _ROUNDING or ((whole - eye).abs() >= 1).any():
        return None
    factor, failed = torch.linalg.cholesky_ex(whole)
    if not failed.any():
        return factor
    # Rounding moves eigenvalues by the size of the matrix times half a unit in the last place.
    shift = matrix.shape[-1] * torch.finfo(torch.float32).eps
    factor, failed = torch.linalg.cholesky_ex((whole + shift * eye) / (1 + shift))
    return None if failed.any() else factor


def exchangeable(family: str, tau: float | Tensor, dim: int) -> Tensor:
    """The correlation matrix of equal entries with this Kendall's tau.

    Raises:
        ValueError: If ``dim`` coordinates cannot have it.
    """
    lowest = 2 / math.pi * math.asin(-1 / max(dim - 1, 1))
    rho = torch.sin(check_tau(family, tau, lowest, 1.0) * math.pi / 2)[..., None, None]
    eye = torch.eye(dim, dtype=rho.dtype, device=rho.device)
    return eye + rho * (1 - eye)


def sub_factor(correlation: Tensor) -> Tensor:
    """Cholesky factor of a sub-matrix, which rounding may have made singular.

    Such a matrix gets a little on its diagonal, about what rounding took from it; one that is
    broken altogether (a line search may come by) gives NaN, not an error.
    """
    factor, failed = torch.linalg.cholesky_ex(correlation)
    if not failed.any():
        return factor
    jitter = 1e3 * torch.finfo(correlation.dtype).eps * (failed > 0)
    eye = torch.eye(correlation.shape[-1], dtype=correlation.dtype, device=correlation.device)
    factor, failed = torch.linalg.cholesky_ex(correlation + jitter[..., None, None] * eye)
    return torch.where((failed > 0)[..., None, None], torch.nan, factor)


def multiply(matrix: Tensor, vector: Tensor) -> Tensor:
    """The matrix times the vector, both batched."""
    if matrix.dim() == 2:
        # One product: where vectors are not contiguous, torch makes one of each otherwise.
        rows = vector.reshape(-1, vector.shape[-1]) @ matrix.mT
        return rows.view(*vector.shape[:-1], matrix.shape[0])
    return (matrix * vector[..., None, :]).sum(-1)
