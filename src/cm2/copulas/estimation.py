"""Maximum likelihood for one family, with missing entries and standard errors.

The likelihood of a row is that of the copula's margin on the entries it has, so that rows missing
at random bias nothing (Rubin 1976). Standard errors come from the observed information (Efron and
Hinkley 1978) and treat ``u`` as known: with ranks in place of known margins they are too small or
too large by a factor that depends on the family (Genest, Ghoudi and Rivest 1995).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cm2.copulas.base import REGISTRY, Copula
from cm2.copulas.charts import Chart, Declared, Exchangeable
from cm2.copulas.ranks import as_rows, kendall_matrix
from cm2.records import Unit

_STEPS = 200
_BAD = 1e10
# Where the search starts at the weakest and at the strongest dependence.
_WEAKEST, _STRONGEST = 0.02, 0.95
# As near to the end of its range a parameter counts as being there, and stands where it does then.
_AT_END = 1e-4
_LOG_END = math.log(1e-6)
# An unconstrained parameter with a standard error above this is not determined by the data: a
# logarithm that may be wrong by a factor of 50.
_UNDETERMINED = 4.0


@dataclass(frozen=True)
class Fit:
    """A copula fitted by maximum likelihood.

    Attributes:
        copula: The fitted copula, in float64.
        family: What was fitted.
        parameters: Estimates by name.
        standard_errors: Their standard errors; NaN at a boundary.
        covariance: Covariance of the estimates in the order of their names; NaN at a boundary.
        boundary: Names of parameters whose likelihood still grows at the end of their range:
            independence, a limit of the family, or an end that the data cannot tell from it.
        log_likelihood: The largest log likelihood.
        observations: Rows with at least two entries.
    """

    copula: Copula
    family: str
    parameters: dict[str, float]
    standard_errors: dict[str, float]
    covariance: Float[Tensor, "parameter parameter"]
    boundary: tuple[str, ...]
    log_likelihood: float
    observations: int

    @property
    def aic(self) -> float:
        """Akaike's criterion, smaller is better."""
        return 2 * len(self.parameters) - 2 * self.log_likelihood

    @property
    def bic(self) -> float:
        """Schwarz's criterion, smaller is better."""
        return math.log(self.observations) * len(self.parameters) - 2 * self.log_likelihood

    def __repr__(self) -> str:
        head = (
            f"{self.family}, {self.copula.dim} coordinates, {self.observations} rows: "
            f"log likelihood {self.log_likelihood:.2f}, AIC {self.aic:.2f}, BIC {self.bic:.2f}"
        )
        width = max((len(name) for name in self.parameters), default=0)
        lines = [head]
        for name, value in self.parameters.items():
            error = self.standard_errors[name]
            end = "at the boundary" if name in self.boundary else f"+- {error:.4g}"
            lines.append(f"  {name:<{width}}  {value:>9.4f}  {end}")
        return "\n".join(lines)


def fit(u: Any, family: str | type[Copula] | Copula, *, exchangeable: bool = False) -> Fit:
    """Fits a family of copulas by maximum likelihood.

    Args:
        u: Data in (0, 1) of shape ``(row, dim)``, NaN where missing: a tensor, or anything that
            numpy reads as an array. :func:`pseudo_observations` makes them from any data.
        family: A registered name, a class, or a copula from whose parameters to start (a mixture,
            say).
        exchangeable: Whether an elliptical family has one correlation for every two coordinates.

    Returns:
        The fitted copula with estimates, standard errors and criteria.

    Raises:
        ValueError: If the family is unknown or ``u`` cannot determine its parameters.

    Example:
        >>> from cm2 import copulas
        >>> _ = torch.manual_seed(0)
        >>> u = copulas.Gumbel(dim=2, alpha=torch.tensor(2.0).double()).sample((1000,))
        >>> copulas.fit(u, "gumbel")
        gumbel, 2 coordinates, 1000 rows: log likelihood ..., AIC ..., BIC ...
          alpha     ...  +- ...
    """
    return fit_prepared(read(u), family, exchangeable=exchangeable)


class Data(NamedTuple):
    """The rows that say something about dependence.

    Attributes:
        unit: Points, 1/2 where nothing is present.
        present: What they have; ``None`` if that is everything.
        tau: Kendall's tau of every two columns; NaN where no row has both.
    """

    unit: Unit
    present: Bool[Tensor, "row dim"] | None
    tau: Float[Tensor, "dim dim"]


