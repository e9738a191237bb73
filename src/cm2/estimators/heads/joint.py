r"""The joint head: classes by Bayes' rule from a joint law of the modalities, nothing imputed.

:math:`p(y \mid z_O) \propto \pi_y\, p(z_O \mid y)^\beta`, where missing terms drop out exactly. It
is discriminant analysis (Fisher 1936; Friedman 1989) of all coordinates of all modalities, or with
a copula model of the coordinates of one number in the place of the Gaussian. Means are the
classes' own; the law of deviations is shared (linear) or each class has its own (quadratic).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from cm2.estimators.heads.base import Head, class_prior, register, stratified_folds
from cm2.estimators.heads.block_gaussian import STRENGTHS
from cm2.estimators.heads.held_out import clearly_lower
from cm2.estimators.heads.laws import CopulaLaws, FullLaws, Laws
from cm2.estimators.heads.posterior import confidence, log_posterior
from cm2.estimators.heads.projection import Projection
from cm2.estimators.heads.threads import one_thread
from cm2.evaluation.bootstrap import numbered
from cm2.samples.inputs import Blocks
from cm2.samples.targets import row_weights

DIMS = (20, 10, 5, 2, 1)
"""Principal components a modality, for the law of all coordinates, by preference.

Most come first. They are shrunk already, and a row that lacks modalities gets more out of those
that it has, which held-out rows as they were observed hardly show.
"""

DIM = 8
"""The same for laws that couple coordinates of one number."""

POOLINGS = (1.0, 0.5, 0.25, 0.1)
"""Weight of a row of another class in the law of a class's deviations: 1 shares one law."""

COPULA_POOLINGS = (1.0, 0.3, 0.0)

STRENGTH = 0.3
"""The strength from which to try weaker and stronger ones."""

BOUNDS = (-4.0, 1.0)
"""Of the logarithm of the likelihood's exponent."""

ROWS = 10
"""Rows a coordinate that the rarest class must have before classes get laws of their own."""

LARGEST = 300
"""Coordinates of all modalities that one covariance may have; beyond, it has the factor form."""

SELECTION = 5000
"""Rows by which candidates are compared, if there are more."""


class Setting(NamedTuple):
    """What cross-validation chooses."""

    dim: int
    margin: str
    pooling: float
    strength: float


class Search:
    """Settings with their held-out losses, and which of them to take.

    A later setting is taken only if it is better by more than one standard error of the paired
    difference (Breiman et al. 1984), so what is to be preferred comes first. Rows of one group
    count as one in the standard error: they are right or wrong together.

    Args:
        weight: Weights of the rows.
        groups: The group of each row; None if rows are independent.

    Attributes:
        best: The setting to take.
        density: What was handed over with it.
        losses: Mean loss of each setting.
    """

    def __init__(self, weight: Float[ndarray, " row"], groups: ndarray | None = None) -> None:
        self.weight = weight / weight.sum()
        self.groups = numbered(groups, len(weight))
        self.losses: dict[Setting, float] = {}
        self.best: Setting
        self.density: Float[ndarray, "row label"]
        self._rows: Float[ndarray, " row"] | None = None

    def add(
        self,
        setting: Setting,
        rows: Float[ndarray, " row"],
        density: Float[ndarray, "row label"],
    ) -> None:
        """Takes note of a setting, the loss of each row, and the densities behind it."""
        self.losses[setting] = float(self.weight @ rows)
        if self._rows is not None and not clearly_lower(rows, self._rows, self.weight, self.groups):
            return
        self.best, self._rows, self.density = setting, rows, density


