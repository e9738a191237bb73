"""The log-linear pool of heads: a weighted geometric mean of their probabilities.

Weights and confidence are fitted on out-of-fold predictions of the training data and shrunk to
equal weights and confidence one. Log-linear pooling: Genest and Zidek (1986), "Combining
probability distributions"; see the design page, "Prediction heads".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.base import clone

from cm2.estimators.heads.base import FLOOR, Head, stratified_folds
from cm2.estimators.heads.embedded import Embedded
from cm2.estimators.heads.fusion import Fusion
from cm2.samples.inputs import Blocks
from cm2.samples.targets import row_weights

WEIGHT_VARIANCE = 4.0
SCALE_VARIANCE = 0.25


class Pool(Head):
    r"""Heads pooled as :math:`\log p = e^s \sum_k w_k \log p_k` plus what normalises it.

    The weights are :math:`w_k \propto a_k e^{t_k}` with :math:`a_k` given in advance. What is
    minimised is the out-of-fold log loss, summed, plus
    :math:`\sum_k t_k^2 / (2 \cdot 4) + s^2 / (2 \cdot 0.25)`.

    Args:
        heads: The heads by name. They stay unfitted: clones are fitted.
        prior: The weight :math:`a_k` of each head in advance; None for equal weights.
        folds: Number of folds for out-of-fold predictions.
        random_state: Seed of the folds.

    Attributes:
        heads_: The heads fitted on all rows.
        weights_: The weight of each head; they sum to one.
        scale_: The common exponent.
        log_proba_: Out-of-fold log probabilities of each head; not saved, as it has a row a sample.
    """

    def __init__(
        self,
        heads: Mapping[str, Head],
        prior: Mapping[str, float] | None = None,
        folds: int = 3,
        random_state: int = 0,
    ) -> None:
        self.heads = heads
        self.prior = prior
        self.folds = folds
        self.random_state = random_state

    def __getstate__(self) -> dict[str, Any]:
        """Without the predictions for training rows: a saved model holds nothing of a patient."""
        state = dict(super().__getstate__())
        state.pop("log_proba_", None)
        return state

    def check(
        self,
        y: Int[ndarray, " n"],
        groups: ndarray | None = None,
        folds: Int[ndarray, " n"] | None = None,
    ) -> None:
        """Refuses what one of the heads refuses, on the pool's own folds."""
        for head in self.heads.values():
            head.check(y, groups, self._folds(y, groups))

    def fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None = None,
        groups: ndarray | None = None,
    ) -> Self:
        """Fits all heads and pools them.

        Args:
            blocks: The modalities.
            y: Class codes.
            sample_weight: Weight of each row.
            groups: Rows of one group (one patient, say) are held out together.
        """
        if not self.heads:
            raise ValueError("a pool needs at least one head, got none")
        weight = row_weights(sample_weight, len(y))
        kept = np.flatnonzero(weight > 0)
        blocks, y, weight = blocks.take(kept), y[kept], weight[kept]
        groups = None if groups is None else np.asarray(groups)[kept]
        self.check(y, groups)
        folds = self._folds(y, groups)
        self.heads_ = {name: clone(head) for name, head in self.heads.items()}
        for head in self.heads_.values():  # networks are trained once for all that use them
            if isinstance(head, Embedded):
                head.fusion = next(h for h in self.heads_.values() if isinstance(h, Fusion))
        self.log_proba_ = {
            name: head.cross_fit(blocks, y, weight, folds, groups)
            for name, head in self.heads_.items()
        }
        stacked = np.stack(list(self.log_proba_.values()))
        prior = np.array([1.0 if self.prior is None else self.prior[name] for name in self.heads_])
        weights, self.scale_ = fit_weights(stacked, y, weight, prior)
        self.weights_ = dict(zip(self.heads_, weights.tolist(), strict=True))
        return self

    def cross_fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
    ) -> Float[ndarray, "n label"]:
        """Fits the pool, and pools what its heads said of rows that they had not seen.

        Its few weights have seen these rows; a pool a fold would cost as much again each time.
        """
        weight = row_weights(sample_weight, len(y))
        self.fit(blocks, y, weight, groups)
        each = np.stack(list(self.log_proba_.values()))
        log_proba = np.zeros((len(y), each.shape[2]))
        log_proba[weight > 0] = pool(each, np.array(list(self.weights_.values())), self.scale_)
        return log_proba

    def predict_log_proba(self, blocks: Blocks) -> Float[ndarray, "n label"]:
        """Log probabilities of the pool."""
        each = np.stack([head.predict_log_proba(blocks) for head in self.heads_.values()])
        return pool(each, np.array(list(self.weights_.values())), self.scale_)

    def _folds(self, y: Int[ndarray, " n"], groups: ndarray | None) -> Int[ndarray, " n"]:
        return stratified_folds(y, self.folds, self.random_state, groups)


def pool(
    log_proba: Float[ndarray, "head n label"], weights: Float[ndarray, " head"], scale: float
) -> Float[ndarray, "n label"]:
    """The normalised weighted geometric mean, to the power ``scale``."""
    mean = np.tensordot(weights, np.maximum(log_proba, FLOOR), axes=1)
    return np.asarray(log_softmax(scale * mean, axis=1))


def fit_weights(
    log_proba: Float[ndarray, "head n label"],
    y: Int[ndarray, " n"],
    sample_weight: Float[ndarray, " n"],
    prior: Float[ndarray, " head"],
) -> tuple[Float[ndarray, " head"], float]:
    """Weights and scale of the pool that minimise its penalised log loss."""
    if (prior < 0).any() or prior.sum() <= 0:
        raise ValueError(f"prior weights should not be negative, nor all zero; got {prior}")
    log_proba = np.maximum(log_proba, FLOOR)
    sample_weight = sample_weight / sample_weight.mean()
    with np.errstate(divide="ignore"):
        log_prior = np.log(prior)
    target = np.eye(log_proba.shape[2])[y]

    def objective(free: Float[ndarray, " free"]) -> tuple[float, Float[ndarray, " free"]]:
        t, s = free[:-1], free[-1]
        weights, scale = softmax(log_prior + t), np.exp(s)
        mean = np.tensordot(weights, log_proba, axes=1)
        fitted = log_softmax(scale * mean, axis=1)
        slope = sample_weight[:, None] * (np.exp(fitted) - target) * scale
        by_weight = np.einsum("nc,knc->k", slope, log_proba)
        gradient = np.append(
            weights * (by_weight - weights @ by_weight) + t / WEIGHT_VARIANCE,
            (slope * mean).sum() + s / SCALE_VARIANCE,
        )
        loss = -sample_weight @ fitted[np.arange(len(y)), y]
        penalty = t @ t / (2 * WEIGHT_VARIANCE) + s**2 / (2 * SCALE_VARIANCE)
        return float(loss + penalty), gradient

    found = minimize(objective, np.zeros(len(log_proba) + 1), jac=True, method="L-BFGS-B").x
    return softmax(log_prior + found[:-1]), float(np.exp(found[-1]))
