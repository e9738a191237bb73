"""Laws of a copula's draws: margins, Kendall tau, completions, pathwise gradients."""

import numpy as np
import pytest
import torch
from scipy import stats

from cm2 import copulas
from cm2.core.records import Unit
from families import ARCHIMEDEAN, CASES, MODERATE, Case, names
from laws import P_VALUE, assert_kendall, assert_same_law, assert_uniform

SAMPLES = 1500
drawn_cases = [c for c in CASES if c.label in {"none", "mild", "irregular", "negative", "extreme"}]
every_drawn_case = pytest.mark.parametrize("case", drawn_cases, ids=names(drawn_cases))
moderate_case = pytest.mark.parametrize("case", MODERATE, ids=names(MODERATE))


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_kendall_tau_equals_the_formula(case: Case) -> None:
    np.testing.assert_allclose(case().kendall_tau().numpy(), case.tau, rtol=1e-6, atol=1e-8)


@every_drawn_case
def test_samples_have_uniform_margins_and_the_right_tau(case: Case) -> None:
    u = case().sample((SAMPLES,))
    assert u.shape == (SAMPLES, case.dim)
    assert ((u > 0) & (u < 1)).all()
    assert_uniform(u, "samples")
    assert_kendall(u, case.tau, "samples")


@every_drawn_case
def test_float32_samples_are_as_good(case: Case) -> None:
    """What training uses: no draw at an end of the interval that stands for a whole tail."""
    u = case(torch.float32).sample((SAMPLES,))
    assert u.dtype == torch.float32
    assert_uniform(u, "float32 samples")
    assert_kendall(u, case.tau, "float32 samples")
    assert (u >= 1).double().mean() < 1e-3


@moderate_case
def test_samples_follow_the_oracle_beyond_pairs(case: Case) -> None:
    """The last coordinate given all others, and the largest and smallest of a row."""
    u = case().sample((SAMPLES,)).numpy()
    assert_uniform(case.conditional(u[:, -1], u[:, :-1]), "last given the others")
    other = case.sample(SAMPLES, np.random.default_rng(1))
    both = [np.stack([x.max(-1), x.min(-1), x.prod(-1)], -1) for x in (u, other)]
    assert_same_law(both[0], both[1], "order statistics")


@moderate_case
def test_completions_have_the_conditional_law(case: Case) -> None:
    """Given coordinates from the oracle's sampler, the last one completed."""
    given = torch.tensor(case.sample(SAMPLES, np.random.default_rng(3)))
    present = torch.ones(case.dim, dtype=torch.bool)
    present[-1] = False
    hidden = torch.where(present, given, torch.full_like(given, float("nan")))
    completed = case().complete(hidden, present)
    assert torch.equal(completed[:, :-1], given[:, :-1])
    rosenblatt = case.conditional(completed[:, -1].numpy(), given[:, :-1].numpy())
    assert_uniform(rosenblatt, "Rosenblatt transform of the completion")
    tau = stats.kendalltau(rosenblatt, given[:, 0].numpy())
    assert tau.pvalue > P_VALUE, "the Rosenblatt transform depends on what was given"
    assert_kendall(completed, case.tau, "completed rows")


@moderate_case
def test_completions_with_presence_that_differs_by_row(case: Case) -> None:
    """Whatever is given, completed rows follow the copula; nothing given is a plain draw."""
    rng = np.random.default_rng(4)
    given = torch.tensor(case.sample(SAMPLES, rng))
    present = torch.tensor(rng.random(given.shape) < 0.5)
    completed = case().complete(given, present)
    assert torch.equal(completed[present], given[present])
    assert_uniform(completed, "completed rows")
    assert_kendall(completed, case.tau, "completed rows")
    for pattern in (present[:, 0] & ~present[:, 1], ~present[:, 0] & ~present[:, 1]):
        assert_kendall(completed[pattern], case.tau, "rows of one pattern")
    given, present = given[:100], present[:100]
    unit = Unit(given.log(), torch.log1p(-given))
    whole = case().complete_unit(unit, present)
    torch.testing.assert_close(whole.log_u.exp() + whole.log_1mu.exp(), torch.ones_like(given))
    assert torch.equal(whole.log_u[present], unit.log_u[present])
    assert torch.equal(whole.log_1mu[present], unit.log_1mu[present])


