"""The laws of an embedding given the class: one Gaussian of all coordinates, or a copula of each.

A class has its own means; deviations from them follow a law that all classes share, or that each
has for itself, shrunk to the common one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from cm2.core.numerics import seeded
from cm2.core.persistence import load_module_arrays, module_arrays
from cm2.couplings.joint import CopulaJoint
from cm2.estimators.heads.block_gaussian import BlockGaussian

TOLERANCE = 1e-4
"""Gain in log likelihood a row below which EM stops: what follows moves no prediction."""


RIDGE = 0.3
"""Added to the variances that modalities' covariances are shrunk to, in variances of a column.

Directions of small variance count for less, so that more of them can be taken along.
"""


class Laws(ABC):
    """Densities of embeddings given each class, of whatever modalities a row has."""

    @abstractmethod
    def fit(
        self,
        z: Float[ndarray, "n modality dim"],
        present: Bool[ndarray, "n modality"],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        labels: int,
    ) -> Self:
        """Learns from rows with class codes and weights."""

    @abstractmethod
    def log_density(
        self, z: Float[ndarray, "n modality dim"], present: Bool[ndarray, "n modality"]
    ) -> Float[ndarray, "n label"]:
        """Log density of what each row has, under each class."""


class FullLaws(Laws):
    """Gaussians with one covariance over all coordinates of all modalities.

    Args:
        scale: Standard deviation of each principal component, in those of a column; components
            of none are left out.
        pooling: Weight of a row of another class in a class's covariance: 1 shares one.
        strength: Of the shrinkage to independent modalities, as a share of the number of rows.

    Attributes:
        gaussians_: One for all classes, or one a class; none where nothing varies.
        labels_: Number of classes.
    """

    labels_: int
    gaussians_: list[BlockGaussian]

    def __init__(
        self, scale: Float[ndarray, "modality dim"], pooling: float, strength: float
    ) -> None:
        self.scale = scale
        self.pooling = pooling
        self.strength = strength

    def fit(
        self,
        z: Float[ndarray, "n modality dim"],
        present: Bool[ndarray, "n modality"],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        labels: int,
    ) -> Self:
        """Fits the common law, then shrinks each class's own to it.

        With S_c the scatter of class c of n_c rows and Sigma the common covariance, that of the
        class is (S_c + k n Sigma) / (n_c + k n). For complete rows, pooling w = k / (1 + k) is the
        weight of other classes' rows in it.
        """
        self.labels_ = labels
        x, rows = self._flat(z), float(weight.sum())
        self.gaussians_ = []
        if not x.shape[1]:
            return self
        shared = self._gaussian(self.strength * rows).fit(x, present, y, weight, labels)
        if self.pooling == 1.0:
            self.gaussians_ = [shared]
        else:
            # A proper prior, whatever the pooling: a class may have fewer rows than coordinates.
            prior = max(self.pooling / (1 - self.pooling) * rows, float(x.shape[1]))
            for label, mean in enumerate(shared.mean_):
                own = weight * (y == label)
                # A row without weight, in a fold that lacks the class: its law is the common one.
                part = np.flatnonzero(own) if own.any() else np.arange(1)
                one = self._gaussian(prior)
                data = one.statistics(x[part], present[part], 0 * y[part], own[part], 1)
                self.gaussians_.append(one.fit_statistics(data, center=(mean, shared.covariance_)))
        return self

    def log_density(
        self, z: Float[ndarray, "n modality dim"], present: Bool[ndarray, "n modality"]
    ) -> Float[ndarray, "n label"]:
        """Log density of what each row has, under each class."""
        x = self._flat(z)
        if not self.gaussians_:  # nothing varies
            return np.zeros((len(x), self.labels_))
        return np.hstack([gaussian.log_density(x, present) for gaussian in self.gaussians_])

    def _flat(self, z: Float[ndarray, "n modality dim"]) -> Float[ndarray, "n coordinate"]:
        return (z * self.scale)[:, self.scale > 0]

    def _gaussian(self, strength: float) -> BlockGaussian:
        sizes = tuple((self.scale > 0).sum(axis=1).tolist())
        return BlockGaussian(sizes, strength=strength, ridge=RIDGE, tolerance=TOLERANCE)


class CopulaLaws(Laws):
    """Copula joints of deviations, which couple coordinates of the same number.

    Args:
        varies: Coordinates that are not constant.
        pooling: Weight of a row of another class in the law of a class: 1 shares one.
        options: Arguments of ``CopulaJoint`` beyond the sizes.
        seed: Of the mixtures.

    Attributes:
        means_: Mean embedding of each class.
        joints_: Law of the deviations of each class; one for all if they are pooled.
    """

    means_: torch.Tensor
    joints_: list[CopulaJoint]

    def __init__(
        self,
        varies: Bool[ndarray, "modality dim"],
        pooling: float,
        options: dict[str, Any],
        seed: int,
    ) -> None:
        self.varies = varies
        self.pooling = pooling
        self.options = options
        self.seed = seed

    def fit(
        self,
        z: Float[ndarray, "n modality dim"],
        present: Bool[ndarray, "n modality"],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        labels: int,
    ) -> Self:
        """Fits the means, then the law of deviations from them."""
        embedded, here = _single(z), torch.from_numpy(present)
        codes, weights = torch.from_numpy(y), torch.from_numpy(weight).to(embedded)
        share = torch.nn.functional.one_hot(codes, labels).to(embedded) * weights[:, None]
        mask = here.to(embedded)
        seen = (weights[:, None] * mask)[..., None]
        overall = (seen * embedded).sum(0) / seen.sum(0).clamp_min(torch.finfo(seen.dtype).tiny)
        count = torch.einsum("nc,nm->cm", share, mask)[..., None]
        # One pseudo-observation at the overall mean, for a class that lacks a modality.
        total = torch.einsum("nc,nmd->cmd", share, embedded * mask[..., None])
        self.means_ = (total + overall) / (count + 1)
        deviation = embedded - self.means_[codes]
        if self.pooling == 1.0:
            self.joints_ = [self._law(deviation, here, weights)]
        else:
            self.joints_ = [
                self._law(deviation, here, torch.where(codes == c, weights, self.pooling * weights))
                for c in range(labels)
            ]
        return self

    @torch.no_grad()
    def log_density(
        self, z: Float[ndarray, "n modality dim"], present: Bool[ndarray, "n modality"]
    ) -> Float[ndarray, "n label"]:
        """Log density of what each row has, under each class."""
        embedded, here = _single(z), torch.from_numpy(present)
        joints = self.joints_ * (len(self.means_) if len(self.joints_) == 1 else 1)
        columns = [
            joint().log_prob(embedded - mean, here).double()
            for joint, mean in zip(joints, self.means_, strict=True)
        ]
        return np.asarray(torch.stack(columns, 1).numpy())

    def __getstate__(self) -> dict[str, Any]:
        """Networks as arrays, for safe files."""
        state = dict(vars(self))
        if "joints_" in state:
            state["joints_"] = [module_arrays(joint) for joint in self.joints_]
            state["means_"] = self.means_.numpy()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuilds the joints from arrays."""
        vars(self).update(state)
        if "joints_" in state:
            self.means_ = torch.from_numpy(np.array(state["means_"]))
            self.joints_ = [
                load_module_arrays(self._joint(*self.means_.shape[1:]), arrays)
                for arrays in state["joints_"]
            ]

    def _joint(self, modalities: int, dim: int) -> CopulaJoint:
        with seeded(self.seed):
            return CopulaJoint(modalities, dim, **self.options)

    def _law(
        self, deviation: torch.Tensor, present: torch.Tensor, weights: torch.Tensor
    ) -> CopulaJoint:
        used = weights > 0
        prior, only = _pseudo_rows(deviation, self.options["components"])
        share = torch.full((len(prior),), deviation.shape[1] / len(prior)).to(weights)
        joint = self._joint(*deviation.shape[1:]).fit(
            torch.cat([deviation[used], prior]),
            torch.cat([present[used], only]),
            weights=torch.cat([weights[used], share]),
            seed=self.seed,
            steps=0,
            quiet=True,
        )
        # What does not vary says nothing on the class: the same law for all of them.
        flat = torch.from_numpy(~self.varies)[:, None]
        law = joint.marginals(frozen=True)
        joint.marginals.set(
            loc=law.loc.masked_fill(flat, 0.0), scale=law.scale.masked_fill(flat, 1.0)
        )
        return joint


def _single(z: Float[ndarray, "n modality dim"]) -> torch.Tensor:
    return torch.from_numpy(z.astype(np.float32))


def _pseudo_rows(
    deviation: Float[torch.Tensor, "n modality dim"], components: int
) -> tuple[Float[torch.Tensor, "row modality dim"], Bool[torch.Tensor, "row modality"]]:
    """Rows of mean 0 and variance 1 that have one modality each.

    With the weight of one row a modality they give a law also to a modality that no row of a class
    has, and bound the scales of one that a single row has. They say nothing on dependence.
    """
    modalities, dim = deviation.shape[1:]
    count = max(2, components)
    values = torch.linspace(-1.0, 1.0, count)
    values = (values / values.square().mean().sqrt()).to(deviation)
    only = torch.eye(modalities, dtype=torch.bool).repeat(count, 1)
    rows = values.repeat_interleave(modalities)[:, None, None].expand(-1, modalities, dim)
    return torch.where(only[..., None], rows, 0.0), only
