"""What it says of the outcome that a modality is there at all.

A test is ordered for a reason. Where what is measured is decided in the same way when predictions
are made as in training, p(y | z, O) is proportional to p(y | z) p(O | y), if z and O are
independent given y; where modalities fail or a site lacks them, the second factor misleads.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from cm2.estimators.heads.base import Head, cross_predict, stratified_folds
from cm2.samples.inputs import Blocks
from cm2.samples.targets import row_weights

STRENGTH = 10.0
"""Rows of the common rate with which each class's rate of presence is shrunk."""

MOST = 2.0
"""Largest exponent of p(O | y)."""


class Presence(Head):
    r"""A head times :math:`p(O \mid y)^\gamma`.

    The modalities are independent given the class, each with a rate shrunk to that of all classes.
    :math:`\gamma` minimises the log loss of rows that neither factor saw, plus
    :math:`\gamma^2 / 2`; zero, if presence says nothing.

    Args:
        head: The head.
        folds: Number of folds for out-of-fold predictions; a multiple of the head's networks, if it
            has several, so that each of them is trained and leaves out as many rows.
        random_state: Seed of the folds.

    Attributes:
        head_: The fitted head.
        log_rate_: Logarithm of the rate of presence, by class and modality, and that of absence.
        gamma_: The exponent.
    """

    def __init__(self, head: Head, folds: int = 3, random_state: int = 0) -> None:
        self.head = head
        self.folds = folds
        self.random_state = random_state

    def check(
        self,
        y: Int[ndarray, " n"],
        groups: ndarray | None = None,
        folds: Int[ndarray, " n"] | None = None,
    ) -> None:
        """Refuses what the head refuses, on folds of this one's own."""
        self.head.check(y, groups, self._folds(y, groups))

    def fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None = None,
        groups: ndarray | None = None,
    ) -> Self:
        """Fits the head, the rates, and how far they are believed."""
        weight = row_weights(sample_weight, len(y))
        self.check(y, groups)
        folds = self._folds(y, groups)
        self.head_ = clone(self.head)
        log_proba = self.head_.cross_fit(blocks, y, weight, folds, groups)[0]

        def shift(train: Bool[ndarray, " n"], test: Bool[ndarray, " n"]) -> ndarray:
            seen = log_rates(blocks.present[train], y[train], weight[train], log_proba.shape[1])
            return log_presence(seen, blocks.present[test])

        shifts = cross_predict(shift, y, folds, np.zeros(log_proba.shape[1]))
        rows, share = np.arange(len(y)), weight / weight.mean()

        def loss(gamma: float) -> float:
            fitted = log_softmax(log_proba + gamma * shifts, axis=1)
            return float(gamma**2 / 2 - share @ fitted[rows, y])

        found = minimize_scalar(loss, bounds=(0.0, MOST), method="bounded")
        self.gamma_ = float(found.x) if found.fun < loss(0.0) else 0.0
        self.log_rate_ = log_rates(blocks.present, y, weight, log_proba.shape[1])
        return self

    def predict_log_proba(self, blocks: Blocks) -> Float[ndarray, "n label"]:
        """Log probabilities, normalised."""
        check_is_fitted(self, "head_")
        shift = self.gamma_ * log_presence(self.log_rate_, blocks.present)
        return np.asarray(log_softmax(self.head_.predict_log_proba(blocks) + shift, axis=1))

    def _folds(self, y: Int[ndarray, " n"], groups: ndarray | None) -> Int[ndarray, " n"]:
        return stratified_folds(y, self.folds, self.random_state, groups)


def log_rates(
    present: Bool[ndarray, "n modality"],
    y: Int[ndarray, " n"],
    weight: Float[ndarray, " n"],
    labels: int,
) -> Float[ndarray, "2 label modality"]:
    """Logarithms of the rates of presence and of absence in each class."""
    member = np.eye(labels)[y] * weight[:, None]
    common = (weight @ present + 0.5) / (weight.sum() + 1)
    rate = (member.T @ present + STRENGTH * common) / (member.sum(axis=0)[:, None] + STRENGTH)
    return np.log(np.stack([rate, 1 - rate]))


def log_presence(
    log_rate: Float[ndarray, "2 label modality"], present: Bool[ndarray, "n modality"]
) -> Float[ndarray, "n label"]:
    """Logarithm of the probability of what is present, by class."""
    return present @ log_rate[0].T + ~present @ log_rate[1].T
