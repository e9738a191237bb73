"""Bayes' rule with class-conditional laws, and the exponent that corrects its confidence."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from cm2.estimators.heads.held_out import log_loss
from cm2.estimators.heads.log_linear import SCALE_VARIANCE


def log_posterior(
    log_density: Float[ndarray, "*view n label"], prior: Float[ndarray, " label"], beta: float
) -> Float[ndarray, "*view n label"]:
    r"""Log probabilities of the classes, :math:`p(y \mid x) \propto \pi_y \, p(x \mid y)^{\beta}`.

    Args:
        log_density: Of each row under the law of each class.
        prior: Probabilities of the classes.
        beta: The exponent of the likelihood: how far the laws are to be believed.
    """
    return np.asarray(log_softmax(np.log(prior) + beta * log_density, axis=-1))


def confidence(
    log_density: Float[ndarray, "n label"],
    prior: Float[ndarray, " label"],
    y: Int[ndarray, " n"],
    weight: Float[ndarray, " n"],
    bounds: tuple[float, float],
) -> float:
    r"""The exponent of the likelihood of lowest log loss, shrunk to one.

    Its logarithm has a normal prior, as that of the pool's confidence has.

    Args:
        log_density: Of rows that no law has learned from.
        prior: Probabilities of the classes.
        y: Class codes.
        weight: Of each row.
        bounds: Of :math:`\log \beta`.
    """
    rows = float(weight.sum())

    def penalised(log_beta: float) -> float:
        loss = log_loss(log_posterior(log_density, prior, float(np.exp(log_beta))), y, weight)
        return loss + log_beta**2 / (2 * SCALE_VARIANCE * rows)

    return float(np.exp(minimize_scalar(penalised, bounds=bounds, method="bounded").x))
