r"""Series of vital signs and laboratory values that carry the latents of the modality "series".

For stay i and variable v with mean, spread and loadings from :data:`VARIABLES`,

.. math:: x_{iv}(t) = \mu_v + \lambda_{v1} z_{i1} (1 + 0.1\, t / 24) + \lambda_{v2} z_{i2}
    + \delta_v b_{iv} + \epsilon_v w_{iv}(t),

with hours t since ICU admission, a constant b of the stay and a smooth process w, both of unit
variance; w is a sum of waves with random frequencies and phases, so that no loop over time is
needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.random import Generator
from scipy.special import expit

__all__ = ["LABS", "VARIABLES", "Readings", "Variable", "draw", "times"]

WAVES = 4
LONGEST_TREND = 120.0

Array = np.ndarray


class Variable(NamedTuple):
    """How often a variable is charted, and how it depends on the latents."""

    every: float  # hours between readings
    mean: float
    loadings: tuple[float, float]
    between: float  # spread between stays that no latent explains
    within: float
    low: float
    high: float
    decimals: int


VARIABLES: Mapping[str, Variable] = {
    "heart_rate": Variable(1.0, 86, (9, 5), 6, 5, 30, 190, 0),
    "systolic_blood_pressure": Variable(1.0, 120, (-11, 7), 7, 7, 55, 230, 0),
    "diastolic_blood_pressure": Variable(1.0, 62, (-6, 4), 4, 4, 25, 120, 0),
    "mean_blood_pressure": Variable(1.0, 79, (-8, 5), 4, 4, 35, 160, 0),
    "respiratory_rate": Variable(1.0, 19, (3, -1.5), 1.5, 2, 6, 45, 0),
    "oxygen_saturation": Variable(1.0, 97, (-1.4, 0.5), 0.6, 0.9, 70, 100, 0),
    "temperature": Variable(4.0, 37.0, (0.15, 0.35), 0.15, 0.3, 34, 41, 1),
    "glucose": Variable(5.0, 135, (12, 24), 15, 18, 40, 500, 0),
    "ph": Variable(9.0, 7.39, (-0.04, -0.015), 0.015, 0.02, 6.9, 7.65, 2),
    "fraction_inspired_oxygen": Variable(5.0, 0.45, (0.09, -0.03), 0.04, 0.04, 0.21, 1.0, 2),
    "gcs": Variable(4.0, 1.6, (-1.3, 0.5), 0.4, 0.4, -9, 9, 3),
    "capillary_refill_rate": Variable(9.0, -2.0, (1.2, 0.0), 0.3, 1.0, -9, 9, 3),
    "weight": Variable(24.0, 80, (0, 7), 13, 0.8, 40, 190, 1),
    "height": Variable(1e9, 169, (0, 0), 9, 0, 140, 205, 0),
}

LABS: Mapping[str, Variable] = {
    "glucose": Variable(12.0, 135, (12, 24), 15, 15, 40, 500, 0),
    "ph": Variable(10.0, 7.39, (-0.04, -0.015), 0.015, 0.02, 6.9, 7.65, 2),
    "lactate": Variable(12.0, 1.9, (0.8, 0.1), 0.3, 0.3, 0.4, 18, 1),
    "creatinine": Variable(18.0, 1.3, (0.35, 0.5), 0.3, 0.1, 0.3, 12, 1),
    "sodium": Variable(18.0, 139, (0.5, -1.0), 2.5, 1.5, 115, 165, 0),
    "white_cells": Variable(20.0, 11, (2, 1), 3, 1.5, 0.5, 60, 1),
}


class Readings(NamedTuple):
    """Readings of one variable: the row of the stay, hours since its start, the value."""

    stay: Int[Array, reading]
    hour: Float[Array, reading]
    value: Float[Array, reading]


def times(hours: Float[Array, stay], every: float, rng: Generator) -> tuple[Array, Array]:
    """Rows of stays and hours of readings that are about regular, all inside the stay."""
    number = np.maximum(1, np.floor(hours / every)).astype(int)
    stay = np.repeat(np.arange(len(hours)), number)
    turn = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    late = rng.uniform(0.0, 0.45, len(stay)) * np.minimum(every, hours[stay])
    return stay, np.floor((turn * every + late) * 60) / 60


def draw(
    variable: Variable,
    hours: Float[Array, stay],
    readable: Float[Array, "stay axis"],
    rng: Generator,
    *,
    at: tuple[Array, Array] | None = None,
) -> Readings:
    """Draws the readings of one variable for all stays.

    Args:
        variable: Its schedule and loadings.
        hours: Length of each stay.
        readable: Latents of the stays' series.
        rng: Source of randomness.
        at: Rows of stays and hours of the readings, if they are shared with another variable.
    """
    stay, hour = times(hours, variable.every, rng) if at is None else at
    trend = 1.0 + 0.1 * np.minimum(hour, LONGEST_TREND) / 24.0
    first, second = variable.loadings
    fixed = (
        variable.mean + second * readable[:, 1] + variable.between * rng.standard_normal(len(hours))
    )
    value = fixed[stay] + first * readable[stay, 0] * trend
    value += variable.within * _wander(len(hours), stay, hour, rng)
    value = np.clip(value, variable.low, variable.high)
    return Readings(stay, hour, np.round(value, variable.decimals))


def _wander(stays: int, stay: Array, hour: Array, rng: Generator) -> Array:
    """A smooth random process for each stay, of unit variance."""
    frequency = rng.uniform(0.08, 1.2, (stays, WAVES))
    phase = rng.uniform(0.0, 2 * np.pi, (stays, WAVES))
    total = np.zeros(len(hour))
    for wave in range(WAVES):
        total += np.sin(frequency[stay, wave] * hour + phase[stay, wave])
    slow = np.sqrt(2.0 / WAVES) * total
    return np.sqrt(0.6) * slow + np.sqrt(0.4) * rng.standard_normal(len(hour))


def ventilated(readable: Float[Array, "stay axis"], rng: Generator) -> Array:
    """Whether a stay is under mechanical ventilation, the likelier the sicker it looks."""
    return rng.random(len(readable)) < expit(-0.3 + 0.8 * readable[:, 0])
