"""What a prediction head is: from blocks of modalities to log probabilities of the classes.

A head is a scikit-learn estimator (``sklearn.base.clone`` works) that lives below the classifier:
it sees standardised blocks and integer class codes, never the user's tables.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self, TypeGuard

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from sklearn.base import BaseEstimator, clone

from cm2.core.pace import told
from cm2.core.registry import Registry
from cm2.samples.inputs import Blocks
from cm2.samples.targets import row_weights

FLOOR = float(np.log(1e-9))
"""Log probability given to a class that a model has never seen."""


class Held(NamedTuple):
    """Rows that stop the training of networks, and from which nothing else is learned.

    Attributes:
        blocks: The modalities.
        y: Class codes, or zeros and ones in a column a label.
        weight: Of each row, as training weighs its class; None for ones.
    """

    blocks: Blocks
    y: Int[ndarray, " n ..."]
    weight: Float[ndarray, " n"] | None = None


def hold(head: Head, held: Held | None) -> None:
    """Gives the rows that stop training to a head, and to those that it is made of."""
    head.held = held
    for part in head.get_params(deep=False).values():
        for one in part.values() if isinstance(part, Mapping) else [part]:
            if isinstance(one, Head):
                hold(one, held)


class Head(BaseEstimator, ABC):  # type: ignore[misc]
    """Class probabilities from whatever modalities a row has.

    Class codes run from 0 to C - 1 and each occurs in ``y``; ``predict_log_proba`` has one column
    a code. A head must accept a modality that no training row has.

    Attributes:
        beside: Attributes that clones keep and files do not.
        held: Rows that stop training.
    """

    beside: ClassVar[tuple[str, ...]] = ("held",)
    held: Held | None = None

    def __sklearn_clone__(self) -> Self:
        """An unfitted head with the same arguments, whose training the same rows stop."""
        twin: Self = super().__sklearn_clone__()
        for name in self.beside:
            setattr(twin, name, getattr(self, name))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Without rows of any patient."""
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name not in self.beside}

    @abstractmethod
    def fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None = None,
        groups: ndarray | None = None,
    ) -> Self:
        """Learns from rows with codes ``y``; a row of weight zero counts as absent.

        Rows of one group (one patient, say) stay together wherever the head divides its rows.
        """

    def check(
        self,
        y: Int[ndarray, " n ..."],
        groups: ndarray | None = None,
        folds: Int[ndarray, " n"] | None = None,
    ) -> None:
        """Refuses, before anything is trained, rows from which this head could not learn.

        Args:
            y: Class codes.
            groups: As in :meth:`fit`.
            folds: Of :meth:`cross_fit`, if that is to come and not :meth:`fit`.

        Raises:
            ValueError: With the least number that would do.
        """
        return

    @abstractmethod
    def predict_log_proba(self, blocks: Blocks) -> Float[ndarray, "n label"]:
        """Log probabilities of the classes, normalised in each row."""

    def out_of_fold(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
        views: Sequence[Bool[ndarray, "n modality"]] = (),
    ) -> Float[ndarray, "view n label"]:
        """Log probabilities of each row by a head that was fitted without the row's fold.

        Refits a clone once a fold and leaves this head as it is. A head that has such
        predictions for less overrides this method.

        Args:
            blocks: All rows.
            y: Class codes.
            sample_weight: Weight of each row; None for ones.
            folds: The number of the fold in which each row is held out.
            groups: As in :meth:`fit`.
            views: What else of the rows is shown to the head in predicting, after the rows as they
                are: some of the modalities that each has.

        Returns:
            The rows as they are, and each view.
        """
        weight = row_weights(sample_weight, len(y))
        shown = [blocks, *map(blocks.hidden, views)]
        log_proba = np.full((len(shown), len(y), int(y.max()) + 1), FLOOR)
        numbers = np.unique(folds)
        for fold in told(numbers, len(numbers), f"folds of {type(self).__name__}"):
            train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            seen, codes = np.unique(y[train], return_inverse=True)
            if len(seen) < 2:
                log_proba[:, test[:, None], seen] = 0.0
                continue
            head = clone(self).fit(
                blocks.take(train), codes, weight[train], None if groups is None else groups[train]
            )
            for view, rows in enumerate(shown):
                log_proba[view, test[:, None], seen] = head.predict_log_proba(rows.take(test))
        return log_proba

    def cross_fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
        views: Sequence[Bool[ndarray, "n modality"]] = (),
    ) -> Float[ndarray, "view n label"]:
        """Fits this head on all rows and returns its out-of-fold log probabilities.

        A head that can share work between the two overrides this method.
        """
        log_proba = self.out_of_fold(blocks, y, sample_weight, folds, groups, views)
        self.fit(blocks, y, sample_weight, groups)
        return log_proba


