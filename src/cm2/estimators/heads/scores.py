"""One modality's expert: a classifier of that modality alone, and its out-of-fold log odds.

Regularised logistic regression and a random forest compete, and their log-linear average; the
lowest cross-validated log loss wins. The forest's out-of-fold predictions are its out-of-bag ones,
unless rows have groups: a tree that has drawn a row of a patient knows the patient's other rows.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from cm2.estimators.heads.base import class_prior, cross_predict, repeats

KINDS = ("linear", "forest")
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse strengths of the ridge penalty that logistic regression tries."""
MIX = 0.01
"""Share of the class prior in a forest's probabilities, which would otherwise reach 0."""


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

    Attributes:
        chosen_: The kinds whose log probabilities are averaged; empty if rows of fewer than two
            classes have the modality, and then the expert says the prior.
        loss_: Cross-validated log loss of each competitor.
        prior_: Class frequencies among the rows seen.
    """

    def __init__(self, kinds: tuple[str, ...] = KINDS, seed: int = 0) -> None:
        unknown = set(kinds) - set(KINDS)
        if unknown or not kinds:
            raise ValueError(f"experts should be some of {KINDS}, got {kinds}")
        self.kinds = kinds
        self.seed = seed

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
        held_out = {}
        for kind in self.kinds:
            if kind == "linear":
                held_out[kind] = self._linear(x, y, weight, folds)
            else:
                held_out[kind] = self._forest(x, y, weight, folds if repeats(groups) else None)
        if len(held_out) > 1:
            held_out["+".join(self.kinds)] = log_softmax(
                np.mean(list(held_out.values()), axis=0), axis=1
            )
        self.loss_ = {k: _log_loss(p, y, weight) for k, p in held_out.items()}
        best = min(self.loss_, key=lambda kind: self.loss_[kind])
        self.chosen_ = tuple(best.split("+"))
        return held_out[best]

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
        best, lowest = np.empty(0), np.inf
        for penalty in PENALTIES:
            held_out = self._held_out(_ridge(penalty), 0.0, x, y, weight, folds)
            loss = _log_loss(held_out, y, weight)
            if loss < lowest:
                best, lowest, chosen = held_out, loss, penalty
        model = _ridge(chosen).fit(x, y, weight)
        self.fitted_["linear"] = Fitted(model, model.classes_, 0.0)
        return best

    def _held_out(
        self,
        model: Any,
        mix: float,
        x: Float[ndarray, "n feature"],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        folds: Int[ndarray, " n"],
    ) -> Float[ndarray, "n label"]:
        def predict(
            train: Bool[ndarray, " n"], test: Bool[ndarray, " n"]
        ) -> Float[ndarray, "test label"]:
            fitted = clone(model).fit(x[train], y[train], weight[train])
            return self._log_proba(Fitted(fitted, fitted.classes_, mix), x[test])

        return cross_predict(predict, y, folds, np.log(self.prior_))

    def _forest(
        self,
        x: Float[ndarray, "n feature"],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        folds: Int[ndarray, " n"] | None,
    ) -> Float[ndarray, "n label"]:
        """Out-of-fold log probabilities, out-of-bag ones without folds; refitted on all rows."""
        model = RandomForestClassifier(
            200, min_samples_leaf=5, oob_score=folds is None, random_state=self.seed
        )
        if folds is not None:
            held_out = self._held_out(model, MIX, x, y, weight, folds)
            vars(model.fit(x, y, weight)).pop("_sample_weight", None)
            self.fitted_["forest"] = Fitted(model, model.classes_, MIX)
            return held_out
        with warnings.catch_warnings():
            # A row of large weight may be in every bag; it gets the prior below.
            warnings.filterwarnings("ignore", "Some inputs do not have OOB scores", UserWarning)
            model.fit(x, y, weight)
        self.fitted_["forest"] = Fitted(model, model.classes_, MIX)
        votes = np.nan_to_num(model.oob_decision_function_)
        for name in ("oob_decision_function_", "_sample_weight"):
            vars(model).pop(name, None)  # one entry a training row; a saved model holds none
        votes[votes.sum(axis=1) == 0] = self.prior_[model.classes_]
        return self._complete(votes, model.classes_, MIX)

    def _log_proba(
        self, fitted: Fitted, x: Float[ndarray, "n feature"]
    ) -> Float[ndarray, "n label"]:
        return self._complete(fitted.model.predict_proba(x), fitted.codes, fitted.mix)

    def _complete(
        self, proba: Float[ndarray, "n seen"], codes: Int[ndarray, " seen"], mix: float
    ) -> Float[ndarray, "n label"]:
        """Gives classes that the model does not know their prior probability."""
        full = np.tile(self.prior_, (len(proba), 1))
        known = proba / proba.sum(axis=1, keepdims=True) * self.prior_[codes].sum()
        full[:, codes] = (1 - mix) * known + mix * self.prior_[codes]
        return np.asarray(np.log(np.maximum(full, 1e-12)))


def _ridge(penalty: float) -> LogisticRegression:
    return LogisticRegression(C=penalty, max_iter=500)


def _log_loss(
    log_proba: Float[ndarray, "n label"], y: Int[ndarray, " n"], weight: Float[ndarray, " n"]
) -> float:
    return float(-np.average(log_proba[np.arange(len(y)), y], weights=weight))
