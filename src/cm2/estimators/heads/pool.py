"""The log-linear pool of heads: a weighted geometric mean of their probabilities.

What a head is worth depends on what is missing, so weights and confidence are functions of the
share of modalities that a row lacks. They are fitted on out-of-fold predictions of the training
rows, as they are and with further modalities hidden, and shrunk to equal weights and confidence
one. Log-linear pooling: Genest and Zidek (1986), "Combining probability distributions"; see the
design page, "Prediction heads".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from joblib import Parallel, delayed
from numpy import ndarray
from sklearn.base import clone

from cm2.core.pace import told
from cm2.core.removal import hidden
from cm2.estimators.heads.base import Head, Held, hold, stratified_folds
from cm2.estimators.heads.early import Boosting
from cm2.estimators.heads.embedded import Embedded
from cm2.estimators.heads.experts import Experts
from cm2.estimators.heads.fusion import Fusion
from cm2.estimators.heads.joint import JointHead
from cm2.estimators.heads.log_linear import fit_weights
from cm2.samples.inputs import Blocks
from cm2.samples.targets import row_weights

LOG = logging.getLogger(__name__)

COSTS: dict[type, int] = {Fusion: 4, Experts: 3, JointHead: 2, Boosting: 1}
"""Order of fitting: what takes longest first, and networks before what reads them."""

RATES = (0.3, 0.6)
"""Rates at which modalities are hidden in the views, beside the rows as they are."""

LEAST = 0.05
"""A head of less weight on average is left out: it does not pay for its predictions."""


class Pool(Head):
    r"""Heads pooled as :math:`\log p = \log \pi + e^{s} \sum_k w_k \log (p_k / \pi)`, normalised.

    Confidence is in what heads say beyond the frequencies :math:`\pi` of the classes, so that more
    of it makes no class more frequent. The weights are :math:`w_k \propto a_k e^{t_k + u_k f}`, and
    :math:`s = s_0 + s_1 f`, with :math:`a_k` given in advance and :math:`f` the share of modalities
    that a row lacks, in standard deviations from its mean. What is minimised is the out-of-fold log
    loss, summed over rows and averaged over views of them, plus :math:`\sum_k t_k^2 / (2 \cdot 4) +
    \sum_k u_k^2 / 2 + (s_0^2 + s_1^2) / (2 \cdot 0.25)`. A head whose weight is under .05 on
    average is left out.

    Args:
        heads: The heads by name. They stay unfitted: clones are fitted.
        prior: The weight :math:`a_k` of each head in advance; None for equal weights.
        folds: Number of folds for out-of-fold predictions.
        random_state: Seed of the folds.
        n_jobs: Heads that are fitted side by side, in processes.

    Attributes:
        heads_: The heads fitted on all rows, without those that are left out.
        left_out_: Those, fitted; of networks the first, if it was not worth more.
        pooled_: Weights and confidence as functions of what is missing.
        weights_: The weight of each head on average over the training rows and their views, zero
            for those left out; they sum to one.
        log_proba_: Out-of-fold log probabilities of each head, of the rows as they are and of each
            view; not saved, as it has a row a sample.
    """

    def __init__(
        self,
        heads: Mapping[str, Head],
        prior: Mapping[str, float] | None = None,
        folds: int = 3,
        random_state: int = 0,
        n_jobs: int | None = None,
    ) -> None:
        self.heads = heads
        self.prior = prior
        self.folds = folds
        self.random_state = random_state
        self.n_jobs = n_jobs

    def __getstate__(self) -> dict[str, Any]:
        """Without the predictions for training rows: a saved model holds nothing of a patient."""
        state = dict(super().__getstate__())
        state.pop("log_proba_", None)
        return state

    def check(
        self,
        y: Int[ndarray, " n"],
        groups: ndarray | None = None,
        folds: Int[ndarray, " n"] | None = None,
    ) -> None:
        """Refuses what one of the heads refuses, on the pool's own folds."""
        self._checked_folds(y, groups)

    def _checked_folds(self, y: Int[ndarray, " n"], groups: ndarray | None) -> Int[ndarray, " n"]:
        """The pool's own folds, if each head can learn on them."""
        folds = stratified_folds(y, self.folds, self.random_state, groups)
        for head in self.heads.values():
            head.check(y, groups, folds)
        return folds

    def fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None = None,
        groups: ndarray | None = None,
    ) -> Self:
        """Fits all heads and pools them.

        Args:
            blocks: The modalities.
            y: Class codes.
            sample_weight: Weight of each row.
            groups: Rows of one group (one patient, say) are held out together.
        """
        return self._fit(blocks, y, sample_weight, groups, ())

    def _fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        groups: ndarray | None,
        more: Sequence[Bool[ndarray, "n modality"]],
    ) -> Self:
        """Fits; the heads are asked for more views than those by which they are weighed."""
        if not self.heads:
            raise ValueError("a pool needs at least one head, got none")
        weight = row_weights(sample_weight, len(y))
        kept = np.flatnonzero(weight > 0)
        blocks, y, weight = blocks.take(kept), y[kept], weight[kept]
        groups = None if groups is None else np.asarray(groups)[kept]
        folds = self._checked_folds(y, groups)
        self.heads_ = {name: clone(head) for name, head in self.heads.items()}
        self.left_out_: dict[str, Head] = {}
        self.log_proba_: dict[str, Float[ndarray, "view n label"]] = {}
        for head in self.heads_.values():  # networks are trained once for all that use them
            if isinstance(head, Embedded):
                head.fusion = next(h for h in self.heads_.values() if isinstance(h, Fusion))
        rng = np.random.default_rng(self.random_state)
        views = [hidden(blocks.present, rate, rng) for rate in RATES]
        missing = np.stack([_missing(mask) for mask in (blocks.present, *views)])
        given = (blocks, y, weight, folds, groups, [*views, *(view[kept] for view in more)])
        self._cross_fit(given, missing)
        self._weigh(y, weight, missing)
        return self

    def _cross_fit(self, given: tuple[Any, ...], missing: Float[ndarray, "view n"]) -> None:
        """Fits the heads and notes what they say of rows held out.

        Of networks that no other head reads the first is trained alone, and the others only if it
        is worth its place in a pool of all heads.
        """
        read = any(isinstance(head, Embedded) for head in self.heads_.values())
        several = (n for n, h in self.heads_.items() if isinstance(h, Fusion) and h.folds > 1)
        last = [] if read else list(several)
        first = [name for name in self.heads_ if name not in last]
        jobs = [*((n, "cross_fit") for n in first), *((n, "begin") for n in last if first)]
        jobs.sort(key=lambda job: -COSTS.get(type(self.heads_[job[0]]), 0))
        stops = {name: head.held for name, head in self.heads_.items()}  # none comes back with it
        found = _side_by_side(None if read else self.n_jobs)(
            delayed(_fitted)(self.heads_[name], step, given, stops[name]) for name, step in jobs
        )
        begun: dict[str, Any] = {}
        fitted = told(zip(jobs, found, strict=True), len(jobs), "heads of the pool")
        for (name, step), (head, said) in fitted:
            self.heads_[name] = head
            (begun if step == "begin" else self.log_proba_)[name] = said
        for name in last:
            if not first or self._is_worth(name, first, begun[name], given, missing):
                step = "finish" if first else "cross_fit"
                self.heads_[name], self.log_proba_[name] = _fitted(
                    self.heads_[name], step, given, stops[name]
                )
            else:
                self.left_out_[name] = self.heads_.pop(name)

    def _is_worth(
        self,
        name: str,
        others: list[str],
        begun: tuple[ndarray, ndarray],
        given: tuple[Any, ...],
        missing: Float[ndarray, "view n"],
    ) -> bool:
        """Whether the first network has its share in a pool of the rows that it did not see.

        The others take twice as long again, and are kept for predictions too.
        """
        rows, said = begun
        names = [*others, name]
        known = np.stack([self.log_proba_[other][: len(missing), rows] for other in others])
        both = np.concatenate([known, said[None, : len(missing)]])
        weight, lacking = given[2][rows], missing[:, rows]
        found = fit_weights(both, given[1][rows], weight, self._prior(names), lacking)
        share = float(found.mean(lacking, weight)[-1])
        LOG.info(
            "the first network of %r has %.0f%% of the weight in the pool; the others are %s",
            name,
            100 * share,
            "trained" if share >= LEAST else "not trained",
        )
        return share >= LEAST

    def _prior(self, names: list[str]) -> Float[ndarray, " head"]:
        return np.array([1.0 if self.prior is None else self.prior[name] for name in names])

    def _weigh(
        self,
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        missing: Float[ndarray, "view n"],
    ) -> None:
        """Fits weights, and once more without the heads that are not worth theirs."""
        self.weights_ = dict.fromkeys(self.heads, 0.0)
        while True:
            stacked = np.stack([self.log_proba_[n][: len(missing)] for n in self.heads_])
            prior = self._prior(list(self.heads_))
            self.pooled_ = fit_weights(stacked, y, weight, prior, missing)
            mean = self.pooled_.mean(missing, weight)
            worth = mean >= min(LEAST, mean.max())
            if worth.all():
                self.weights_.update(zip(self.heads_, mean.tolist(), strict=True))
                return
            for name, kept in zip(list(self.heads_), worth, strict=True):
                if not kept:
                    self.left_out_[name] = self.heads_.pop(name)

    def cross_fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
        views: Sequence[Bool[ndarray, "n modality"]] = (),
    ) -> Float[ndarray, "view n label"]:
        """Fits the pool, and pools what its heads said of rows that they had not seen.

        Its few weights have seen these rows; a pool a fold would cost as much again each time.
        """
        weight = row_weights(sample_weight, len(y))
        self._fit(blocks, y, weight, groups, views)
        kept = np.flatnonzero(weight > 0)
        asked = [0, *range(1 + len(RATES), 1 + len(RATES) + len(views))]
        out = np.zeros((len(asked), len(y), int(y.max()) + 1))
        for place, (view, mask) in enumerate(zip(asked, [blocks.present, *views], strict=True)):
            each = np.stack([self.log_proba_[name][view] for name in self.heads_])
            out[place, kept] = self.pooled_.pooled(each, _missing(mask[kept]))
        return out

    def predict_log_proba(self, blocks: Blocks) -> Float[ndarray, "n label"]:
        """Log probabilities of the pool."""
        each = np.stack([head.predict_log_proba(blocks) for head in self.heads_.values()])
        return self.pooled_.pooled(each, _missing(blocks.present))


def _side_by_side(n_jobs: int | None) -> Any:
    """What runs jobs, and hands over what each gives as soon as it is there, if it can."""
    try:
        return Parallel(n_jobs=n_jobs, return_as="generator")
    except ValueError:  # joblib's backend "multiprocessing" gives all of it at the end
        return Parallel(n_jobs=n_jobs)


def _fitted(head: Any, step: str, given: tuple[Any, ...], held: Held | None) -> tuple[Any, Any]:
    """A head, fitted by ``cross_fit``, or by ``begin`` and ``finish``, and what that returns.

    The rows that stop its training come beside it: a head that went to another process has none.
    """
    if held is not None:
        hold(head, held)
    said = getattr(head, step)(*given)
    return head, said


def _missing(present: Bool[ndarray, "n modality"]) -> Float[ndarray, " n"]:
    """The share of the modalities that each row lacks."""
    return 1.0 - present.mean(axis=1)
