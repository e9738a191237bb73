"""What every copula can be asked, in the manner of torch.distributions."""

import numpy as np
import pytest
import torch
from torch.distributions import constraints

from cm2 import copulas
from cm2.core.records import Unit
from families import MODERATE, Case, names
from laws import EXACT, assert_uniform

moderate_case = pytest.mark.parametrize("case", MODERATE, ids=names(MODERATE))
METHODS = [
    "conditional_cdf",
    "spearman_rho",
    "lower_tail_dependence",
    "upper_tail_dependence",
    "mutual_information",
]


@pytest.mark.parametrize("family", list(copulas.REGISTRY))
def test_every_family_answers_every_question(family: str) -> None:
    assert all(callable(getattr(copulas.REGISTRY[family], name)) for name in METHODS)


@moderate_case
def test_draws_have_no_gradient_unless_asked_for(case: Case) -> None:
    leaves = {name: value.clone().requires_grad_() for name, value in case.arguments.items()}
    copula = case(**leaves)
    assert not copula.sample((3,)).requires_grad
    if copula.has_rsample and leaves:
        assert copula.rsample((3,)).requires_grad


@moderate_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_dtype_of_the_parameters(case: Case, dtype: torch.dtype) -> None:
    if not case.arguments:
        dtype = torch.get_default_dtype()
    copula = case(dtype)
    assert copula.sample((4,)).dtype == dtype
    assert copula.log_prob(torch.rand(4, case.dim, dtype=dtype)).dtype == dtype
    for name in ("kendall_tau", "spearman_rho", "lower_tail_dependence", "upper_tail_dependence"):
        matrix = getattr(copula, name)()
        assert matrix.shape == (case.dim, case.dim)
        assert matrix.dtype == dtype
        torch.testing.assert_close(matrix, matrix.mT)
        torch.testing.assert_close(matrix.diagonal(), torch.ones(case.dim, dtype=dtype))


@moderate_case
def test_moments_are_those_of_uniform_margins(case: Case) -> None:
    copula = case().expand((2,))
    assert copula.mean.shape == copula.variance.shape == (2, case.dim)
    torch.testing.assert_close(copula.mean, torch.full_like(copula.mean, 0.5))
    torch.testing.assert_close(copula.variance, torch.full_like(copula.mean, 1 / 12))
    torch.testing.assert_close(copula.stddev, copula.variance.sqrt())
    assert case().expand(()).batch_shape == ()
    assert case().expand((2, 3)).batch_shape == (2, 3)
    assert copula.support.check(copula.sample((5,))).all()


@moderate_case
def test_constraints_are_declared_and_met(case: Case) -> None:
    copula = case()
    assert copula.parameters.keys() == copula.arg_constraints.keys()
    for name, value in copula.parameters.items():
        assert isinstance(copula.arg_constraints[name], constraints.Constraint)
        assert copula.arg_constraints[name].check(value).all()


# Conditional distribution functions -------------------------------------------------------------


@moderate_case
def test_draws_of_the_copula_become_independent_and_uniform(case: Case) -> None:
    u = torch.tensor(case.sample(4000, np.random.default_rng(0))).clamp(1e-12, 1 - 1e-12)
    v = case().conditional_cdf(u, torch.zeros(case.dim, dtype=torch.bool))
    assert_uniform(v, case.name)
    rho = np.corrcoef(v.T)[~np.eye(case.dim, dtype=bool)]
    assert np.abs(rho).max() < 4 / 4000**0.5


@moderate_case
def test_completion_is_undone(case: Case) -> None:
    """With what is present fixed, the transform of completed points is uniform."""
    present = torch.zeros(case.dim, dtype=torch.bool)
    present[-1] = True
    given = torch.full((3000, case.dim), 0.2, dtype=torch.float64)
    completed = case().complete(given, present)
    v = case().conditional_cdf(completed, present)
    assert torch.equal(v[:, -1], given[:, -1])
    assert_uniform(v[:, :-1], case.name)


@moderate_case
def test_present_coordinates_are_returned_bit_for_bit_and_everything_is_read(case: Case) -> None:
    u = torch.rand(6, case.dim).double()
    present = torch.rand(6, case.dim) < 0.5
    v = case().conditional_cdf(u, present)
    assert torch.equal(v[present], u[present])
    everything = torch.ones(case.dim, dtype=torch.bool)
    assert torch.equal(case().conditional_cdf(u, everything), u)
    torch.testing.assert_close(case().conditional_cdf(Unit.from_u(u), present), v, **EXACT)
    u[0, 0] = torch.nan
    with pytest.raises(ValueError, match=rf"{type(case()).__name__}.*\[0, 1\].*nan"):
        case().conditional_cdf(u, present)


# Errors ----------------------------------------------------------------------------------------


@moderate_case
def test_bad_values_are_named_with_their_place_and_range(case: Case) -> None:
    u = torch.full((4, case.dim), 0.5).double()
    u[2, 1] = 1.25
    name = type(case()).__name__
    with pytest.raises(ValueError, match=rf"{name}: value .*\[0, 1\].*got 1\.25 at index \(2, 1\)"):
        case().log_prob(u)
    bad = Unit(u.log(), torch.zeros_like(u))
    with pytest.raises(ValueError, match=rf"{name}: log_u .*\[-inf, 0\].*got 0\.223144"):
        case().log_prob(bad)
    absent = torch.ones(4, case.dim, dtype=torch.bool)
    absent[2, 1] = False
    assert case().log_prob(u, absent).isfinite().all()
    assert type(case())(case.dim, **case.arguments, validate_args=False).log_prob(u).shape == (4,)


@pytest.mark.parametrize("family", [name for name in copulas.REGISTRY if name != "independence"])
def test_unreachable_dependence_names_the_family_the_value_and_the_range(family: str) -> None:
    cls = copulas.REGISTRY[family]
    with pytest.raises(ValueError, match=rf"(?i){cls.__name__}.*1\.5"):
        cls.from_kendall_tau(1.5)
    with pytest.raises(ValueError, match=rf"(?i){cls.__name__}.*(-0\.9|dim must be 2)"):
        cls.from_kendall_tau(-0.9, dim=3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: copulas.Gumbel(2, 0.5), r"^Gumbel: alpha must be at least 1, got 0\.5$"),
        (lambda: copulas.Joe(2, 0.5), r"^Joe: alpha must be at least 1, got 0\.5$"),
        (lambda: copulas.Clayton(2, -1.0), r"^Clayton: theta must be greater than 0, got -1$"),
        (lambda: copulas.Frank(3, -1.0), r"^Frank: theta must be greater than 0, got -1$"),
        (
            lambda: copulas.StudentT(2, torch.eye(2), df=-1.0),
            r"^StudentT: df must be greater than 0, got -1$",
        ),
        (
            lambda: copulas.Gumbel(2, torch.tensor([2.0, 0.0])),
            r"^Gumbel: alpha must be at least 1, got 0$",
        ),
        (
            lambda: copulas.Gaussian(2, scale_tril=2 * torch.eye(2)),
            r"^Gaussian: scale_tril must be the Cholesky factor of a correlation matrix, got \[\[2",
        ),
    ],
)
def test_bad_parameters_are_named_with_their_range(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]
