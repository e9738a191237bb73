"""Maximum likelihood for one family, with missing entries and standard errors.

The likelihood of a row is that of the copula's margin on the entries it has, so that rows missing
at random bias nothing (Rubin 1976). Standard errors come from the observed information (Efron and
Hinkley 1978), or if ``u`` are ranks from the sandwich of Genest, Ghoudi and Rivest (1995).
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cm2.copulas.base import REGISTRY, Copula
from cm2.copulas.charts import Chart, Declared, Exchangeable
from cm2.copulas.observations import Data, check_pairs, mean_tau, read
from cm2.copulas.uncertainty import AT_END, Likelihood, certainty

_STEPS = 500
_BAD = 1e10
# Where the search starts at the weakest and at the strongest dependence.
_WEAKEST, _STRONGEST = 0.02, 0.95
# Unconstrained numbers near the end of a range: little dependence, and where a parameter that is
# at the end stands.
_WEAK, _LOG_END = -4.0, -18.0


@dataclass(frozen=True)
class Fit:
    """A copula fitted by maximum likelihood.

    Attributes:
        copula: The fitted copula, in float64.
        family: What was fitted.
        parameters: Estimates by name.
        standard_errors: Their standard errors; NaN at a boundary, and where the data do not
            determine a parameter or no maximum was found.
        covariance: Covariance of the estimates in the order of their names; NaN as their errors.
        boundary: Names of parameters whose likelihood still grows at the end of their range:
            independence, a limit of the family, or an end that the data cannot tell from it. An
            entry of a correlation matrix stands for the one given the columns before it.
        log_likelihood: The largest log likelihood.
        observations: Rows with at least two entries.
        converged: Whether it is a maximum; False where the likelihood grows without bound.
    """

    copula: Copula
    family: str
    parameters: dict[str, float]
    standard_errors: dict[str, float]
    covariance: Float[Tensor, "parameter parameter"]
    boundary: tuple[str, ...]
    log_likelihood: float
    observations: int
    converged: bool

    @property
    def degrees_of_freedom(self) -> int:
        """Number of parameters, less those that change nothing."""
        return len(self.parameters) - self.copula.redundant

    @property
    def aic(self) -> float:
        """Akaike's criterion, smaller is better."""
        return 2 * self.degrees_of_freedom - 2 * self.log_likelihood

    @property
    def bic(self) -> float:
        """Schwarz's criterion, smaller is better."""
        return math.log(self.observations) * self.degrees_of_freedom - 2 * self.log_likelihood

    def __repr__(self) -> str:
        head = (
            f"{self.family}, {self.copula.dim} coordinates, {self.observations} rows: "
            f"log likelihood {self.log_likelihood:.2f}, AIC {self.aic:.2f}, BIC {self.bic:.2f}"
        )
        width = max((len(name) for name in self.parameters), default=0)
        lines = [head]
        for name, value in self.parameters.items():
            error = self.standard_errors[name]
            end = "not determined" if math.isnan(error) else f"+- {error:.4g}"
            end = "at the boundary" if name in self.boundary else end
            lines.append(f"  {name:<{width}}  {value:>9.4f}  {end}")
        if not self.converged:
            lines.append("  no maximum was found; the likelihood may have none")
        return "\n".join(lines)


