"""How sure a maximum of the likelihood is: convergence, boundaries, and the covariance.

The covariance comes from the observed information (Efron and Hinkley 1978). Where ranks stand in
for margins, the score of a row also depends on all others through the ranks, and a sandwich takes
the place of the information's inverse (Genest, Ghoudi and Rivest 1995, proposition 2.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cm2.copulas.charts import Chart
from cm2.copulas.observations import Data
from cm2.core.records import Unit

# As near to the end of its range a parameter counts as being there.
AT_END = 1e-4
# An unconstrained parameter with a standard error above this is not determined by the data: a
# logarithm that may be wrong by a factor of 50.
_UNDETERMINED = 4.0
# A step of Newton's method from a maximum is below a tenth of a standard error; here its square.
_STEP = 1e-2
# A log likelihood that grows by so much for each unit at the end of the range has no maximum there.
# One row where a density has a pole adds 1; limits such as the Gaussian of Student-t, nothing.
_GROWS = 0.5
# Directions with less information than this share of the most are not determined.
_FLAT = 1e-9


class Likelihood:
    """Mean negative log likelihood in unconstrained parameters."""

    def __init__(self, chart: Chart, data: Data) -> None:
        self.chart, self.data = chart, data
        self.unit = data.unit.map(lambda part: part.to(chart.start.device))
        self.present = data.present if data.present is None else data.present.to(chart.start.device)
        self.rows = len(self.unit.log_u)

    def by_row(self, x: Tensor) -> Tensor:
        """Log likelihood of each row."""
        return self.chart.copula(x)._log_prob(self.unit, self.present)

    def __call__(self, x: Tensor) -> Tensor:
        return -self.by_row(x).mean()

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Value and gradient."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self(x)
            (slope,) = torch.autograd.grad(value, x)
        return value.detach(), slope

    def gradient_in_points(self, x: Tensor) -> Float[Tensor, "row dim"]:
        """Derivatives of the log likelihood of each row in its points."""
        with torch.enable_grad():
            u = self.unit.u.requires_grad_()
            value = self.chart.copula(x)._log_prob(Unit.from_u(u), self.present).sum()
            (slope,) = torch.autograd.grad(value, u, allow_unused=True)
        return torch.zeros_like(u) if slope is None else slope

    def hessian(self, x: Tensor) -> Tensor:
        """Central differences of the exact gradient.

        A second backward pass would need every formula to be twice differentiable by autograd; some
        have hand-written gradients.
        """
        hessian = _differences(lambda at: self.gradient(at)[1], x)
        return (hessian + hessian.mT) / 2

    @torch.no_grad()
    def scores(self, x: Tensor) -> Float[Tensor, "row parameter"]:
        """Derivatives of the log likelihood of each row, by central differences."""
        return _differences(self.by_row, x).mT


class Certainty(NamedTuple):
    """What is known of a maximum.

    Attributes:
        covariance: Of the natural parameters; NaN where there is none.
        ended: Which of them are at a boundary.
        converged: Whether it is a maximum.
    """

    covariance: Float[Tensor, "parameter parameter"]
    ended: Bool[Tensor, " parameter"]
    converged: bool


def certainty(
    likelihood: Likelihood, x: Tensor, natural: Tensor, jacobian: Float[Tensor, "parameter x"]
) -> Certainty:
    """The covariance of the natural parameters, boundaries, and whether x is a maximum.

    Parameters at a boundary are held fixed for the covariance of the others. The charts map the
    parameters with a range of their own one by one, so that the same positions are meant on both
    sides; for correlations, an entry stands for the one given the columns before it.
    """
    chart = likelihood.chart
    covariance = torch.full_like(jacobian, torch.nan)
    ended = natural - chart.lower < AT_END
    if not len(x):
        return Certainty(covariance, ended, True)
    inside = x.clamp(chart.low, chart.high)
    _, slope = likelihood.gradient(inside)
    hessian = likelihood.hessian(inside)
    error = (likelihood.rows * hessian.diagonal()).clamp_min(0.0).rsqrt()
    at_low, at_high = x <= chart.low, x >= chart.high
    alone = chart.lower.isfinite() & (natural - chart.lower > 1)
    ended = ended | at_low | at_high | (alone & (error > _UNDETERMINED))
    growth = -likelihood.rows * slope
    growing = (at_high & (growth > _GROWS)) | (
        at_low & ~chart.lower.isfinite() & (growth < -_GROWS)
    )
    free = ~ended
    scale = error[free].nan_to_num(1.0, 1.0, 1.0) * likelihood.rows**0.5
    values, vectors = torch.linalg.eigh(scale[:, None] * hessian[free][:, free] * scale)
    if not values.isfinite().all():
        return Certainty(covariance, ended, False)
    least = _FLAT * values.max() if len(values) else 0.0
    told = values > least
    # In coordinates in which the information is the identity on the directions that it tells.
    basis = scale[:, None] * vectors[:, told] * values[told].rsqrt()
    step = likelihood.rows * (slope[free] @ basis).square().sum()
    converged = bool(step < _STEP) and not growing.any() and not (values < -1e-6).any()
    if not converged:
        return Certainty(covariance, ended, False)
    inner = jacobian[free][:, free]
    spread = inner @ basis
    found = spread @ _middle(likelihood, inside, free, basis) @ spread.mT / likelihood.rows
    # A parameter that moves along a direction about which the data say nothing has no error.
    flat = (inner @ (scale[:, None] * vectors[:, ~told])).norm(dim=-1)
    lost = flat > 1e-3 * (inner * scale).norm(dim=-1)
    found[lost], found[:, lost] = torch.nan, torch.nan
    covariance[free[:, None] & free] = found.flatten()
    return Certainty(covariance, ended, True)


def _middle(likelihood: Likelihood, x: Tensor, free: Tensor, basis: Tensor) -> Tensor:
    """Covariance of the scores in a basis in which their information is the identity."""
    if not likelihood.data.ranked:
        return torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device)
    influence = _rank_influence(likelihood, x)[:, free] @ basis
    influence = influence - influence.mean(0)
    return influence.mT @ influence / likelihood.rows


@torch.no_grad()
def _rank_influence(likelihood: Likelihood, x: Tensor) -> Float[Tensor, "row parameter"]:
    r"""The influence of each row on the sum of scores, through itself and through the ranks.

    With l the log density, :math:`l_\theta(U_i) - \sum_j \frac{1}{n_j} \sum_{k: U_kj \ge U_ij}
    l_\theta(U_k)\, l_j(U_k)`: the mixed derivative of the definition is integrated by parts, as in
    Kojadinovic and Yan (2010), "Modeling multivariate distributions with continuous margins using
    the copula R package".
    """
    scores = likelihood.scores(x)
    slopes = likelihood.gradient_in_points(x)
    present, u = likelihood.present, likelihood.unit.log_u
    influence = scores.clone()
    for j in range(u.shape[1]):
        rows = torch.arange(len(u), device=u.device) if present is None else present[:, j].nonzero()
        rows = rows.flatten()
        column, order = u[rows, j].sort()
        product = (scores[rows] * slopes[rows, j, None])[order]
        above = product.flip(0).cumsum(0).flip(0)
        first = torch.searchsorted(column, u[rows, j].contiguous())
        through = -above[first] / len(rows)
        influence[rows] += through - through.mean(0)
    return influence


def _differences(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Central differences, one row for each entry of x."""
    step = 1e-5 * (1 + x.abs())
    return torch.stack(
        [(function(x + h) - function(x - h)) / (2 * h.sum()) for h in torch.diag(step)]
    )
