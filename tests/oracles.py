"""Independent oracles: generators by sympy and mpmath, mixtures by scipy, samplers by numpy.

Nothing here imports cm2. Archimedean densities come from symbolic derivatives of the generator
evaluated with 400 digits (Nelsen 2006, table 4.1; Marshall and Olkin 1988 for the samplers).
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import mpmath
import numpy as np
import sympy
from scipy import integrate, special, stats

Array = np.ndarray
DIGITS = 400


# Archimedean families ---------------------------------------------------------------------------


@cache
def _derivative(family: str, order: int, modules: str) -> Any:
    """d^order psi / dt^order as a function of (t, theta)."""
    t, theta = sympy.symbols("t theta", positive=True)
    psi = {
        "gumbel": sympy.exp(-(t ** (1 / theta))),
        "frank": -sympy.log(1 - (1 - sympy.exp(-theta)) * sympy.exp(-t)) / theta,
        "clayton": (1 + theta * t) ** (-1 / theta),
        "joe": 1 - (1 - sympy.exp(-t)) ** (1 / theta),
    }[family]
    return sympy.lambdify((t, theta), sympy.diff(psi, t, order), modules=modules)


def inverse(family: str, u: Any, theta: Any, xp: Any = mpmath) -> Any:
    """The inverse generator psi^-1(u)."""
    if family == "gumbel":
        return (-xp.log(u)) ** theta
    if family == "clayton":
        return xp.expm1(-theta * xp.log(u)) / theta
    if family == "joe":
        return -xp.log1p(-((1 - u) ** theta))
    return -xp.log(xp.expm1(-theta * u) / xp.expm1(-theta))


def archimedean_generator(family: str, t: Any, theta: Any, xp: Any = np) -> Any:
    """The generator psi(t)."""
    if family == "gumbel":
        return xp.exp(-(t ** (1 / theta)))
    if family == "clayton":
        return (1 + theta * t) ** (-1 / theta)
    if family == "joe":
        return 1 - (-xp.expm1(-t)) ** (1 / theta)
    return -xp.log(xp.exp(-theta - t) - xp.expm1(-t)) / theta


def inverse_slope(family: str, u: Any, theta: Any) -> Any:
    """|d psi^-1(u) / du|."""
    if family == "gumbel":
        return theta * (-mpmath.log(u)) ** (theta - 1) / u
    if family == "clayton":
        return u ** (-theta - 1)
    if family == "joe":
        return theta * (1 - u) ** (theta - 1) / (1 - (1 - u) ** theta)
    return abs(theta * mpmath.exp(-theta * u) / mpmath.expm1(-theta * u))


def archimedean_log_density(family: str, theta: float, u: Sequence[Any]) -> float:
    """log |psi^(M)(sum psi^-1(u_i))| + sum log |(psi^-1)'(u_i)|, in 400 digits or more.

    Entries of u may be floats or mpmath numbers (for points closer to 1 than a double can tell).
    """
    return _archimedean_log_density(family, theta, tuple(u))


@cache  # the same points are asked for in both dtypes
def _archimedean_log_density(family: str, theta: float, u: tuple[Any, ...]) -> float:
    # Joe's needs 1 - exp(-t) where t is as small as (1 - u)^theta.
    depth = max(-float(mpmath.log10(1 - mpmath.mpf(x))) for x in u) if family == "joe" else 0.0
    with mpmath.workdps(DIGITS + int(1.1 * depth * theta)):
        theta = mpmath.mpf(theta)
        points = [mpmath.mpf(x) for x in u]
        t = mpmath.fsum(inverse(family, x, theta) for x in points)
        value = abs(_derivative(family, len(points), "mpmath")(t, theta))
        for x in points:
            value *= inverse_slope(family, x, theta)
        return float(mpmath.log(value))


def archimedean_cdf(family: str, theta: float, u: Sequence[float]) -> float:
    """psi(sum psi^-1(u_i)), in 400 digits."""
    with mpmath.workdps(DIGITS):
        theta = mpmath.mpf(theta)
        t = mpmath.fsum(inverse(family, mpmath.mpf(x), theta) for x in u)
        return float(_derivative(family, 0, "mpmath")(t, theta))


def archimedean_conditional(family: str, theta: float, v: Array, given: Array) -> Array:
    """C(v | given) = psi^(k)(t + psi^-1(v)) / psi^(k)(t) for given (n, k), in doubles."""
    if theta < 0:
        return 1 - archimedean_conditional(family, -theta, 1 - v, given)
    t = inverse(family, given, theta, np).sum(-1)
    derivative = _derivative(family, given.shape[-1], "numpy")
    return derivative(t + inverse(family, v, theta, np), theta) / derivative(t, theta)


def frank_tau(theta: float) -> float:
    """1 - 4 (1 - D1(theta)) / theta with the first Debye function by quadrature."""
    debye = integrate.quad(lambda x: x / np.expm1(x), 0.0, theta, epsabs=0, epsrel=1e-12)[0] / theta
    return 1 - 4 * (1 - debye) / theta


def joe_tau(alpha: float) -> float:
    """The closed form of the series 1 - 4 sum 1 / (k (alpha k + 2) (alpha (k - 1) + 2))."""
    return 1 + 2 / (2 - alpha) * (special.digamma(2) - special.digamma(2 / alpha + 1))


def archimedean_sample(
    family: str, theta: float, dim: int, n: int, rng: np.random.Generator
) -> Array:
    """Marshall and Olkin: psi(E_i / V) with the frailty V of the family.

    Kanter (1975) for the stable law (Gumbel), Kemp (1981) for the logarithmic series (Frank), a
    gamma law (Clayton), a geometric law whose probability is beta (Sibuya, Joe). A negative
    parameter of Frank is the positive one with the second coordinate reflected.
    """
    if theta < 0:
        return np.abs(np.array([0.0, 1.0]) - archimedean_sample(family, -theta, dim, n, rng))
    if family == "gumbel":
        a = 1 / theta
        angle, unit = rng.uniform(0, np.pi, n), rng.exponential(size=n)
        stable = np.sin(a * angle) / np.sin(angle) ** (1 / a)
        stable *= (np.sin((1 - a) * angle) / unit) ** ((1 - a) / a)
        t = rng.exponential(size=(n, dim)) / stable[:, None]
        return np.exp(-(t**a))
    if family == "clayton":
        # a gamma variable of shape a is one of shape a + 1 times a power of a uniform one
        log_v = np.log(theta * rng.gamma(1 / theta + 1, size=n)) + theta * np.log(rng.random(n))
        log_t = np.log(rng.exponential(size=(n, dim))) - log_v[:, None]
        return np.exp(-np.logaddexp(0.0, np.log(theta) + log_t) / theta)
    if family == "joe":
        a = 1 / theta
        parts = [np.log(rng.gamma(b + 1, size=n)) + np.log(rng.random(n)) / b for b in (a, 1 - a)]
        log_p = parts[0] - np.logaddexp(*parts)
        exponential = rng.exponential(size=n)
        rate = -np.log1p(-np.exp(np.minimum(log_p, -1e-15)))
        log_v = np.log(exponential) - log_p
        log_v = np.where(log_p < -30, log_v, np.log(np.floor(exponential / rate) + 1))
        t = np.exp(np.log(rng.exponential(size=(n, dim))) - log_v[:, None])
        return -np.expm1(a * np.log(-np.expm1(-t)))
    log_q = np.log1p(-np.exp(-theta * rng.random(n)))
    frailty = 1 + np.floor(np.log(rng.random(n)) / log_q)
    t = rng.exponential(size=(n, dim)) / frailty[:, None]
    return -np.log(np.exp(-theta - t) - np.expm1(-t)) / theta


# Gaussian copula --------------------------------------------------------------------------------


def gaussian_log_density(correlation: Array, u: Array) -> Array:
    """scipy: multivariate over product of univariate normal densities."""
    x = special.ndtri(u)
    dim = correlation.shape[0]
    return stats.multivariate_normal(np.zeros(dim), correlation).logpdf(x) - stats.norm.logpdf(
        x
    ).sum(-1)


def gaussian_conditional(correlation: Array, v: Array, given: Array) -> Array:
    """P(U_last <= v | the others)."""
    x, y = special.ndtri(given), special.ndtri(v)
    a = np.linalg.solve(correlation[:-1, :-1], correlation[:-1, -1])
    return special.ndtr((y - x @ a) / np.sqrt(1 - correlation[-1, :-1] @ a))


def student_log_density(correlation: Array, df: float, u: Array) -> Array:
    """scipy: multivariate over product of univariate t densities."""
    x = stats.t.ppf(u, df)
    joint = stats.multivariate_t(np.zeros(len(correlation)), correlation, df).logpdf(x)
    return joint - stats.t.logpdf(x, df).sum(-1)


def student_conditional(correlation: Array, df: float, v: Array, given: Array) -> Array:
    """P(U_last <= v | the others): a t law with as many degrees of freedom more as are given."""
    x, y = stats.t.ppf(given, df), stats.t.ppf(v, df)
    a = np.linalg.solve(correlation[:-1, :-1], correlation[:-1, -1])
    inside = (x * np.linalg.solve(correlation[:-1, :-1], x.T).T).sum(-1)
    more = df + x.shape[-1]
    scale = np.sqrt((1 - correlation[-1, :-1] @ a) * (df + inside) / more)
    return stats.t.cdf((y - x @ a) / scale, more)


# Gaussian mixtures ------------------------------------------------------------------------------


def mixture_log_density(weight: Array, loc: Array, scale: Array, z: Array) -> Array:
    """log sum_k w_k prod_j N(z_j; loc_kj, scale_kj^2) for loc (K, d) and z (n, d)."""
    parts = stats.norm.logpdf(z[:, None, :], loc, scale).sum(-1)
    return special.logsumexp(parts, b=weight, axis=-1)


def mixture_rosenblatt(weight: Array, loc: Array, scale: Array, z: Array) -> Array:
    """Conditional distribution functions, coordinate by coordinate."""
    log_weight = np.broadcast_to(np.log(weight), (len(z), len(weight)))
    columns = []
    for j in range(z.shape[1]):
        w = special.softmax(log_weight, axis=-1)
        columns.append((w * special.ndtr((z[:, j : j + 1] - loc[:, j]) / scale[:, j])).sum(-1))
        log_weight = log_weight + stats.norm.logpdf(z[:, j : j + 1], loc[:, j], scale[:, j])
    return np.stack(columns, -1)


def mixture_inverse(weight: Array, loc: Array, scale: Array, u: Array) -> Array:
    """Inverse Rosenblatt transform by bisection, to about 1e-13 of the range."""
    log_weight = np.broadcast_to(np.log(weight), (len(u), len(weight)))
    columns = []
    for j in range(u.shape[1]):
        w = special.softmax(log_weight, axis=-1)
        low = np.full(len(u), (loc[:, j] - 12 * scale[:, j]).min())
        high = np.full(len(u), (loc[:, j] + 12 * scale[:, j]).max())
        for _ in range(48):
            middle = (low + high) / 2
            below = (w * special.ndtr((middle[:, None] - loc[:, j]) / scale[:, j])).sum(-1) < u[
                :, j
            ]
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        z = (low + high) / 2
        columns.append(z)
        log_weight = log_weight + stats.norm.logpdf(z[:, None], loc[:, j], scale[:, j])
    return np.stack(columns, -1)


# Joints -----------------------------------------------------------------------------------------


def tau_to_rho(tau: Any) -> Any:
    """The correlation of a Gaussian copula with the given Kendall tau."""
    return np.sin(np.pi * np.asarray(tau) / 2)


def simulate_joint(
    weight: Array,
    loc: Array,
    scale: Array,
    correlation: Array,
    n: int,
    rng: np.random.Generator,
    present: Array | None = None,
) -> Array:
    """Draws (n, M, d) with mixture margins (M, K[, d]) and a Gaussian copula in each coordinate.

    Absent entries are left at zero, and their quantiles are not computed.
    """
    modalities, _, dim = loc.shape
    root = np.linalg.cholesky(correlation)
    u = special.ndtr(np.einsum("ij,njd->nid", root, rng.standard_normal((n, modalities, dim))))
    z = np.zeros((n, modalities, dim))
    for m in range(modalities):
        rows = slice(None) if present is None else present[:, m]
        z[rows, m] = mixture_inverse(weight[m], loc[m], scale[m], u[rows, m])
    return z


def drop(n: int, modalities: int, rate: float, rng: np.random.Generator) -> Array:
    """Presence with each modality dropped at the given rate; redrawn until one stays."""
    present = rng.random((n, modalities)) >= rate
    while (empty := ~present.any(1)).any():
        present[empty] = rng.random((int(empty.sum()), modalities)) >= rate
    return present