def fit(u: Any, family: str | type[Copula] | Copula, *, exchangeable: bool = False) -> Fit:
    """Fits a family of copulas by maximum likelihood.

    Args:
        u: Data in (0, 1) of shape ``(row, dim)``, NaN where missing: a tensor, or anything that
            numpy reads as an array. :func:`pseudo_observations` makes them from any data; standard
            errors then account for the margins' being unknown.
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


def fit_prepared(
    data: Data, family: str | type[Copula] | Copula, *, exchangeable: bool = False
) -> Fit:
    """:func:`fit` on data that :func:`read` has checked.

    Raises:
        ValueError: If the family is unknown or the data cannot determine its parameters.
    """
    copulas, name = _starts(family, data.tau)
    elliptical = "scale_tril" in copulas[0].parameters
    if exchangeable and not elliptical:
        raise ValueError(f"{name} has no correlation matrix: exchangeable has no meaning for it")
    if elliptical and not exchangeable:
        check_pairs(data, name)
    charts: list[Chart] = [Exchangeable(c) if exchangeable else Declared(c) for c in copulas]
    starts = [chart.start for chart in charts]
    starts.append(torch.where(charts[0].lower.isfinite(), _WEAK, starts[0]))
    likelihood = Likelihood(charts[0], data)
    return _report(likelihood, _best(likelihood, starts), name)


def _starts(family: str | type[Copula] | Copula, tau: Tensor) -> tuple[list[Copula], str]:
    """Members of the family to start from, the most promising first, and its name."""
    dim = len(tau)
    if isinstance(family, Copula):
        if family.dim != dim or family.batch_shape:
            raise ValueError(
                f"{type(family).__name__} must have {dim} coordinates and no batch to be fitted "
                f"to u, got {family.dim} and batch shape {tuple(family.batch_shape)}"
            )
        return [family.expand(())], type(family).__name__
    cls = REGISTRY[family] if isinstance(family, str) else family
    name = family if isinstance(family, str) else cls.__name__
    arguments = _double(cls.start(dim))
    if "scale_tril" in arguments:
        near = arguments | {"scale_tril": _factor(tau)}
        return [cls(dim, **near), cls(dim, **arguments)], name
    if not arguments or "batch_shape" in arguments:
        return [cls(dim)], name
    parameters = cls(dim, **arguments).near(_correlation(tau))
    if parameters:
        return [cls(dim, **(arguments | parameters))], name
    mean = mean_tau(tau)
    strong = math.copysign(min(max(abs(mean), _WEAKEST), _STRONGEST), mean)
    copulas = []
    for value in (strong, _WEAKEST, -_WEAKEST):
        # A value of the wrong sign for the family says nothing; others are there for it.
        with suppress(ValueError):
            copulas.append(cls.from_kendall_tau(torch.tensor(value).double(), dim))
    return copulas or [cls(dim, **arguments)], name


def _double(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.double() if isinstance(value, Tensor) else value
        for key, value in arguments.items()
    }


def _factor(tau: Tensor) -> Tensor:
    """Cholesky factor of the nearest easy correlation matrix with these Kendall's taus."""
    return torch.linalg.cholesky(_correlation(tau))


def _correlation(tau: Tensor) -> Tensor:
    """The nearest easy correlation matrix with these Kendall's taus."""
    rho = torch.sin(tau.nan_to_num() * math.pi / 2).clamp(-0.99, 0.99)
    values, vectors = torch.linalg.eigh(rho - torch.diag(rho.diagonal()) + _eye(rho))
    matrix = (vectors * values.clamp_min(0.01)) @ vectors.mT
    scale = matrix.diagonal().rsqrt()
    return scale[:, None] * matrix * scale


def _eye(like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device)


def _off_the_end(likelihood: Likelihood, x: Tensor) -> Tensor:
    """The start, or the end of the range where the likelihood falls from it.

    For a single parameter with an end, that at which the family is independence, say.
    """
    chart = likelihood.chart
    if len(x) != 1 or not chart.lower.isfinite().all():
        return x
    end = torch.full_like(x, _LOG_END)
    near = chart.natural(x) - chart.lower < 0.3
    if near.item() and likelihood.gradient(end)[1].item() > 0:
        return end
    return x


def _best(likelihood: Likelihood, starts: list[Tensor]) -> Tensor:
    """The maximum from the first start, or of all where that is worse than independence.

    Very strong dependence makes cliffs at which a search stops.
    """
    found = []
    for start in starts:
        x = _maximise(likelihood, _off_the_end(likelihood, start))
        value = float(likelihood(x)) if len(x) else 0.0
        found.append((value if math.isfinite(value) else math.inf, x))
        if value <= 0:
            break
    value, x = min(found, key=lambda pair: pair[0])
    lower = likelihood.chart.lower
    if value > 0 and len(x) == 1 and lower.isfinite().all():
        return torch.full_like(x, _LOG_END)
    return x


def _maximise(likelihood: Likelihood, x: Tensor) -> Tensor:
    """Quasi-Newton steps with a line search."""
    if not len(x) or (likelihood.chart.natural(x) - likelihood.chart.lower < AT_END).all():
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


def _report(likelihood: Likelihood, x: Tensor, name: str) -> Fit:
    chart = likelihood.chart
    natural, jacobian = _jacobian(chart, x)
    known = certainty(likelihood, x, natural, jacobian)
    errors = known.covariance.diagonal().sqrt()
    with torch.no_grad():
        total = -likelihood.rows * float(likelihood(x)) if len(x) else 0.0
        copula = chart.copula(x)
    return Fit(
        copula=copula,
        family=name,
        parameters=dict(zip(chart.names, natural.tolist(), strict=True)),
        standard_errors=dict(zip(chart.names, errors.tolist(), strict=True)),
        covariance=known.covariance,
        boundary=tuple(n for n, end in zip(chart.names, known.ended.tolist(), strict=True) if end),
        log_likelihood=total,
        observations=likelihood.data.observations,
        converged=known.converged,
    )


def _jacobian(chart: Chart, x: Tensor) -> tuple[Tensor, Tensor]:
    """Natural parameters, and their derivatives in the unconstrained ones."""
    if not len(x):
        return x, x.new_zeros(0, 0)
    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(chart.natural, x)
    return chart.natural(x), jacobian
