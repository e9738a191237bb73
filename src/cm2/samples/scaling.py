"""Columns to deviations from their centre, so that a few extreme values do not rule.

Sizes (laboratory values, counts, intensities) spread over decades: such columns are read on a
logarithmic scale that is linear near zero. Centre and deviation are mean and standard deviation
of what does not lie far out, and what lies far out is clipped.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy import ndarray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

REACH = 5.0
"""Deviations beyond which values are clipped."""

NEGATIVE = 0.02
"""Share of negative values up to which a column is one of sizes; those few are taken for errors."""


ROUNDING = 1e-9
"""Relative error up to which sums of weights are taken for equal."""

STEADY = 8 * np.finfo(np.float64).eps
"""Deviation, in units of the centre, up to which a column varies by rounding only."""


def distinct_gaps(missing: Bool[ndarray, "n feature"]) -> Int[ndarray, " flag"]:
    """Columns whose gaps tell rows apart, one of those that are missing in the same rows.

    A panel of laboratory values is missing as a whole: several equal flags would be penalised less
    by a ridge than one, and a forest would try them more often.

    Example:
        >>> distinct_gaps(np.array([[0, 1, 1, 0, 1], [0, 0, 0, 1, 1]], bool))
        array([1, 3])
    """
    return _patterns(missing)[0]


def _patterns(
    missing: Bool[ndarray, "n feature"],
) -> tuple[Int[ndarray, " flag"], Int[ndarray, " flag"]]:
    """The first column of each pattern of gaps, and how many columns have it."""
    some = np.flatnonzero(missing.any(axis=0) & ~missing.all(axis=0))
    _, first, count = np.unique(missing[:, some], axis=1, return_index=True, return_counts=True)
    order = np.argsort(first)
    return some[first[order]], count[order]


class GapFlags(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A column of ones and zeros for each distinct pattern of gaps in training.

    Attributes:
        columns_: The first column of each pattern.
        counts_: How many columns have it.
    """

    columns_: Int[ndarray, " flag"]
    counts_: Int[ndarray, " flag"]

    def fit(self, X: Float[ndarray, "n feature"], y: object = None) -> Self:
        """Finds the patterns."""
        self.columns_, self.counts_ = _patterns(np.isnan(X))
        return self

    def transform(self, X: Float[ndarray, "n feature"]) -> Float[ndarray, "n flag"]:
        """One where the pattern's first column is missing."""
        return np.isnan(X[:, self.columns_]).astype(np.float64)


class RobustScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Centres and scales columns robustly and clips them at five deviations; NaN stays NaN.

    A column of sizes, where at most one value in fifty is negative, becomes
    sign(x) log(1 + abs(x) / unit) with the median of its positive values as unit: the result is
    the same in whatever units the column comes. Other columns stay as they are.

    Values further from the median than five times the median distance of those that differ from
    it (3.4 standard deviations of a normal law) are then drawn in to there; centre and deviation
    are mean and standard deviation of what results. A column of two values is standardised as
    usual. One that never varied, or was never seen, is zero for later rows too: no row has taught
    a model what another value of it means.

    Attributes:
        unit_: Unit of each column's logarithm; infinite where it stays linear.
        center_: Centre of each column, as it is read.
        scale_: One deviation of each column, as it is read; infinite where nothing varies.
    """

    unit_: Float[ndarray, " feature"]
    center_: Float[ndarray, " feature"]
    scale_: Float[ndarray, " feature"]

    def fit(
        self,
        X: Shaped[ndarray, "n feature"],
        y: None = None,
        sample_weight: Float[ndarray, " n"] | None = None,
    ) -> Self:
        """Learns units, centres and deviations from the values that are not NaN.

        A row of weight two counts as two rows.

        Raises:
            ValueError: If a value is infinite.
        """
        X = self._checked(X, reset=True)
        rows = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        weight = np.where(np.isnan(X), 0.0, rows[:, None])
        total = weight.sum(axis=0)
        number = np.where(total > 0, total, 1.0)
        sizes = (weight * (X < 0)).sum(axis=0) <= NEGATIVE * number
        self.unit_ = np.where(sizes, medians(X, weight * (X > 0), otherwise=np.inf), np.inf)
        x = self._read(X)
        median = medians(x, weight, otherwise=0.0)
        with np.errstate(over="ignore"):  # infinite distances are drawn in like other large ones
            distance = np.abs(x - median)
        reach = REACH * medians(distance, weight * (distance > 0), otherwise=0.0)
        inside = np.where(weight > 0, x.clip(median - reach, median + reach) - median, 0.0)
        shift = (weight * inside).sum(axis=0) / number
        self.center_ = median + shift
        deviation = np.sqrt((weight * (inside - shift) ** 2).sum(axis=0) / number)
        varies = deviation > STEADY * np.abs(self.center_)
        self.scale_ = np.where(varies, deviation, np.inf)
        return self

    def transform(self, X: Shaped[ndarray, "n feature"]) -> Float[ndarray, "n feature"]:
        """Deviations from the centre, at most five either way."""
        check_is_fitted(self)
        x = self._read(self._checked(X, reset=False))
        with np.errstate(over="ignore"):
            apart = np.nan_to_num(x - self.center_, nan=np.nan)  # infinity / infinity is NaN
            return np.asarray((apart / self.scale_).clip(-REACH, REACH))

    def _checked(
        self, X: Shaped[ndarray, "n feature"], *, reset: bool
    ) -> Float[ndarray, "n feature"]:
        checks = {"dtype": np.float64, "ensure_all_finite": "allow-nan", "ensure_min_features": 0}
        return np.asarray(validate_data(self, X, reset=reset, **checks))

    def _read(self, X: Float[ndarray, "n feature"]) -> Float[ndarray, "n feature"]:
        """Sizes by their logarithms."""
        logarithmic = np.isfinite(self.unit_)
        with np.errstate(over="ignore"):
            logs = np.sign(X) * np.log1p(np.abs(X) / np.where(logarithmic, self.unit_, 1.0))
        return np.where(logarithmic, logs, X)


class Standard(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Mean and standard deviation, as the paper's data are scaled; NaN stays NaN.

    Columns of zeros and ones, such as masks, stay as they are; what never varied becomes zero.

    Attributes:
        center_: Mean of each column.
        scale_: Its standard deviation; infinite where nothing varies.
    """

    center_: Float[ndarray, " feature"]
    scale_: Float[ndarray, " feature"]

    def fit(
        self,
        X: Float[ndarray, "n feature"],
        y: None = None,
        sample_weight: Float[ndarray, " n"] | None = None,
    ) -> Self:
        """Learns from the values that are not NaN; a row of weight two counts as two rows."""
        X = np.asarray(X, np.float64)
        rows = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        weight = np.where(np.isnan(X), 0.0, rows[:, None])
        share = weight / np.maximum(weight.sum(axis=0), np.finfo(float).tiny)
        known = np.nan_to_num(X)
        mean = (share * known).sum(axis=0)
        deviation = np.sqrt((share * (known - mean) ** 2).sum(axis=0))
        varies = deviation > STEADY * np.abs(mean)
        binary = varies & ((known == 0) | (known == 1)).all(axis=0)
        self.center_ = np.where(varies & ~binary, mean, 0.0)
        self.scale_ = np.where(binary, 1.0, np.where(varies, deviation, np.inf))
        return self

    def transform(self, X: Float[ndarray, "n feature"]) -> Float[ndarray, "n feature"]:
        """Deviations from the mean."""
        check_is_fitted(self)
        out: Float[ndarray, "n feature"] = (np.asarray(X, np.float64) - self.center_) / self.scale_
        return out


