"""Gaussians of which coordinates are missing: densities, and what a step of EM adds up.

Of what a pattern observes and what it lacks, the less is inverted. With K the inverse covariance of
the observed coordinates, zero elsewhere, deviations d are completed to Sigma K d, and what stays
uncertain is Sigma - Sigma K Sigma. With L the inverse of Sigma, and m what is missing, d is
completed by -L_mm^-1 L_mo d, L_mm^-1 stays uncertain, and det Sigma_oo is det Sigma det L_mm
(Little and Rubin 2019, chapter 11). Either way sums over patterns are enough, and many patterns
take no more memory than one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

LOG_2PI = float(np.log(2 * np.pi))

CHUNK = 2**21
"""Numbers in the largest array that grows with the number of patterns: 16 MiB."""


def by_pattern(
    present: Bool[ndarray, "n block"], sizes: Sequence[int]
) -> Iterator[tuple[Int[ndarray, "pattern seen"], Int[ndarray, "pattern row"]]]:
    """Coordinates and rows of patterns that have equally many of both, in chunks.

    Args:
        present: Which blocks each row has; rows without any are in no group.
        sizes: Number of coordinates of each block, in order.
    """
    block = np.repeat(np.arange(len(sizes)), sizes)
    patterns, number = np.unique(present, axis=0, return_inverse=True)
    rows = np.bincount(number, minlength=len(patterns))
    seen = patterns @ np.asarray(sizes)
    order, first = np.argsort(number, kind="stable"), np.cumsum(rows) - rows
    for size, count in np.unique(np.stack([seen, rows], axis=1)[seen > 0], axis=0).tolist():
        group = np.flatnonzero((seen == size) & (rows == count))
        for part in chunks(len(group), size, count):
            chunk = group[part]
            observed = np.nonzero(patterns[chunk][:, block])[1].reshape(-1, size)
            yield observed, order[first[chunk][:, None] + np.arange(count)]


def chunks(patterns: int, seen: int, rows: int) -> Iterator[slice]:
    """Places of so many patterns, of so many coordinates and rows each, that bound memory."""
    step = max(1, CHUNK // (seen * max(seen, rows)))
    return (slice(first, first + step) for first in range(0, patterns, step))


class Direct(NamedTuple):
    """Patterns that observe no more than they lack.

    Attributes:
        observed: Coordinates that each pattern has.
        precision: Inverse covariance of these.
        log_det: Log determinant of their covariance.
        covariance: Of all coordinates.
    """

    observed: Int[ndarray, "pattern seen"]
    precision: Float[ndarray, "pattern seen seen"]
    log_det: Float[ndarray, " pattern"]
    covariance: Float[ndarray, "dim dim"]

    def squares(
        self, deviation: Float[ndarray, "pattern row seen"]
    ) -> Float[ndarray, "pattern row"]:
        """Mahalanobis distances, squared."""
        return np.asarray((deviation @ self.precision * deviation).sum(axis=2))

    def complete(
        self, deviation: Float[ndarray, "pattern row seen"]
    ) -> Float[ndarray, "pattern row dim"]:
        """Expected deviations of all coordinates."""
        solved = _whole(deviation @ self.precision, self.observed, len(self.covariance))
        return _times(solved, self.covariance)


class Completed(NamedTuple):
    """Patterns that lack less than they observe.

    Attributes:
        observed: Coordinates that each pattern has.
        lacking: The others.
        precision: Inverse covariance of all.
        uncertain: Covariance of what is lacking, given the others.
        log_det: Log determinant of the covariance of the observed.
    """

    observed: Int[ndarray, "pattern seen"]
    lacking: Int[ndarray, "pattern gap"]
    precision: Float[ndarray, "dim dim"]
    uncertain: Float[ndarray, "pattern gap gap"]
    log_det: Float[ndarray, " pattern"]

    def squares(
        self, deviation: Float[ndarray, "pattern row seen"]
    ) -> Float[ndarray, "pattern row"]:
        """Mahalanobis distances, squared."""
        return self.both(deviation)[1]

    def complete(
        self, deviation: Float[ndarray, "pattern row seen"]
    ) -> Float[ndarray, "pattern row dim"]:
        """Expected deviations of all coordinates."""
        return self.both(deviation)[0]

    def both(
        self, deviation: Float[ndarray, "pattern row seen"]
    ) -> tuple[Float[ndarray, "pattern row dim"], Float[ndarray, "pattern row"]]:
        """Expected deviations of all coordinates, and squared distances of the observed."""
        whole = _whole(deviation, self.observed, len(self.precision))
        told = _times(whole, self.precision)
        asked = np.take_along_axis(told, self.lacking[:, None], axis=2)
        np.put_along_axis(whole, self.lacking[:, None], -asked @ self.uncertain, axis=2)
        return whole, (whole * told).sum(axis=2)


class Law:
    """A covariance, asked for many patterns.

    Args:
        covariance: Of all coordinates.
    """

    def __init__(self, covariance: Float[ndarray, "dim dim"]) -> None:
        self.covariance = covariance
        [self.precision], [self.log_det] = _invert(covariance[None])

    def of(self, observed: Int[ndarray, "pattern seen"]) -> Direct | Completed:
        """What patterns that observe these coordinates need."""
        dim = len(self.covariance)
        if 2 * observed.shape[1] <= dim:
            part = self.covariance[observed[:, :, None], observed[:, None]]
            return Direct(observed, *_invert(part), self.covariance)
        missing = np.ones((len(observed), dim), dtype=bool)
        np.put_along_axis(missing, observed, False, axis=1)
        lacking = np.nonzero(missing)[1].reshape(len(observed), -1)
        uncertain, log_det = _invert(self.precision[lacking[:, :, None], lacking[:, None]])
        return Completed(observed, lacking, self.precision, uncertain, self.log_det + log_det)


class Expected:
    """What a step of EM adds up over rows, of their deviations from the means of their classes.

    Args:
        covariance: Of all coordinates.
        labels: Number of classes.

    Attributes:
        log_likelihood: Of what is observed.
    """

    def __init__(self, covariance: Float[ndarray, "dim dim"], labels: int) -> None:
        dim = len(covariance)
        self.covariance = covariance
        self.log_likelihood = 0.0
        self._scatter, self._completed = np.zeros((dim, dim)), np.zeros((labels, dim))
        # Of K d d' K - K and of K d, over the rows of direct patterns, and what these weigh.
        self._square, self._linear = np.zeros((dim, dim)), np.zeros((labels, dim))
        self._weight = 0.0

    def add(
        self,
        part: Direct | Completed,
        deviation: Float[ndarray, "pattern row seen"],
        label: Float[ndarray, "pattern row label"],
    ) -> None:
        """Adds rows of some patterns.

        Args:
            part: Of the same covariance.
            deviation: Of the observed coordinates, times the root of the row's weight.
            label: Indicators of the classes, times that root.
        """
        weight = np.square(label).sum(axis=(1, 2))
        if isinstance(part, Direct):
            solved = deviation @ part.precision
            square = solved.swapaxes(1, 2) @ solved - weight[:, None, None] * part.precision
            add_square(self._square, part.observed, square)
            add(self._linear, part.observed, label.swapaxes(1, 2) @ solved)
            self._weight += float(weight.sum())
            squares = (deviation * solved).sum()
        else:
            whole, each = part.both(deviation)
            flat = whole.reshape(-1, whole.shape[2])
            self._scatter += flat.T @ flat
            add_square(self._scatter, part.lacking, weight[:, None, None] * part.uncertain)
            self._completed += label.reshape(len(flat), -1).T @ flat
            squares = each.sum()
        constant = part.log_det + part.observed.shape[1] * LOG_2PI
        self.log_likelihood -= 0.5 * float(squares + weight @ constant)

    def scatter(self) -> Float[ndarray, "dim dim"]:
        """Expected squares of the deviations of all coordinates."""
        covariance = self.covariance
        direct = covariance @ self._square @ covariance + self._weight * covariance
        return np.asarray(self._scatter + direct)

    def completed(self) -> Float[ndarray, "label dim"]:
        """Expected deviations, over the rows of a class."""
        return np.asarray(self._completed + self._linear @ self.covariance)


def add(
    total: Float[ndarray, "label dim"],
    observed: Int[ndarray, "pattern seen"],
    part: Float[ndarray, "pattern label seen"],
) -> None:
    """Adds the rows of each pattern to the columns that it observes, in place."""
    for label, row in enumerate(total):
        row += np.bincount(observed.ravel(), part[:, label].ravel(), minlength=len(row))


def add_square(
    total: Float[ndarray, "dim dim"],
    observed: Int[ndarray, "pattern seen"],
    part: Float[ndarray, "pattern seen seen"],
) -> None:
    """Adds the matrix of each pattern to the rows and columns that it observes, in place."""
    index = observed[:, :, None] * len(total) + observed[:, None, :]
    total += np.bincount(index.ravel(), part.ravel(), minlength=total.size).reshape(total.shape)


def _whole(
    part: Float[ndarray, "pattern row seen"], observed: Int[ndarray, "pattern seen"], dim: int
) -> Float[ndarray, "pattern row dim"]:
    """Rows with zeros where each pattern observes nothing."""
    whole = np.zeros((*part.shape[:2], dim))
    np.put_along_axis(whole, observed[:, None], part, axis=2)
    return whole


def _times(
    rows: Float[ndarray, "pattern row dim"], matrix: Float[ndarray, "dim dim"]
) -> Float[ndarray, "pattern row dim"]:
    """All rows times a matrix, in one product."""
    return (rows.reshape(-1, rows.shape[2]) @ matrix).reshape(rows.shape)


def _invert(
    covariance: Float[ndarray, "pattern seen seen"],
) -> tuple[Float[ndarray, "pattern seen seen"], Float[ndarray, " pattern"]]:
    """Inverses and log determinants."""
    root = torch.linalg.cholesky(torch.from_numpy(covariance))
    log_det = 2 * root.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    return torch.cholesky_inverse(root).numpy(), log_det.numpy()
