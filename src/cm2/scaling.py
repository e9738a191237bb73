"""Columns to robust deviations from their centre, so that a few extreme values do not rule.

Centre and scale are the median and the interquartile range, and what lies far out is clipped.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from sklearn.base import BaseEstimator, TransformerMixin

REACH = 5.0
"""Deviations beyond which values are clipped."""

NORMAL_IQR = 1.349
"""Distance between the quartiles of the standard normal law."""


class RobustScaler(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Centres and scales columns robustly and clips them at five deviations.

    The centre is the median and a deviation the interquartile range over 1.349, which is the
    standard deviation of a normal law. Where the quartiles are equal, as in a binary or mostly-zero
    column, they are mean and standard deviation, once values further from the median than five
    times the median distance of those that differ from it are drawn in to there. So a column of
    two values is standardised as usual.

    Attributes:
        center_: Centre of each column.
        scale_: One deviation of each column; 1 where nothing varies.
    """

    center_: Float[ndarray, " feature"]
    scale_: Float[ndarray, " feature"]

    def fit(self, X: Float[ndarray, "n feature"], y: None = None) -> Self:
        """Learns centres and scales of columns without NaN."""
        low, self.center_, high = np.percentile(X, [25, 50, 75], axis=0)
        self.scale_ = (high - low) / NORMAL_IQR
        for column in np.flatnonzero(self.scale_ == 0):
            center = self.center_[column]
            distance = np.abs(X[:, column] - center)
            if (distance > 0).any():
                reach = REACH * np.median(distance[distance > 0])
                inside = X[:, column].clip(center - reach, center + reach)
                self.center_[column], self.scale_[column] = inside.mean(), inside.std()
            else:
                self.scale_[column] = 1.0
        return self

    def transform(self, X: Float[ndarray, "n feature"]) -> Float[ndarray, "n feature"]:
        """Deviations from the centre, at most five either way."""
        reach = REACH * self.scale_
        # Clipped before anything is subtracted: the largest numbers would overflow.
        inside = X.clip(self.center_ - reach, self.center_ + reach)
        return np.asarray((inside - self.center_) / self.scale_)
