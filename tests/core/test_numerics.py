"""Elementary functions against mpmath, at both ends, in both precisions, with their gradients."""

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from cm2.core import numerics
from cm2.core.records import Unit
from laws import ORACLE, gradients

LOGS = (-300.0, -80.0, -40.0, -36.0, -20.0, -5.0, -1.0, -0.7, -0.6, -1e-3, -1e-8, -1e-14)
REALS = (-200.0, -60.0, -37.5, -36.5, -10.0, -1.0, 0.0, 1.0, 3.0)


def _exact(function: Callable[[mpmath.mpf], mpmath.mpf], x: float) -> tuple[float, float]:
    with mpmath.workdps(250):
        point = mpmath.mpf(x)
        return float(function(point)), float(mpmath.diff(function, point))


@pytest.mark.parametrize(
    ("function", "oracle", "at"),
    [
        (numerics.log1mexp, lambda x: mpmath.log(-mpmath.expm1(x)), LOGS),
        (numerics.log_cloglog, lambda v: mpmath.log(-mpmath.expm1(-mpmath.exp(v))), REALS),
        (
            numerics.log_neg_log1mexp,
            lambda w: mpmath.log(-mpmath.log(-mpmath.expm1(w))),
            LOGS,
        ),
    ],
    ids=["log1mexp", "log_cloglog", "log_neg_log1mexp"],
)
def test_value_and_gradient_equal_mpmath(
    function: Callable[[Tensor], Tensor],
    oracle: Callable[[mpmath.mpf], mpmath.mpf],
    at: tuple[float, ...],
) -> None:
    x = torch.tensor(at, dtype=torch.float64)
    expected = np.array([_exact(oracle, value) for value in at])
    np.testing.assert_allclose(function(x).numpy(), expected[:, 0], **ORACLE)
    (slope,) = gradients(function, x)
    np.testing.assert_allclose(slope.numpy(), expected[:, 1], rtol=1e-7, atol=1e-100)
    single = function(x.float())
    assert single.isfinite().all()
    known = np.array([_exact(oracle, float(value))[0] for value in x.float()])
    np.testing.assert_allclose(single.numpy(), known, rtol=1e-5, atol=1e-37)
    assert gradients(function, x.float())[0].isfinite().all()


def test_log_neg_log_from_both_logarithms() -> None:
    log_u = torch.tensor([-300.0, -3.0, -0.2, -1e-3, -1e-14, -1e-30], dtype=torch.float64)
    log_1mu = torch.tensor(
        [_exact(lambda x: mpmath.log(-mpmath.expm1(x)), float(x))[0] for x in log_u],
        dtype=torch.float64,
    )
    np.testing.assert_allclose(
        numerics.log_neg_log(log_u, log_1mu).numpy(), (-log_u).log().numpy(), **ORACLE
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_quantile_inverts_log_ndtr(dtype: torch.dtype) -> None:
    x = torch.cat(
        [
            torch.linspace(-40, 40, 401, dtype=torch.float64),
            torch.tensor([-1000.0, -200.0, 0.0, 1e-9, 200.0], dtype=torch.float64),
        ]
    )
    unit = Unit.from_normal(x).map(lambda part: part.to(dtype))
    found = numerics.normal_quantile(*unit)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    np.testing.assert_allclose(found.numpy(), x.numpy(), rtol=tolerance, atol=tolerance)


def test_normal_quantile_gradient() -> None:
    x = torch.tensor([-30.0, -8.0, -1.0, -1e-3, 1e-3, 2.0, 9.0], dtype=torch.float64)
    log_u, log_1mu = Unit.from_normal(x)

    def quantile(shift: Tensor) -> Tensor:
        return numerics.normal_quantile(*Unit.from_normal(x + shift))

    (slope,) = gradients(quantile, torch.zeros(7, dtype=torch.float64))
    np.testing.assert_allclose(slope.numpy(), 1.0, rtol=1e-6)
    for part in gradients(numerics.normal_quantile, log_u.float(), log_1mu.float()):
        assert part.isfinite().all()


def test_unit_keeps_both_ends() -> None:
    low = Unit.from_u(torch.tensor([0.0, 1e-30, 0.25, 1 - 1e-7, 1.0]))
    assert all(part.isfinite().all() for part in low)
    torch.testing.assert_close(low.u[2], torch.tensor(0.25))
    torch.testing.assert_close(low.flip().u[2], torch.tensor(0.75))
    high = Unit.from_log_u(torch.tensor([-1e-12]))
    assert math.isclose(float(high.log_1mu), math.log(1e-12), rel_tol=1e-6)
    normal = Unit.from_normal(torch.tensor([-9.0, 9.0], dtype=torch.float64))
    torch.testing.assert_close(normal.log_u.flip(0), normal.log_1mu)
