"""Class-conditional Gaussians over blocks of which any may be missing: MAP-EM, one covariance.

x | y ~ N(mu_y, Sigma). The prior on Sigma is inverse Wishart, centred on the block-diagonal
covariance, so its strength moves the model between naive Bayes over blocks and a free covariance.
EM with missing data: Dempster, Laird, Rubin (1977); Little and Rubin (2019), chapter 11.

With K_p the inverse covariance of what pattern p observes, zero elsewhere, completed deviations are
Sigma K_p d and what stays uncertain is Sigma - Sigma K_p Sigma. So a step of EM needs two sums over
patterns, of K d d' K - K and of K d, and no more memory for many patterns than for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpotri

_LOG_2PI = float(np.log(2 * np.pi))


class Pattern(NamedTuple):
    """The rows that observe the same coordinates, or fewer rows with the same second moments."""

    observed: Int[ndarray, " seen"]
    label: Float[ndarray, "row label"]
    """Indicators of the classes, times the root of the row's weight."""
    value: Float[ndarray, "row seen"]
    """Coordinates, times the root of the row's weight."""

    @property
    def weight(self) -> float:
        """Weight of all rows."""
        return float(np.square(self.label).sum())


class Center(NamedTuple):
    """What means and covariance are shrunk to."""

    mean: Float[ndarray, " dim"]
    covariance: Float[ndarray, "dim dim"]


class Sums(NamedTuple):
    """What a step of EM adds up over patterns, with d = x - mu_y."""

    square: Float[ndarray, "dim dim"]
    """Of K d d' K - K over rows: the gradient of the log likelihood in Sigma, doubled."""
    linear: Float[ndarray, "label dim"]
    """Of K d over the rows of a class."""
    log_likelihood: float


