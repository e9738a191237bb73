"""A head on what networks make of texts and images: embeddings of rows that a network did not see.

Rows that a network was trained on lie otherwise in its space than new ones, and two networks have
two spaces. So each network has a head of its own, fitted on the rows that this network did not see,
and what these heads say is averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from cm2.estimators.heads.base import FLOOR, Head, repeats, stratified_folds
from cm2.estimators.heads.fusion import Fusion
from cm2.samples.inputs import Blocks
from cm2.samples.targets import row_weights

PARTS = 3
"""Parts into which a network's unseen rows are dealt, to predict each by a head of the others."""

LEAST_NETWORKS = 2


class Part(NamedTuple):
    """What a network's head learns from.

    Attributes:
        head: The head, unfitted.
        rows: The rows that the network did not see.
        seen: The classes among them, of which the codes of ``y`` are numbers.
        blocks: The rows, with embeddings by the network.
        y: Class codes.
        weight: Of each row.
        groups: Of each row, if rows have some.
    """

    head: Head
    rows: Int[ndarray, " row"]
    seen: Int[ndarray, " seen"]
    blocks: Blocks
    y: Int[ndarray, " row"]
    weight: Float[ndarray, " row"]
    groups: ndarray | None


class Embedded(Head):
    """A head of each network, averaged by log probability.

    Tables, and series by their summaries, enter as they are; what only an encoder can read enters
    as its embedding. With k networks a head learns from a k-th of the rows.

    Args:
        head: The head, of which each network gets a clone.
        fusion: The networks, at least two. If they are trained already, on the same folds, they are
            used as they are, and else trained.
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

    def check(
        self,
        y: Int[ndarray, " n"],
        groups: ndarray | None = None,
        folds: Int[ndarray, " n"] | None = None,
    ) -> None:
        """Refuses rows of which a network would leave too little to its head.

        A head needs rows of two classes and of two patients; of one more patient where some of the
        rows are held out in turn.
        """
        networks = self.fusion.folds
        if networks < LEAST_NETWORKS:
            raise ValueError(f"heads on embeddings need {LEAST_NETWORKS} networks, got {networks}")
        noun, owners, least = "samples", np.arange(len(y)), 2
        if repeats(groups):
            noun, owners, least = "patients", groups, 2 if folds is None else PARTS
        numbers = self.fusion.numbers(self._folds(y, groups) if folds is None else folds)
        for number in range(networks):
            rows = numbers == number
            found, classes = len(np.unique(owners[rows])), len(np.unique(y[rows]))
            if found < least or classes < 2:
                raise ValueError(
                    "heads on texts or images learn from the samples that a network did not see, "
                    f"but one of {networks} networks would leave them {found} {noun} with "
                    f"{classes} of the classes: they need at least {networks * least} {noun}, "
                    f"{networks} with each of 2 classes"
                    f"{'' if networks == LEAST_NETWORKS else ', or fewer networks'}"
                )

    def fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None = None,
        groups: ndarray | None = None,
    ) -> Self:
        """Trains the networks, and a head for each on the rows that it did not see."""
        self.check(y, groups)
        folds = self._folds(y, groups)
        for part in self._parts(blocks, y, sample_weight, folds, groups):
            part.head.fit(part.blocks, part.y, part.weight, part.groups)
        return self

    def cross_fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
        views: Sequence[Bool[ndarray, "n modality"]] = (),
    ) -> Float[ndarray, "view n label"]:
        """Fits, and predicts each row by a network and a head that did not see it.

        Network k and its head predict the rows of fold k part by part: the network saw none of
        them, and the head of a part was fitted on the others.
        """
        self.check(y, groups, folds)
        log_proba = np.full((1 + len(views), len(y), int(y.max()) + 1), FLOOR)
        for part in self._parts(blocks, y, sample_weight, folds, groups):
            inner = stratified_folds(part.y, PARTS, self.random_state, part.groups)
            shown = [view[part.rows] for view in views]
            log_proba[:, part.rows[:, None], part.seen] = part.head.cross_fit(
                part.blocks, part.y, part.weight, inner, part.groups, shown
            )
        return log_proba

    def predict_log_proba(self, blocks: Blocks) -> Float[ndarray, "n label"]:
        """Log probabilities averaged over the networks, normalised."""
        check_is_fitted(self, "heads_")
        each = np.full((len(self.heads_), len(blocks.present), self.labels_), FLOOR)
        for number, (head, seen) in enumerate(zip(self.heads_, self.seen_, strict=True)):
            each[number][:, seen] = head.predict_log_proba(self.fusion_.embedded(blocks, number))
        return np.asarray(log_softmax(each.mean(axis=0), axis=1))

    def _folds(self, y: Int[ndarray, " n"], groups: ndarray | None) -> Int[ndarray, " n"]:
        """The folds of a head that is not in a pool."""
        return stratified_folds(y, min(self.fusion.folds, len(y)), self.random_state, groups)

    def _parts(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None,
    ) -> Iterator[Part]:
        """Trains the networks, if they are not; then a head for each, which the caller fits."""
        weight = row_weights(sample_weight, len(y))
        self.labels_ = int(y.max()) + 1
        self.fusion_ = self.fusion
        if not hasattr(self.fusion, "networks_"):
            self.fusion_ = clone(self.fusion)
            self.fusion_.cross_fit(blocks, y, weight, folds, groups)
        numbers = self.fusion_.numbers(folds)
        self.heads_: list[Head] = []
        self.seen_: list[list[int]] = []
        for number in range(len(self.fusion_.networks_)):
            rows = np.flatnonzero(numbers == number)
            embedded = self.fusion_.embedded(blocks.take(rows), number)
            seen, codes = np.unique(y[rows], return_inverse=True)
            owners = None if groups is None else groups[rows]
            self.heads_.append(clone(self.head))
            self.seen_.append(seen.tolist())
            yield Part(self.heads_[-1], rows, seen, embedded, codes, weight[rows], owners)
