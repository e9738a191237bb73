"""Laws of a copula as an object: batches, expansion, copies, gradients, construction, errors."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from cm2 import copulas
from cm2.core.learnable import Learnable
from families import ARCHIMEDEAN, CASES, MODERATE, Case, dims, names, points
from laws import EXACT

every_case = pytest.mark.parametrize("case", CASES, ids=names(CASES))
moderate_case = pytest.mark.parametrize("case", MODERATE, ids=names(MODERATE))


def stacked(family: str, dim: int) -> tuple[list[Case], dict[str, Tensor]]:
    """All cases of a family in one batch."""
    chosen = [case for case in CASES if case.family == family and case.dim == dim]
    chosen = [case for case in chosen if case.label != "several"]  # of another shape
    keys = chosen[0].arguments
    return chosen, {key: torch.stack([case.arguments[key] for case in chosen]) for key in keys}


@pytest.mark.parametrize("dim", [2, 3, 5])
@pytest.mark.parametrize("family", [*ARCHIMEDEAN, "gaussian", "student", "factor"])
def test_a_batch_equals_the_loop(family: str, dim: int) -> None:
    cases, arguments = stacked(family, dim)
    batch = copulas.REGISTRY[family](dim, **arguments)
    assert batch.batch_shape == (len(cases),)
    u = torch.tensor(np.stack([points(case, 8) for case in cases], 1))
    present = torch.rand(u.shape) < 0.7
    assert batch.log_prob(u).shape == (8, len(cases))
    assert batch.sample((4,)).shape == (4, len(cases), dim)
    assert batch.kendall_tau().shape == (len(cases), dim, dim)
    for i, case in enumerate(cases):
        single = case()
        torch.testing.assert_close(batch.log_prob(u)[:, i], single.log_prob(u[:, i]), **EXACT)
        torch.testing.assert_close(
            batch.log_prob(u, present)[:, i], single.log_prob(u[:, i], present[:, i]), **EXACT
        )
        torch.testing.assert_close(batch.kendall_tau()[i], single.kendall_tau(), **EXACT)


@moderate_case
def test_log_prob_of_a_row_ignores_its_neighbours(case: Case) -> None:
    u = torch.tensor(points(case, 10))
    together = case().log_prob(u)
    alone = torch.stack([case().log_prob(row) for row in u])
    torch.testing.assert_close(together, alone, **EXACT)
    torch.testing.assert_close(case().log_prob(u[:1]), together[:1], **EXACT)


@every_case
def test_expand_keeps_the_law(case: Case) -> None:
    u = torch.tensor(points(case, 6)).unsqueeze(1)
    wide = case().expand((4,))
    assert type(wide) is type(case())
    assert wide.batch_shape == (4,)
    assert wide.event_shape == (case.dim,)
    expected = case().log_prob(u.expand(6, 4, case.dim))
    torch.testing.assert_close(wide.log_prob(u.expand(6, 4, case.dim)), expected, **EXACT)
    assert wide.sample((3,)).shape == (3, 4, case.dim)


@every_case
def test_copies_and_pickles_keep_the_law(case: Case) -> None:
    u = torch.tensor(points(case, 6))
    for twin in (copy.deepcopy(case()), pickle.loads(pickle.dumps(case()))):
        assert torch.equal(twin.log_prob(u), case().log_prob(u))


@moderate_case
def test_gradcheck_in_value_and_parameters(case: Case) -> None:
    """Of random combinations of all entries; entry by entry takes five times as long."""
    u = torch.tensor(points(case, 5)).clamp(0.02, 0.98).requires_grad_()
    keys = list(case.arguments)
    arguments = [value.clone().requires_grad_() for value in case.arguments.values()]
    present = torch.rand(u.shape) < 0.7

    def build(parameters: tuple[Tensor, ...]) -> copulas.Copula:
        given = dict(zip(keys, parameters, strict=True))
        if "correlation" in given:  # keep finite differences inside the correlation matrices
            matrix = (given["correlation"] + given["correlation"].T) / 2
            given["correlation"] = matrix - torch.diag(matrix.diagonal() - 1)
        return case(**given)

    for mask in (None, present):
        assert torch.autograd.gradcheck(
            lambda u, *p, mask=mask: build(p).log_prob(u, mask), (u, *arguments), fast_mode=True
        )


@pytest.mark.parametrize("dim", [2, 3, 5])
@pytest.mark.parametrize("family", [*ARCHIMEDEAN, "gaussian", "student", "factor"])
@pytest.mark.parametrize("tau", [0.001, 0.05, 0.5, 0.9, 0.98])
def test_kendall_tau_round_trip(family: str, tau: float, dim: int) -> None:
    value = torch.tensor(tau, dtype=torch.float64)
    copula = copulas.REGISTRY[family].from_kendall_tau(value, dim=dim)
    found = copula.kendall_tau()
    off = ~torch.eye(dim, dtype=torch.bool)
    torch.testing.assert_close(
        found[off], torch.full((dim * (dim - 1),), tau).double(), rtol=1e-6, atol=1e-8
    )


@moderate_case
def test_kendall_tau_has_a_finite_gradient(case: Case) -> None:
    keys = list(case.arguments)
    leaves = [value.clone().requires_grad_() for value in case.arguments.values()]
    tau = case(**dict(zip(keys, leaves, strict=True))).kendall_tau()
    if leaves:
        # that of a Student-t copula does not depend on its degrees of freedom
        for slope in torch.autograd.grad(tau.sum(), leaves[:1]):
            assert slope.isfinite().all()
            assert slope.abs().max() > 0


@pytest.mark.parametrize(
    ("family", "tau", "dim"),
    [
        *(
            (family, tau, dim)
            for family in (*ARCHIMEDEAN, "gaussian", "student", "factor", "survival-joe")
            for tau in (0.001, 0.5, 0.9)
            for dim in (2, 3)
        ),
        *((family, -0.5, 2) for family in ("frank", "gaussian", "student", "rotated90-joe")),
        ("frank", 0.0, 2),
    ],
)
def test_gradients_reach_kendalls_tau_from_which_a_copula_is_made(
    family: str, tau: float, dim: int
) -> None:
    value = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    found = copulas.REGISTRY[family].from_kendall_tau(value, dim=dim).kendall_tau()[0, 1]
    (slope,) = torch.autograd.grad(found, value)
    # Tau of the copula of a tau is that tau; Frank's Debye function is a quadrature.
    torch.testing.assert_close(slope, torch.ones_like(slope), rtol=1e-5, atol=0)


@pytest.mark.parametrize("family", ["frank", "gaussian", "student", "factor"])
def test_kendall_tau_round_trip_negative(family: str) -> None:
    copula = copulas.REGISTRY[family].from_kendall_tau(torch.tensor(-0.5).double(), dim=2)
    torch.testing.assert_close(copula.kendall_tau()[0, 1], torch.tensor(-0.5).double())


@pytest.mark.parametrize("family", ["gumbel", "clayton", "joe"])
@pytest.mark.parametrize("tau", [-0.5, 1.0, float("nan")])
def test_unreachable_dependence_is_refused(family: str, tau: float) -> None:
    with pytest.raises(ValueError, match=rf"(?i){family}.*\[0\.0, 1\.0\).*{tau}"):
        copulas.REGISTRY[family].from_kendall_tau(tau, dim=2)


@pytest.mark.parametrize(
    ("family", "dim"), [(f, d) for f in copulas.REGISTRY for d in (2, 3) if d in dims(f)]
)
def test_start_is_trainable_and_away_from_independence(family: str, dim: int) -> None:
    """From `start`, plain gradient ascent on draws of the family reaches their tau."""
    cls = copulas.REGISTRY[family]
    module = Learnable(cls, dim=dim, **cls.start(dim, (2,)))
    copula = module()
    assert copula.batch_shape == (2,)
    assert copula.event_shape == (dim,)
    if family == "independence":
        assert not list(module.parameters())
        return
    tau = -0.5 if family.startswith(("rotated90", "rotated270")) else 0.5
    u = cls.from_kendall_tau(tau, dim=dim).sample((500, 1)).expand(500, 2, dim)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        (-module().log_prob(u).sum(-1).mean()).backward()
        optimizer.step()
    assert (module().kendall_tau()[:, 0, 1] - tau).abs().max() < 0.08


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: copulas.Gumbel(2, alpha=0.5), r"(?i)gumbel.*alpha"),
        (lambda: copulas.Gumbel(2, alpha=float("nan")), r"(?i)gumbel.*alpha"),
        (lambda: copulas.Joe(2, alpha=0.5), r"(?i)joe.*alpha.*0\.5"),
        (lambda: copulas.Clayton(2, theta=-0.5), r"(?i)clayton.*theta.*-0\.5"),
        (lambda: copulas.Clayton(2, theta=0.0), r"(?i)clayton.*theta.*0"),
        (lambda: copulas.Frank(2, theta=float("nan")), r"(?i)frank.*theta"),
        (lambda: copulas.Frank(3, theta=-2.0), r"(?i)frank.*-2"),
        (
            lambda: copulas.Gaussian(2, correlation=torch.tensor([[1.0, 1.5], [1.5, 1.0]])),
            r"(?i)gaussian.*correlation",
        ),
        (lambda: copulas.Gaussian(3, correlation=torch.eye(2)), r"(?i)gaussian.*3"),
        (lambda: copulas.Gumbel(0, alpha=2.0), r"(?i)gumbel.*dim.*0"),
        (lambda: copulas.Independence(0), r"(?i)independence.*dim.*0"),
    ],
)
def test_invalid_parameters_name_the_family_and_the_value(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)" + message):
        build()  # type: ignore[operator]


@moderate_case
def test_invalid_values_are_refused(case: Case) -> None:
    name = type(case()).__name__
    for bad in (-0.1, 1.5, float("nan"), float("inf")):
        u = torch.full((3, case.dim), 0.5, dtype=torch.float64)
        u[1, 0] = bad
        with pytest.raises(ValueError, match=rf"{name}.*\[0, 1\]"):
            case().log_prob(u)
    with pytest.raises(ValueError, match=f"{name}.*{case.dim} coordinates"):
        case().log_prob(torch.full((3, case.dim + 1), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("bad", [2.0, float("nan")])
def test_points_of_another_precision_than_the_parameters_are_checked_too(bad: float) -> None:
    u = torch.tensor([bad, 0.5], dtype=torch.float64)
    present = torch.tensor([True, True])
    pair = copulas.Mixture([copulas.Gumbel(2, 2.0), copulas.Frank(2, 3.0)])
    for copula in (copulas.Gumbel(2, 2.0), copulas.StudentT.from_kendall_tau(0.5), pair):
        for asked in (
            lambda one=copula: one.log_prob(u),
            lambda one=copula: one.cdf(u),
            lambda one=copula: one.conditional_cdf(u, present),
        ):
            with pytest.raises(ValueError, match=r"\[0, 1\]"):
                asked()
