"""Class-conditional Gaussians over blocks of which any may be missing: MAP-EM, one covariance.

x | y ~ N(mu_y, Sigma). The prior on Sigma is inverse Wishart, centred on the block-diagonal
covariance, so its strength moves the model between naive Bayes over blocks and a free covariance.
EM with missing data: Dempster, Laird, Rubin (1977); Little and Rubin (2019), chapter 11.

Of what a pattern observes and what it lacks, the less is inverted (:mod:`.block_patterns`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from cm2.estimators.heads.block_patterns import (
    LOG_2PI,
    Expected,
    Law,
    add,
    add_square,
    by_pattern,
    chunks,
)

STRENGTHS = (float("inf"), 1.0, 0.3, 0.1, 0.02, 0.005)
"""Multiples of the number of rows; joint head and experts choose their prior's strength of them."""


class Patterns(NamedTuple):
    """Patterns of missing blocks that observe equally many coordinates and have equally many rows.

    A pattern with more rows than columns is reduced to fewer with the same second moments.
    """

    observed: Int[ndarray, "pattern seen"]
    label: Float[ndarray, "pattern row label"]
    """Indicators of the classes, times the root of the row's weight."""
    value: Float[ndarray, "pattern row seen"]
    """Coordinates, times the root of the row's weight."""


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
        center_: Sigma_0.
        common_: mu_0.
        objective_: Value of the penalised log likelihood at each step of EM.
    """

    mean_: Float[ndarray, "label dim"]
    covariance_: Float[ndarray, "dim dim"]
    center_: Float[ndarray, "dim dim"]
    common_: Float[ndarray, " dim"]
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
    ) -> list[Patterns]:
        """Reduces rows to sufficient statistics, so that EM does not depend on their number."""
        root = np.sqrt(weight)
        parts: dict[tuple[int, ...], list[Patterns]] = {}
        for observed, rows in by_pattern(present, self.sizes):
            label = np.eye(labels)[y[rows]] * root[rows][..., None]
            value = x[rows[:, :, None], observed[:, None, :]] * root[rows][..., None]
            both = np.concatenate([label, value], axis=2)
            if both.shape[1] > both.shape[2]:
                both = np.asarray(np.linalg.qr(both, mode="r"))
            part = Patterns(observed, both[..., :labels], both[..., labels:])
            parts.setdefault(both.shape[1:], []).append(part)
        return [group for alike in parts.values() for group in _merge(alike)]

    def fit_statistics(
        self,
        data: list[Patterns],
        start: BlockGaussian | None = None,
        center: tuple[Float[ndarray, " dim"], Float[ndarray, "dim dim"]] | None = None,
    ) -> Self:
        """Fits from sufficient statistics.

        Args:
            data: What :meth:`statistics` returns.
            start: Another fit to start at; else independent blocks, or the centre.
            center: Mean and covariance to shrink to; independent blocks if there are none.
        """
        if center is None:
            self._fit_independent(data)
        else:
            self.common_, self.center_ = center
            self.mean_ = np.tile(self.common_, (data[0].label.shape[2], 1))
            self.covariance_ = self.center_
        self.objective_ = []
        if np.isinf(self.strength):
            return self
        if start is not None:
            self.mean_, self.covariance_ = start.mean_, start.covariance_
        count = np.sum([np.square(group.label).sum(axis=(0, 1)) for group in data], axis=0)
        for _ in range(self.max_iter):
            law = Law(self.covariance_)
            sums = self._expect(data, law)
            self.objective_.append(sums.log_likelihood - self._penalty(law))
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
        law = Law(self.covariance_)
        for observed, rows in by_pattern(present, self.sizes):
            value = x[rows[:, :, None], observed[:, None, :]]
            part = law.of(observed)
            constant = part.log_det + observed.shape[1] * LOG_2PI
            for label, mean in enumerate(self.mean_):
                square = part.squares(value - mean[observed][:, None])
                out[rows, label] = -0.5 * (square + constant[:, None])
        return out

    def _fit_independent(self, data: list[Patterns]) -> None:
        """Closed form for independent blocks; sets what is shrunk to as well."""
        labels, dim = data[0].label.shape[2], len(self.block)
        total, column = np.zeros((labels, dim)), np.zeros((labels, dim))
        for observed, label, value in data:
            count = np.square(label).sum(axis=1)[:, :, None]
            add(total, observed, np.broadcast_to(count, (*count.shape[:2], observed.shape[1])))
            add(column, observed, label.swapaxes(1, 2) @ value)
        common = column.sum(axis=0) / np.maximum(total.sum(axis=0), 1e-300)
        rows = total + self.pull
        self.mean_ = np.where(
            rows > 0, (column + self.pull * common) / np.where(rows > 0, rows, 1.0), common
        )
        shift = self.mean_ - common
        scatter = self.pull * shift.T @ shift
        for observed, label, value in data:
            deviation = value - label @ self.mean_.T[observed].swapaxes(1, 2)
            add_square(scatter, observed, deviation.swapaxes(1, 2) @ deviation)
        seen = total.sum(axis=0)
        center = scatter / np.maximum(seen, 1e-300)[:, None]
        center = np.where((self.block[:, None] == self.block) & (seen > 0)[:, None], center, 0.0)
        center[np.diag_indices_from(center)] += np.where(seen > 0, self.ridge, 1.0)
        self.common_, self.center_, self.covariance_ = common, center, center

    def _expect(self, data: list[Patterns], law: Law) -> Expected:
        """The E-step, and the log likelihood at the present parameters."""
        found = Expected(self.covariance_, len(self.mean_))
        for observed, label, value in data:
            deviation = value - label @ self.mean_.T[observed].swapaxes(1, 2)
            found.add(law.of(observed), deviation, label)
        return found

    def _maximise(self, sums: Expected, count: Float[ndarray, " label"]) -> None:
        """The M-step in place, given the weight of each class."""
        completed = sums.completed()
        rows = (count + self.pull)[:, None]
        total = count[:, None] * self.mean_ + completed + self.pull * self.common_
        mean = np.where(rows > 0, total / np.where(rows > 0, rows, 1.0), self.mean_)
        moved, shift = self.mean_ - mean, mean - self.common_
        cross = moved.T @ completed
        scatter = (
            sums.scatter()
            + (moved * count[:, None]).T @ moved
            + cross
            + cross.T
            + self.pull * shift.T @ shift
            + self.strength * self.center_
        )
        scatter /= count.sum() + self.strength
        self.mean_, self.covariance_ = mean, (scatter + scatter.T) / 2

    def _penalty(self, law: Law) -> float:
        """Minus the log prior at the present parameters, up to a constant."""
        shift = self.mean_ - self.common_
        inner = self.strength * self.center_ + self.pull * shift.T @ shift
        return 0.5 * float(self.strength * law.log_det + (law.precision * inner).sum())


def _merge(parts: list[Patterns]) -> Iterator[Patterns]:
    """Patterns of the same sizes together, in chunks: a few large steps, not many small."""
    _, rows, columns = parts[0].value.shape
    whole = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    for part in chunks(len(whole[0]), columns, rows):
        yield Patterns(*(array[part] for array in whole))