REGISTRY: Registry[Head] = Registry("head")
register = REGISTRY.register


def class_prior(
    y: Int[ndarray, " n"], weight: Float[ndarray, " n"], labels: int
) -> Float[ndarray, " label"]:
    """Class frequencies, each class with half a row more (Krichevsky and Trofimov)."""
    count = np.bincount(y, weight, minlength=labels) + 0.5
    return count / count.sum()


def probabilities(
    head: Head, prior: Float[ndarray, " label"], blocks: Blocks, *, exclusive: bool = True
) -> Float[ndarray, "n label"]:
    """What a head says of rows with a modality, and the prior of the others.

    Args:
        head: The head.
        prior: The prior.
        blocks: The rows.
        exclusive: Whether the columns are classes, and not labels that may hold together.
    """
    known = np.flatnonzero(blocks.present.any(axis=1))
    out = np.tile(prior, (len(blocks.present), 1))
    if len(known):
        proba = np.exp(head.predict_log_proba(blocks.take(known)))
        out[known] = proba / proba.sum(axis=1, keepdims=True) if exclusive else proba
    return out


def strata(y: Int[ndarray, " n ..."]) -> Int[ndarray, " n"]:
    """Codes by which rows are dealt evenly: classes, or which labels hold together."""
    return y if y.ndim == 1 else np.unique(y, axis=0, return_inverse=True)[1].reshape(-1)


def stratified_folds(
    y: Int[ndarray, " n"], folds: int, seed: int, groups: ndarray | None = None
) -> Int[ndarray, " n"]:
    """Deals rows into folds, each class evenly; rows of one group stay together.

    Unlike ``StratifiedKFold`` it accepts a class with fewer rows than folds. Where there are fewer
    groups than folds, each group is a fold. Groups of one row each are as none.

    Raises:
        ValueError: If all rows are of one group.
    """
    if repeats(groups):
        return _grouped_folds(y, folds, seed, groups)
    shuffled = np.random.default_rng(seed).permutation(len(y))
    order = shuffled[np.argsort(y[shuffled], kind="stable")]
    number = np.empty(len(y), dtype=np.int64)
    number[order] = np.arange(len(y)) % folds
    return number


def cross_predict(
    predict: Callable[[Bool[ndarray, " n"], Bool[ndarray, " n"]], Float[ndarray, "test label"]],
    y: Int[ndarray, " n"],
    folds: Int[ndarray, " n"],
    otherwise: Float[ndarray, " label"],
) -> Float[ndarray, "n label"]:
    """Predictions of each row by a model fitted without its fold.

    Args:
        predict: Fits on the first rows and predicts the second.
        y: Class codes.
        folds: The fold of each row.
        otherwise: Stands for rows whose other folds have one class only.
    """
    out = np.tile(otherwise, (len(y), 1))
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        if len(np.unique(y[train])) > 1:
            out[test] = predict(train, test)
    return out


def repeats(groups: ndarray | None) -> TypeGuard[ndarray]:
    """Whether some rows share a group, and so resemble each other."""
    return groups is not None and len(np.unique(groups)) < len(groups)


def _grouped_folds(
    y: Int[ndarray, " n"], folds: int, seed: int, groups: ndarray
) -> Int[ndarray, " n"]:
    """Puts groups one by one where classes become most even, as ``StratifiedGroupKFold`` does.

    That one refuses few groups and rare classes, and may leave a fold empty.
    """
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"{len(y)} rows of one group cannot be parted; at least 2 groups can")
    folds = min(folds, len(names))
    code = np.unique(y, return_inverse=True)[1]
    count = np.zeros((len(names), code.max() + 1))
    np.add.at(count, (group, code), 1.0)
    share = count / count.sum(axis=0)
    order = np.random.RandomState(seed).permutation(len(names))
    order = order[np.argsort(-count[order].std(axis=1), kind="stable")]
    held, size = np.zeros((folds, count.shape[1])), np.zeros(folds)
    number = np.empty(len(names), dtype=np.int64)
    for place, one in enumerate(order):
        there = held + np.eye(folds)[..., None] * share[one]
        uneven = there.std(axis=1).mean(axis=1)
        if (size == 0).sum() >= len(order) - place:
            uneven[size > 0] = np.inf
        near = np.flatnonzero(np.isclose(uneven, uneven.min()))
        number[one] = near[size[near].argmin()]
        held[number[one]] += share[one]
        size[number[one]] += count[one].sum()
    return number[group]
