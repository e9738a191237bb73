"""Tolerances and statistical laws shared by all tests of the core.

Three named tolerances (float64 mathematics, quadrature, float32) and `monte_carlo`, four standard
errors from the size of a sample. Statistical checks pass above `P_VALUE`: seeds are fixed, and a
bug has to shift a statistic by orders, not by luck.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from torch import Tensor

EXACT = {"rtol": 1e-10, "atol": 1e-10}
ORACLE = {"rtol": 1e-8, "atol": 1e-8}
QUADRATURE = {"rtol": 1e-6, "atol": 1e-6}
FLOAT32 = {"rtol": 1e-3, "atol": 1e-3}
P_VALUE = 1e-4


def monte_carlo(n: int, deviation: float = 1.0) -> float:
    """Four standard errors of a mean of n draws of the given standard deviation."""
    return 4.0 * deviation / float(np.sqrt(n))


def assert_uniform(u: Tensor | np.ndarray, what: str) -> None:
    """Kolmogorov-Smirnov test of every column against the uniform law, Bonferroni-corrected."""
    columns = np.asarray(u, dtype=float).reshape(len(u), -1)
    for j, column in enumerate(columns.T):
        p = stats.kstest(column, "uniform").pvalue
        assert p * columns.shape[1] > P_VALUE, f"{what}, column {j}: KS p-value {p:.1e}"


def assert_same_law(a: Tensor | np.ndarray, b: Tensor | np.ndarray, what: str) -> None:
    """Two-sample Kolmogorov-Smirnov test of every column, Bonferroni-corrected."""
    left = np.asarray(a, dtype=float).reshape(len(a), -1)
    right = np.asarray(b, dtype=float).reshape(len(b), -1)
    for j, (x, y) in enumerate(zip(left.T, right.T, strict=True)):
        p = stats.ks_2samp(x, y).pvalue
        assert p * left.shape[1] > P_VALUE, f"{what}, column {j}: KS p-value {p:.1e}"


def ks_distance(u: Tensor | np.ndarray) -> float:
    """The largest distance over columns between empirical and uniform distribution functions."""
    columns = np.asarray(u, dtype=float).reshape(len(u), -1)
    return max(float(stats.kstest(column, "uniform").statistic) for column in columns.T)


def kendall(x: Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Empirical Kendall tau between columns and its standard error, (M, M) each.

    The error is the plug-in U-statistic one, 2 sd(projection) / sqrt(n), where the projection of
    row i is its average concordance with the others.
    """
    columns = np.asarray(x, dtype=float)
    n, dim = columns.shape
    signs = [np.sign(c[:, None] - c[None, :]).astype(np.int8) for c in columns.T]
    tau, error = np.eye(dim), np.zeros((dim, dim))
    for i in range(dim):
        for j in range(i):
            projection = (signs[i] * signs[j]).sum(1, dtype=float) / (n - 1)
            tau[i, j] = tau[j, i] = projection.mean()
            error[i, j] = error[j, i] = 2 * projection.std() / np.sqrt(n)
    return tau, error


def assert_kendall(x: Tensor | np.ndarray, expected: Tensor | np.ndarray, what: str) -> None:
    """Empirical Kendall tau within four standard errors of the expected matrix."""
    tau, error = kendall(x)
    gap = np.abs(tau - np.asarray(expected, dtype=float))
    assert (gap <= 4 * error + 1e-9).all(), f"{what}: {tau} but expected {expected}, +-{error}"


def gradients(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the sum of a function in each of its inputs (zeros where unused)."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    value = function(*leaves).sum()
    if not value.requires_grad:
        return tuple(torch.zeros_like(x) for x in leaves)
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return tuple(
        torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)
    )
