"""Imputation by a Gaussian copula of all columns, and boosting on what it fills in.

Zhao and Udell (2020), Missing value imputation for mixed data via Gaussian copula, KDD,
https://arxiv.org/abs/1910.12845; their package is ``gcimpute``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import ndtri
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from cm2.copulas import Gaussian
from cm2.core.fitting import whole
from cm2.estimators.baselines import Rival
from cm2.estimators.heads.base import stratified_folds
from cm2.estimators.heads.block_gaussian import BlockGaussian
from cm2.estimators.heads.block_patterns import Law, by_pattern
from cm2.estimators.tuning import Seen, tune
from cm2.samples.kinds import TableColumn
from cm2.samples.tables import as_table, names
from cm2.samples.targets import checked_groups, checked_weights, row_weights


class NormalScores(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Columns to normal scores of their ranks, and back by their quantiles; NaN stays NaN.

    Between two values of training, both ways are straight lines; beyond the outermost they stay
    there. Values that rows share get the score of their mean rank.

    Attributes:
        knots_: Of each column its values in training, ascending, and the score of each.
    """

    knots_: list[tuple[Float[ndarray, " knot"], Float[ndarray, " knot"]]]

    def fit(
        self,
        X: Float[ndarray, "n feature"],
        y: None = None,
        sample_weight: Float[ndarray, " n"] | None = None,
    ) -> Self:
        """Learns from columns that each have a value; a row of weight two counts as two."""
        weight = row_weights(sample_weight, len(X))
        self.knots_ = []
        for column in X.T:
            seen = ~np.isnan(column)
            values, place = np.unique(column[seen], return_inverse=True)
            count = np.bincount(place, weight[seen])
            rank = np.cumsum(count) - count / 2
            self.knots_.append((values, ndtri(rank / count.sum())))
        return self

    def transform(self, X: Float[ndarray, "n feature"]) -> Float[ndarray, "n feature"]:
        """Scores of values."""
        pairs = zip(X.T, self.knots_, strict=True)
        return np.stack([np.interp(x, *knots) for x, knots in pairs], axis=1)

    def inverse_transform(self, X: Float[ndarray, "n feature"]) -> Float[ndarray, "n feature"]:
        """Values of scores."""
        pairs = zip(X.T, self.knots_, strict=True)
        return np.stack([np.interp(z, *knots[::-1]) for z, knots in pairs], axis=1)