class BlockGaussian:
    """Gaussian classes with one covariance, fitted to rows that lack whole blocks.

    Maximises log likelihood - strength/2 (log|Sigma| + tr Sigma^-1 Sigma_0)
    - pull/2 sum_y (mu_y - mu_0)' Sigma^-1 (mu_y - mu_0), where Sigma_0 is the block-diagonal
    covariance and mu_0 the mean of the rows that have the block, unless a centre is given.

    Args:
        sizes: Number of coordinates of each block, in order.
        strength: Weight of Sigma_0 in rows; ``inf`` keeps blocks independent given the class, in
            which case nothing is iterated.
        pull: Rows' worth of shrinkage of class means to the common mean.
        ridge: Added to the variances of the block-diagonal Sigma_0.
        tolerance: EM stops when the objective gains less than this a row.
        max_iter: Largest number of EM steps.

    Attributes:
        mean_: Class means.
        covariance_: The common covariance.
        center_: mu_0 and Sigma_0.
        objective_: Value of the penalised log likelihood at each step of EM.
    """

    mean_: Float[ndarray, "label dim"]
    covariance_: Float[ndarray, "dim dim"]
    center_: Center
    objective_: list[float]

    def __init__(
        self,
        sizes: tuple[int, ...],
        *,
        strength: float = 0.0,
        pull: float = 1.0,
        ridge: float = 1e-4,
        tolerance: float = 1e-6,
        max_iter: int = 500,
    ) -> None:
        if strength < 0 or pull < 0 or ridge < 0:
            raise ValueError("strength, pull and ridge should not be negative")
        self.sizes = sizes
        self.strength = strength
        self.pull = pull
        self.ridge = ridge
        self.tolerance = tolerance
        self.max_iter = max_iter
        self.block = np.repeat(np.arange(len(sizes)), sizes)

    def fit(
        self,
        x: Float[ndarray, "n dim"],
        present: Bool[ndarray, "n block"],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        labels: int,
    ) -> Self:
        """Fits means and covariance; values in absent blocks are ignored."""
        return self.fit_statistics(self.statistics(x, present, y, weight, labels))

    def statistics(
        self,
        x: Float[ndarray, "n dim"],
        present: Bool[ndarray, "n block"],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        labels: int,
    ) -> list[Pattern]:
        """Reduces rows to sufficient statistics: no pattern keeps more rows than it has columns."""
        root = np.sqrt(weight)[:, None]
        label = np.eye(labels)[y] * root
        patterns = []
        for seen, rows in self._patterns(present):
            value = x[np.ix_(rows, seen)] * root[rows]
            both = np.hstack([label[rows], value])
            if len(both) > both.shape[1]:
                both = np.linalg.qr(both, mode="r")
            patterns.append(Pattern(seen, both[:, :labels], both[:, labels:]))
        return patterns

    def fit_statistics(
        self,
        data: list[Pattern],
        start: BlockGaussian | None = None,
        center: Center | None = None,
    ) -> Self:
        """Fits from sufficient statistics.

        Args:
            data: Patterns and their rows.
            start: Another fit to start at; else independent blocks, or the centre.
            center: What to shrink to; independent blocks if there is none.
        """
        if center is None:
            self._fit_independent(data)
        else:
            self.center_ = center
            self.mean_ = np.tile(center.mean, (data[0].label.shape[1], 1))
            self.covariance_ = center.covariance
        self.objective_ = []
        if np.isinf(self.strength):
            return self
        if start is not None:
            self.mean_, self.covariance_ = start.mean_, start.covariance_
        count = np.sum([np.square(pattern.label).sum(axis=0) for pattern in data], axis=0)
        for _ in range(self.max_iter):
            sums = self._expect(data)
            self.objective_.append(sums.log_likelihood - self._penalty())
            gain = np.diff(self.objective_[-2:])
            if len(gain) and gain[0] < self.tolerance * max(count.sum(), 1.0):
                break
            self._maximise(sums, count)
        return self

    def log_density(
        self, x: Float[ndarray, "n dim"], present: Bool[ndarray, "n block"]
    ) -> Float[ndarray, "n label"]:
        """Log density of the blocks that are there, under each class; 0 where nothing is."""
        out = np.zeros((len(x), len(self.mean_)))
        for seen, rows in self._patterns(present):
            root = np.linalg.cholesky(self.covariance_[np.ix_(seen, seen)])
            white = solve_triangular(root, x[np.ix_(rows, seen)].T, lower=True)
            centers = solve_triangular(root, self.mean_[:, seen].T, lower=True)
            log_root = np.log(np.diag(root)).sum() + len(seen) / 2 * _LOG_2PI
            for label, center in enumerate(centers.T):
                square = np.square(white - center[:, None]).sum(axis=0)
                out[rows, label] = -0.5 * square - log_root
        return out

    def _patterns(
        self, present: Bool[ndarray, "n block"]
    ) -> Iterator[tuple[Int[ndarray, " seen"], Int[ndarray, " row"]]]:
        """The coordinates of each pattern that has any, and its rows."""
        patterns, number = np.unique(present, axis=0, return_inverse=True)
        order = np.argsort(number, kind="stable")
        ends = np.cumsum(np.bincount(number, minlength=len(patterns)))
        for pattern, rows in zip(patterns, np.split(order, ends[:-1]), strict=True):
            seen = np.flatnonzero(pattern[self.block])
            if len(seen):
                yield seen, rows

    def _fit_independent(self, data: list[Pattern]) -> None:
        """Closed form for independent blocks; sets the centre of the prior too."""
        labels, dim = data[0].label.shape[1], len(self.block)
        total, column = np.zeros((labels, dim)), np.zeros((labels, dim))
        for seen, label, value in data:
            total[:, seen] += np.square(label).sum(axis=0)[:, None]
            column[:, seen] += label.T @ value
        common = column.sum(axis=0) / np.maximum(total.sum(axis=0), 1e-300)
        rows = total + self.pull
        self.mean_ = np.where(
            rows > 0, (column + self.pull * common) / np.where(rows > 0, rows, 1.0), common
        )
        shift = self.mean_ - common
        scatter = self.pull * shift.T @ shift
        for seen, label, value in data:
            deviation = value - label @ self.mean_[:, seen]
            scatter[np.ix_(seen, seen)] += deviation.T @ deviation
        count = total.sum(axis=0)
        center = scatter / np.maximum(count, 1e-300)[:, None]
        center = np.where((self.block[:, None] == self.block) & (count > 0)[:, None], center, 0.0)
        center[np.diag_indices_from(center)] += np.where(count > 0, self.ridge, 1.0)
        self.center_, self.covariance_ = Center(common, center), center

    def _expect(self, data: list[Pattern]) -> Sums:
        """The E-step, and the log likelihood at the present parameters."""
        square, linear = np.zeros_like(self.covariance_), np.zeros_like(self.mean_)
        log_likelihood = 0.0
        for pattern in data:
            seen, label, value = pattern
            root = np.linalg.cholesky(self.covariance_[np.ix_(seen, seen)])
            lower = dpotri(root, lower=1)[0]
            precision = lower + np.tril(lower, -1).T
            deviation = value - label @ self.mean_[:, seen]
            solved = deviation @ precision
            square[np.ix_(seen, seen)] += solved.T @ solved - pattern.weight * precision
            linear[:, seen] += label.T @ solved
            constant = 2 * np.log(np.diag(root)).sum() + len(seen) * _LOG_2PI
            log_likelihood -= 0.5 * ((deviation * solved).sum() + pattern.weight * constant)
        return Sums(square, linear, float(log_likelihood))

    def _maximise(self, sums: Sums, count: Float[ndarray, " label"]) -> None:
        """The M-step in place, given the weight of each class."""
        covariance = self.covariance_
        completed = sums.linear @ covariance  # of deviations, summed over the rows of a class
        rows = (count + self.pull)[:, None]
        total = count[:, None] * self.mean_ + completed + self.pull * self.center_.mean
        mean = np.where(rows > 0, total / np.where(rows > 0, rows, 1.0), self.mean_)
        moved, shift = self.mean_ - mean, mean - self.center_.mean
        cross = moved.T @ completed
        scatter = (
            count.sum() * covariance
            + covariance @ sums.square @ covariance
            + (moved * count[:, None]).T @ moved
            + cross
            + cross.T
            + self.pull * shift.T @ shift
            + self.strength * self.center_.covariance
        )
        scatter /= count.sum() + self.strength
        self.mean_, self.covariance_ = mean, (scatter + scatter.T) / 2

    def _penalty(self) -> float:
        """Minus the log prior at the present parameters, up to a constant."""
        shift = self.mean_ - self.center_.mean
        inner = self.strength * self.center_.covariance + self.pull * shift.T @ shift
        log_det = np.linalg.slogdet(self.covariance_)[1]
        return 0.5 * float(
            self.strength * log_det + np.trace(np.linalg.solve(self.covariance_, inner))
        )