SCALERS = {"robust": RobustScaler, "standard": Standard}
"""What ``scaling`` may be."""


def scaler(name: str) -> Any:
    """A scaler by its name, unfitted.

    Raises:
        ValueError: If there is none.
    """
    if name not in SCALERS:
        raise ValueError(f"scaling is one of {', '.join(SCALERS)}, but is {name!r}")
    return SCALERS[name]()


class Columns(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Standardised columns, gaps filled with the centre, and a flag for each pattern of gaps.

    Scales are learned from what was seen: filled gaps would make every column look narrower. A
    flag times the root of the number of columns that it stands for has the penalty and the
    variance of so many equal flags, which a panel that is measured as a whole deserves in a ridge
    and in principal components.

    Args:
        scaling: ``"robust"`` or ``"standard"``.

    Attributes:
        scaler_: What standardises the columns.
        gaps_: The patterns of gaps.
        flags_: What standardises their flags.
    """

    def __init__(self, scaling: str = "robust") -> None:
        self.scaling = scaling

    def fit(
        self,
        X: Float[ndarray, "n feature"],
        y: object = None,
        sample_weight: Float[ndarray, " n"] | None = None,
    ) -> Self:
        """Learns scales and patterns; a row of weight two counts as two rows."""
        self.scaler_ = scaler(self.scaling).fit(X, sample_weight=sample_weight)
        self.gaps_ = GapFlags().fit(X)
        self.flags_ = scaler(self.scaling).fit(self.gaps_.transform(X), sample_weight=sample_weight)
        return self

    def transform(self, X: Float[ndarray, "n feature"]) -> Float[ndarray, "n column"]:
        """Columns, then flags; nothing is missing."""
        flags = self.flags_.transform(self.gaps_.transform(X)) * np.sqrt(self.gaps_.counts_)
        return np.concatenate([np.nan_to_num(self.scaler_.transform(X)), flags], axis=1)

    @property
    def width(self) -> int:
        """How many columns come out."""
        return len(self.scaler_.scale_) + len(self.gaps_.columns_)


def medians(
    x: Float[ndarray, "n feature"], weight: Float[ndarray, "n feature"], otherwise: float
) -> Float[ndarray, " feature"]:
    """Weighted median of each column; ``otherwise`` where all weights are zero."""
    columns = zip(x.T, weight.T, strict=True)
    return np.array([_median(c[w > 0], w[w > 0]) if w.any() else otherwise for c, w in columns])


def _median(x: Float[ndarray, " n"], weight: Float[ndarray, " n"]) -> float:
    """Where half the weight lies on each side, or between the two values where it does."""
    order = np.argsort(x, kind="stable")
    below = np.cumsum(weight[order])
    half = below[-1] / 2
    lower, upper = np.searchsorted(below, [half * (1 - ROUNDING), half * (1 + ROUNDING)])
    return float((x[order[lower]] + x[order[min(upper, len(x) - 1)]]) / 2)
