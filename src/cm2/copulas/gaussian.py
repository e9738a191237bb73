"""The Gaussian copula: any correlation matrix, conditionals in closed form.

Missing coordinates are handled by the sub-matrix of the present ones, once for each pattern of
presence that occurs; completions use Matheron's rule (Journel and Huijbregts 1978).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import constraints
from torch.types import _size

from cm2.copulas.base import Copula, check_tau, register
from cm2.numerics import normal_quantile
from cm2.records import Unit


@register("gaussian")
class Gaussian(Copula):
    """The copula of a multivariate normal law.

    Args:
        dim: Number of coordinates.
        correlation: Correlation matrix, positive definite; give this or ``scale_tril``.
        scale_tril: Its Cholesky factor.
        validate_args: Whether to check parameters and arguments.

    Raises:
        ValueError: If the matrix is not a correlation matrix of size ``dim``.

    Example:
        >>> copula = Gaussian(dim=2, correlation=torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
        >>> round(copula.kendall_tau()[0, 1].item(), 4)
        0.3333
    """

    arg_constraints = {"scale_tril": constraints.corr_cholesky}

    def __init__(
        self,
        dim: int,
        correlation: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if (correlation is None) == (scale_tril is None):
            raise ValueError("Gaussian: give either correlation or scale_tril")
        matrix = torch.as_tensor(correlation if scale_tril is None else scale_tril)
        if matrix.shape[-2:] != (dim, dim):
            raise ValueError(
                f"Gaussian: the matrix must be {dim} x {dim} for dim={dim}, "
                f"got {tuple(matrix.shape)}"
            )
        self.scale_tril = _factor(matrix) if scale_tril is None else matrix
        super().__init__(dim, batch_shape=matrix.shape[:-2], validate_args=validate_args)

    @classmethod
    def start(cls, dim: int, batch_shape: _size = ()) -> dict[str, Any]:
        return {"scale_tril": torch.eye(dim).expand(*batch_shape, dim, dim)}

    @classmethod
    def from_kendall_tau(cls, tau: float | Tensor, dim: int = 2) -> Self:
        lowest = 2 / math.pi * math.asin(-1 / (dim - 1))
        rho = torch.sin(check_tau("Gaussian", tau, lowest, 1.0) * math.pi / 2)[..., None, None]
        eye = torch.eye(dim, dtype=rho.dtype, device=rho.device)
        return cls(dim, eye + rho * (1 - eye))

    @property
    def correlation(self) -> Float[Tensor, "*batch dim dim"]:
        """The correlation matrix."""
        return self.scale_tril @ self.scale_tril.mT

    def marginal(self, present: Bool[Tensor, " dim"]) -> Gaussian:
        index = present.nonzero().squeeze(-1)
        return Gaussian(
            len(index), self.correlation[..., index[:, None], index], validate_args=False
        )

    def kendall_tau(self) -> Float[Tensor, "*batch dim dim"]:
        # The arc sine has no slope at 1: the diagonal must not pass through it.
        eye = torch.eye(self.dim, dtype=torch.bool, device=self.scale_tril.device)
        off = torch.where(eye, 0.0, self.correlation.clamp(-1, 1))
        return torch.where(eye, 1.0, 2 / math.pi * torch.asin(off))

    def _log_prob(self, unit: Unit, present: Tensor | None) -> Tensor:
        x = normal_quantile(*unit)
        if present is None:
            return _Whitening.of(self.scale_tril).log_density(x)
        x = torch.where(present, x, 0.0)
        patterns, index = self._patterns(present)
        table = _Whitening.of(_sub_factor(self._masked(patterns)))
        return _Whitening(*(_pick(part, index) for part in table)).log_density(x)

    def _cdf(self, unit: Unit) -> Tensor:
        raise ValueError(
            "Gaussian: the distribution function of a Gaussian copula has no closed form; "
            "use scipy.stats.multivariate_normal on the normal scores"
        )

    def _complete(self, unit: Unit, present: Tensor) -> Unit:
        x = torch.where(present, normal_quantile(*unit), 0.0)
        patterns, index = self._patterns(present)
        # Matheron: a draw from the joint, plus the regression of its error at what is present.
        cross = torch.where(patterns[..., None, :], self.correlation, 0.0)
        gain = _pick(torch.linalg.solve(self._masked(patterns), cross, left=False), index)
        shape = torch.broadcast_shapes(x.shape, present.shape, (*self.batch_shape, self.dim))
        noise = torch.randn(shape, dtype=x.dtype, device=x.device)
        draw = _multiply(self.scale_tril, noise)
        return Unit.from_normal(draw + _multiply(gain, torch.where(present, x - draw, 0.0)))

    def _masked(self, patterns: Tensor) -> Tensor:
        """The correlation with identity rows and columns for the missing, by pattern."""
        both = patterns[..., :, None] & patterns[..., None, :]
        eye = torch.eye(self.dim, dtype=self.scale_tril.dtype, device=self.scale_tril.device)
        return torch.where(both, self.correlation, eye)

    def _patterns(self, present: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The distinct patterns of presence, and the index of each element in a table over them.

        A table has the shape ``(pattern, *batch, ...)``. Where presence does not vary along the
        copula's batch, whole batches are picked at once.
        """
        batch = len(self.batch_shape)
        present = present[(None,) * max(0, batch + 1 - present.dim())]
        flat = present.reshape(-1, self.dim)
        patterns, index = torch.unique(flat, dim=0, return_inverse=True)
        patterns = patterns.view(-1, *[1] * batch, self.dim)
        index = index.view(present.shape[:-1])
        if all(size == 1 for size in index.shape[index.dim() - batch :]):
            return patterns, (index[(..., *[0] * batch)],)
        ranges = [torch.arange(size, device=index.device) for size in self.batch_shape]
        return patterns, (index, *torch.meshgrid(*ranges, indexing="ij"))


def _factor(correlation: Tensor) -> Tensor:
    unit_diagonal = torch.allclose(
        correlation.diagonal(dim1=-2, dim2=-1), torch.ones((), dtype=correlation.dtype), atol=1e-5
    )
    factor, failed = torch.linalg.cholesky_ex(correlation)
    if (
        not unit_diagonal
        or failed.any()
        or not torch.allclose(correlation, correlation.mT, atol=1e-5)
    ):
        raise ValueError(
            "Gaussian: correlation must be symmetric, positive definite, with diagonal 1"
        )
    return factor


def _sub_factor(correlation: Tensor) -> Tensor:
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


def _pick(table: Tensor, index: tuple[Tensor, ...]) -> Tensor:
    """Entries of a table over patterns; one index picks whole batches, with a faster gradient."""
    if len(index) > 1:
        return table[index]
    return table.index_select(0, index[0].flatten()).view((*index[0].shape, *table.shape[1:]))


def _multiply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix * vector[..., None, :]).sum(-1)


class _Whitening(NamedTuple):
    """What whitens normal scores: the inverse of the Cholesky factor, and its log determinant."""

    matrix: Tensor
    log_determinant: Tensor

    @classmethod
    def of(cls, scale_tril: Tensor) -> _Whitening:
        """Of a table of Cholesky factors."""
        eye = torch.eye(scale_tril.shape[-1], dtype=scale_tril.dtype, device=scale_tril.device)
        inverse = torch.linalg.solve_triangular(scale_tril, eye.expand_as(scale_tril), upper=False)
        return cls(inverse, -scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1))

    def log_density(self, x: Tensor) -> Tensor:
        """Log density of the copula at normal scores ``x``."""
        white = _multiply(self.matrix, x)
        return 0.5 * (x.square() - white.square()).sum(-1) + self.log_determinant
