"""The joint with the factor copula: recovery, the choice of its rank, and what data cannot tell."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

import oracles
from cm2 import CopulaJoint, copulas
from cm2.core.persistence import load_module_arrays, module_arrays
from cm2.marginals.em import fit_mixtures
from families import factor_correlation

MODALITIES, DIM, RANK = 3, 3, 3


def truth(size: float = 1.0) -> copulas.Factor:
    rng = np.random.default_rng(5)
    loading = torch.tensor(size * rng.normal(size=(MODALITIES * DIM, RANK)))
    return copulas.Factor(MODALITIES * DIM, loading, block=DIM)


def draws(n: int, rate: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of the true model, moved and stretched, and which modalities they have."""
    rng = np.random.default_rng(seed)
    law = truth()
    torch.manual_seed(seed)
    nothing = torch.zeros(n, MODALITIES * DIM, dtype=torch.bool)
    scores = law.complete_normal(torch.zeros(n, MODALITIES * DIM).double(), nothing)
    z = 3.0 + 2.0 * scores.view(n, MODALITIES, DIM)
    return z.float(), torch.tensor(oracles.drop(n, MODALITIES, rate, rng))


@pytest.mark.parametrize(
    ("coupling", "components"), [("rosenblatt", 1), ("shared-components", 1), ("rosenblatt", 2)]
)
@pytest.mark.parametrize("rate", [0.0, 0.6])
def test_a_truth_of_rank_three_is_recovered(coupling: str, rate: float, components: int) -> None:
    z, present = draws(3000, rate)
    joint = CopulaJoint(MODALITIES, DIM, "factor", components, coupling, rank=RANK)
    found = joint.fit(z, present)().copula.correlation.detach()
    expected = factor_correlation(truth().loading.numpy(), DIM)
    # five standard errors of a correlation from the rows that have both modalities
    together = 3000 * (1 - rate) ** 2
    assert np.abs(found.numpy() - expected).max() < 5 / np.sqrt(together)
    exact = truth().mutual_information().value
    p = joint()
    # its deviation in a row is about one nat
    slack = 4 / np.sqrt(3000) + 4 * float(p.total_correlation_error(20_000)) + 0.03
    assert abs(float(p.total_correlation(20_000)) - float(exact)) < slack


def test_the_rank_is_settled_by_held_out_likelihood() -> None:
    z, present = draws(1500, 0.3)
    joint = CopulaJoint(MODALITIES, DIM, "factor", 1, "shared-components", rank="auto")
    with pytest.raises(ValueError, match=r"rank is 'auto' and not settled yet: call fit first"):
        joint()
    joint.fit(z, present)
    assert joint.rank in (2, 3, 4)
    twin = CopulaJoint(MODALITIES, DIM, "factor", 1, "shared-components", rank="auto")
    load_module_arrays(twin, module_arrays(joint))
    assert twin.rank == joint.rank
    torch.testing.assert_close(twin().log_prob(z[:9]), joint().log_prob(z[:9]), rtol=0, atol=0)
    independent = torch.randn(800, 2, 3)
    nothing = CopulaJoint(2, 3, "factor", 1, rank="auto").fit(independent)
    assert nothing.rank == 1
    assert nothing().total_correlation() < 0.02


def test_a_rare_modality_settles_for_one_factor() -> None:
    """Folds without it were told that it is present in 0 samples."""
    z, present = torch.randn(60, 2, 2), torch.ones(60, 2, dtype=torch.bool)
    present[1:, 1] = False
    joint = CopulaJoint(2, 2, "factor", 1, rank="auto").fit(z, present)
    assert joint.rank == 1
    assert CopulaJoint(2, 2, "factor", 1, rank="auto").fit(z[:1]).rank == 1


def test_a_settled_rank_loads_into_any_precision() -> None:
    z = torch.randn(100, 2, 2)
    joint = CopulaJoint(2, 2, "factor", 1, rank="auto").fit(z)
    twin = CopulaJoint(2, 2, "factor", 1, rank="auto").double()
    assert twin.rank is None
    twin.load_state_dict(joint.state_dict())
    assert {p.dtype for p in twin.parameters()} == {torch.float64}
    torch.testing.assert_close(
        twin().log_prob(z[:5].double()), joint().log_prob(z[:5]).double(), rtol=1e-4, atol=1e-3
    )


def test_strong_dependence_is_not_held_back() -> None:
    """A pseudo-observation a coordinate made .954 of a correlation of .99 in 500 rows."""
    n, dim, rho = 500, 16, 0.99
    first = torch.randn(n, dim)
    second = rho * first + (1 - rho**2) ** 0.5 * torch.randn(n, dim)
    joint = CopulaJoint(2, dim, "factor", 1, "shared-components", rank=dim)
    found = joint.fit(torch.stack([first, second], 1), steps=0)().canonical_correlations()[0, 1]
    assert found.min() > 0.97