def read(u: Any) -> Data:
    """Checks data and keeps the rows with at least two entries.

    Raises:
        ValueError: Naming what is wrong with ``u``.
    """
    rows = as_rows(u, "u")
    present = ~rows.isnan()
    wrong = present & ~((rows > 0) & (rows < 1))
    if wrong.any():
        where = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(
            f"u must lie inside (0, 1), or be NaN where missing; {int(wrong.sum())} entries do "
            f"not, the first at {where}. pseudo_observations maps any data inside"
        )
    useful = present.sum(-1) >= 2
    rows, present = rows[useful], present[useful]
    if len(rows) < 2:
        raise ValueError(
            f"u has {len(rows)} rows with two entries or more (of {len(useful)}); "
            "dependence needs at least 2"
        )
    tau = kendall_matrix(rows)
    together = present.double().mT @ present.double()
    for i, j in zip(*torch.tril_indices(len(tau), len(tau), -1).tolist(), strict=True):
        if len(rows) > 2 and tau[i, j].abs() == 1 and _monotone(rows[:, [j, i]]):
            raise ValueError(
                f"columns {j} and {i} of u determine each other (Kendall's tau "
                f"{tau[i, j]:.0f}); the likelihood has no maximum"
            )
    tau = torch.where(together > 0, tau, torch.nan)
    everything = bool(present.all())
    unit = Unit.from_u(torch.where(present, rows, 0.5))
    return Data(unit, None if everything else present, tau)


def _monotone(pair: Float[Tensor, "row 2"]) -> bool:
    """Whether one column is a monotone function of the other."""
    pair = pair[~pair.isnan().any(-1)]
    steps = pair[pair[:, 0].argsort(), 1].diff()
    return bool((steps >= 0).all() or (steps <= 0).all())


def fit_prepared(
    data: Data, family: str | type[Copula] | Copula, *, exchangeable: bool = False
) -> Fit:
    """:func:`fit` on data that :func:`read` has checked.

    Raises:
        ValueError: If the family is unknown or the data cannot determine its parameters.
    """
    unit, present, tau = data
    copula, name = _start(family, tau)
    if exchangeable and "scale_tril" not in copula.parameters:
        raise ValueError(f"{name} has no correlation matrix: exchangeable has no meaning for it")
    chart = Exchangeable(copula) if exchangeable else Declared(copula)
    apart = tau.isnan().triu(1)
    if not exchangeable and "scale_tril" in copula.parameters and apart.any():
        i, j = apart.nonzero()[0].tolist()
        raise ValueError(
            f"columns {i} and {j} of u have no row in common: {name} cannot know their "
            "correlation (exchangeable=True can)"
        )
    unit = Unit(*(part.to(chart.start.device) for part in unit))
    likelihood = _Likelihood(chart, unit, present)
    x = _maximise(likelihood, _off_the_end(likelihood, chart))
    return _report(likelihood, chart, x, name)


def _start(family: str | type[Copula] | Copula, tau: Tensor) -> tuple[Copula, str]:
    """The member of the family to start from, and its name."""
    dim = len(tau)
    if isinstance(family, Copula):
        if family.dim != dim or family.batch_shape:
            raise ValueError(
                f"{type(family).__name__} must have {dim} coordinates and no batch to be fitted "
                f"to u, got {family.dim} and batch shape {tuple(family.batch_shape)}"
            )
        return family.expand(()), type(family).__name__
    cls = REGISTRY[family] if isinstance(family, str) else family
    name = family if isinstance(family, str) else cls.__name__
    arguments = cls.start(dim)
    if "scale_tril" in arguments:
        arguments["scale_tril"] = _factor(tau)
        return cls(dim, **_double(arguments)), name
    if not arguments or "batch_shape" in arguments:
        return cls(dim), name
    mean = mean_tau(tau)
    size = max(abs(mean), _WEAKEST)
    for value in (math.copysign(size, mean), _WEAKEST, -_WEAKEST):
        try:
            return cls.from_kendall_tau(torch.tensor(min(value, _STRONGEST)).double(), dim), name
        except ValueError:
            continue
    return cls(dim, **_double(arguments)), name


def _double(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.double() if isinstance(value, Tensor) else value
        for key, value in arguments.items()
    }


def mean_tau(tau: Float[Tensor, "dim dim"]) -> float:
    """The mean over the pairs that have one."""
    off = tau[~torch.eye(len(tau), dtype=torch.bool, device=tau.device)]
    return float(off.nanmean())


def _factor(tau: Tensor) -> Tensor:
    """Cholesky factor of the nearest easy correlation matrix with these Kendall's taus."""
    rho = torch.sin(tau.nan_to_num() * math.pi / 2).clamp(-0.99, 0.99)
    values, vectors = torch.linalg.eigh(rho - torch.diag(rho.diagonal()) + _eye(rho))
    matrix = (vectors * values.clamp_min(0.01)) @ vectors.mT
    scale = matrix.diagonal().rsqrt()
    return torch.linalg.cholesky(scale[:, None] * matrix * scale)


