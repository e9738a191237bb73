"""The generative model: margins, copula, outcome, and what the dependence is worth."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from cm2.clinical.synthesize import latents
from cm2.clinical.synthesize.latents import World
from cm2.core.errors import InputError

SIZE = 20_000


def drawn(world: World, seed: int = 3) -> latents.Latents:
    rng = np.random.default_rng(seed)
    return latents.draw(rng.standard_normal(SIZE), world, rng)


@pytest.mark.parametrize("copula", ["gaussian", "gumbel", "independence"])
def test_every_latent_is_standard_normal(copula):
    found = drawn(World(copula=copula))
    for values in [found.severity, *found.readable.reshape(SIZE, -1).T]:
        assert stats.kstest(values, "norm").pvalue > 1e-4


@pytest.mark.parametrize("copula", ["gaussian", "gumbel", "independence"])
def test_copula_has_the_kendall_tau_of_the_stated_correlation(copula):
    world = World(copula=copula)
    unit = latents.copula_draws((SIZE,), 3, world, np.random.default_rng(0))
    tau = 0.0 if copula == "independence" else 2 / math.pi * math.asin(world.dependence)
    for first, second in [(0, 1), (0, 2), (1, 2)]:
        found = stats.kendalltau(unit[:, first], unit[:, second]).statistic
        assert abs(found - tau) < 4 / math.sqrt(SIZE)


def test_correlation_given_severity_is_the_stated_one():
    world = World(dependence=0.6)
    found = drawn(world)
    gamma = world.severity_loading
    rest = (found.readable[..., 0] - gamma * found.severity[:, None]) / math.sqrt(1 - gamma**2)
    signs = np.asarray(world.signs)
    expected = np.where(np.eye(3) == 1, 1.0, 0.6 * np.outer(signs, signs))
    assert np.abs(np.corrcoef(rest.T) - expected).max() < 4 / math.sqrt(SIZE)


def test_deaths_follow_the_stated_odds():
    found = drawn(World())
    probability = latents.death(found.severity, World())
    intercept, slope = World().death
    assert np.allclose(np.log(probability / (1 - probability)), intercept + slope * found.severity)


def test_conditional_imputation_beats_marginal_imputation():
    """A classifier of complete latents, asked with the text missing, in both ways of filling it."""
    world = World()
    found = drawn(world)
    rng = np.random.default_rng(1)
    died = rng.random(SIZE) < latents.death(found.severity, world)
    z = found.readable[:, :2, 0]
    half = SIZE // 2
    model = LogisticRegression().fit(z[:half], died[:half])
    series = z[half:, 0]
    covariance = np.cov(z[:half].T)
    gamma2, rho = world.severity_loading**2, world.dependence
    assert abs(covariance[0, 1] - (gamma2 - (1 - gamma2) * rho)) < 4 / math.sqrt(half)
    slope = covariance[0, 1] / covariance[0, 0]
    spread = math.sqrt(covariance[1, 1] - slope * covariance[0, 1])
    noise = rng.standard_normal((50, half))
    fills = {"conditional": slope * series + spread * noise, "marginal": noise}

    def loss(fill):
        logits = model.coef_[0, 0] * series + model.coef_[0, 1] * fill + model.intercept_[0]
        return log_loss(died[half:], (1 / (1 + np.exp(-logits))).mean(0))

    complete = log_loss(died[half:], model.predict_proba(z[half:])[:, 1])
    assert complete < loss(fills["conditional"]) < loss(fills["marginal"])


@pytest.mark.parametrize(
    ("world", "said"),
    [
        (World(dependence=1.0), "dependence must lie"),
        (World(copula="frank"), "copula must be"),
        (World(messiness=-1.0), "messiness"),
    ],
)
def test_impossible_worlds_are_refused(world, said):
    with pytest.raises(InputError, match=said):
        latents.check(world)