class CopulaImputation(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Fills gaps with the mean of normal scores given those of the row, mapped back.

    The correlation of the scores is found by EM over what rows have (:class:`.BlockGaussian`, each
    column a block), and conditional means are those of :class:`.copulas.Gaussian`. Unlike the
    source: columns of few values have the score of a mean rank, where the source integrates over
    an interval; the correlation is drawn to independence, without which it fits more columns than
    rows; EM scales the covariance once, at the end.

    Args:
        strengths: Rows' worth of independence, as shares of the rows, from which the log density
            of held-out rows chooses.
        rounds: Largest number of EM steps.
        tolerance: EM stops when the log likelihood gains less than this a row.
        random_state: Seed of which rows are held out.

    Attributes:
        scores_: What maps columns.
        strength_: The strength chosen.
        copula_: The copula of the columns.
    """

    def __init__(
        self,
        strengths: tuple[float, ...] = (0.03, 0.3, 3.0),
        rounds: int = 50,
        tolerance: float = 1e-2,
        random_state: int = 0,
    ) -> None:
        self.strengths = strengths
        self.rounds = rounds
        self.tolerance = tolerance
        self.random_state = random_state

    @whole
    def fit(
        self,
        X: Any,
        y: None = None,
        sample_weight: Float[ndarray, " n"] | None = None,
        groups: ndarray | None = None,
    ) -> Self:
        """Learns scores and their correlation from columns that each have a value.

        Raises:
            ValueError: If a column has no value, or is not of finite numbers.
        """
        x = _numbers(X)
        weight = checked_weights(sample_weight, len(x))
        if groups is not None:
            groups = checked_groups(groups, len(x))[weight > 0]
        x, weight = x[weight > 0], weight[weight > 0]
        empty = np.flatnonzero(np.isnan(x).all(axis=0)).tolist()
        if empty:
            raise ValueError(f"X has no value in columns {names(as_table(X), empty)}; drop them")
        validate_data(self, X, reset=True, skip_check_array=True)
        self.scores_ = NormalScores().fit(x, None, weight)
        z = self.scores_.transform(x)
        self.strength_, start = self._choose(z, weight, groups)
        covariance = self._laws([self.strength_], z, weight, start)[0].covariance_
        root = 1 / np.sqrt(np.diag(covariance))
        correlation = torch.from_numpy(covariance * np.outer(root, root))
        self.copula_ = Gaussian(z.shape[1], correlation)
        return self

    def _choose(
        self, z: Float[ndarray, "n feature"], weight: Float[ndarray, " n"], groups: ndarray | None
    ) -> tuple[float, BlockGaussian | None]:
        """The strength of the largest log density in a fifth of the rows, and the law it was of.

        These rows are of other patients than the rest.
        """
        strengths = sorted(self.strengths, reverse=True)
        held = stratified_folds(np.zeros(len(z), np.int64), 5, self.random_state, groups) == 0
        if len(strengths) == 1 or held.all() or not held.any():
            return strengths[0], None
        laws = self._laws(strengths, z[~held], weight[~held])
        rows, there = np.nan_to_num(z[held]), ~np.isnan(z[held])
        gains = [float(law.log_density(rows, there)[:, 0] @ weight[held]) for law in laws]
        best = int(np.argmax(gains))
        return strengths[best], laws[best]

    def _laws(
        self,
        strengths: Sequence[float],
        z: Float[ndarray, "n feature"],
        weight: Float[ndarray, " n"],
        start: BlockGaussian | None = None,
    ) -> list[BlockGaussian]:
        """The law of all scores by each strength; EM starts where that of the last has ended."""
        there, one = ~np.isnan(z), np.zeros(len(z), np.int64)
        found: list[BlockGaussian] = []
        for strength in strengths:
            law = BlockGaussian(
                (1,) * z.shape[1],
                strength=strength * float(weight.sum()),
                tolerance=self.tolerance,
                max_iter=self.rounds,
            )
            if not found:
                data = law.statistics(np.nan_to_num(z), there, one, weight, 1)
            start = law.fit_statistics(data, start)
            found.append(start)
        return found

    def transform(self, X: Any) -> Float[ndarray, "n feature"]:
        """Rows with gaps filled; values that are there stay as they are.

        Raises:
            ValueError: If columns are not those of the fit, or not of finite numbers.
        """
        check_is_fitted(self, "copula_")
        validate_data(self, X, reset=False, skip_check_array=True)
        x = _numbers(X)
        z = self.scores_.transform(x)
        law, means = Law(self.copula_.correlation.numpy()), np.zeros_like(z)
        for observed, rows in by_pattern(~np.isnan(z), (1,) * z.shape[1]):
            told = z[rows[:, :, None], observed[:, None]]
            means[rows] = law.of(observed).complete(told)
        filled = self.scores_.inverse_transform(means)
        return np.where(np.isnan(x), filled, x)


def _numbers(X: Any) -> Float[ndarray, "n feature"]:
    """A table as finite numbers and NaN."""
    column = TableColumn("X", X)
    column.check(column.present)
    return column.numbers()


class CopulaImputed(Rival):
    """Gradient boosting on all features, gaps filled by a Gaussian copula.

    Args:
        random_state: Seed of the folds and of boosting.
    """

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def _fit(
        self,
        values: dict[str, Float[ndarray, "n _"]],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        groups: ndarray | None,
    ) -> None:
        x = np.hstack(list(values.values()))
        self.seen_ = Seen().fit(x)
        columns = self.seen_.transform(x)
        self.imputation_ = CopulaImputation(random_state=self.random_state)
        filled = self.imputation_.fit(columns, None, weight, groups).transform(columns)
        labels = len(self.classes_)
        self.tuned_ = tune("boosting", filled, y, weight, labels, self.random_state, groups=groups)

    def _proba(self, values: dict[str, Float[ndarray, "n _"]]) -> Float[ndarray, "n label"]:
        columns = self.seen_.transform(np.hstack(list(values.values())))
        return self.tuned_.proba(self.imputation_.transform(columns))
