"""Ten coordinates: sums of derivatives in both precisions against mpmath, and fast draws."""

import mpmath
import numpy as np
import pytest
import torch

import oracles
from cm2 import copulas
from families import ARCHIMEDEAN
from laws import assert_kendall, assert_uniform, gradients

TAUS = (0.02, 0.5, 0.95)
ENDS = (1e-30, 1e-6, 0.1, 0.5, 0.9, 1 - 1e-4, 1 - 1e-7)
every_archimedean = pytest.mark.parametrize("family", list(ARCHIMEDEAN))


def grid() -> torch.Tensor:
    """Diagonal corners, mixed corners, and a row inside; in float32, which doubles hold exactly."""
    rng = np.random.default_rng(0)
    rows = [[end] * 10 for end in ENDS] + [[1e-30, *[1 - 1e-7] * 9], [1 - 1e-7, *[1e-30] * 9]]
    rows += rng.choice(ENDS, (4, 10)).tolist() + rng.random((2, 10)).tolist()
    return torch.tensor(rows, dtype=torch.float32)


def exact(family: str, theta: float, row: list[float]) -> float:
    """The log density from a numerical derivative of the generator, scaled to t = 1."""
    with mpmath.workdps(340):
        points, parameter = [mpmath.mpf(u) for u in row], mpmath.mpf(theta)
        t = mpmath.fsum(oracles.inverse(family, u, parameter) for u in points)

        def scaled(x: mpmath.mpf) -> mpmath.mpf:
            return oracles.archimedean_generator(family, t * x, parameter, mpmath)

        value = mpmath.log(abs(mpmath.diff(scaled, 1, len(row)))) - len(row) * mpmath.log(t)
        for u in points:
            value += mpmath.log(oracles.inverse_slope(family, u, parameter))
        return float(value)


@every_archimedean
@pytest.mark.parametrize("tau", TAUS)
def test_density_of_ten_equals_mpmath(family: str, tau: float) -> None:
    """Errors relative to max(1, |log density|): 1e-6 in float64 and 1e-3 in float32."""
    u = grid()[[0, 6, 7, 9, 13]]
    cls = copulas.REGISTRY[family]
    single = cls.from_kendall_tau(torch.tensor(tau), dim=10)
    name, parameter = next(iter(single.parameters.items()))
    double = cls(10, **{name: parameter.double()})
    expected = np.array([exact(family, float(parameter), row) for row in u.double().tolist()])
    scale = np.maximum(1.0, np.abs(expected))
    assert (np.abs(double.log_prob(u.double()).numpy() - expected) / scale).max() < 1e-6
    assert (np.abs(single.log_prob(u).numpy() - expected) / scale).max() < 1e-3


@every_archimedean
@pytest.mark.parametrize("dim", [2, 5, 10])
@pytest.mark.parametrize("tau", [0.001, 0.3, 0.98])
def test_float32_is_finite_with_finite_gradients_up_to_ten(
    family: str, dim: int, tau: float
) -> None:
    u = grid()[:, :dim]
    cls = copulas.REGISTRY[family]
    copula = cls.from_kendall_tau(torch.tensor(tau), dim=dim)
    name, parameter = next(iter(copula.parameters.items()))
    present = torch.rand(u.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    for mask in (None, present):

        def log_prob(u: torch.Tensor, p: torch.Tensor, mask: torch.Tensor | None = mask) -> object:
            return cls(dim, **{name: p}).log_prob(u, mask)

        assert log_prob(u, parameter).isfinite().all()
        for slope in gradients(log_prob, u, parameter):
            assert slope.isfinite().all()


@every_archimedean
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [0.001, 0.5, 0.98])
def test_draws_of_ten_by_frailty(family: str, dtype: torch.dtype, tau: float) -> None:
    copula = copulas.REGISTRY[family].from_kendall_tau(torch.tensor(tau, dtype=dtype), dim=10)
    u = copula.sample((1500,))
    assert u.dtype == dtype
    assert ((u >= 0) & (u <= 1)).all()
    assert_uniform(u, "draws by frailty")
    assert_kendall(u[:, :3], copula.kendall_tau()[:3, :3], "draws by frailty")


@every_archimedean
def test_many_points_are_the_same_as_few(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a size, points are worked on in pieces; values and gradients stay."""
    monkeypatch.setattr("cm2.copulas.base.CHUNK", 2**12)
    copula = copulas.REGISTRY[family].from_kendall_tau(torch.tensor([0.3, 0.6]).double(), dim=3)
    u = torch.rand(6_000, 1, 3).double().requires_grad_()
    present = torch.rand(6_000, 1, 3) < 0.7
    for mask in (None, present):
        whole = copula.log_prob(u, mask)
        assert whole.shape == (6_000, 2)
        rows = torch.arange(0, 6_000, 222)
        few = copula.log_prob(u[rows], None if mask is None else mask[rows])
        torch.testing.assert_close(whole[rows], few)
        (slope,) = torch.autograd.grad(whole.sum(), u)
        (slope_of_few,) = torch.autograd.grad(few.sum(), u)
        torch.testing.assert_close(slope[rows], slope_of_few[rows])
    with pytest.raises(ValueError, match=r"5999, 0, 1"):
        copula.log_prob(torch.cat([u[:-1], torch.tensor([[[0.5, 2.0, 0.5]]]).double()]).detach())


@every_archimedean
def test_unconditional_draws_take_no_solver(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come from the frailty: the solver would take minutes for as many."""

    def solver(*_: object) -> None:
        raise AssertionError("the solver was called")

    copula = copulas.REGISTRY[family].from_kendall_tau(torch.tensor(0.5).double())
    monkeypatch.setattr(type(copula), "_solve", solver)
    assert copula.sample((200_000,)).shape == (200_000, 2)