@pytest.mark.parametrize(
    "case", [c for c in MODERATE if c.dim == 3], ids=names([c for c in MODERATE if c.dim == 3])
)
def test_two_completions_keep_the_dependence_between_them(case: Case) -> None:
    given = torch.tensor(case.sample(SAMPLES, np.random.default_rng(5)))
    present = torch.tensor([True, False, False])
    completed = case().complete(given, present).numpy()
    assert_uniform(case.conditional(completed[:, -1], completed[:, :-1]), "third given both")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_completions_given_extremes_are_finite(case: Case, dtype: torch.dtype) -> None:
    """Also their gradients in the parameters, which training through an imputation needs."""
    lows = torch.tensor([-80.0, -60.0, -1e-3, -1e-7, -0.7], dtype=torch.float64)
    others = torch.log1p(-lows.exp())  # rounds to exactly 0 in float32 beyond 1e-7
    log_u, log_1mu = torch.cat([lows, others]), torch.cat([others, lows])
    columns = [log_u.expand(case.dim, -1).T, log_1mu.expand(case.dim, -1).T]
    unit = Unit(*(column.to(dtype) for column in columns))
    arguments = {
        k: v.detach().to(dtype, copy=True).requires_grad_() for k, v in case.arguments.items()
    }
    present = torch.ones(case.dim, dtype=torch.bool)
    present[-1] = False
    drawn = case(dtype, **arguments).complete_unit(unit, present)
    for part in drawn:
        assert part.dtype == dtype
        assert (part <= 0).all()
        assert part.isfinite().all()
    if arguments:
        found = torch.autograd.grad(drawn.log_u.sum() + drawn.log_1mu.sum(), [*arguments.values()])
        assert all(g.isfinite().all() for g in found)


@moderate_case
def test_pathwise_gradient_equals_a_finite_difference(case: Case) -> None:
    """Common random numbers: the same seed before each draw."""
    if not case.arguments:
        assert case().has_rsample
        return
    name, value = next(iter(case.arguments.items()))
    direction = torch.ones_like(value)
    if name == "correlation":
        direction = 1 - torch.eye(case.dim).double()

    def draw(step: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(11)
        return case(**{name: value + step * direction}).rsample((200,))

    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    weights = torch.randn(200, case.dim, dtype=torch.float64)
    width = 1e-6
    with torch.no_grad():
        below, above = (draw(torch.tensor(s * width).double()) for s in (-1.0, 1.0))
    slope = (above - below) / (2 * width)
    (found,) = torch.autograd.grad((draw(step) * weights).sum(), step)
    expected = (slope * weights).sum()
    assert expected.abs() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "parameter"), [*ARCHIMEDEAN.items(), ("gaussian", "correlation")]
)
@pytest.mark.parametrize("strength", [1e5, 1e7])
def test_pathwise_gradient_is_one_where_coordinates_nearly_agree(
    family: str, parameter: str, strength: float
) -> None:
    """Conditional laws are so steep there that a bound on their slope would show."""
    value = torch.tensor(strength).double()
    if family == "gaussian":
        value = torch.eye(2).double() + (1 - 1 / strength**2) * (1 - torch.eye(2).double())
    u = (0.05 + 0.9 * torch.rand(200, 2).double()).requires_grad_()
    copula = copulas.REGISTRY[family](2, **{parameter: value})
    drawn = copula.complete(u, torch.tensor([True, False]))[:, 1]
    assert (drawn - u[:, 0]).abs().max() < 1e-3
    (slope,) = torch.autograd.grad(drawn.sum(), u)
    torch.testing.assert_close(slope[:, 0], torch.ones(200).double(), rtol=1e-3, atol=0)
    assert (slope[:, 1] == 0).all()


@moderate_case
def test_completion_gradient_in_what_is_given(case: Case) -> None:
    given = torch.tensor(case.sample(100, np.random.default_rng(6)))
    present = torch.ones(case.dim, dtype=torch.bool)
    present[-1] = False

    def draw(u: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(12)
        return case().complete(u, present)[:, -1]

    leaf = given.clone().requires_grad_()
    (found,) = torch.autograd.grad(draw(leaf).sum(), leaf)
    width = 1e-6
    shift = torch.zeros(case.dim, dtype=torch.float64)
    shift[0] = width
    slope = (draw(given + shift) - draw(given - shift)) / (2 * width)
    torch.testing.assert_close(found[:, 0], slope, rtol=1e-4, atol=1e-5)
