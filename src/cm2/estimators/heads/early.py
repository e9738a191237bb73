"""Early fusion: one model of the features of all modalities, taught that modalities go missing.

It learns from copies of the rows from which whole modalities were removed at several rates
(modality dropout: Neverova et al. 2016, ModDrop, https://arxiv.org/abs/1501.00102), so that what it
has learned of a modality also holds where others are gone. Features are standardised and clipped
(:mod:`cm2.samples.scaling`), and a flag a modality says whether it is there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from cm2.core.removal import hidden
from cm2.estimators.heads.base import Head, class_prior, register, stratified_folds
from cm2.estimators.heads.held_out import complete, log_loss
from cm2.estimators.heads.threads import one_thread
from cm2.samples.inputs import Blocks
from cm2.samples.targets import row_weights

HIGHEST = 0.7
"""Rate of removal in the last copy; in the first nothing is removed."""

COPIES = (3, 7)
"""Least and largest number of copies."""

ROWS = 30_000
"""Rows of all copies together after which no further copy is made."""

STRENGTHS = (1.0, 0.3, 0.07, 0.02, 0.005)
"""Candidates for the inverse penalty of the linear model, by a row's whole weight."""

STAGES = (0.1, 0.2, 0.33, 0.5, 0.7, 1.0)
"""Candidates for the number of rounds of boosting, as shares of the largest."""

ROUNDS = (40, 140)
"""Least and largest number of rounds, the learning rate being the inverse of .09 of them."""

CELLS, TREES = 8_000_000, 600
"""Numbers in all copies, times trees a round, beyond which rounds and bins of a column are fewer
(and copies, where they are four times as many); trees in all, beyond which rounds are fewer."""

BINS = 255, 63
"""Bins of a column, and where there are so many numbers; a quarter takes about half the time."""

MIX = 1e-3
"""Share of the class frequencies in the probabilities of boosting, which would reach zero."""


DRAWN = 200_000
"""Rows of more by which scikit-learn's boosting bins columns, drawn with replacement."""


def binnable(
    x: Float[ndarray, "n feature"], weight: Float[ndarray, " n"]
) -> Bool[ndarray, " feature"]:
    """Columns that have values among the rows by which scikit-learn's boosting bins them.

    It stops at a column without any. Rows are drawn by their weight; of 20 values expected none is
    drawn once in 10^9 times.
    """
    share = np.einsum("n,nf->f", weight / weight.sum(), ~np.isnan(x))
    return np.asarray(share * DRAWN >= 20 if len(x) > DRAWN else share > 0)


class Part(NamedTuple):
    """Copies of rows, to learn from or to judge by."""

    x: Float[ndarray, "copy feature"]
    y: Int[ndarray, " copy"]
    weight: Float[ndarray, " copy"]


class Early(Head):
    """One model of all features, its one setting chosen by held-out log loss.

    Args:
        folds: Number of folds of the inner cross-validation.
        random_state: Seed of folds and removals.

    Attributes:
        prior_: Class frequencies.
        losses_: Held-out log loss of each setting, over all rates of removal.
        setting_: The chosen one.
        model_: The model, fitted on all rows.
    """

    def __init__(self, folds: int = 3, random_state: int = 0) -> None:
        self.folds = folds
        self.random_state = random_state

    @abstractmethod
    def _predict(
        self, train: Part, tests: Sequence[Float[ndarray, "_ feature"]]
    ) -> Mapping[Any, list[Float[ndarray, "_ label"]]]:
        """For each setting the probabilities of the tests' rows by a model of the first rows."""

    @abstractmethod
    def _fitted(self, setting: Any, train: Part) -> Any:
        """The model of a setting."""

    @abstractmethod
    def _features(
        self, blocks: Blocks, present: Bool[ndarray, "n modality"]
    ) -> Float[ndarray, "n feature"]:
        """What the model reads of rows in which so much is present."""

    def _suit(self, rows: int, columns: int) -> int:
        """Suits the model to the size of the data, and says how many copies of rows there are."""
        return int(np.clip(ROWS // rows, *COPIES))

    def fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None = None,
        groups: ndarray | None = None,
    ) -> Self:
        """Chooses the setting and fits the model."""
        folds = stratified_folds(y, self.folds, self.random_state, groups)
        self.cross_fit(blocks, y, sample_weight, folds, groups)
        return self

    @one_thread()
    def cross_fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
        views: Sequence[Bool[ndarray, "n modality"]] = (),
    ) -> Float[ndarray, "view n label"]:
        """Fits on all rows; the folds that choose the setting give the out-of-fold predictions."""
        weight = row_weights(sample_weight, len(y))
        self.prior_ = class_prior(y, weight, int(y.max()) + 1)
        masks = self._masks(blocks)
        found: dict[Any, Float[ndarray, "view n label"]] = {}
        losses: dict[Any, float] = {}
        asked = [blocks.present, *views]
        for fold in np.unique(folds):
            train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            if len(np.unique(y[train])) < 2:
                continue
            judge = self._part(blocks, y, weight, test, masks)
            rows = blocks.take(test)
            tests = [self._features(rows, view[test]) for view in asked]
            part = self._part(blocks, y, weight, train, masks)
            for setting, (judged, *each) in self._predict(part, [judge.x, *tests]).items():
                loss = log_loss(np.log(judged), judge.y, judge.weight) * judge.weight.sum()
                losses[setting] = losses.get(setting, 0.0) + loss
                out = found.setdefault(setting, np.tile(self.prior_, (len(asked), len(y), 1)))
                out[:, test] = each
        if not losses:
            raise ValueError("early fusion needs rows of two classes outside some fold")
        self.losses_ = {one: loss / weight.sum() for one, loss in losses.items()}
        self.setting_ = min(self.losses_, key=lambda one: self.losses_[one])
        everything = self._part(blocks, y, weight, np.arange(len(y)), masks)
        self.model_ = self._fitted(self.setting_, everything)
        return np.log(found[self.setting_])

    def predict_log_proba(self, blocks: Blocks) -> Float[ndarray, "n label"]:
        """Log probabilities of the classes."""
        x = self._features(blocks, blocks.present)
        return np.log(self._complete(self.model_.predict_proba(x), self.model_.classes_))

    def _complete(
        self, proba: Float[ndarray, "n seen"], classes: Int[ndarray, " seen"]
    ) -> Float[ndarray, "n label"]:
        return complete(proba, classes, self.prior_, MIX)

    def _masks(self, blocks: Blocks) -> list[Bool[ndarray, "n modality"]]:
        """What is left of each row in each copy."""
        columns = sum(x.shape[1] for x in blocks.values.values())
        number = self._suit(len(blocks.present), columns)
        rng = np.random.default_rng(self.random_state)
        return [hidden(blocks.present, rate, rng) for rate in np.linspace(0, HIGHEST, number)]

    def _part(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        rows: Int[ndarray, " row"],
        masks: Sequence[Bool[ndarray, "n modality"]],
    ) -> Part:
        """Copies of some rows, which weigh together what one of them does."""
        taken = blocks.take(rows)
        x = np.concatenate([self._features(taken, mask[rows]) for mask in masks])
        share = np.tile(weight[rows] / len(masks), len(masks))
        return Part(x, np.tile(y[rows], len(masks)), share)


