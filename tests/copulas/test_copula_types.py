"""Which points and parameters a copula takes: dtypes, arrays, lists, none at all, infinite ones."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cm2 import copulas
from cm2.copulas.base import Copula
from cm2.core.records import Unit
from families import MODERATE, Case, names
from laws import FLOAT32

PAIRS = [case for case in MODERATE if case.dim == 2]
every_pair = pytest.mark.parametrize("case", PAIRS, ids=names(PAIRS))
FIRST = torch.tensor([True, False])


def made(name: str) -> Copula:
    """Copulas in single precision, also those that are built of others."""
    clayton = copulas.Clayton(2, 2.0)
    others = {
        "rotated": copulas.Rotated(clayton, (True, False)),
        "mixture": copulas.Mixture([clayton, copulas.Gaussian.from_kendall_tau(0.3)]),
    }
    if name in others:
        return others[name]
    tau = {"independence": 0.0}.get(name, -0.4 if name.startswith("rotated") else 0.4)
    return copulas.REGISTRY[name].from_kendall_tau(tau)


every_kind = pytest.mark.parametrize("name", [*copulas.REGISTRY, "rotated", "mixture"])


def answers(copula: Copula, u: Any) -> dict[str, Tensor]:
    """What the public methods say of points; draws from the same random numbers."""
    torch.manual_seed(0)
    return {
        "log_prob": copula.log_prob(u),
        "margin": copula.log_prob(u, FIRST),
        "cdf": copula.cdf(u),
        "complete": copula.complete(u, FIRST),
        "conditional_cdf": copula.conditional_cdf(u, FIRST),
    }


@every_kind
def test_points_in_double_precision_are_answered_in_it(name: str) -> None:
    copula = made(name)
    u = torch.rand(5, 2).double()
    double = copula._like({key: value.double() for key, value in copula.parameters.items()})
    for what, value in answers(copula, u).items():
        assert value.dtype == torch.float64, what
        if what != "complete" or copula.has_rsample:
            torch.testing.assert_close(value, answers(double, u)[what])
    unit = Unit.from_u(u)
    assert copula.log_prob(unit).dtype == torch.float64
    assert copula.complete_unit(unit, FIRST).log_u.dtype == torch.float64
    torch.testing.assert_close(copula.log_prob(unit), copula.log_prob(u))


@every_kind
def test_single_numbers_do_not_widen_points_but_tensors_do(name: str) -> None:
    """As in torch.distributions.Normal."""
    copula = made(name)
    double = copula._like({key: value.double() for key, value in copula.parameters.items()})
    u = torch.rand(5, 2)
    wide = any(value.dim() for value in double.parameters.values())
    for what, value in answers(double, u).items():
        assert value.dtype == (torch.float64 if wide else torch.float32), what
    batch = double.expand((3, 1))
    assert batch.log_prob(u).dtype == (torch.float64 if double.parameters else torch.float32)


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_answered_in_single(name: str, dtype: torch.dtype) -> None:
    copula = made(name)
    u = torch.rand(5, 2).mul(0.8).add(0.1).to(dtype)
    for what, value in answers(copula, u).items():
        assert value.dtype == torch.float32, what
        torch.testing.assert_close(value, answers(copula, u.float())[what])
    assert torch.equal(copula.complete(u, FIRST)[:, 0], u[:, 0].float())


@every_kind
def test_whole_numbers_arrays_and_lists_are_points(name: str) -> None:
    copula = made(name)
    corners = torch.tensor([[0, 1], [1, 1]])
    torch.testing.assert_close(copula.log_prob(corners), copula.log_prob(corners.float()))
    u = np.random.default_rng(0).random((5, 2))
    u.flags.writeable = False
    torch.testing.assert_close(copula.log_prob(u), copula.log_prob(torch.tensor(u)))
    torch.testing.assert_close(
        copula.log_prob(u.tolist()), copula.log_prob(torch.tensor(u).float())
    )
    mask = np.array([True, False])
    torch.testing.assert_close(copula.conditional_cdf(u, mask), copula.conditional_cdf(u, FIRST))
    assert copula.complete(u.tolist(), [True, False]).shape == (5, 2)
    with pytest.raises(ValueError, match=r"real numbers are needed, got .*complex64"):
        copula.log_prob(torch.zeros(5, 2, dtype=torch.complex64))


@every_kind
def test_no_points_are_answered_with_none(name: str) -> None:
    copula = made(name)
    assert copula.sample((0,)).shape == (0, 2)
    assert copula.sample((0, 3)).shape == (0, 3, 2)
    assert copula.expand((4,)).sample((0,)).shape == (0, 4, 2)
    if copula.has_rsample:
        assert copula.rsample((0,)).shape == (0, 2)
    u, present = torch.rand(0, 2), torch.ones(0, 2, dtype=torch.bool)
    assert copula.log_prob(u).shape == copula.log_prob(u, present).shape == (0,)
    assert copula.cdf(u).shape == (0,)
    assert copula.complete(u, present).shape == copula.conditional_cdf(u, present).shape == (0, 2)


# Parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gumbel", "clayton", "frank", "joe"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_parameters_are_in_single_precision_at_least(family: str, dtype: torch.dtype) -> None:
    cls = copulas.REGISTRY[family]
    copula = cls(2, torch.tensor(2, dtype=dtype))
    (value,) = copula.parameters.values()
    assert value.dtype == torch.float32
    u = torch.rand(4, 2)
    torch.testing.assert_close(copula.log_prob(u), cls(2, 2.0).log_prob(u))
    assert copula.sample((3,)).dtype == torch.float32


def test_a_mixture_has_the_widest_dtype_of_its_parts() -> None:
    parts = [copulas.Gumbel(2, 2.0), copulas.Clayton(2, torch.tensor(2.0).double())]
    mixture = copulas.Mixture(parts, weights=torch.tensor([0.5, 0.5]))
    assert {value.dtype for value in mixture.parameters.values()} == {torch.float64}
    assert mixture.sample((4,)).dtype == torch.float64


@pytest.mark.parametrize(
    "build",
    [
        lambda end: copulas.Gumbel(2, end),
        lambda end: copulas.Joe(3, end),
        lambda end: copulas.Clayton(2, end),
        lambda end: copulas.Frank(2, end),
        lambda end: copulas.Frank(2, -end),
        lambda end: copulas.StudentT(2, torch.eye(2), df=end),
        lambda end: copulas.REGISTRY["survival-gumbel"](2, alpha=end),
    ],
)
def test_infinite_parameters_are_refused(build: Any) -> None:
    with pytest.raises(ValueError, match=r"must be .*finite, got -?inf"):
        build(float("inf"))


@every_pair
def test_a_float32_correlation_turned_to_double_is_one(case: Case) -> None:
    if "correlation" not in case.arguments:
        return
    rounded = case.arguments["correlation"].float().double()
    exact, near = case(), case(correlation=rounded)
    u = torch.rand(20, 2).double()
    torch.testing.assert_close(near.log_prob(u), exact.log_prob(u), **FLOAT32)


def test_what_rounding_explains_is_a_correlation_matrix() -> None:
    """Random matrices, some nearly singular, rounded in single precision or by hand."""
    rng = np.random.default_rng(0)
    for rank in (6, 40):
        factor = torch.tensor(rng.standard_normal((6, rank)))
        factor = torch.cat([factor, 1e-4 * torch.eye(6)], 1)
        factor = factor / factor.norm(dim=-1, keepdim=True)
        exact = factor @ factor.mT
        for rounded in (exact.float(), exact.float().double()):
            copula = copulas.Gaussian(6, correlation=rounded)
            torch.testing.assert_close(
                copula.correlation.double(), exact, rtol=0, atol=6 * torch.finfo(torch.float32).eps
            )
        tril = torch.linalg.cholesky(exact)
        assert (
            copulas.Gaussian(6, scale_tril=tril.float().double())
            .log_prob(torch.full((6,), 0.4).double())
            .isfinite()
        )
        assert copulas.StudentT(6, exact.float().double()).correlation.isfinite().all()


@pytest.mark.parametrize(
    "matrix",
    [
        [[1.0, 1.0], [1.0, 1.0]],
        [[1.0, 0.5], [0.4, 1.0]],
        [[1.1, 0.5], [0.5, 1.0]],
        [[1.0, 1.2], [1.2, 1.0]],
        [[1.0, float("nan")], [float("nan"), 1.0]],
    ],
)
def test_what_rounding_does_not_explain_is_refused_by_its_name(matrix: list) -> None:
    for dtype in (torch.float32, torch.float64):
        with pytest.raises(ValueError, match="Gaussian: correlation must be"):
            copulas.Gaussian(2, correlation=torch.tensor(matrix, dtype=dtype))


# Dependence near independence, and many coordinates ----------------------------------------------


@pytest.mark.parametrize("theta", [1e-12, 1e-8, 1e-6, 1e-3, 1.0])
def test_franks_tau_and_rho_are_odd_and_grow_from_zero(theta: float) -> None:
    for sign in (1, -1):
        value = torch.tensor(sign * theta).double().requires_grad_()
        copula = copulas.Frank(2, value)
        for law, slope in ((copula.kendall_tau, 1 / 9), (copula.spearman_rho, 1 / 6)):
            found = law()[0, 1]
            assert found.item() * sign > 0
            # The series of Debye's functions: cubic terms are below a hundredth of the linear one.
            assert found.item() == pytest.approx(sign * theta * slope, rel=0.02)
            (gradient,) = torch.autograd.grad(found, value)
            assert gradient.item() == pytest.approx(slope, rel=0.05)


@pytest.mark.parametrize("tau", [1e-12, 1e-7, 0.5, 0.9999, 1 - 1e-7])
def test_frank_reaches_every_tau(tau: float) -> None:
    for sign in (1, -1):
        copula = copulas.Frank.from_kendall_tau(torch.tensor(sign * tau).double())
        assert copula.kendall_tau()[0, 1].item() == pytest.approx(sign * tau, rel=1e-6)
    assert copulas.Frank.from_kendall_tau(0.0, dim=3).theta > 0


@pytest.mark.parametrize("family", ["gumbel", "frank", "joe", "survival-gumbel"])
def test_the_largest_dimension_is_finite_and_the_next_is_named(family: str) -> None:
    cls = copulas.REGISTRY[family]
    dim = cls.largest_dim
    assert dim is not None
    with pytest.raises(ValueError, match=rf"dim must be at most {dim}, got {dim + 1}"):
        cls.from_kendall_tau(0.5, dim=dim + 1)
    ends = torch.tensor([1e-30, 1e-6, 0.1, 0.5, 0.9, 1 - 1e-4, 1 - 1e-7])
    u = torch.cat([ends[:, None].expand(-1, dim), ends[torch.randint(7, (20, dim))]])
    for tau in (0.001, 0.5, 0.98):
        (name, parameter), *_ = cls.from_kendall_tau(tau, dim=dim).parameters.items()
        leaves = [u.clone().requires_grad_(), parameter.clone().requires_grad_()]
        value = cls(dim, **{name: leaves[1]}).log_prob(leaves[0])
        assert value.isfinite().all()
        assert all(slope.isfinite().all() for slope in torch.autograd.grad(value.sum(), leaves))
        exact = cls(dim, **{name: parameter.double()}).log_prob(u.double())
        # Relative to the density's scale, as for ten coordinates; errors add over coordinates.
        assert ((value - exact).abs() / exact.abs().clamp_min(1)).max() < 5e-3
