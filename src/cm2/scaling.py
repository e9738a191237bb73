"""Columns to mean 0 and variance 1, whatever a few extreme values do.

Mean and standard deviation are those of the column once its values are drawn in to fences about
the median (winsorised; Tukey 1962, "The future of data analysis"). A column without outliers is
standardised as usual, and so is one of two values.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from sklearn.base import BaseEstimator, TransformerMixin

REACH = 5.0
"""Deviations beyond which values are drawn in, in training for the moments and then for good."""

NORMAL_IQR = 1.349
"""Distance between the quartiles of the standard normal law."""


class RobustScaler(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Standardises columns by their winsorised moments and clips what lies far out.

    The fences stand five robust deviations from the median, where a robust deviation is the
    interquartile range over 1.349. Where the quartiles are equal, as in a binary or mostly-zero
    column, it is the median distance from the median of those values that differ from it; so a
    column of two values is never fenced.

    Attributes:
        mean_: Mean of each column inside its fences.
        scale_: Standard deviation of each column inside its fences; 1 where nothing varies.
    """

    mean_: Float[ndarray, " feature"]
    scale_: Float[ndarray, " feature"]

    def fit(self, X: Float[ndarray, "n feature"], y: None = None) -> Self:
        """Learns the moments of columns without NaN."""
        low, center, high = np.percentile(X, [25, 50, 75], axis=0)
        deviation = (high - low) / NORMAL_IQR
        for column in np.flatnonzero(deviation == 0):
            distance = np.abs(X[:, column] - center[column])
            if (distance > 0).any():
                deviation[column] = np.median(distance[distance > 0])
        inside = X.clip(center - REACH * deviation, center + REACH * deviation)
        self.mean_ = inside.mean(axis=0)
        self.scale_ = np.where(np.ptp(inside, axis=0) > 0, inside.std(axis=0), 1.0)
        return self

    def transform(self, X: Float[ndarray, "n feature"]) -> Float[ndarray, "n feature"]:
        """Deviations from the mean, at most five either way."""
        reach = REACH * self.scale_
        # Drawn in before anything is subtracted: the largest numbers would overflow.
        return np.asarray(
            (X.clip(self.mean_ - reach, self.mean_ + reach) - self.mean_) / self.scale_
        )
