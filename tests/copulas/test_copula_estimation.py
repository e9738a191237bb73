"""Fits recover what made the data, agree with other programs, and are honest at boundaries."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import pyvinecopulib as pv
import torch
from scipy import optimize, stats
from torch import Tensor

from cm2 import copulas
from cm2.copulas.ranks import kendall_matrix
from families import CASES, Case, names
from laws import kendall

FITTED = [
    case
    for case in CASES
    if case.family != "independence"
    and case.label in {"mild", "irregular", "negative"}
    # a pair determines the product of two loadings, not each
    and (case.family != "factor" or case.dim > 2)
]
BICOP = {
    "gaussian": pv.BicopFamily.gaussian,
    "student": pv.BicopFamily.student,
    "gumbel": pv.BicopFamily.gumbel,
    "clayton": pv.BicopFamily.clayton,
    "frank": pv.BicopFamily.frank,
    "joe": pv.BicopFamily.joe,
}


def truth(case: Case) -> dict[str, float]:
    """The parameters of a case under the names that a fit gives them."""
    values = {}
    for name, value in case.arguments.items():
        if name == "correlation":
            values |= {
                f"correlation[{i}, {j}]": float(value[i, j])
                for i in range(case.dim)
                for j in range(i)
            }
        elif name == "loading":
            values |= {f"loading[{i}, 0]": float(value[i, 0]) for i in range(case.dim)}
        else:
            values[name] = float(value)
    return values


def hidden(u: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(u.shape) < rate, np.nan, u)


def standing(fit: copulas.Fit, case: Case) -> list[float]:
    """Errors of the estimates in standard errors."""
    assert not fit.boundary
    expected = truth(case)
    assert fit.parameters.keys() == expected.keys()
    return [
        (fit.parameters[name] - value) / fit.standard_errors[name]
        for name, value in expected.items()
    ]


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("case", FITTED, ids=names(FITTED))
def test_parameters_are_recovered_within_three_standard_errors(case: Case, rate: float) -> None:
    rng = np.random.default_rng(2)
    u = hidden(case.sample(5000, rng), rate, rng)
    fit = copulas.fit(u, case.family)
    assert fit.observations == ((~np.isnan(u)).sum(1) >= 2).sum()
    # With many parameters the largest of their errors may be larger: Bonferroni.
    bound = max(3.0, stats.norm.isf(0.00135 / len(fit.parameters)))
    assert max(map(abs, standing(fit, case))) < bound


@pytest.mark.parametrize("family", BICOP)
def test_estimates_equal_those_of_pyvinecopulib(family: str) -> None:
    u = copulas.REGISTRY[family].from_kendall_tau(torch.tensor(0.5).double(), dim=2).sample((2000,))
    fit = copulas.fit(u, family)
    other = pv.Bicop(family=BICOP[family])
    other.fit(u.numpy(), pv.FitControlsBicop(parametric_method="mle"))
    # Its optimiser stops at about 1e-4.
    np.testing.assert_allclose(list(fit.parameters.values()), other.parameters.flatten(), rtol=2e-3)
    assert fit.log_likelihood >= other.loglik(u.numpy()) - 1e-6
    assert fit.log_likelihood == pytest.approx(other.loglik(u.numpy()), abs=5e-3)
    assert fit.aic == pytest.approx(other.aic(u.numpy()), abs=1e-2)
    assert fit.bic == pytest.approx(other.bic(u.numpy()), abs=1e-2)


@pytest.mark.parametrize("family", ["gaussian", "gumbel", "clayton", "frank", "joe"])
def test_standard_errors_equal_the_curvature_of_another_likelihood(family: str) -> None:
    u = copulas.REGISTRY[family].from_kendall_tau(torch.tensor(0.4).double(), dim=2).sample((1000,))
    fit = copulas.fit(u, family)
    ((name, at),) = fit.parameters.items()

    def log_likelihood(value: float) -> float:
        bicop = pv.Bicop(family=BICOP[family], parameters=np.array([[value]]))
        return float(bicop.loglik(u.numpy()))

    step = fit.standard_errors[name] / 10
    curvature = (
        log_likelihood(at + step) - 2 * log_likelihood(at) + log_likelihood(at - step)
    ) / step**2
    assert fit.standard_errors[name] == pytest.approx((-curvature) ** -0.5, rel=1e-3)
    assert fit.covariance[0, 0].sqrt().item() == pytest.approx(fit.standard_errors[name])


@pytest.mark.parametrize("family", ["GumbelCopula", "ClaytonCopula"])
def test_estimates_maximise_the_likelihood_of_statsmodels(family: str) -> None:
    from statsmodels.distributions.copula import api

    name = family.removesuffix("Copula").lower()
    u = copulas.REGISTRY[name].from_kendall_tau(torch.tensor(0.5).double(), dim=2).sample((1000,))
    other = getattr(api, family)()
    found = optimize.minimize_scalar(
        lambda theta: -other.logpdf(u.numpy(), args=(theta,)).sum(), bounds=(1.01, 8.0)
    )
    ((_, at),) = copulas.fit(u, name).parameters.items()
    assert at == pytest.approx(found.x, rel=1e-4)


def test_a_gaussian_fit_without_margins_is_near_the_correlation_of_scores() -> None:
    rng = np.random.default_rng(0)
    correlation = np.array([[1.0, 0.6, -0.3], [0.6, 1.0, 0.1], [-0.3, 0.1, 1.0]])
    x = rng.multivariate_normal(np.zeros(3), correlation, 4000)
    fit = copulas.fit(stats.norm.cdf(x), "gaussian")
    sample = np.corrcoef(x.T)
    for (i, j), value in zip([(1, 0), (2, 0), (2, 1)], fit.parameters.values(), strict=True):
        assert value == pytest.approx(sample[i, j], abs=0.02)
    error = fit.standard_errors["correlation[1, 0]"]
    assert error == pytest.approx((1 - 0.36) / 4000**0.5, rel=0.35)
    assert torch.linalg.eigvalsh(fit.covariance).min() > 0


# Missing entries -------------------------------------------------------------------------------


def test_rows_with_fewer_than_two_entries_change_nothing() -> None:
    u = copulas.Gumbel(3, torch.tensor(2.0).double()).sample((300,))
    lonely = torch.full((50, 3), torch.nan).double()
    lonely[:25, 1] = 0.3
    fit, wider = copulas.fit(u, "gumbel"), copulas.fit(torch.cat([lonely, u]), "gumbel")
    assert wider.observations == fit.observations == 300
    assert wider.parameters["alpha"] == pytest.approx(fit.parameters["alpha"], abs=1e-6)
    assert wider.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-8)


@pytest.mark.parametrize("family", ["clayton", "frank", "gaussian"])
def test_the_likelihood_of_incomplete_rows_is_that_of_the_margin(family: str) -> None:
    u = copulas.REGISTRY[family].from_kendall_tau(torch.tensor(0.5).double(), dim=3).sample((400,))
    u[:200, 1] = torch.nan
    fit = copulas.fit(u, family)
    pair = fit.copula.marginal(torch.tensor([True, False, True]))
    expected = pair.log_prob(u[:200][:, [0, 2]]).sum() + fit.copula.log_prob(u[200:]).sum()
    assert fit.log_likelihood == pytest.approx(expected.item(), rel=1e-10)


def test_missing_entries_cost_precision() -> None:
    u = copulas.Frank(3, torch.tensor(5.0).double()).sample((1000,))
    gone = torch.where(torch.rand_like(u) < 0.4, torch.nan, u)
    whole, part = copulas.fit(u, "frank"), copulas.fit(gone, "frank")
    assert part.standard_errors["theta"] > 1.2 * whole.standard_errors["theta"]


# Boundaries and honesty ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "name", "end"), [("gumbel", "alpha", 1.0), ("clayton", "theta", 0.0)]
)
def test_one_sided_families_report_independence_on_negative_data(
    family: str, name: str, end: float
) -> None:
    u = copulas.Gaussian.from_kendall_tau(torch.tensor(-0.4).double()).sample((500,))
    fit = copulas.fit(u, family)
    assert fit.boundary == (name,)
    assert fit.parameters[name] == pytest.approx(end, abs=1e-4)
    assert math.isnan(fit.standard_errors[name])
    assert fit.log_likelihood == pytest.approx(0.0, abs=0.05)
    assert "at the boundary" in repr(fit)


def test_degrees_of_freedom_without_a_maximum_are_reported() -> None:
    u = copulas.Gaussian.from_kendall_tau(torch.tensor(0.5).double()).sample((3000,))
    student, gaussian = copulas.fit(u, "student"), copulas.fit(u, "gaussian")
    assert student.log_likelihood >= gaussian.log_likelihood - 0.05
    if student.boundary:
        assert student.boundary == ("df",)
        assert math.isnan(student.standard_errors["df"])
        error = student.standard_errors["correlation[1, 0]"]
        assert error == pytest.approx(gaussian.standard_errors["correlation[1, 0]"], rel=0.05)


def test_strong_dependence_is_within_range() -> None:
    for family in ("frank", "gumbel", "clayton", "gaussian"):
        cls = copulas.REGISTRY[family]
        copula = cls.from_kendall_tau(torch.tensor(0.98).double(), dim=2)
        fit = copulas.fit(copula.sample((300,)), family)
        assert fit.copula.kendall_tau()[0, 1].item() == pytest.approx(0.98, abs=0.005)
        assert not fit.boundary


@pytest.mark.parametrize(
    ("source", "tau"),
    [
        ("gumbel", -0.9999), ("gumbel", 0.99), ("clayton", -0.99), ("clayton", 0.9999),
        ("gaussian", -0.9999), ("gaussian", 0.9999), ("frank", -0.99), ("frank", 0.99),
    ],
)  # fmt: skip
def test_no_fit_ends_below_independence(source: str, tau: float) -> None:
    """Of any family to any data, however strong their dependence."""
    u = copulas.REGISTRY[source].from_kendall_tau(torch.tensor(abs(tau)).double()).sample((100,))
    u = u.clamp(1e-12, 1 - 1e-12)
    if tau < 0:
        u[:, 1] = 1 - u[:, 1]
    for family in copulas.REGISTRY:
        fit = copulas.fit(u, family)
        # What is left of dependence at the end of the range, theta 2e-8, over 100 rows.
        assert fit.log_likelihood > -1e-4, fit
        rising = bool(fit.copula.kendall_tau()[0, 1] > 0)
        if fit.log_likelihood > 1e-4:
            assert rising == (tau > 0)
            assert fit.log_likelihood > 100, fit


@pytest.mark.parametrize("family", ["rotated90-gumbel", "rotated270-gumbel", "frank", "gaussian"])
def test_nearly_countermonotone_ranks_are_fitted(family: str) -> None:
    """300 rows of which two pairs are in the wrong order: tau -.9999."""
    order = np.arange(300)
    order[[10, 11, 100, 101]] = order[[11, 10, 101, 100]]
    u = copulas.pseudo_observations(np.stack([np.arange(300), -order], 1))
    fit = copulas.fit(u, family)
    assert fit.converged
    assert fit.log_likelihood > 1300
    assert fit.copula.kendall_tau()[0, 1] < -0.99


def test_strong_dependence_is_found_by_exchangeable_correlations_too() -> None:
    u = copulas.Gaussian.from_kendall_tau(torch.tensor(0.999).double(), dim=3).sample((300,))
    fit = copulas.fit(u, "gaussian", exchangeable=True)
    assert fit.converged
    assert fit.copula.kendall_tau()[0, 1].item() == pytest.approx(0.999, abs=2e-4)


def third() -> Tensor:
    """Scores of which the third is the sum of the first two."""
    x = torch.randn(150, 2).double() @ torch.tensor([[1.0, -0.5], [0.0, 0.75**0.5]]).double()
    return torch.special.ndtr(torch.cat([x, x.sum(-1, keepdim=True)], 1))


def diagonal() -> Tensor:
    """48 of 50 rows on the diagonal."""
    u = torch.rand(50, 2).double()
    u[:48, 1] = u[:48, 0]
    return u


@pytest.mark.parametrize(
    ("data", "family", "name"),
    [
        (third, "gaussian", "correlation[2, 1]"),
        (third, "student", "correlation[2, 1]"),
        (diagonal, "student", "correlation[1, 0]"),
    ],
)
def test_a_likelihood_without_bound_has_no_errors_and_is_not_chosen(
    data: Callable[[], Tensor], family: str, name: str
) -> None:
    u = data()
    fit = copulas.fit(u, family)
    assert not fit.converged
    assert name in fit.boundary
    assert all(math.isnan(error) for error in fit.standard_errors.values())
    assert fit.covariance.isnan().all()
    assert "no maximum was found" in repr(fit)
    found = copulas.select(u, [family, "frank", "clayton"])
    assert found.best.family != family
    assert found.table[-1].family == family
    assert found.best.converged
    assert "no maximum" in repr(found).splitlines()[-1]


def test_fits_of_ordinary_data_converge() -> None:
    u = copulas.Clayton(3, torch.tensor(1.0).double()).sample((400,))
    assert all(copulas.fit(u, family).converged for family in copulas.REGISTRY if "0" not in family)


def test_what_the_data_do_not_determine_has_no_error() -> None:
    """Two equal components: their weights may be anything."""
    one = copulas.Gumbel(2, torch.tensor(2.0).double())
    fit = copulas.fit(one.sample((500,)), copulas.Mixture([one, one]))
    assert math.isnan(fit.standard_errors["weights[0]"])
    assert "not determined" in repr(fit)


def test_an_exchangeable_correlation_is_one_parameter() -> None:
    copula = copulas.Gaussian.from_kendall_tau(torch.tensor(0.3).double(), dim=4)
    fit = copulas.fit(copula.sample((2000,)), "gaussian", exchangeable=True)
    (error,), (value,) = fit.standard_errors.values(), fit.parameters.values()
    assert abs(value - copula.correlation[0, 1].item()) < 3 * error
    off = fit.copula.correlation[~torch.eye(4, dtype=torch.bool)]
    torch.testing.assert_close(off, torch.full_like(off, value))


def test_a_fit_says_what_it_found() -> None:
    u = copulas.Gumbel(2, torch.tensor(2.0).double()).sample((500,))
    fit = copulas.fit(u, copulas.Gumbel)
    assert fit.family == "Gumbel"
    assert fit.aic == 2 - 2 * fit.log_likelihood
    assert fit.bic == math.log(500) - 2 * fit.log_likelihood
    assert repr(fit).startswith("Gumbel, 2 coordinates, 500 rows: log likelihood")
    assert f"+- {fit.standard_errors['alpha']:.4g}" in repr(fit)
    assert copulas.fit(u, fit.copula).parameters["alpha"] == pytest.approx(
        fit.parameters["alpha"], abs=1e-4
    )
    independent = copulas.fit(u, "independence")
    assert independent.parameters == {}
    assert independent.log_likelihood == 0.0


@pytest.mark.parametrize(
    ("spoil", "family", "message"),
    [
        (lambda u: u, "gumbl", "did you mean 'gumbel'"),
        (lambda u: u[:, :1], "gumbel", r"at least 2 coordinates, got \(20, 1\)"),
        (lambda u: u[:, 0], "gumbel", r"got \(20,\)"),
        (lambda u: u + 1, "gumbel", r"inside \(0, 1\).*60 entries.*pseudo_observations"),
        (lambda u: u.round(), "gumbel", r"inside \(0, 1\)"),
        (lambda u: u * torch.nan, "gumbel", "0 rows with two entries or more"),
        (lambda u: u[:1], "gumbel", "1 rows with two entries or more"),
        (lambda u: u[:, [0, 0]], "gumbel", "columns 0 and 1 of u determine each other"),
        (lambda u: u, copulas.Gumbel(2, 2.0), "3 coordinates and no batch.*got 2"),
        (lambda u: u, copulas.Gumbel(3, torch.ones(2)), "3 coordinates and no batch"),
        (lambda u: apart(u), "gaussian", "columns 0 and 1 of u have no row in common"),
        (lambda u: once(u), "gaussian", "columns 0 and 1 of u have one row in common"),
        (lambda u: still(u), "student", "0 and 1 of u have 10 rows in common, on which one"),
        (
            lambda u: torch.cat([torch.full_like(u[:, :1], 0.5), u], 1),
            "gumbel",
            "column 0 of u is constant",
        ),
        (lambda u: u[:2], "gaussian", "2 rows for 3 columns: gaussian needs as many"),
    ],
)
def test_unusable_data_are_refused_with_the_reason(
    spoil: object, family: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        copulas.fit(spoil(torch.rand(20, 3).double()), family)  # type: ignore[operator]


def apart(u: Tensor) -> Tensor:
    """No row has both of the first two columns."""
    u = u.clone()
    u[::2, 0] = torch.nan
    u[1::2, 1] = torch.nan
    return u


def once(u: Tensor) -> Tensor:
    """One row has both of the first two columns."""
    u = apart(u)
    u[0, :2] = torch.tensor([0.2, 0.7])
    return u


def still(u: Tensor) -> Tensor:
    """The second column varies only where the first is missing."""
    u = u.clone()
    u[::2, 0] = torch.nan
    u[1::2, 1] = 0.5
    return u


def test_all_rows_say_which_columns_are_together() -> None:
    """A sample of every third row sees none of the second column."""
    u = copulas.Gaussian.from_kendall_tau(torch.tensor(0.5).double(), dim=3).sample((1002,))
    u[::3, 1] = torch.nan
    fit = copulas.fit(u, "gaussian")
    assert fit.observations == 1002
    assert fit.converged
    assert fit.parameters["correlation[1, 0]"] == pytest.approx(0.707, abs=0.1)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_order_of_columns_and_rows_does_not_say_whether_columns_determine_each_other(
    sign: int, backwards: bool
) -> None:
    """Kilograms rounded to 0.1, and the same in pounds."""
    kilograms = np.random.default_rng(0).normal(80, 15, 400)
    x = np.stack([sign * kilograms.round(1), kilograms * 2.20462], 1)
    for rows in (x, x[::-1], x[np.argsort(kilograms)], np.random.default_rng(1).permutation(x)):
        u = copulas.pseudo_observations(rows[:, ::-1] if backwards else rows)
        for family in ("gumbel", "gaussian"):
            with pytest.raises(ValueError, match="columns 0 and 1 of u determine each other"):
                copulas.fit(u, family)


def test_few_rows_may_rise_together_by_chance() -> None:
    u = torch.rand(60, 3).double()
    u[2:30, 0] = torch.nan
    u[30:, 1] = torch.nan
    u[:2, 0], u[:2, 1] = torch.tensor([0.2, 0.6]).double(), torch.tensor([0.3, 0.7]).double()
    assert kendall_matrix(u)[0, 1] == 1
    assert copulas.fit(u, "clayton").converged
    # A column of two values that the other one tells is not the other one.
    y = torch.rand(200).double()
    binary = torch.stack([torch.where(y > 0.5, 0.75, 0.25), y], 1)
    for columns in ([0, 1], [1, 0]):
        assert copulas.fit(binary[:, columns], "gaussian").converged


def test_exchangeable_needs_a_correlation_and_helps_where_pairs_never_meet() -> None:
    u = torch.rand(50, 3).double()
    with pytest.raises(ValueError, match="gumbel has no correlation matrix"):
        copulas.fit(u, "gumbel", exchangeable=True)
    assert copulas.fit(apart(u), "gaussian", exchangeable=True).parameters.keys() == {"correlation"}


# Ranks -----------------------------------------------------------------------------------------


def test_ranks_of_what_is_no_number_are_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="x should be numbers") as caught:
        copulas.pseudo_observations([["J. Smith", 1.0], ["J. Doe", 2.0]])
    assert "Smith" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_ranks_leave_out_what_a_mask_hides() -> None:
    x = np.ma.masked_array([[1.0, 3.0], [2.0, -999.0], [0.0, 4.0]], mask=False)
    x[1, 1] = np.ma.masked
    u = copulas.pseudo_observations(x)
    torch.testing.assert_close(u, copulas.pseudo_observations(x.filled(np.nan)), equal_nan=True)


def test_pseudo_observations_are_ranks_over_n_plus_one() -> None:
    x = np.random.default_rng(0).standard_normal((200, 3)).round(1)
    x[::7, 1] = np.nan
    u = copulas.pseudo_observations(x)
    for j in range(3):
        given = ~np.isnan(x[:, j])
        expected = stats.rankdata(x[given, j]) / (given.sum() + 1)
        np.testing.assert_allclose(u[given, j].numpy(), expected, rtol=1e-15)
        assert u[~given, j].isnan().all()
    stretched = np.exp(x) * 3 - 1
    torch.testing.assert_close(copulas.pseudo_observations(stretched), u, equal_nan=True)


def test_kendall_of_data_is_that_of_the_pairs_at_hand() -> None:
    u = copulas.Gaussian.from_kendall_tau(torch.tensor(0.5).double(), dim=3).sample((400,))
    torch.testing.assert_close(kendall_matrix(u), torch.tensor(kendall(u)[0]))
    u[::3, 0] = torch.nan
    both = ~u[:, 0].isnan()
    assert kendall_matrix(u)[0, 2].item() == pytest.approx(
        stats.kendalltau(u[both, 0], u[both, 2]).statistic, abs=1e-12
    )


@pytest.mark.parametrize("family", ["clayton", pytest.param("gumbel", marks=pytest.mark.slow)])
def test_errors_from_ranks_are_those_of_estimates_over_many_sets(family: str) -> None:
    """With those of known margins, nominal 95% cover 80% for Clayton and 89% for Gumbel."""
    copula = copulas.REGISTRY[family].from_kendall_tau(torch.tensor(0.5).double())
    estimates, errors = [], []
    for _ in range(200):
        fit = copulas.fit(copulas.pseudo_observations(copula.sample((300,))), family)
        (value,), (error,) = fit.parameters.values(), fit.standard_errors.values()
        estimates.append(value)
        errors.append(error)
    deviation = np.std(estimates)
    # The standard deviation of 200 has an error of 5% itself, here thrice; ranks add up to 60%.
    assert np.mean(errors) == pytest.approx(deviation, rel=0.15)
    truth = np.mean(estimates)
    covered = np.mean(np.abs(np.array(estimates) - truth) < 1.96 * np.array(errors))
    assert 0.9 < covered < 0.99


def test_errors_from_ranks_of_a_gaussian_are_known_and_need_no_complete_rows() -> None:
    """Klaassen and Wellner (1997): (1 - rho^2) / sqrt(n) for normal scores."""
    copula = copulas.Gaussian.from_kendall_tau(torch.tensor(0.5).double())
    x = copula.sample((4000,))
    fit = copulas.fit(copulas.pseudo_observations(x.float()), "gaussian")
    rho = fit.parameters["correlation[1, 0]"]
    error = fit.standard_errors["correlation[1, 0]"]
    assert error == pytest.approx((1 - rho**2) / 4000**0.5, rel=0.05)
    x[:2000, 0] = torch.nan
    half = copulas.fit(copulas.pseudo_observations(x), "gaussian")
    assert half.observations == 2000
    # Rows with one entry say where its margin is: errors lie between those of known margins and
    # those of ranks of 2,000 rows.
    known = (1 - rho**2) / (1 + rho**2) ** 0.5 / 2000**0.5
    assert 0.95 * known < half.standard_errors["correlation[1, 0]"] < 1.1 * error * 2**0.5


# Choice of a family ----------------------------------------------------------------------------


def test_selection_finds_the_family_that_made_the_data() -> None:
    """One set of 2,000 points a family; `benchmarks/selection.py` counts over 100."""
    tau = torch.tensor(0.5).double()
    for family in ("gumbel", "clayton", "frank", "joe", "gaussian", "student"):
        u = copulas.REGISTRY[family].from_kendall_tau(tau, dim=2).sample((2000,))
        found = copulas.select(u)
        assert found.best.family == family, f"{family} taken for\n{found}"
        scores = [found.score(fit) for fit in found.table]
        assert scores == sorted(scores)
        assert found.copula is found.table[0].copula
        assert family in repr(found)


def test_selection_finds_independence_and_negative_dependence() -> None:
    assert copulas.select(torch.rand(2000, 3).double()).best.family == "independence"
    u = copulas.Frank(2, torch.tensor(-6.0).double()).sample((2000,))
    assert copulas.select(u).best.family == "frank"


def test_selection_tries_weak_dependence_of_many_rows() -> None:
    """A tau of .03, of which 500 of the 20,000 rows do not tell the sign."""
    torch.manual_seed(3)
    u = copulas.Clayton.from_kendall_tau(torch.tensor(0.03).double()).sample((20_000,))
    found = copulas.select(u, criterion="bic")
    assert found.best.family == "clayton"


def test_selection_leaves_out_what_columns_apart_do_not_determine() -> None:
    u = copulas.Clayton(3, torch.tensor(2.0).double()).sample((400,))
    found = copulas.select(apart(u))
    assert found.best.family == "clayton"
    assert "gaussian" not in {fit.family for fit in found.table}


def test_selection_with_missing_entries() -> None:
    u = copulas.Clayton(4, torch.tensor(2.0).double()).sample((1500,))
    u = torch.where(torch.rand_like(u) < 0.4, torch.nan, u)
    found = copulas.select(u, ["gumbel", "clayton", "frank"], criterion="aic")
    assert found.best.family == "clayton"
    assert found.score(found.best) == found.best.aic


def test_selection_refuses_what_it_does_not_know() -> None:
    u = torch.rand(20, 2).double()
    with pytest.raises(ValueError, match="'aic' or 'bic', got 'dic'"):
        copulas.select(u, criterion="dic")
    with pytest.raises(ValueError, match="no family to select from"):
        copulas.select(u, [])
    with pytest.raises(ValueError, match="did you mean 'frank'"):
        copulas.select(u, ["franc"])