@pytest.mark.parametrize("coupling", ["rosenblatt", "shared-components"])
def test_points_in_double_precision_are_taken(coupling: str) -> None:
    joint = CopulaJoint(2, 2, "factor", 2, coupling)()
    z, present = torch.randn(3, 2, 2).double(), torch.tensor([[True, False]]).expand(3, 2)
    assert joint.log_prob(z, present).isfinite().all()
    assert joint.complete(z, present).isfinite().all()
    assert joint.conditional_mean(z, present).isfinite().all()


def test_a_joint_is_fitted_on_the_device_of_the_data() -> None:
    """Whatever is made without the data's device lands on the default one, and fails."""
    z, present = torch.randn(100, 2, 2), torch.rand(100, 2) < 0.7
    joint = CopulaJoint(2, 2, "factor", 2, "shared-components", rank="auto")
    with torch.device("meta"):
        joint.fit(z, present, steps=2)
        p = joint()
        assert p.log_prob(z, present).device == z.device
        assert p.complete(z, present).device == z.device
        assert p.conditional_mean(z, present).device == z.device
        assert p.total_correlation(100).device == z.device


def test_a_rank_where_there_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="Gumbel couples coordinate by coordinate: it has no rank"):
        CopulaJoint(2, 3, "gumbel", rank=4)
    with pytest.raises(ValueError, match="Factor: the rank must be at least 1, got 0"):
        CopulaJoint(2, 3, "factor", rank=0)
    # the run-time type checker of the tests may speak first
    with pytest.raises((ValueError, TypeCheckError), match="rank"):
        CopulaJoint(2, 3, "factor", rank="best")


def test_dependence_across_ranks_is_seen() -> None:
    """First coordinate with second: couplings of like coordinates find nothing there."""
    z = torch.randn(3000, 2, 2)
    z[:, 1, 1] = 0.8 * z[:, 0, 0] + 0.6 * z[:, 1, 1]
    information = -0.5 * np.log(1 - 0.8**2)
    factor = CopulaJoint(2, 2, "factor", 1).fit(z)()
    assert abs(float(factor.total_correlation()) - information) < 0.05
    assert CopulaJoint(2, 2, "gaussian", 1).fit(z)().total_correlation() < 0.01
    assert factor.kendall_tau().shape == (2, 2, 2)
    assert factor.kendall_tau()[:, 0, 1].abs().max() < 0.05


FAMILIES = ["gaussian", "factor", "student", "gumbel", "frank", "clayton", "joe"]


@pytest.mark.parametrize("family", FAMILIES)
def test_modalities_never_seen_together_are_independent(family: str) -> None:
    """They kept the tau of the start, .333 for Gumbel, and drew as if it had been learned."""
    z = torch.randn(600, 2, 1)
    present = torch.tensor([[True, False], [False, True]]).repeat(300, 1)
    p = CopulaJoint(2, 1, family, 1).fit(z, present)()
    assert p.kendall_tau()[0, 0, 1].abs() < 0.02
    assert p.log_prob(z, present).isfinite().all()
    drawn = p.complete(z, present)
    assert drawn.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_few_rows_give_a_law_that_draws(family: str, rows: int) -> None:
    """One row gave NaN draws of Gumbel and Joe."""
    z = torch.randn(rows, 2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        p = CopulaJoint(2, 2, family, 1).fit(z)()
    assert p.sample((50,)).isfinite().all()
    assert p.log_prob(z).isfinite().all()
    # two rows in a line are worth more to Student-t with few degrees of freedom than to others
    assert p.kendall_tau()[:, 0, 1].abs().max() < (1.0 if family == "student" else 0.95)


@pytest.mark.parametrize("family", ["gumbel", "clayton", "joe", "frank"])
def test_a_sign_that_the_family_lacks_is_named(family: str) -> None:
    z = torch.randn(1500, 3, 2)
    z[:, 1, 1] -= z[:, 0, 1]
    message = r"no negative dependence between 3 modalities, but coordinates \[1\] have some"
    with pytest.warns(UserWarning, match=message):
        CopulaJoint(3, 2, family, 1).fit(z)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CopulaJoint(3, 2, "factor", 1).fit(z)
        CopulaJoint(3, 2, family, 1).fit(torch.randn(1500, 3, 2))


def test_the_rank_is_settled_with_marginals_of_as_many_rows_as_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """EM has pseudo-observations, beside which weights count as rows."""
    given = []

    def note(z: Tensor, present: Tensor, components: int, **options: Any) -> Any:
        given.append((len(z), float(options["weights"].sum())))
        return fit_mixtures(z, present, components, **options)

    monkeypatch.setattr("cm2.couplings.joint.fit_mixtures", note)
    z = torch.randn(90, 2, 2)
    CopulaJoint(2, 2, "factor", 2, rank="auto").fit(z, weights=torch.rand(90) + 0.5)
    assert len(given) > 1
    for rows, total in given:
        assert total == pytest.approx(rows)
