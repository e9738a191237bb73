"""The expert head: log odds of one expert a modality, joined by a Gaussian copula.

Given the class, the experts' scores have Gaussian margins joined by a Gaussian copula; the
posterior uses the sub-covariance of the modalities that are present, so nothing is imputed. With
independent scores it is naive Bayes over experts. See the design page, "Prediction heads".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from sklearn.base import clone

from cm2.core.pace import told
from cm2.estimators.heads.base import Head, class_prior, register, stratified_folds
from cm2.estimators.heads.block_gaussian import STRENGTHS, BlockGaussian
from cm2.estimators.heads.held_out import log_loss
from cm2.estimators.heads.posterior import confidence, log_posterior
from cm2.estimators.heads.scores import KINDS, TREES, Expert
from cm2.estimators.heads.threads import one_thread
from cm2.samples.inputs import Blocks
from cm2.samples.targets import row_weights


@register("experts")
class Experts(Head):
    r"""A copula of experts.

    The expert of modality m gives out-of-fold log odds :math:`s_m`, less the prior, of each class
    to the first. With :math:`s_O` the scores of the modalities that are present,

    .. math:: p(y \mid s_O) \propto \pi_y \, N(s_O; \mu_{y,O}, \Sigma_{OO})^{\beta},

    where :math:`\Sigma` has an inverse Wishart prior centred on its block diagonal. The prior's
    strength is chosen by cross-validated log loss and :math:`\beta` corrects the confidence.

    Args:
        copula: "independence" keeps experts independent given the class. Any other name stands
            for the Gaussian copula, the only one whose conditionals of all subsets are this cheap.
        experts: Kinds of experts that compete in each modality: "linear", "forest".
        strengths: Candidates for the prior's strength.
        folds: Number of folds of the inner cross-validation.
        random_state: Seed of folds and forests.
        trees: Of each forest.

    Attributes:
        experts_: The expert of each modality.
        gaussian_: Class-conditional law of the scores.
        strength_: The chosen strength.
        losses_: Log loss of each strength that was tried.
        beta_: The exponent of the likelihood.
    """

    def __init__(
        self,
        copula: str = "gaussian",
        experts: tuple[str, ...] = KINDS,
        strengths: tuple[float, ...] = STRENGTHS,
        folds: int = 5,
        random_state: int = 0,
        trees: int = TREES,
    ) -> None:
        self.copula = copula
        self.experts = experts
        self.strengths = strengths
        self.folds = folds
        self.random_state = random_state
        self.trees = trees

    def fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None = None,
        groups: ndarray | None = None,
    ) -> Self:
        """Fits experts, the law of their scores, its strength and its confidence.

        What is held out on the way chooses all of these, and later folds were seen by the experts
        that score earlier ones; so it does not serve as the head's own out-of-fold predictions,
        for which :meth:`out_of_fold` refits everything.
        """
        weight = row_weights(sample_weight, len(y))
        kept = np.flatnonzero(weight > 0)
        groups = None if groups is None else groups[kept]
        folds = stratified_folds(y[kept], self.folds, self.random_state, groups)
        self._fit(blocks.take(kept), y[kept], weight[kept], folds, int(y.max()) + 1, groups)
        return self

    def out_of_fold(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
        views: Sequence[Bool[ndarray, "n modality"]] = (),
    ) -> Float[ndarray, "view n label"]:
        """As any head's, with half of the trees: that costs their log loss a thousandth or two."""
        half = clone(self).set_params(trees=-(-self.trees // 2))
        return super(Experts, half).out_of_fold(blocks, y, sample_weight, folds, groups, views)

    def predict_log_proba(self, blocks: Blocks) -> Float[ndarray, "n label"]:
        """Log posterior given the modalities present; the prior where there is none."""
        scores = np.zeros((len(blocks.present), len(self.gaussian_.block)))
        for m, (name, expert) in enumerate(self.experts_.items()):
            rows = blocks.present[:, m]
            log_proba = expert.predict_log_proba(_floats(blocks, name, rows))
            scores[np.ix_(rows, self.gaussian_.block == m)] = expert.log_odds(log_proba)
        density = self.gaussian_.log_density(scores, blocks.present)
        return log_posterior(density, self.prior_, self.beta_)

    @one_thread()
    def _fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        folds: Int[ndarray, " n"],
        labels: int,
        groups: ndarray | None,
    ) -> None:
        self.prior_ = class_prior(y, weight, labels)
        sizes = (labels - 1,) * len(blocks.values)
        scores = np.zeros((len(y), sum(sizes)))
        self.experts_: dict[str, Expert] = {}
        for m, name in enumerate(told(blocks.values, len(blocks.values), "experts")):
            rows = blocks.present[:, m]
            expert = Expert(self.experts, self.random_state, self.trees)
            held_out = expert.cross_fit(
                _floats(blocks, name, rows),
                y[rows],
                weight[rows],
                folds[rows],
                labels,
                None if groups is None else groups[rows],
            )
            scores[rows, m * (labels - 1) : (m + 1) * (labels - 1)] = expert.log_odds(held_out)
            self.experts_[name] = expert
        held_out = self._choose_strength(scores, blocks.present, y, weight, folds, sizes)
        self.beta_ = confidence(held_out, self.prior_, y, weight, bounds=(-2.0, 2.0))
        self.gaussian_ = self._gaussian(sizes, self.strength_, weight).fit(
            scores, blocks.present, y, weight, labels
        )

    def _gaussian(
        self, sizes: tuple[int, ...], strength: float, weight: Float[ndarray, " n"]
    ) -> BlockGaussian:
        return BlockGaussian(sizes, strength=strength * float(weight.sum()))

    def _choose_strength(
        self,
        scores: Float[ndarray, "n dim"],
        present: Bool[ndarray, "n modality"],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        folds: Int[ndarray, " n"],
        sizes: tuple[int, ...],
    ) -> Float[ndarray, "n label"]:
        """Sets the strength of lowest held-out log loss; returns its held-out log densities.

        From independence on strengths become weaker, up to the first that is no better.
        """
        independent = self.copula == "independence"
        strengths = (float("inf"),) if independent else sorted(self.strengths, reverse=True)
        parts = [(folds != fold, folds == fold) for fold in np.unique(folds)]
        data = [
            BlockGaussian(sizes).statistics(
                scores[train], present[train], y[train], weight[train], len(self.prior_)
            )
            for train, _ in parts
        ]
        last: list[BlockGaussian | None] = [None] * len(parts)
        self.losses_: dict[float, float] = {}
        best = np.zeros((len(y), len(self.prior_)))
        for strength in strengths:
            density = np.zeros_like(best)
            for k, (train, test) in enumerate(parts):
                law = self._gaussian(sizes, strength, weight[train])
                last[k] = law.fit_statistics(data[k], last[k])
                density[test] = law.log_density(scores[test], present[test])
            loss = log_loss(log_posterior(density, self.prior_, 1.0), y, weight)
            better = loss < min(self.losses_.values(), default=np.inf)
            self.losses_[strength] = loss
            if not better:
                break
            self.strength_, best = strength, density
        return best


def _floats(blocks: Blocks, name: str, rows: Bool[ndarray, " n"]) -> Float[ndarray, "m feature"]:
    """The rows of a modality that are there, in double precision."""
    return np.asarray(blocks.values[name][rows], dtype=np.float64)
