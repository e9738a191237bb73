r"""The latent variables behind synthetic stays, and the dependence that couples modalities.

One ICU stay has a severity :math:`s` and, for each modality :math:`m` (series, text, image), two
readable latents :math:`z_{m1}, z_{m2}`. With :math:`a` the patient's and :math:`e` the stay's own
part of severity,

.. math::
    s &= \sqrt{w}\, a + \sqrt{1 - w}\, e, \qquad a, e \sim N(0, 1) \\
    n_{q\cdot} &= \Phi^{-1}(u_{q\cdot}), \qquad u_{q\cdot} \sim C \text{ over modalities},
        \quad q = 1, 2 \\
    z_{m1} &= \gamma s + \sqrt{1 - \gamma^2}\, \sigma_m n_{1m}, \qquad z_{m2} = n_{2m} \\
    P(\text{death}) &= \operatorname{logit}^{-1}(\beta_0 + \beta_1 s).

Every :math:`z` is standard normal. The copula :math:`C` is the dependence beyond the class: given
:math:`s`, the first latents of two modalities have correlation :math:`\sigma_m \sigma_{m'} \rho`,
and the second ones :math:`\rho`. A modality alone shows severity blurred by its :math:`n_{1m}`;
together they cancel it, because the text has the opposite sign. Without regard to severity the
first latents of series and text have correlation :math:`\gamma^2 - (1 - \gamma^2) \rho`, which is
-0.36 by default: a model that fills a missing text from the series by this dependence gains, and
one that draws it from its own law does not.

The Gumbel copula is drawn by its frailty (Marshall and Olkin 1988), a positive stable variable by
Kanter's representation (1975).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.random import Generator
from scipy.special import expit, ndtr, ndtri

from cm2.core.errors import InputError

__all__ = ["MODALITIES", "Latents", "World", "copula_draws", "death", "draw", "return_soon"]

MODALITIES = ("series", "text", "image")
AXES = 2

Array = np.ndarray
Copula = Literal["gaussian", "gumbel", "independence"]


class World(NamedTuple):
    """The true parameters of the generative model; written to ``synthetic.json``.

    Attributes:
        dependence: Correlation of the Gaussian copula; another family gets the same Kendall's tau.
        copula: Family that couples the modalities.
        severity_loading: How much of each first latent is severity (gamma).
        signs: Sign of the shared part in the first latent of series, text and image (sigma).
        patient_share: Share of the variance of severity that stays with the patient (w).
        death: Intercept and slope of the log-odds of death in hospital.
        return_soon: Intercept and slope of the log-odds of a new ICU stay within 30 days.
        image_rate: Share of stays with chest X-rays.
        text_rate: Share of stays with notes or reports.
        messiness: Factor on the rate of every fault; 0 writes clean tables.
    """

    dependence: float = 0.7
    copula: Copula = "gaussian"
    severity_loading: float = 0.45
    signs: tuple[float, float, float] = (1.0, -1.0, 1.0)
    patient_share: float = 0.5
    death: tuple[float, float] = (-2.6, 2.2)
    return_soon: tuple[float, float] = (-2.4, 0.8)
    image_rate: float = 0.7
    text_rate: float = 0.85
    messiness: float = 1.0


class Latents(NamedTuple):
    """Latents of stays: severity, and the readable ones of each modality and axis."""

    severity: Float[Array, stay]
    readable: Float[Array, "stay modality axis"]


def check(world: World) -> None:
    """Refuses parameters that no model has."""
    if world.copula not in ("gaussian", "gumbel", "independence"):
        raise InputError(f"copula must be gaussian, gumbel or independence, got {world.copula!r}")
    if not 0.0 <= world.dependence < 1.0:
        raise InputError(f"dependence must lie in [0, 1), got {world.dependence}")
    if world.messiness < 0.0:
        raise InputError(f"messiness must not be negative, got {world.messiness}")


def draw(patient: Float[Array, stay], world: World, rng: Generator) -> Latents:
    """Draws the latents of one stay for each of the given patients.

    Args:
        patient: The patients' own part of severity, standard normal.
        world: The parameters.
        rng: Source of randomness.
    """
    size = len(patient)
    share = world.patient_share
    severity = math.sqrt(share) * patient + math.sqrt(1 - share) * rng.standard_normal(size)
    nuisance = ndtri(copula_draws((size, AXES), len(MODALITIES), world, rng))
    readable = np.swapaxes(nuisance, 1, 2).copy()
    gamma = world.severity_loading
    readable[..., 0] = gamma * severity[:, None] + math.sqrt(1 - gamma**2) * (
        np.asarray(world.signs) * readable[..., 0]
    )
    return Latents(severity, readable)


def copula_draws(
    shape: tuple[int, ...], dim: int, world: World, rng: Generator
) -> Float[Array, "*shape dim"]:
    """Draws of the exchangeable copula of the world, strictly inside the unit cube."""
    rho = world.dependence
    if world.copula == "gumbel":
        theta = 1.0 / (1.0 - 2.0 / math.pi * math.asin(rho))  # equal Kendall's tau
        frailty = _positive_stable((*shape, 1), 1.0 / theta, rng)
        unit = np.exp(-((rng.exponential(size=(*shape, dim)) / frailty) ** (1.0 / theta)))
        return np.clip(unit, 1e-12, 1 - 1e-12)
    rho = rho if world.copula == "gaussian" else 0.0
    common = rng.standard_normal((*shape, 1))
    own = rng.standard_normal((*shape, dim))
    unit = ndtr(math.sqrt(rho) * common + math.sqrt(1.0 - rho) * own)
    return np.clip(unit, 1e-12, 1 - 1e-12)


def death(severity: Float[Array, stay], world: World) -> Float[Array, stay]:
    """Probability of death in hospital."""
    intercept, slope = world.death
    return expit(intercept + slope * severity)


def return_soon(severity: Float[Array, stay], world: World) -> Float[Array, stay]:
    """Probability that a survivor is back in the ICU within 30 days."""
    intercept, slope = world.return_soon
    return expit(intercept + slope * severity)


def _positive_stable(shape: tuple[int, ...], alpha: float, rng: Generator) -> Array:
    """Positive stable variables with Laplace transform exp(-t**alpha)."""
    if alpha == 1.0:
        return np.ones(shape)
    angle = rng.uniform(0.0, math.pi, shape)
    clock = rng.exponential(size=shape)
    first = np.sin(alpha * angle) / np.sin(angle) ** (1.0 / alpha)
    return first * (np.sin((1.0 - alpha) * angle) / clock) ** ((1.0 - alpha) / alpha)
