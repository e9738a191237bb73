"""Models of one table whose settings are chosen by cross-validated log loss.

The rivals are built from these, so that none is crippled by a default.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from cm2.estimators.heads.base import class_prior, cross_predict, repeats, stratified_folds
from cm2.samples.scaling import GapFlags

Kind = Literal["linear", "boosting", "forest"]
LOWEST = 1e-6
"""The least probability that a rival gives, before logarithms are taken."""


class Fill(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Fills gaps with a column's mean or median and adds one column a distinct pattern of gaps.

    Columns that are missing together, as those of one modality are, share one indicator.
    """

    def __init__(self, strategy: Literal["mean", "median"] = "median") -> None:
        self.strategy = strategy

    def fit(self, X: Float[ndarray, "n feature"], y: object = None) -> Self:
        """Learns the fills and which indicators tell rows apart."""
        self.imputer_ = SimpleImputer(strategy=self.strategy, keep_empty_features=True).fit(X)
        self.flags_ = GapFlags().fit(X)
        return self

    def transform(self, X: Float[ndarray, "n feature"]) -> Float[ndarray, "n more"]:
        """Filled columns, then indicators."""
        return np.hstack([self.imputer_.transform(X), self.flags_.transform(X)])


class Seen(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Keeps the columns that have any value in training; boosting cannot bin the others."""

    def fit(self, X: Float[ndarray, "n feature"], y: object = None) -> Self:
        """Finds the columns."""
        self.columns_ = np.flatnonzero(~np.isnan(X).all(axis=0))
        return self

    def transform(self, X: Float[ndarray, "n feature"]) -> Float[ndarray, "n fewer"]:
        """The columns kept, gaps as they are."""
        return X[:, self.columns_]


class Tuned(NamedTuple):
    """The best of several settings, fitted on all rows, and its held-out probabilities."""

    model: Any
    prior: Float[ndarray, " label"]
    held_out: Float[ndarray, "n label"]

    def proba(self, x: Float[ndarray, "n feature"]) -> Float[ndarray, "n label"]:
        """Class probabilities; those of classes that the model never saw come from the prior."""
        if self.model is None or len(x) == 0:
            return np.tile(self.prior, (len(x), 1))
        return _complete(self.model.predict_proba(x), self.model.classes_, self.prior)


def tune(
    kind: Kind,
    x: Float[ndarray, "n feature"],
    y: Int[ndarray, " n"],
    weight: Float[ndarray, " n"],
    labels: int,
    seed: int,
    strategy: Literal["mean", "median"] = "median",
    groups: ndarray | None = None,
) -> Tuned:
    """Fits the settings of a kind of model and keeps the one of lowest held-out log loss.

    Forests are judged out of bag, others by five-fold cross-validation. Where rows share groups,
    all are judged by folds that keep groups together: a tree that has drawn a row of a patient
    knows the patient's other rows.
    """
    prior = class_prior(y, weight, labels)
    alone = groups is not None and len(np.unique(groups)) < 2
    if alone or (np.bincount(y, minlength=labels) > 1).sum() < 2:
        return Tuned(None, prior, np.tile(prior, (len(y), 1)))
    bagged = kind == "forest" and not repeats(groups)
    folds = stratified_folds(y, 5, seed, groups)
    best, lowest = None, np.inf
    for candidate in _candidates(kind, seed, strategy):
        if bagged:
            held_out = _out_of_bag(candidate, x, y, weight, prior)
        else:
            held_out = _cross_predict(candidate, x, y, weight, folds, prior)
        mixed = 0.99 * held_out + 0.01 * prior if kind == "forest" else held_out
        loss = -np.average(np.log(np.maximum(mixed[np.arange(len(y)), y], LOWEST)), weights=weight)
        if loss < lowest:
            best, lowest, out = candidate, loss, held_out
    if not bagged:
        best = _fit(clone(best), x, y, weight)
    return Tuned(best, prior, out)


def _candidates(kind: Kind, seed: int, strategy: Literal["mean", "median"]) -> list[Pipeline]:
    """The settings that compete."""
    models: list[Any]
    if kind == "linear":
        models = [LogisticRegression(C=c, max_iter=1000) for c in (1e-3, 1e-2, 0.1, 1.0, 10.0)]
    elif kind == "forest":
        models = [
            RandomForestClassifier(300, min_samples_leaf=leaf, random_state=seed)
            for leaf in (4, 16)
        ]
    elif kind == "boosting":
        # Early stopping would give up on interactions, whose first splits gain nothing.
        models = [
            HistGradientBoostingClassifier(
                learning_rate=rate,
                max_leaf_nodes=leaves,
                max_iter=rounds,
                l2_regularization=1.0,
                early_stopping=False,
                random_state=seed,
            )
            for rate, leaves, rounds in (
                (0.05, 4, 100),
                (0.1, 4, 200),
                (0.05, 8, 150),
                (0.05, 16, 150),
            )
        ]
        return [Pipeline([("seen", Seen()), ("model", model)]) for model in models]
    else:
        raise ValueError(f"model should be 'linear', 'boosting' or 'forest', got {kind!r}")
    return [
        Pipeline([("fill", Fill(strategy)), ("scale", StandardScaler()), ("model", model)])
        for model in models
    ]


def _fit(
    pipeline: Pipeline,
    x: Float[ndarray, "n feature"],
    y: Int[ndarray, " n"],
    weight: Float[ndarray, " n"],
) -> Pipeline:
    """Fits with weights; without, where all are one: boosting bins weighted columns slowly."""
    if (weight == 1).all():
        return pipeline.fit(x, y)
    return pipeline.fit(x, y, model__sample_weight=weight)


def _out_of_bag(
    candidate: Pipeline,
    x: Float[ndarray, "n feature"],
    y: Int[ndarray, " n"],
    weight: Float[ndarray, " n"],
    prior: Float[ndarray, " label"],
) -> Float[ndarray, "n label"]:
    """Fits a forest; probabilities of each row by the trees that have not drawn it."""
    model = _fit(candidate.set_params(model__oob_score=True), x, y, weight)
    votes = np.nan_to_num(model.named_steps["model"].oob_decision_function_)
    votes[votes.sum(axis=1) == 0] = prior[model.classes_]
    return _complete(votes, model.classes_, prior)


def _cross_predict(
    candidate: Pipeline,
    x: Float[ndarray, "n feature"],
    y: Int[ndarray, " n"],
    weight: Float[ndarray, " n"],
    folds: Int[ndarray, " n"],
    prior: Float[ndarray, " label"],
) -> Float[ndarray, "n label"]:
    """Probabilities of each row by a model fitted without its fold."""

    def predict(
        train: Bool[ndarray, " n"], test: Bool[ndarray, " n"]
    ) -> Float[ndarray, "test label"]:
        model = _fit(clone(candidate), x[train], y[train], weight[train])
        return _complete(model.predict_proba(x[test]), model.classes_, prior)

    return cross_predict(predict, y, folds, prior)


def _complete(
    proba: Float[ndarray, "n seen"], codes: Int[ndarray, " seen"], prior: Float[ndarray, " label"]
) -> Float[ndarray, "n label"]:
    """Adds the classes that a model has not seen, at their prior probability."""
    full = np.tile(prior, (len(proba), 1))
    full[:, codes] = proba / proba.sum(axis=1, keepdims=True) * prior[codes].sum()
    return full
