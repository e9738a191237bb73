r"""The joint head: classes by Bayes' rule from a joint law of the modalities, nothing imputed.

:math:`p(y \mid z_O) \propto \pi_y\, p(z_O \mid y)`, where missing terms drop out exactly. It is
discriminant analysis (Fisher 1936; Friedman 1989) with a copula model of the embeddings in the
place of one Gaussian: the law of a class is its means plus a law of the deviations, which classes
share (linear) or each has for itself (quadratic).
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from cm2.heads.base import Head, class_prior, register, row_weights, stratified_folds
from cm2.inputs import Blocks
from cm2.joint import CopulaJoint
from cm2.persistence import load_module_arrays, module_arrays

POOLINGS = (1.0, 0.3, 0.0)
"""Weight of a row of another class in the law of a class's deviations: 1 shares one law."""


FLAT = 1e-6
"""Variance of a direction, of standardised columns, below which it is taken for constant."""


@register("joint")
class JointHead(Head):
    r"""Class-conditional joint laws of the modalities' principal components.

    Args:
        copula: Name of the copula family.
        components: Number of components of each marginal mixture.
        dim: Principal components of each modality; one with fewer columns is filled up by
            coordinates that say nothing.
        coupling: Name of the coupling.
        poolings: Candidates for the weight of rows of other classes; chosen by cross-validated
            log loss.
        folds: Number of folds of the inner cross-validation.
        random_state: Seed of folds and mixtures.

    Attributes:
        centers_: Mean of each modality.
        directions_: Whitened principal directions of each modality; zeros where nothing varies.
        pooling_: The chosen pooling.
        beta_: Exponent of the likelihood, which corrects the confidence.
        means_: Mean embedding of each class.
        joints_: Law of the deviations of each class; one for all if they are pooled.
    """

    def __init__(
        self,
        copula: str = "gaussian",
        components: int = 1,
        dim: int = 8,
        coupling: str = "rosenblatt",
        poolings: tuple[float, ...] = POOLINGS,
        folds: int = 3,
        random_state: int = 0,
    ) -> None:
        self.copula = copula
        self.components = components
        self.dim = dim
        self.coupling = coupling
        self.poolings = poolings
        self.folds = folds
        self.random_state = random_state

    def fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None = None,
        groups: ndarray | None = None,
    ) -> Self:
        """Fits the laws, their pooling and their confidence."""
        weight = row_weights(sample_weight, len(y))
        folds = stratified_folds(y, self.folds, self.random_state, groups)
        self._fit(blocks, y, weight, folds)
        return self

    def cross_fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
    ) -> Float[ndarray, "n label"]:
        """Fits on all rows; the folds that choose the pooling give the out-of-fold predictions."""
        return self._fit(blocks, y, row_weights(sample_weight, len(y)), folds)

    def predict_log_proba(self, blocks: Blocks) -> Float[ndarray, "n label"]:
        """Log probabilities of the classes."""
        z, present = torch.from_numpy(self.embed(blocks)), torch.from_numpy(blocks.present)
        likelihood = _log_likelihood(self.joints_, self.means_, z, present)
        return self._posterior(likelihood, self.beta_)

    def embed(self, blocks: Blocks) -> Float[ndarray, "n modality dim"]:
        """Whitened principal components of each modality, zeros where it is absent."""
        parts = []
        for m, (name, values) in enumerate(blocks.values.items()):
            z = (values - self.centers_[name]) @ self.directions_[name]
            parts.append(np.where(blocks.present[:, m, None], z, 0.0))
        return np.stack(parts, axis=1).astype(np.float32)

    def __getstate__(self) -> dict[str, Any]:
        """Networks as arrays, for safe files."""
        state = dict(super().__getstate__())
        if "joints_" in state:
            state["joints_"] = [module_arrays(joint) for joint in self.joints_]
            state["means_"] = self.means_.numpy()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuilds the joints from arrays."""
        super().__setstate__(state)
        if "joints_" in state:
            self.means_ = torch.from_numpy(np.array(state["means_"]))
            self.joints_ = [
                load_module_arrays(self._joint(*self.means_.shape[1:]), arrays)
                for arrays in state["joints_"]
            ]

    def _joint(self, modalities: int, dim: int) -> CopulaJoint:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            return CopulaJoint(modalities, dim, self.copula, self.components, self.coupling)

    def _fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        folds: Int[ndarray, " n"],
    ) -> Float[ndarray, "n label"]:
        """Fits everything and returns out-of-fold log probabilities."""
        labels = int(y.max()) + 1
        self.prior_ = class_prior(y, weight, labels)
        self._fit_projections(blocks, weight)
        z, present = torch.from_numpy(self.embed(blocks)), torch.from_numpy(blocks.present)
        best = np.inf
        for pooling in self.poolings:
            likelihood = np.zeros((len(y), labels))
            for fold in np.unique(folds):
                train, test = folds != fold, folds == fold
                laws = self._laws(
                    z[train], present[train], y[train], weight[train], pooling, labels
                )
                likelihood[test] = _log_likelihood(*laws, z[test], present[test])
            beta, loss = self._confidence(likelihood, y, weight)
            if loss < best:
                best, self.pooling_, self.beta_, chosen = loss, pooling, beta, likelihood
        self.joints_, self.means_ = self._laws(z, present, y, weight, self.pooling_, labels)
        return self._posterior(chosen, self.beta_)

    def _fit_projections(self, blocks: Blocks, weight: Float[ndarray, " n"]) -> None:
        dim = min(self.dim, max(values.shape[1] for values in blocks.values.values()))
        self.centers_, self.directions_ = {}, {}
        for m, (name, values) in enumerate(blocks.values.items()):
            rows = values[blocks.present[:, m] & (weight > 0)].astype(np.float64)
            self.centers_[name] = rows.mean(axis=0) if len(rows) else np.zeros(values.shape[1])
            self.directions_[name] = _principal_directions(rows - self.centers_[name], dim)

    def _laws(
        self,
        z: torch.Tensor,
        present: torch.Tensor,
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        pooling: float,
        labels: int,
    ) -> tuple[list[CopulaJoint], torch.Tensor]:
        """The laws of the classes' deviations, and the classes' means."""
        codes, weights = torch.from_numpy(y), torch.from_numpy(weight).to(z)
        share = torch.nn.functional.one_hot(codes, labels).to(z) * weights[:, None]
        mask = present.to(z)[..., None]
        seen = weights[:, None, None] * mask
        overall = (seen * z).sum(0) / seen.sum(0).clamp_min(torch.finfo(z.dtype).tiny)
        count = torch.einsum("nc,nm->cm", share, present.to(z))[..., None]
        # One pseudo-observation at the overall mean, for a class that lacks a modality.
        means = (torch.einsum("nc,nmd->cmd", share, z * mask) + overall) / (count + 1)
        deviation = z - means[codes]
        if pooling == 1.0:
            return [self._law(deviation, present, weights)], means
        return [
            self._law(deviation, present, torch.where(codes == c, weights, pooling * weights))
            for c in range(labels)
        ], means

    def _law(
        self, deviation: torch.Tensor, present: torch.Tensor, weights: torch.Tensor
    ) -> CopulaJoint:
        used = weights > 0
        prior, only = _pseudo_rows(deviation, self.components)
        share = torch.full((len(prior),), deviation.shape[1] / len(prior)).to(weights)
        joint = self._joint(*deviation.shape[1:]).fit(
            torch.cat([deviation[used], prior]),
            torch.cat([present[used], only]),
            weights=torch.cat([weights[used], share]),
            seed=self.random_state,
            steps=0,
        )
        # What does not vary says nothing on the class: the same law for all of them.
        varies = [(self.directions_[name] != 0).any(axis=0) for name in self.directions_]
        flat = torch.from_numpy(~np.stack(varies))[:, None]
        law = joint.marginals(frozen=True)
        joint.marginals.set(
            loc=law.loc.masked_fill(flat, 0.0), scale=law.scale.masked_fill(flat, 1.0)
        )
        return joint

    def _confidence(
        self, likelihood: ndarray, y: Int[ndarray, " n"], weight: Float[ndarray, " n"]
    ) -> tuple[float, float]:
        """The exponent of the likelihood with the lowest log loss, shrunk to one, and that loss."""
        rows = float(weight.sum())

        def loss(log_beta: float) -> float:
            posterior = self._posterior(likelihood, float(np.exp(log_beta)))
            fit = -float(np.average(posterior[np.arange(len(y)), y], weights=weight))
            return fit + log_beta**2 / (2 * 0.25 * rows)

        found = minimize_scalar(loss, bounds=(-4.0, 1.0), method="bounded")
        return float(np.exp(found.x)), float(found.fun)

    def _posterior(self, likelihood: ndarray, beta: float) -> Float[ndarray, "n label"]:
        return np.asarray(log_softmax(np.log(self.prior_) + beta * likelihood, axis=1))


def _principal_directions(
    centered: Float[ndarray, "row feature"], dim: int
) -> Float[ndarray, "feature dim"]:
    """Directions of largest variance, scaled to variance one; zeros where there is none."""
    _, singular, right = np.linalg.svd(centered, full_matrices=False)
    variance = (singular**2 / max(len(centered) - 1, 1))[:dim]
    right = right[: len(variance)]
    right *= np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])[:, None]
    out = np.zeros((centered.shape[1], dim))
    kept = variance > FLAT
    out[:, : len(right)][:, kept] = (right[kept] / np.sqrt(variance[kept])[:, None]).T
    return out


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


@torch.no_grad()
def _log_likelihood(
    joints: list[CopulaJoint],
    means: torch.Tensor,
    z: torch.Tensor,
    present: torch.Tensor,
) -> Float[ndarray, "n label"]:
    laws = joints if len(joints) > 1 else joints * len(means)
    columns = [
        law().log_prob(z - mean, present).double() for law, mean in zip(laws, means, strict=True)
    ]
    return np.asarray(torch.stack(columns, 1).numpy())