def _eye(like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device)


class _Likelihood:
    """Mean negative log likelihood in unconstrained parameters."""

    def __init__(self, chart: Chart, unit: Unit, present: Tensor | None) -> None:
        self.chart, self.unit, self.present = chart, unit, present
        self.rows = len(unit.log_u)

    def __call__(self, x: Tensor) -> Tensor:
        value: Tensor = -self.chart.copula(x)._log_prob(self.unit, self.present).mean()
        return value

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Value and gradient."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = self(x)
            (slope,) = torch.autograd.grad(value, x)
        return value.detach(), slope

    def hessian(self, x: Tensor) -> Tensor:
        """Central differences of the exact gradient.

        A second backward pass would need every formula to be twice differentiable by autograd; some
        have hand-written gradients.
        """
        step = 1e-5 * (1 + x.abs())
        columns = [
            (self.gradient(x + h)[1] - self.gradient(x - h)[1]) / (2 * h.sum())
            for h in torch.diag(step)
        ]
        hessian = torch.stack(columns)
        return (hessian + hessian.mT) / 2


def _off_the_end(likelihood: _Likelihood, chart: Chart) -> Tensor:
    """The start, or the end of the range where the likelihood falls from it.

    For a single parameter with an end, that at which the family is independence, say.
    """
    x = chart.start
    if len(x) != 1 or not chart.lower.isfinite().all():
        return x
    end = torch.full_like(x, _LOG_END)
    near = chart.natural(x) - chart.lower < 0.3
    if near.item() and likelihood.gradient(end)[1].item() > 0:
        return end
    return x


def _maximise(likelihood: _Likelihood, x: Tensor) -> Tensor:
    """Quasi-Newton steps with a line search."""
    if not len(x) or (likelihood.chart.natural(x) - likelihood.chart.lower < _AT_END).all():
        return x
    # Here, so that importing cm2 stays light; torch's own needs seconds to start, for its compiler.
    from scipy.optimize import minimize

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = likelihood.gradient(torch.from_numpy(point).to(x))
        # A trial step too far along a line counts as bad, whatever came out.
        good = value.isfinite() & slope.isfinite().all()
        if not good:
            return _BAD, np.zeros_like(point)
        return float(value), slope.cpu().numpy()

    found = minimize(
        objective,
        x.cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _STEPS, "ftol": 1e-11, "gtol": 1e-7},
    )
    return torch.from_numpy(found.x).to(x)


def _report(likelihood: _Likelihood, chart: Chart, x: Tensor, name: str) -> Fit:
    natural, jacobian = _jacobian(chart, x)
    covariance, ended = _covariance(likelihood, chart, x, natural, jacobian)
    errors = covariance.diagonal().sqrt()
    with torch.no_grad():
        total = -likelihood.rows * float(likelihood(x)) if len(x) else 0.0
        copula = chart.copula(x)
    return Fit(
        copula=copula,
        family=name,
        parameters=dict(zip(chart.names, natural.tolist(), strict=True)),
        standard_errors=dict(zip(chart.names, errors.tolist(), strict=True)),
        covariance=covariance,
        boundary=tuple(n for n, end in zip(chart.names, ended.tolist(), strict=True) if end),
        log_likelihood=total,
        observations=likelihood.rows,
    )


def _jacobian(chart: Chart, x: Tensor) -> tuple[Tensor, Tensor]:
    """Natural parameters, and their derivatives in the unconstrained ones."""
    if not len(x):
        return x, x.new_zeros(0, 0)
    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(chart.natural, x)
    return chart.natural(x), jacobian


def _covariance(
    likelihood: _Likelihood, chart: Chart, x: Tensor, natural: Tensor, jacobian: Tensor
) -> tuple[Tensor, Tensor]:
    """Covariance of the natural parameters, and which of them are at a boundary.

    Those are held fixed for the covariance of the others. The charts map the parameters with a
    range of their own one by one, so that the same positions are meant on both sides.
    """
    covariance = torch.full_like(jacobian, torch.nan)
    ended = natural - chart.lower < _AT_END
    if not len(x):
        return covariance, ended
    information = likelihood.rows * likelihood.hessian(x)
    error = information.diagonal().clamp_min(0.0).rsqrt()
    alone = chart.lower.isfinite()
    ended = ended | (alone & (error > _UNDETERMINED) & (natural - chart.lower > 1))
    free = ~ended
    inverse = torch.linalg.pinv(information[free][:, free], hermitian=True)
    inner = jacobian[free][:, free]
    covariance[free[:, None] & free] = (inner @ inverse @ inner.mT).flatten()
    return covariance, ended