@register("linear")
class Linear(Early):
    """Logistic regression on all features and a flag a modality."""

    def _features(
        self, blocks: Blocks, present: Bool[ndarray, "n modality"]
    ) -> Float[ndarray, "n feature"]:
        parts = blocks.hidden(present).values.values()
        return np.concatenate([*parts, present], axis=1, dtype=np.float64)

    def _predict(
        self, train: Part, tests: Sequence[Float[ndarray, "_ feature"]]
    ) -> Mapping[Any, list[Float[ndarray, "_ label"]]]:
        found, before = {}, None
        for strength in STRENGTHS[::-1]:  # each starts from the one of a stronger penalty
            model = before = self._fitted(strength, train, before)
            found[strength] = [
                self._complete(model.predict_proba(x), model.classes_) for x in tests
            ]
        return found

    def _fitted(self, setting: Any, train: Part, before: Any = None) -> Any:
        model = LogisticRegression(C=setting, max_iter=500, tol=1e-4, warm_start=True)
        if before is not None:
            model.coef_, model.intercept_ = before.coef_, before.intercept_
        return model.fit(train.x, train.y, train.weight)


@register("boosting")
class Boosting(Early):
    """Gradient boosting of small trees, for which what is absent is missing.

    Where rows, columns or classes are many there are fewer copies, fewer rounds of larger steps,
    and coarser columns.

    Attributes:
        rounds_: The largest number of rounds.
        bins_: The largest number of bins of a column.
    """

    def _suit(self, rows: int, columns: int) -> int:
        """Allows as many rounds and bins as the size of the data does."""
        trees = 1 if len(self.prior_) <= 2 else len(self.prior_)
        cells = max(rows * columns * trees, 1)
        copies = min(super()._suit(rows, columns), max(COPIES[0], int(4 * CELLS // cells)))
        share = CELLS / (cells * copies)
        self.rounds_ = int(np.clip(min(ROUNDS[1] * share, TREES / trees), *ROUNDS))
        self.bins_ = BINS[share < 1]
        return copies

    def _features(
        self, blocks: Blocks, present: Bool[ndarray, "n modality"]
    ) -> Float[ndarray, "n feature"]:
        there = {name: present[:, [m]] for m, name in enumerate(blocks.names)}
        parts = [np.where(there[name], values, np.nan) for name, values in blocks.values.items()]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def _predict(
        self, train: Part, tests: Sequence[Float[ndarray, "_ feature"]]
    ) -> Mapping[Any, list[Float[ndarray, "_ label"]]]:
        model = self._fitted(max(STAGES), train)
        found: dict[Any, list[Float[ndarray, "_ label"]]] = {share: [] for share in STAGES}
        shares = {self._rounds(share): share for share in STAGES}
        for x in tests:
            for stage, proba in enumerate(model.staged_predict_proba(x), start=1):
                if stage in shares:
                    found[shares[stage]].append(self._complete(proba, model.classes_))
        return found

    def _rounds(self, share: float) -> int:
        return max(1, round(share * self.rounds_))

    def _fitted(self, setting: Any, train: Part) -> Any:
        # Early stopping would give up on interactions, whose first splits gain nothing.
        model = HistGradientBoostingClassifier(
            learning_rate=1 / (0.09 * self.rounds_),
            max_leaf_nodes=8,
            max_iter=self._rounds(setting),
            max_bins=self.bins_,
            l2_regularization=1.0,
            min_samples_leaf=60,
            early_stopping=False,
            random_state=self.random_state,
        )
        same = np.ptp(train.weight) == 0  # weighted columns are binned slowly
        # Rare columns may have all their values in the other fold; a constant one parts no rows.
        kept = binnable(train.x, train.weight)
        x = train.x if kept.all() else np.where(kept, train.x, np.float32(0))
        return model.fit(x, train.y, None if same else train.weight)
