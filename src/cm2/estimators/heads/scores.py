"""One modality's expert: a classifier of that modality alone, and its out-of-fold log odds.

Regularised logistic regression and a random forest compete, and their log-linear average; the
lowest cross-validated log loss wins. The forest's out-of-fold predictions are its out-of-bag ones,
unless rows have groups: a tree that has drawn a row of a patient knows the patient's other rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from cm2.estimators.heads import held_out
from cm2.estimators.heads.base import class_prior, repeats
from cm2.estimators.heads.forest import Forest

KINDS = ("linear", "forest")
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse strengths of the ridge penalty that logistic regression tries."""
TREES = 120
LEAVES, LEAF_SHARE = (5, 20), 200
"""Least rows of a leaf: one in so many of all rows, within these. Of many rows, forests with larger
leaves are as good in two thirds of the time, and smaller."""


class Fitted(NamedTuple):
    """A classifier with the class codes that it knows and the share of the prior in its voice."""

    model: Any
    codes: Int[ndarray, " seen"]
    mix: float


class Expert:
    """Class probabilities from one modality, from the rows that have it.

    Args:
        kinds: Which classifiers compete, of "linear" and "forest".
        seed: Of the forest.
        trees: Of the forest.

    Attributes:
        chosen_: The kinds whose log probabilities are averaged; empty if rows of fewer than two
            classes have the modality, and then the expert says the prior.
        loss_: Cross-validated log loss of each competitor.
        fitted_: The classifiers chosen.
        prior_: Class frequencies among the rows seen.
    """

    def __init__(
        self,
        kinds: tuple[str, ...] = KINDS,
        seed: int = 0,
        trees: int = TREES,
    ) -> None:
        unknown = set(kinds) - set(KINDS)
        if unknown or not kinds:
            raise ValueError(f"experts should be some of {KINDS}, got {kinds}")
        self.kinds = kinds
        self.seed = seed
        self.trees = trees

    def cross_fit(
        self,
        x: Float[ndarray, "n feature"],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        folds: Int[ndarray, " n"],
        labels: int,
        groups: ndarray | None = None,
    ) -> Float[ndarray, "n label"]:
        """Fits on all rows and returns each row's log probabilities by a model without it.

        Args:
            x: The rows that have the modality.
            y: Class codes.
            weight: Of each row.
            folds: The number of the fold in which each row is held out.
            labels: Number of classes.
            groups: The group of each row, if it has one; then ``folds`` keep groups together.
        """
        self.prior_ = class_prior(y, weight, labels)
        self.loss_: dict[str, float] = {}
        self.chosen_: tuple[str, ...] = ()
        self.fitted_: dict[str, Fitted] = {}
        count = np.bincount(y, minlength=labels)
        if (count > 1).sum() < 2:
            return np.tile(np.log(self.prior_), (len(y), 1))
        found = {}
        for kind in self.kinds:
            if kind == "linear":
                found[kind] = self._linear(x, y, weight, folds)
            else:
                found[kind] = self._forest(x, y, weight, folds if repeats(groups) else None)
        if len(found) > 1:
            found["+".join(self.kinds)] = log_softmax(np.mean(list(found.values()), axis=0), axis=1)
        self.loss_ = {k: held_out.log_loss(p, y, weight) for k, p in found.items()}
        best = min(self.loss_, key=lambda kind: self.loss_[kind])
        self.chosen_ = tuple(best.split("+"))
        self.fitted_ = {kind: self.fitted_[kind] for kind in self.chosen_}
        return found[best]

    def predict_log_proba(self, x: Float[ndarray, "n feature"]) -> Float[ndarray, "n label"]:
        """Log probabilities of the classes."""
        if not self.chosen_ or len(x) == 0:
            return np.tile(np.log(self.prior_), (len(x), 1))
        each = [self._log_proba(self.fitted_[kind], x) for kind in self.chosen_]
        return np.asarray(log_softmax(np.mean(each, axis=0), axis=1))

    def log_odds(self, log_proba: Float[ndarray, "n label"]) -> Float[ndarray, "n odds"]:
        """Log odds of each class to the first, less those of the prior."""
        relative = log_proba - np.log(self.prior_)
        return relative[:, 1:] - relative[:, :1]

    def _linear(
        self,
        x: Float[ndarray, "n feature"],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        folds: Int[ndarray, " n"],
    ) -> Float[ndarray, "n label"]:
        """Out-of-fold log probabilities at the best penalty, which is refitted on all rows."""
        judged = (
            (c, _log(held_out.out_of_fold(_ridge(c).fit, x, y, weight, folds, self.prior_)))
            for c in PENALTIES
        )
        chosen, best = held_out.lowest(judged, lambda p: held_out.log_loss(p, y, weight))
        model = _ridge(chosen).fit(x, y, weight)
        self.fitted_["linear"] = Fitted(model, model.classes_, 0.0)
        return best

    def _forest(
        self,
        x: Float[ndarray, "n feature"],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        folds: Int[ndarray, " n"] | None,
    ) -> Float[ndarray, "n label"]:
        """Out-of-fold log probabilities, out-of-bag ones without folds; refitted on all rows."""
        forest = RandomForestClassifier(
            self.trees,
            min_samples_leaf=int(np.clip(len(y) // LEAF_SHARE, *LEAVES)),
            oob_score=folds is None,
            random_state=self.seed,
        )
        if folds is None:
            model, votes = held_out.out_of_bag(
                lambda: forest.fit(x, y, weight), self.prior_, held_out.FOREST_MIX
            )
        else:
            votes = held_out.out_of_fold(
                lambda *rows: clone(forest).fit(*rows),
                x,
                y,
                weight,
                folds,
                self.prior_,
                held_out.FOREST_MIX,
            )
            model = forest.fit(x, y, weight)
        self.fitted_["forest"] = Fitted(Forest(model), model.classes_, held_out.FOREST_MIX)
        return _log(votes)

    def _log_proba(
        self, fitted: Fitted, x: Float[ndarray, "n feature"]
    ) -> Float[ndarray, "n label"]:
        proba = fitted.model.predict_proba(x)
        return _log(held_out.complete(proba, fitted.codes, self.prior_, fitted.mix))


def _log(proba: Float[ndarray, "n label"]) -> Float[ndarray, "n label"]:
    return np.asarray(np.log(np.maximum(proba, 1e-12)))


def _ridge(penalty: float) -> LogisticRegression:
    return LogisticRegression(C=penalty, max_iter=500)