@register("joint")
class JointHead(Head):
    r"""Class-conditional joint laws of the modalities' principal components.

    With ``copula="factor"``, one Gaussian copula of all coordinates of all modalities, with a full
    covariance or, where there are many, in factor form. Otherwise the family couples coordinates
    of the same number. What is left open is chosen by cross-validated log loss, one thing after
    the other.

    Args:
        copula: Name of the copula family.
        components: Number of components of each marginal mixture, for the other families.
        dim: Principal components of each modality; None for a choice of 20, 10, 5, 2 and 1 (8
            for the other families).
        coupling: Name of the coupling, for the other families and the factor form.
        rank: Number of factors of the factor form.
        poolings: Candidates for the weight of rows of other classes in the law of a class, from
            the largest; None for the default.
        folds: Number of folds of the inner cross-validation.
        random_state: Seed of folds and mixtures.

    Attributes:
        projection_: Principal directions of each modality.
        dim_: The chosen number of principal components.
        margin_: ``"components"``, or ``"scores"`` if each coordinate became normal first.
        pooling_: The chosen pooling.
        strength_: The chosen shrinkage to independent modalities.
        beta_: Exponent of the likelihood, which corrects the confidence.
        laws_: The laws of the classes.
        tried_: Every candidate with its log loss.
    """

    def __init__(
        self,
        copula: str = "factor",
        components: int = 1,
        dim: int | None = None,
        coupling: str = "rosenblatt",
        rank: int = 24,
        poolings: tuple[float, ...] | None = None,
        folds: int = 3,
        random_state: int = 0,
    ) -> None:
        self.copula = copula
        self.components = components
        self.dim = dim
        self.coupling = coupling
        self.rank = rank
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
        """Fits the laws, all that is chosen for them, and their confidence."""
        weight = row_weights(sample_weight, len(y))
        folds = stratified_folds(y, self.folds, self.random_state, groups)
        self._fit(blocks, y, weight, folds, groups)
        return self

    def cross_fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
        views: Sequence[Bool[ndarray, "n modality"]] = (),
    ) -> Float[ndarray, "view n label"]:
        """Fits on all rows; the folds that choose the setting give the out-of-fold predictions."""
        return self._fit(blocks, y, row_weights(sample_weight, len(y)), folds, groups, views)

    def predict_log_proba(self, blocks: Blocks) -> Float[ndarray, "n label"]:
        """Log probabilities of the classes."""
        likelihood = self.laws_.log_density(self._embed(blocks), blocks.present)
        return log_posterior(likelihood, self.prior_, self.beta_)

    def embed(self, blocks: Blocks) -> Float[ndarray, "n modality dim"]:
        """What the laws see: coordinates of each modality, zeros where it is absent."""
        return self._embed(blocks).astype(np.float32)

    def _embed(self, blocks: Blocks) -> Float[ndarray, "n modality dim"]:
        z = self.projection_.transform(blocks)[:, :, : self.dim_]
        return z if self.margin_ == "components" else self.projection_.scores(z, blocks.present)

    @one_thread()
    def _fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        folds: Int[ndarray, " n"],
        groups: ndarray | None,
        views: Sequence[Bool[ndarray, "n modality"]] = (),
    ) -> Float[ndarray, "view n label"]:
        """Fits everything and returns out-of-fold log probabilities."""
        self.prior_ = class_prior(y, weight, int(y.max()) + 1)
        rows = np.random.default_rng(self.random_state).permutation(len(y))[:SELECTION]
        rows.sort()
        self.projection_ = Projection(max(self._dims())).fit(blocks, weight)
        z = {"components": self.projection_.transform(blocks)}
        z["scores"] = self.projection_.scores(z["components"], blocks.present)

        def held_out(
            setting: Setting,
            rows: Int[ndarray, " row"],
            shown: Sequence[Bool[ndarray, "n modality"]] = (blocks.present,),
        ) -> Float[ndarray, "view row label"]:
            """Log densities of some rows by laws without their fold."""
            density = np.zeros((len(shown), len(rows), len(self.prior_)))
            part, here = z[setting.margin][rows][:, :, : setting.dim], blocks.present[rows]
            codes, share, fold = y[rows], weight[rows], folds[rows]
            for number in np.unique(fold):
                train, test = fold != number, fold == number
                laws = self._laws(setting).fit(
                    part[train], here[train], codes[train], share[train], len(self.prior_)
                )
                for view, mask in enumerate(shown):
                    seen = mask[rows][test]
                    density[view, test] = laws.log_density(part[test] * seen[..., None], seen)
            return density

        search = Search(weight[rows], None if groups is None else groups[rows])
        rarest = int(np.bincount(y[rows]).min())
        for setting in self._settings(search, rarest):
            density = held_out(setting, rows)[0]
            beta = confidence(density, self.prior_, y[rows], weight[rows], BOUNDS)
            log_proba = log_posterior(density, self.prior_, beta)
            search.add(setting, -log_proba[np.arange(len(rows)), y[rows]], density)
        chosen = search.best
        self.dim_, self.margin_, self.pooling_, self.strength_ = chosen
        self.tried_ = [one._asdict() | {"loss": loss} for one, loss in search.losses.items()]
        density = search.density[None]
        if views or len(rows) < len(y):
            density = held_out(chosen, np.arange(len(y)), (blocks.present, *views))
        self.beta_ = confidence(density[0], self.prior_, y, weight, BOUNDS)
        part = z[chosen.margin][:, :, : chosen.dim]
        self.laws_ = self._laws(chosen).fit(part, blocks.present, y, weight, len(self.prior_))
        return log_posterior(density, self.prior_, self.beta_)

    def _dims(self) -> tuple[int, ...]:
        if self.dim is not None:
            return (self.dim,)
        return DIMS if self.copula == "factor" else (DIM,)

    def _settings(self, search: Search, rarest: int) -> Iterator[Setting]:
        """Candidates; later ones depart from the best so far."""
        if self.copula != "factor":
            for pooling in self.poolings or COPULA_POOLINGS:
                yield Setting(DIM if self.dim is None else self.dim, "components", pooling, 0.0)
            return
        poolings = self.poolings or POOLINGS
        sizes = self._sizes()
        yield Setting(sizes[0], "components", poolings[0], STRENGTH)
        if self._is_full(sizes[0]):
            yield from _strengths(search)
        for dim in sizes:
            own = rarest >= ROWS * (self.projection_.scale[:, :dim] > 0).sum()
            path = (
                Setting(dim, "components", pooling, search.best.strength)
                for pooling in (poolings if own else poolings[:1])
            )
            yield from _while_better(path, search.losses)
        if self._is_full(search.best.dim):
            yield from _strengths(search)
        yield search.best._replace(margin="scores")

    def _sizes(self) -> list[int]:
        """Numbers of components to try: from the most of a full covariance, then one beyond it."""
        most = self.projection_.scale.shape[1]
        sizes = sorted({min(dim, most) for dim in self._dims()})
        full = sum(map(self._is_full, sizes))
        return sizes[:full][::-1] + sizes[full : full + 1]

    def _is_full(self, dim: int) -> bool:
        """Whether so many components of all modalities get a full covariance."""
        return int((self.projection_.scale[:, :dim] > 0).sum()) <= LARGEST

    def _laws(self, setting: Setting) -> Laws:
        scale = self.projection_.scale[:, : setting.dim]
        if self.copula == "factor" and self._is_full(setting.dim):
            return FullLaws(scale, setting.pooling, setting.strength)
        options: dict[str, Any] = {
            "copula": self.copula,
            "components": self.components,
            "coupling": self.coupling,
        }
        if self.copula == "factor":
            options["rank"] = self.rank
        return CopulaLaws(scale > 0, setting.pooling, options, self.random_state)


def _while_better(settings: Iterable[Setting], losses: dict[Setting, float]) -> Iterator[Setting]:
    """Settings one by one, up to the first that is not better than the one before."""
    before = np.inf
    for setting in settings:
        if setting not in losses:
            yield setting
        if losses[setting] >= before:
            return
        before = losses[setting]


def _strengths(search: Search) -> Iterator[Setting]:
    """Weaker, then stronger shrinkage of the best setting, step by step while it is taken."""
    for order in (STRENGTHS, STRENGTHS[::-1]):
        for strength in order[order.index(search.best.strength) + 1 :]:
            setting = search.best._replace(strength=strength)
            if setting not in search.losses:
                yield setting
            if search.best != setting:
                break
