"""The arithmetic of log-linear pooling: weights and confidence, by what is missing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from cm2.estimators.heads.base import FLOOR, class_prior

WEIGHT_VARIANCE = 4.0
SCALE_VARIANCE = 0.25
SLOPE_VARIANCE = 1.0


class Weights(NamedTuple):
    """Weights and confidence as functions of the share missing, in deviations from its mean.

    Attributes:
        level: Logarithms of the heads' weights at the mean share, less what they have in common.
        slope: How they change by a deviation of it.
        scale: Logarithm of the confidence at the mean share, and how it changes.
        center: The mean share missing.
        width: Its standard deviation; infinite if it is always the same.
        log_frequency: Logarithms of the classes' frequencies, by weight.
    """

    level: Float[ndarray, " head"]
    slope: Float[ndarray, " head"]
    scale: Float[ndarray, " 2"]
    center: float
    width: float
    log_frequency: Float[ndarray, " label"]

    def at(self, missing: Float[ndarray, " n"]) -> tuple[ndarray, ndarray]:
        """Weights, which sum to one, and confidence of rows that lack such shares."""
        apart = (missing - self.center) / self.width
        weights = softmax(self.level + apart[:, None] * self.slope, axis=1)
        return weights, np.exp(self.scale[0] + self.scale[1] * apart)

    def pooled(
        self, log_proba: Float[ndarray, "head n label"], missing: Float[ndarray, " n"]
    ) -> Float[ndarray, "n label"]:
        """Log probabilities of the pool for rows that lack such shares."""
        return pool(log_proba, *self.at(missing), self.log_frequency)

    def mean(
        self, missing: Float[ndarray, "view n"], weight: Float[ndarray, " n"]
    ) -> Float[ndarray, " head"]:
        """Mean weights over rows and their views."""
        each, _ = self.at(missing.ravel())
        return np.asarray(np.average(each, axis=0, weights=np.tile(weight, len(missing))))


def pool(
    log_proba: Float[ndarray, "head n label"],
    weights: Float[ndarray, "n head"],
    scale: Float[ndarray, " n"],
    log_frequency: Float[ndarray, " label"],
) -> Float[ndarray, "n label"]:
    """Weighted geometric means; what they say beyond the frequencies, to the power of ``scale``."""
    mean = np.einsum("nk,knc->nc", weights, np.maximum(log_proba, FLOOR) - log_frequency)
    return np.asarray(log_softmax(log_frequency + scale[:, None] * mean, axis=1))


def fit_weights(
    log_proba: Float[ndarray, "head view n label"],
    y: Int[ndarray, " n"],
    sample_weight: Float[ndarray, " n"],
    prior: Float[ndarray, " head"],
    missing: Float[ndarray, "view n"],
) -> Weights:
    """Weights and confidence that minimise the penalised log loss of the pool.

    Args:
        log_proba: What each head says of each row in each view, held out.
        y: Class codes.
        sample_weight: Of each row.
        prior: Weights of the heads in advance.
        missing: Share of modalities that each row lacks in each view.
    """
    if (prior < 0).any() or prior.sum() <= 0:
        raise ValueError(f"prior weights should not be negative, nor all zero; got {prior}")
    heads, views, _, labels = log_proba.shape
    weight = sample_weight / sample_weight.mean()
    log_frequency = np.log(class_prior(y, weight, labels))
    flat = np.maximum(log_proba, FLOOR).reshape(heads, -1, labels) - log_frequency
    share = np.tile(weight, views) / views
    with np.errstate(divide="ignore"):
        log_prior = np.log(prior)
    target = np.tile(np.eye(labels)[y], (views, 1))
    width = float(missing.std())
    center = float(missing.mean())
    start = Weights(log_prior, log_prior, np.zeros(2), center, width or np.inf, log_frequency)
    apart = (missing.ravel() - start.center) / start.width

    def unpacked(free: Float[ndarray, " free"]) -> Weights:
        t, u = free[:heads], free[heads : 2 * heads]
        return start._replace(level=log_prior + t, slope=u, scale=free[2 * heads :])

    variance = np.repeat([WEIGHT_VARIANCE, SLOPE_VARIANCE, SCALE_VARIANCE], [heads, heads, 2])

    def objective(free: Float[ndarray, " free"]) -> tuple[float, Float[ndarray, " free"]]:
        weights, scale = unpacked(free).at(missing.ravel())
        mean = np.einsum("nk,knc->nc", weights, flat)
        fitted = log_softmax(log_frequency + scale[:, None] * mean, axis=1)
        slope = (share * scale)[:, None] * (np.exp(fitted) - target)
        by_head = np.einsum("nc,knc->nk", slope, flat)
        by_level = weights * (by_head - (weights * by_head).sum(axis=1, keepdims=True))
        by_scale = (slope * mean).sum(axis=1)
        gradient = [by_level.sum(axis=0), apart @ by_level, [by_scale.sum(), apart @ by_scale]]
        loss = -float(share @ (fitted * target).sum(axis=1)) + float(free**2 @ (0.5 / variance))
        return loss, np.concatenate(gradient) + free / variance

    free = np.zeros(2 * heads + 2)
    return unpacked(minimize(objective, free, jac=True, method="L-BFGS-B").x)
