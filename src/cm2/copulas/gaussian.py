"""The Gaussian copula: any correlation matrix, no tail dependence, conditionals in closed form."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.types import _size

from cm2.copulas.base import register
from cm2.copulas.elliptical import (
    Elliptical,
    Given,
    Ordered,
    Whitening,
    exchangeable,
    factor_of,
    multiply,
)
from cm2.copulas.measures import Estimate
from cm2.copulas.orthant import box_probability, pair_cdf
from cm2.core.numerics import normal_quantile
from cm2.core.records import Base, Unit


@register("gaussian")
class Gaussian(Elliptical):
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
    gaussian_scores = True

    def __init__(
        self,
        dim: int,
        correlation: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.scale_tril = factor_of("Gaussian", dim, correlation, scale_tril)
        super().__init__(dim, batch_shape=self.scale_tril.shape[:-2], validate_args=validate_args)

    @classmethod
    def start(cls, dim: int, batch_shape: _size = ()) -> dict[str, Any]:
        return {"scale_tril": torch.eye(dim).expand(*batch_shape, dim, dim)}

    @classmethod
    def from_kendall_tau(cls, tau: float | Tensor, dim: int = 2) -> Self:
        return cls(dim, exchangeable("Gaussian", tau, dim))

    def spearman_rho(self) -> Float[Tensor, "*batch dim dim"]:
        return self._arc_sine(0.5, math.pi / 6)

    def lower_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        """0 for two different coordinates, unless they are equal."""
        return (self.correlation >= 1).to(self.scale_tril.dtype).maximum(self._eye())

    def upper_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        """0 for two different coordinates, unless they are equal."""
        return self.lower_tail_dependence()

    def mixed_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        """0 for two different coordinates, unless they are opposite."""
        return (self.correlation <= -1).to(self.scale_tril.dtype)

    def mutual_information(self, samples: int = 10_000) -> Estimate:
        """The total correlation in nats, in closed form."""
        value = -self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return Estimate(value, torch.zeros_like(value))

    def lautum_information(self) -> Float[Tensor, "*batch"]:
        """As in the base class, in closed form."""
        white = Whitening.of(self.scale_tril)
        return 0.5 * (white.matrix.square().sum((-2, -1)) - self.dim) - white.log_determinant

    def _scores(self, unit: Unit) -> Tensor:
        return normal_quantile(*unit)

    def _log_prob_normal(self, x: Tensor, present: Tensor | None) -> Tensor:
        return self._log_prob_scores(x, present)

    def _complete_normal(self, x: Tensor, present: Tensor, base: Base | None) -> Tensor:
        if base is None:
            return self._drawn(*self._conditioned(x, present))
        noise = normal_quantile(*Unit.from_u(base.coordinate))
        return self._quantile_normal(noise, x, present, self._ordered(present))

    def _mean_normal(self, x: Tensor, present: Tensor) -> Tensor:
        return multiply(self._regression(present)[0], torch.where(present, x, 0.0))

    def _log_density(self, whitening: Whitening, scores: Tensor, order: Tensor | int) -> Tensor:
        white = multiply(whitening.matrix, scores)
        return 0.5 * (scores.square() - white.square()).sum(-1) + whitening.log_determinant

    def _draw(self, error: Tensor, given: Given | None) -> Unit:
        return Unit.from_normal(self._drawn(error, given))

    def _drawn(self, error: Tensor, given: Given | None) -> Tensor:
        return error if given is None else multiply(given.gain, given.scores) + error

    def _quantile(self, x: Tensor, scores: Tensor, present: Tensor, ordered: Ordered) -> Unit:
        return Unit.from_normal(self._quantile_normal(x, scores, present, ordered))

    def _quantile_normal(
        self, x: Tensor, scores: Tensor, present: Tensor, ordered: Ordered
    ) -> Tensor:
        white = torch.where(present, multiply(ordered.whitening.matrix, scores), x)
        return multiply(ordered.factor, white)

    def _conditional(self, unit: Unit, whitening: Whitening, earlier: Tensor) -> Unit:
        return Unit.from_normal(multiply(whitening.matrix, self._scores(unit)))

    def _cdf(self, unit: Unit) -> Tensor:
        exact = unit.map(Tensor.double)
        x, scale_tril = self._scores(exact), self.scale_tril.double()
        if self.dim == 2:
            value = pair_cdf(exact, x, scale_tril, lambda square: (-0.5 * square).exp())
        else:
            value = box_probability(
                x,
                scale_tril,
                lambda white, squares, order: torch.special.ndtr(white),
                lambda p, squares, order: torch.special.ndtri(p),
            )
        return value.to(unit.log_u.dtype)
