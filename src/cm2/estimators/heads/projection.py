"""Each modality's principal components, of variance one, and their normal scores."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.special import ndtri

from cm2.samples.inputs import Blocks
from cm2.samples.scaling import REACH, ROUNDING

FLAT = 1e-6
"""Variance of a direction, of standardised columns, below which it is taken for constant."""

KNOTS = 200
"""Quantiles that hold a coordinate's distribution function."""


class Projection:
    """Blocks to embeddings: whitened principal components, zeros where a modality is absent.

    Args:
        dim: Principal components of each modality; one with fewer columns is filled up by
            coordinates that say nothing.

    Attributes:
        centers_: Mean of each modality.
        directions_: Whitened principal directions of each modality; zeros where nothing varies.
        quantiles_: Of each coordinate, at the probabilities (k - 1/2) / 200.
    """

    centers_: dict[str, Float[ndarray, " feature"]]
    directions_: dict[str, Float[ndarray, "feature dim"]]
    quantiles_: Float[ndarray, "knot modality dim"]

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def fit(self, blocks: Blocks, weight: Float[ndarray, " n"]) -> Projection:
        """Learns from weighted rows; a row of weight two counts as two."""
        dim = min(self.dim, max(values.shape[1] for values in blocks.values.values()))
        self.centers_, self.directions_ = {}, {}
        for m, (name, values) in enumerate(blocks.values.items()):
            used = blocks.present[:, m] & (weight > 0)
            rows, share = values[used].astype(np.float64), weight[used]
            center = (
                np.average(rows, axis=0, weights=share) if len(rows) else np.zeros(values.shape[1])
            )
            self.centers_[name] = center
            self.directions_[name] = _principal_directions(rows - center, share, dim)
        z = self.transform(blocks)
        self.quantiles_ = np.zeros((KNOTS, *z.shape[1:]))
        for m, here in enumerate((blocks.present & (weight > 0)[:, None]).T):
            if here.any():
                self.quantiles_[:, m] = _quantiles(z[here, m], weight[here])
        return self

    @property
    def scale(self) -> Float[ndarray, "modality dim"]:
        """Standard deviation of each coordinate before it was stretched; 0 where it is constant."""
        length = np.stack([np.linalg.norm(part, axis=0) for part in self.directions_.values()])
        return np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)

    def transform(self, blocks: Blocks) -> Float[ndarray, "n modality dim"]:
        """Principal components, drawn in at five deviations.

        A direction of small variance is stretched to variance one, and so is a row that stands out
        in it.
        """
        parts = []
        for m, (name, values) in enumerate(blocks.values.items()):
            z = ((values - self.centers_[name]) @ self.directions_[name]).clip(-REACH, REACH)
            parts.append(np.where(blocks.present[:, m, None], z, 0.0))
        return np.stack(parts, axis=1)

    def scores(
        self, z: Float[ndarray, "n modality dim"], present: Bool[ndarray, "n modality"]
    ) -> Float[ndarray, "n modality dim"]:
        """Normal scores of principal components; beyond the outermost knots they stay there."""
        out = np.zeros_like(z)
        normal = ndtri(_probabilities())
        for m, here in enumerate(present.T):
            for j in np.flatnonzero(self.scale[m, : z.shape[2]]):
                # A value that many rows share gets the mean of its scores.
                knots, knot = np.unique(self.quantiles_[:, m, j], return_inverse=True)
                score = np.bincount(knot, normal) / np.bincount(knot)
                out[here, m, j] = np.interp(z[here, m, j], knots, score)
        return out


def _probabilities() -> Float[ndarray, " knot"]:
    return (np.arange(KNOTS) + 0.5) / KNOTS


def _quantiles(
    x: Float[ndarray, "row dim"], weight: Float[ndarray, " row"]
) -> Float[ndarray, "knot dim"]:
    """Quantiles of each column at the knots, as of rows repeated by their weights."""
    order = np.argsort(x, axis=0, kind="stable")
    end = np.cumsum(weight[order], axis=0)
    place = _probabilities() * max(end[-1, 0] - 1, 0.0)
    first, between = np.floor(place), (place % 1)[:, None]
    ends = []
    for at in (first, first + 1):
        row = [np.searchsorted(column, at * (1 + ROUNDING), "right") for column in end.T]
        ends.append(
            np.take_along_axis(
                x,
                np.take_along_axis(order, np.minimum(np.stack(row, axis=1), len(x) - 1), axis=0),
                axis=0,
            )
        )
    return (1 - between) * ends[0] + between * ends[1]


def _principal_directions(
    centered: Float[ndarray, "row feature"], weight: Float[ndarray, " row"], dim: int
) -> Float[ndarray, "feature dim"]:
    """Directions of largest variance, scaled to variance one; zeros where there is none."""
    scaled = centered * np.sqrt(weight)[:, None]
    _, singular, right = np.linalg.svd(scaled, full_matrices=False)
    variance = (singular**2 / max(weight.sum() - 1, 1.0))[:dim]
    right = right[: len(variance)]
    right *= np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])[:, None]
    out = np.zeros((centered.shape[1], dim))
    kept = variance > FLAT
    out[:, : len(right)][:, kept] = (right[kept] / np.sqrt(variance[kept])[:, None]).T
    return out
