"""Float32 at the ends of the interval and of the parameter range: finite, and equal to float64."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

import oracles
from cm2 import copulas
from cm2.copulas import Gaussian
from cm2.core.records import Unit
from families import CASES, GENERATED, Case, names
from laws import FLOAT32, gradients, ks_distance

ENDS = (1e-30, 1e-12, 1e-4, 0.3, 0.5, 0.9, 1 - 1e-3, 1 - 1e-7)
every_case = pytest.mark.parametrize("case", CASES, ids=names(CASES))


def corners(dim: int) -> Tensor:
    """Corners, faces and edges of the cube in float32: all tuples, or a sample of them."""
    tuples = list(itertools.product(ENDS, repeat=dim))
    if len(tuples) > 600:
        chosen = np.random.default_rng(0).choice(len(tuples), 592, replace=False)
        tuples = [tuples[i] for i in chosen] + [(end,) * dim for end in ENDS]
    return torch.tensor(tuples, dtype=torch.float32)


def value_and_gradients(case: Case, dtype: torch.dtype, u: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Log densities, and gradients in the value and in each parameter."""
    keys = list(case.arguments)

    def log_prob(u: Tensor, *arguments: Tensor) -> Tensor:
        return case(dtype, **dict(zip(keys, arguments, strict=True))).log_prob(u)

    arguments = [value.to(dtype) for value in case.arguments.values()]
    return log_prob(u, *arguments), list(gradients(log_prob, u, *arguments))


@every_case
def test_float32_is_finite_with_finite_gradients(case: Case) -> None:
    u = corners(case.dim)
    value, slopes = value_and_gradients(case, torch.float32, u)
    assert value.dtype == torch.float32
    assert value.isfinite().all(), u[~value.isfinite()][:3]
    assert slopes[0].isfinite().all(), u[~slopes[0].isfinite().all(-1)][:3]
    assert all(slope.isfinite().all() for slope in slopes[1:])
    for order in range(2, case.dim):
        present = torch.arange(case.dim) < order
        assert case(torch.float32).log_prob(u, present).isfinite().all()


@every_case
def test_float32_agrees_with_float64(case: Case) -> None:
    """Same float32 inputs and parameters; the error is allowed to grow with the density's scale."""
    u = corners(case.dim)
    rounded = case._replace(arguments={k: v.float().double() for k, v in case.arguments.items()})
    single, _ = value_and_gradients(rounded, torch.float32, u)
    double, _ = value_and_gradients(rounded, torch.float64, u.double())
    np.testing.assert_allclose(single.numpy(), double.numpy(), **FLOAT32)


