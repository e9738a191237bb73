"""A head on what networks make of texts and images: embeddings of rows that a network did not see.

Rows that a network was trained on lie otherwise in its space than new ones, and two networks have
two spaces. So each network has a head of its own, fitted on the rows that this network did not see,
and what these heads say is averaged.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from cm2.estimators.heads.base import FLOOR, Head, stratified_folds
from cm2.estimators.heads.fusion import Fusion
from cm2.samples.inputs import Blocks
from cm2.samples.targets import row_weights

PARTS = 3
"""Parts into which a network's unseen rows are dealt, to predict each by a head of the others."""

LEAST_NETWORKS = 2


class Embedded(Head):
    """A head of each network, averaged by log probability.

    Tables, and series by their summaries, enter as they are; what only an encoder can read enters
    as its embedding. With k networks a head learns from a k-th of the rows.

    Args:
        head: The head, of which each network gets a clone.
        fusion: The networks. If they are trained already, on the same folds, they are used as they
            are, and else trained.
        random_state: Seed of the folds.

    Attributes:
        fusion_: The networks.
        heads_: A head for each of them.
        seen_: The classes that each of these heads knows.
    """

    def __init__(self, head: Head, fusion: Fusion, random_state: int = 0) -> None:
        self.head = head
        self.fusion = fusion
        self.random_state = random_state

    def fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None = None,
        groups: ndarray | None = None,
    ) -> Self:
        """Trains the networks, and a head for each on the rows that it did not see."""
        networks = max(self.fusion.folds, LEAST_NETWORKS)
        folds = stratified_folds(y, min(networks, len(y)), self.random_state, groups)
        self.cross_fit(blocks, y, sample_weight, folds, groups)
        return self

    def cross_fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
    ) -> Float[ndarray, "n label"]:
        """Fits, and predicts each row by a network and a head that did not see it.

        Network k and its head predict the rows of fold k part by part: the network saw none of
        them, and the head of a part was fitted on the others.
        """
        weight = row_weights(sample_weight, len(y))
        self.labels_ = int(y.max()) + 1
        self.fusion_ = self.fusion
        if not hasattr(self.fusion, "networks_") or self.fusion.folds < LEAST_NETWORKS:
            count = max(self.fusion.folds, LEAST_NETWORKS)
            self.fusion_ = clone(self.fusion).set_params(folds=count)
            self.fusion_.cross_fit(blocks, y, weight, folds, groups)
        numbers = self.fusion_.numbers(folds)
        log_proba = np.full((len(y), self.labels_), FLOOR)
        self.heads_: list[Head] = []
        self.seen_: list[list[int]] = []
        for number in range(len(self.fusion_.networks_)):
            rows = np.flatnonzero(numbers == number)
            part = self.fusion_.embedded(blocks.take(rows), number)
            seen, codes = np.unique(y[rows], return_inverse=True)
            if len(seen) < 2:
                raise ValueError(
                    f"the {len(rows)} rows that a network did not see are of one class; a head "
                    "needs two: give more samples, or n_networks=2"
                )
            owners = None if groups is None else groups[rows]
            inner = stratified_folds(codes, PARTS, self.random_state, owners)
            head = clone(self.head)
            log_proba[np.ix_(rows, seen)] = head.cross_fit(part, codes, weight[rows], inner, owners)
            self.heads_.append(head)
            self.seen_.append(seen.tolist())
        return log_proba

    def predict_log_proba(self, blocks: Blocks) -> Float[ndarray, "n label"]:
        """Log probabilities averaged over the networks, normalised."""
        check_is_fitted(self, "heads_")
        each = np.full((len(self.heads_), len(blocks.present), self.labels_), FLOOR)
        for number, (head, seen) in enumerate(zip(self.heads_, self.seen_, strict=True)):
            each[number][:, seen] = head.predict_log_proba(self.fusion_.embedded(blocks, number))
        return np.asarray(log_softmax(each.mean(axis=0), axis=1))
