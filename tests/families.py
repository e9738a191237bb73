"""The table of copula cases: every registered family, weak to near-degenerate, at 2, 3 and 5.

A case knows how to build its copula and what the oracles say about it, so that every law of
`tests/copulas` runs on every registered family.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath
import numpy as np
import torch
from torch import Tensor

import oracles
from cm2 import copulas

DIMS = (2, 3, 5)


class Case(NamedTuple):
    """A family at one parameter and dimension, with its oracles."""

    family: str
    label: str
    dim: int
    arguments: dict[str, Any]
    log_density: Callable[[np.ndarray], np.ndarray]
    sample: Callable[[int, np.random.Generator], np.ndarray]
    conditional: Callable[[np.ndarray, np.ndarray], np.ndarray]
    tau: np.ndarray
    correlation: np.ndarray | None = None
    """Of an elliptical law, or one that is elliptical in another form."""

    def __call__(self, dtype: torch.dtype = torch.float64, **overrides: Any) -> Any:
        """Builds the copula of the code under test."""
        arguments = {
            name: value.to(dtype) if isinstance(value, Tensor) else value
            for name, value in (self.arguments | overrides).items()
        }
        return copulas.REGISTRY[self.family](self.dim, **arguments)

    @property
    def name(self) -> str:
        """The identifier shown by pytest."""
        return f"{self.family}-{self.label}-M{self.dim}"


def constant(tau: float, dim: int) -> np.ndarray:
    """A matrix of equal off-diagonal entries and a unit diagonal."""
    return np.full((dim, dim), tau) + (1 - tau) * np.eye(dim)


def solve(tau_of: Callable[[float], float], tau: float, low: float) -> float:
    """The parameter beyond ``low`` with this Kendall tau, by bisection."""
    start, end = 1e-6, 1e4
    for _ in range(80):
        middle = (start * end) ** 0.5
        start, end = (middle, end) if tau_of(low + middle) < tau else (start, middle)
    return low + start


def archimedean(
    family: str, parameter: str, theta: float, tau: float, label: str, dim: int
) -> Case:
    """A case of an exchangeable family with a generator."""
    return Case(
        family,
        label,
        dim,
        {parameter: torch.tensor(theta, dtype=torch.float64)},
        lambda u: np.array([oracles.archimedean_log_density(family, theta, row) for row in u]),
        lambda n, rng: oracles.archimedean_sample(family, theta, dim, n, rng),
        lambda v, given: oracles.archimedean_conditional(family, theta, v, given),
        constant(tau, dim),
    )


def elliptical(correlation: np.ndarray, label: str, df: float | None = None) -> Case:
    """A case of the Gaussian copula, or with degrees of freedom of the Student-t copula."""
    dim = len(correlation)

    def part(keep: list[int]) -> np.ndarray:
        return correlation[np.ix_(keep, keep)]

    def log_density(u: np.ndarray) -> np.ndarray:
        first = part(list(range(u.shape[1])))
        if df is None:
            return oracles.gaussian_log_density(first, np.asarray(u, dtype=float))
        return oracles.student_log_density(first, df, np.asarray(u, dtype=float))

    def sample(n: int, rng: np.random.Generator) -> np.ndarray:
        x = rng.standard_normal((n, dim)) @ np.linalg.cholesky(correlation).T
        if df is None:
            return oracles.special.ndtr(x)
        return oracles.special.stdtr(df, x / np.sqrt(rng.chisquare(df, (n, 1)) / df))

    def conditional(v: np.ndarray, given: np.ndarray) -> np.ndarray:
        matrix = part([*range(given.shape[1]), dim - 1])
        if df is None:
            return oracles.gaussian_conditional(matrix, v, given)
        return oracles.student_conditional(matrix, df, v, given)

    arguments: dict[str, Any] = {"correlation": torch.tensor(correlation)}
    if df is not None:
        arguments["df"] = torch.tensor(df, dtype=torch.float64)
    tau = 2 / np.pi * np.arcsin(correlation)
    family = "gaussian" if df is None else "student"
    return Case(family, label, dim, arguments, log_density, sample, conditional, tau, correlation)


def factor(loading: np.ndarray, label: str) -> Case:
    """A case of the factor copula: the Gaussian one of the correlations that its loadings mean."""
    matrix = factor_correlation(loading, 1)
    return elliptical(matrix, label)._replace(
        family="factor", arguments={"loading": torch.tensor(loading)}
    )


def factor_correlation(loading: np.ndarray, block: int) -> np.ndarray:
    """Correlations of normal scores that load on common factors, block by block."""
    dim, rank = loading.shape
    reach = np.concatenate(
        [
            part @ np.linalg.inv(np.linalg.cholesky(np.eye(rank) + part.T @ part).T)
            for part in loading.reshape(-1, block, rank)
        ]
    )
    number = np.arange(dim) // block
    return np.where(number[:, None] == number, np.eye(dim), reach @ reach.T)


def reflected(case: Case, family: str, flip: tuple[bool, ...]) -> Case:
    """A case whose coordinates of another one are reflected."""
    sign = np.where(flip, -1.0, 1.0)

    def turn(u: np.ndarray) -> np.ndarray:
        return np.where(flip[: u.shape[-1]], 1 - u, u)

    def log_density(u: np.ndarray) -> np.ndarray:
        exact = [[1 - mpmath.mpf(x) if f else x for x, f in zip(r, flip, strict=False)] for r in u]
        return case.log_density(exact)

    def conditional(v: np.ndarray, given: np.ndarray) -> np.ndarray:
        inside = case.conditional(1 - v if flip[-1] else v, turn(given))
        return 1 - inside if flip[-1] else inside

    return Case(
        family,
        case.label,
        case.dim,
        case.arguments,
        log_density,
        lambda n, rng: turn(case.sample(n, rng)),
        conditional,
        case.tau * np.outer(sign, sign),
    )


def dims(family: str) -> list[int]:
    """The dimensions of the table that the family can have."""
    most = copulas.REGISTRY[family].largest_dim
    return [dim for dim in DIMS if most is None or dim <= most]


def independence(dim: int) -> Case:
    """The baseline."""
    return Case(
        "independence",
        "none",
        dim,
        {},
        lambda u: np.zeros(len(u)),
        lambda n, rng: rng.random((n, dim)),
        lambda v, given: v,
        np.eye(dim),
    )


def irregular(dim: int, strength: float) -> np.ndarray:
    """A correlation matrix without symmetry between coordinates, of mixed signs."""
    factor = strength * np.array([1.0, -0.8, 0.6, 0.9, -0.5])[:dim]
    matrix = np.outer(factor, factor)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def _table() -> list[Case]:
    cases = []
    for dim in DIMS:
        cases.append(independence(dim))
        for label, tau in {"weak": 0.001, "mild": 0.3, "strong": 0.7, "extreme": 0.98}.items():
            cases.append(archimedean("gumbel", "alpha", 1 / (1 - tau), tau, label, dim))
            theta = solve(oracles.frank_tau, tau, 0.0)
            cases.append(archimedean("frank", "theta", theta, tau, label, dim))
            cases.append(archimedean("clayton", "theta", 2 * tau / (1 - tau), tau, label, dim))
            alpha = solve(oracles.joe_tau, tau, 1.0)
            cases.append(archimedean("joe", "alpha", alpha, tau, label, dim))
            rho = float(oracles.tau_to_rho(tau))
            cases.append(elliptical(constant(rho, dim), label))
            df = {"weak": 8.0, "mild": 2.5, "strong": 1.0, "extreme": 30.0}[label]
            cases.append(elliptical(constant(rho, dim), label, df))
            even = np.full((dim, 1), np.sqrt(rho / (1 - rho)))
            cases.append(factor(even, label))
        reach = 0.8 * np.array([1.0, -0.8, 0.6, 0.9, -0.5])[:dim, None]
        cases.append(factor(reach / np.sqrt(1 - reach**2), "irregular"))
        cases.append(factor(np.random.default_rng(dim).normal(size=(dim, 2)), "several"))
        cases.append(elliptical(irregular(dim, 0.8), "irregular"))
        cases.append(elliptical(irregular(dim, 0.8), "irregular", 4.0))
    for df in (None, 3.0):
        cases.append(elliptical(np.array([[1.0, -0.7], [-0.7, 1.0]]), "negative", df))
    cases.append(archimedean("frank", "theta", -6.0, -oracles.frank_tau(6.0), "negative", 2))
    for case in [
        c for c in cases if c.label == "mild" and c.family in ("gumbel", "clayton", "joe")
    ]:
        cases.append(reflected(case, f"survival-{case.family}", (True,) * case.dim))
        if case.dim == 2:
            cases.append(reflected(case, f"rotated90-{case.family}", (True, False)))
            cases.append(reflected(case, f"rotated270-{case.family}", (False, True)))
    return cases


CASES = _table()
ARCHIMEDEAN = {"gumbel": "alpha", "frank": "theta", "clayton": "theta", "joe": "alpha"}
GENERATED = [case for case in CASES if case.family in ARCHIMEDEAN]
MODERATE = [
    case for case in CASES if case.label in {"none", "mild", "irregular", "several", "negative"}
]


def names(cases: list[Case]) -> list[str]:
    """Identifiers for `pytest.mark.parametrize`."""
    return [case.name for case in cases]


def points(case: Case, n: int, seed: int = 0) -> np.ndarray:
    """Half uniform points and half draws of the case itself, where the density is large."""
    rng = np.random.default_rng(seed)
    drawn = np.clip(case.sample(n - n // 2, rng), 1e-12, 1 - 1e-12)
    return np.concatenate([rng.random((n // 2, case.dim)), drawn])