def _exact_point(log_low: float, upper: bool) -> mpmath.mpf:
    low = mpmath.exp(mpmath.mpf(log_low))
    return 1 - low if upper else low


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", GENERATED, ids=names(GENERATED))
def test_pairs_of_logarithms_reach_beyond_the_dtype(case: Case, dtype: torch.dtype) -> None:
    """u down to exp(-80) and up to 1 - 1e-12 and 1 - exp(-80), against 400 digits."""
    ends = [
        (-80.0, False),
        (-30.0, False),
        (-0.5, False),
        (-27.6, True),
        (-60.0, True),
        (-80.0, True),
        (-5.0, True),
    ]
    rng = np.random.default_rng(0)
    rows = [(end,) * case.dim for end in ends]
    rows += [tuple(ends[i] for i in rng.integers(0, len(ends), case.dim)) for _ in range(5)]
    with mpmath.workdps(oracles.DIGITS):
        exact = [[_exact_point(*end) for end in row] for row in rows]
        logs = np.array(
            [[[float(mpmath.log(x)), float(mpmath.log(1 - x))] for x in row] for row in exact]
        )
        # Rounded in both dtypes, which so share what the oracle computes.
        arguments = [value.float().to(dtype) for value in case.arguments.values()]
        theta = float(arguments[0])
        expected = [oracles.archimedean_log_density(case.family, theta, row) for row in exact]
    keys = list(case.arguments)

    def log_prob(log_u: Tensor, log_1mu: Tensor, *arguments: Tensor) -> Tensor:
        return case(dtype, **dict(zip(keys, arguments, strict=True))).log_prob(Unit(log_u, log_1mu))

    inputs = [torch.tensor(logs[..., 0], dtype=dtype), torch.tensor(logs[..., 1], dtype=dtype)]
    inputs += arguments
    found = log_prob(*inputs)
    tolerance = FLOAT32 if dtype == torch.float32 else {"rtol": 1e-8, "atol": 1e-8}
    np.testing.assert_allclose(found.numpy(), expected, **tolerance)
    for slope in gradients(log_prob, *inputs):
        assert slope.isfinite().all()


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.family == "gaussian"],
    ids=names([c for c in CASES if c.family == "gaussian"]),
)
def test_gaussian_pairs_of_logarithms_equal_the_quadratic_form(case: Case) -> None:
    """Normal scores to +-12 (u to 1e-33 of an end), where the density is known from the scores."""
    x = torch.randn(200, case.dim, dtype=torch.float64) * 4
    x[:4] = torch.tensor([[-12.0], [12.0], [-8.0], [0.0]], dtype=torch.float64)
    correlation = case.arguments["correlation"]
    inverse = torch.linalg.inv(correlation) - torch.eye(case.dim, dtype=torch.float64)
    expected = -0.5 * ((x @ inverse) * x).sum(-1) - 0.5 * torch.logdet(correlation)
    unit = Unit.from_normal(x)
    torch.testing.assert_close(case().log_prob(unit), expected, rtol=1e-7, atol=1e-7)
    single = Unit(unit.log_u.float(), unit.log_1mu.float())
    slopes = gradients(
        lambda a, b: case(torch.float32).log_prob(Unit(a, b)), single.log_u, single.log_1mu
    )
    assert all(slope.isfinite().all() for slope in slopes)


@every_case
def test_the_closed_cube_is_inside(case: Case) -> None:
    """0 and 1 themselves mean the nearest number inside, in both precisions."""
    for dtype in (torch.float32, torch.float64):
        u = torch.tensor(list(itertools.product((0.0, 0.4, 1.0), repeat=case.dim)), dtype=dtype)
        value, slopes = value_and_gradients(case, dtype, u)
        assert value.isfinite().all()
        assert all(slope.isfinite().all() for slope in slopes)


def test_a_correlation_that_rounding_made_singular_is_no_error() -> None:
    """A line search comes by such matrices; sub-matrices have no Cholesky factor as they are."""
    rows = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1e-9, 0.0], [0.6, 0.8, 1e-9]], dtype=torch.float64)
    tril = rows / rows.norm(dim=-1, keepdim=True)
    copula = Gaussian(3, scale_tril=tril, validate_args=False)
    u = torch.rand(64, 3, dtype=torch.float64)
    present = torch.rand(64, 3) > 0.3
    assert copula.log_prob(u, present).isfinite().all()
    broken = Gaussian(3, scale_tril=torch.full_like(tril, torch.nan), validate_args=False)
    assert broken.log_prob(u[:1], torch.tensor([[True, True, False]])).isnan().all()


@pytest.mark.parametrize("theta", [500.0, 1000.0, 1e5])
def test_frank_draws_near_comonotone_have_no_atom(theta: float) -> None:
    u = copulas.Frank(2, torch.tensor(theta).double()).sample((2000,))
    assert int((u == 1).sum()) == 0
    assert float((u[:, 0] - u[:, 1]).abs().mean()) < 4 / theta  # of order 1 / theta
    # Margins stay uniform: the bound of Kolmogorov and Smirnov at p = 1e-6 is 2.7 / sqrt n.
    assert ks_distance(u) < 2.7 / 2000**0.5


@pytest.mark.parametrize("family", ["gaussian", "student", "factor"])
def test_the_distribution_function_of_one_coordinate_is_that_coordinate(family: str) -> None:
    one = {
        "gaussian": copulas.Gaussian(1, torch.eye(1).double()),
        "student": copulas.StudentT(1, torch.eye(1).double(), df=5.0),
        "factor": copulas.Factor(1, torch.ones(1, 1).double()),
    }[family]
    u = torch.linspace(0.01, 0.99, 9).double()[:, None]
    torch.testing.assert_close(one.cdf(u), u[:, 0], rtol=1e-9, atol=1e-9)
