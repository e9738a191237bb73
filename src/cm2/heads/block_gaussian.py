"""Class-conditional Gaussians over blocks of which any may be missing: MAP-EM, one covariance.

x | y ~ N(mu_y, Sigma). The prior on Sigma is inverse Wishart, centred on the block-diagonal
covariance, so its strength moves the model between naive Bayes over blocks and a free covariance.
EM with missing data: Dempster, Laird, Rubin (1977); Little and Rubin (2019), chapter 11.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

_LOG_2PI = float(np.log(2 * np.pi))


class Statistics(NamedTuple):
    """All that EM needs of the data: weight, mean and scatter of each pattern of missing blocks."""

    observed: Bool[ndarray, "pattern dim"]
    weight: Float[ndarray, "pattern label"]
    mean: Float[ndarray, "pattern label dim"]
    scatter: Float[ndarray, "pattern dim dim"]
    """About the mean of pattern and class, summed over classes; zero where not observed."""


class Step(NamedTuple):
    """The conditional law of the missing coordinates given the observed ones, by pattern."""

    precision: Float[ndarray, "pattern dim dim"]
    """Inverse covariance of the observed coordinates, zero elsewhere."""
    log_det: Float[ndarray, " pattern"]
    completion: Float[ndarray, "pattern dim dim"]
    """Linear map from observed deviations to all: identity on what is observed."""
    residual: Float[ndarray, "pattern dim dim"]
    """Covariance of what is missing given what is observed, zero elsewhere."""


class BlockGaussian:
    """Gaussian classes with one covariance, fitted to rows that lack whole blocks.

    Maximises log likelihood - strength/2 (log|Sigma| + tr Sigma^-1 Sigma_0)
    - pull/2 sum_y (mu_y - mu_0)' Sigma^-1 (mu_y - mu_0), where Sigma_0 is the block-diagonal
    covariance and mu_0 the mean of the rows that have the block.

    Args:
        sizes: Number of coordinates of each block, in order.
        strength: Weight of Sigma_0 in rows; ``inf`` keeps blocks independent given the class, in
            which case nothing is iterated.
        pull: Rows' worth of shrinkage of class means to the common mean.
        ridge: Added to the variances of Sigma_0.
        tolerance: EM stops when the objective gains less than this a row.
        max_iter: Largest number of EM steps.

    Attributes:
        mean_: Class means.
        covariance_: The common covariance.
        center_: Sigma_0.
        objective_: Value of the penalised log likelihood at each step of EM.
    """

    mean_: Float[ndarray, "label dim"]
    covariance_: Float[ndarray, "dim dim"]
    center_: Float[ndarray, "dim dim"]
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
    ) -> Statistics:
        """Reduces rows to sufficient statistics, so that EM does not depend on their number."""
        patterns, number = np.unique(present, axis=0, return_inverse=True)
        observed = patterns[:, self.block]
        x = np.where(observed[number], x, 0.0)
        cell = number * labels + y
        cells = len(patterns) * labels
        total = np.bincount(cell, weight, minlength=cells)
        column = np.stack([np.bincount(cell, weight * c, minlength=cells) for c in x.T], axis=1)
        mean = column / np.where(total > 0, total, 1.0)[:, None]
        deviation = x - mean[cell]
        scatter = np.stack(
            [
                (deviation[rows] * weight[rows, None]).T @ deviation[rows]
                for rows in (np.flatnonzero(number == p) for p in range(len(patterns)))
            ]
        )
        return Statistics(
            observed,
            total.reshape(len(patterns), labels),
            mean.reshape(len(patterns), labels, x.shape[1]),
            scatter,
        )

    def fit_statistics(self, data: Statistics, start: BlockGaussian | None = None) -> Self:
        """Fits from sufficient statistics, starting at another fit or at independent blocks."""
        common = self._fit_independent(data)
        self.objective_ = []
        if np.isinf(self.strength):
            return self
        if start is not None:
            self.mean_, self.covariance_ = start.mean_.copy(), start.covariance_.copy()
        rows = max(float(data.weight.sum()), 1.0)
        for _ in range(self.max_iter):
            step = _condition(self.covariance_, data.observed)
            self.objective_.append(self._objective(data, step, common))
            gain = np.diff(self.objective_[-2:])
            if len(gain) and gain[0] < self.tolerance * rows:
                break
            self._maximise(data, step, common)
        return self

    def log_density(
        self, x: Float[ndarray, "n dim"], present: Bool[ndarray, "n block"]
    ) -> Float[ndarray, "n label"]:
        """Log density of the blocks that are there, under each class; 0 where nothing is."""
        patterns, number = np.unique(present, axis=0, return_inverse=True)
        observed = patterns[:, self.block]
        step = _condition(self.covariance_, observed)
        out = np.empty((len(x), len(self.mean_)))
        for p in range(len(patterns)):
            rows = np.flatnonzero(number == p)
            seen = observed[p]
            deviation = x[rows][:, None, seen] - self.mean_[:, seen]
            square = np.einsum(
                "ncd,de,nce->nc", deviation, step.precision[p][np.ix_(seen, seen)], deviation
            )
            out[rows] = -0.5 * (square + step.log_det[p] + seen.sum() * _LOG_2PI)
        return out

    def _fit_independent(self, data: Statistics) -> Float[ndarray, " dim"]:
        """Closed form for independent blocks; sets the centre of the prior, returns mu_0."""
        weight = data.weight[:, :, None] * data.observed[:, None, :]
        total = weight.sum(axis=0)
        column = (weight * data.mean).sum(axis=0)
        common = column.sum(axis=0) / np.maximum(total.sum(axis=0), 1e-300)
        self.mean_ = np.where(
            total + self.pull > 0,
            (column + self.pull * common) / np.where(total + self.pull > 0, total + self.pull, 1.0),
            common,
        )
        between = (data.mean - self.mean_) * data.observed[:, None, :]
        shift = self.mean_ - common
        scatter = (
            data.scatter.sum(axis=0)
            + np.einsum("pc,pcd,pce->de", data.weight, between, between)
            + self.pull * shift.T @ shift
        )
        rows = total.sum(axis=0)
        center = scatter / np.maximum(rows, 1e-300)[:, None]
        center = np.where((self.block[:, None] == self.block) & (rows > 0)[:, None], center, 0.0)
        center[np.diag_indices_from(center)] += np.where(rows > 0, self.ridge, 1.0)
        self.center_, self.covariance_ = center, center.copy()
        return common

    def _maximise(self, data: Statistics, step: Step, common: Float[ndarray, " dim"]) -> None:
        """One E-step and M-step in place."""
        deviation = (data.mean - self.mean_) * data.observed[:, None, :]
        completed = self.mean_ + np.einsum("pde,pce->pcd", step.completion, deviation)
        rows = data.weight.sum(axis=0)[:, None] + self.pull
        total = np.einsum("pc,pcd->cd", data.weight, completed) + self.pull * common
        mean = np.where(rows > 0, total / np.where(rows > 0, rows, 1.0), self.mean_)
        distance, shift = completed - mean, mean - common
        scatter = (
            (step.completion @ data.scatter @ step.completion.swapaxes(1, 2)).sum(axis=0)
            + np.einsum("pc,pcd,pce->de", data.weight, distance, distance)
            + np.einsum("p,pde->de", data.weight.sum(axis=1), step.residual)
            + self.pull * shift.T @ shift
            + self.strength * self.center_
        )
        covariance = scatter / (data.weight.sum() + self.strength)
        self.mean_, self.covariance_ = mean, (covariance + covariance.T) / 2

    def _objective(self, data: Statistics, step: Step, common: Float[ndarray, " dim"]) -> float:
        """The penalised log likelihood at the present parameters."""
        deviation = (data.mean - self.mean_) * data.observed[:, None, :]
        square = np.einsum("pde,pde->", step.precision, data.scatter) + np.einsum(
            "pc,pcd,pde,pce->", data.weight, deviation, step.precision, deviation, optimize=True
        )
        constant = step.log_det + data.observed.sum(axis=1) * _LOG_2PI
        likelihood = -0.5 * (square + data.weight.sum(axis=1) @ constant)
        shift = self.mean_ - common
        penalty = self.strength * (
            np.linalg.slogdet(self.covariance_)[1]
            + np.trace(np.linalg.solve(self.covariance_, self.center_))
        ) + self.pull * np.trace(np.linalg.solve(self.covariance_, shift.T @ shift))
        return float(likelihood - 0.5 * penalty)


def _condition(
    covariance: Float[ndarray, "dim dim"], observed: Bool[ndarray, "pattern dim"]
) -> Step:
    """Regression of missing on observed coordinates, for all patterns at once."""
    both = observed[:, :, None] & observed[:, None, :]
    unit = np.eye(len(covariance))
    padded = np.where(both, covariance, unit)
    precision = np.where(both, np.linalg.inv(padded), 0.0)
    log_det = np.linalg.slogdet(padded)[1]
    completion = np.where(observed[:, :, None], unit * observed[:, None, :], covariance @ precision)
    neither = ~observed[:, :, None] & ~observed[:, None, :]
    explained = covariance @ precision @ covariance
    return Step(precision, log_det, completion, np.where(neither, covariance - explained, 0.0))
