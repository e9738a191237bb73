"""Models of one table whose settings are chosen by cross-validated log loss.

The rivals are built from these, so that none is crippled by a default.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from cm2.estimators.heads import held_out
from cm2.estimators.heads.base import class_prior, repeats, stratified_folds
from cm2.estimators.heads.early import binnable
from cm2.samples.scaling import GapFlags, medians
from cm2.samples.targets import row_weights

Kind = Literal["linear", "boosting", "forest"]
LOWEST = 1e-6
"""The least probability that a rival gives, before logarithms are taken."""


class Fill(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Fills gaps with a column's mean or median and adds one column a distinct pattern of gaps.

    Columns that are missing together, as those of one modality are, share one indicator.
    """

    def __init__(self, strategy: Literal["mean", "median"] = "median") -> None:
        self.strategy = strategy

    def fit(
        self,
        X: Float[ndarray, "n feature"],
        y: object = None,
        sample_weight: Float[ndarray, " n"] | None = None,
    ) -> Self:
        """Learns the fills, zero for a column without values, and which rows indicators part."""
        rows = row_weights(sample_weight, len(X))
        weight = np.where(np.isnan(X), 0.0, rows[:, None])
        if self.strategy == "median":
            self.fills_ = medians(X, weight, otherwise=0.0)
        else:
            total = weight.sum(axis=0)
            self.fills_ = (weight * np.nan_to_num(X)).sum(axis=0) / np.where(total > 0, total, 1.0)
        self.flags_ = GapFlags().fit(X)
        return self

    def transform(self, X: Float[ndarray, "n feature"]) -> Float[ndarray, "n more"]:
        """Filled columns, then indicators."""
        return np.hstack([np.where(np.isnan(X), self.fills_, X), self.flags_.transform(X)])


class Seen(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Keeps the columns that have any value in training.

    Args:
        binned: Whether they have to have so many that boosting can bin them.
    """

    def __init__(self, *, binned: bool = False) -> None:
        self.binned = binned

    def fit(
        self,
        X: Float[ndarray, "n feature"],
        y: object = None,
        sample_weight: Float[ndarray, " n"] | None = None,
    ) -> Self:
        """Finds the columns."""
        weight = row_weights(sample_weight, len(X))
        kept = binnable(X, weight) if self.binned else ~np.isnan(X).all(axis=0)
        self.columns_ = np.flatnonzero(kept)
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
        return held_out.complete(self.model.predict_proba(x), self.model.classes_, self.prior)


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

    def judged(candidate: Pipeline) -> tuple[Pipeline, Float[ndarray, "n label"]]:
        if not bagged:
            fit = partial(_fit, candidate)
            return candidate, held_out.out_of_fold(fit, x, y, weight, folds, prior)
        model = clone(candidate).set_params(model__oob_score=True)
        forest = partial(_fit, model, x, y, weight, copied=False)
        votes = held_out.out_of_bag(lambda: forest().named_steps["model"], prior)[1]
        return model, votes

    def loss(proba: Float[ndarray, "n label"]) -> float:
        share = held_out.FOREST_MIX if kind == "forest" else 0.0
        mixed = (1 - share) * proba + share * prior
        return held_out.log_loss(np.log(np.maximum(mixed, LOWEST)), y, weight)

    best, out = held_out.lowest(map(judged, _candidates(kind, seed, strategy)), loss)
    return Tuned(best if bagged else _fit(best, x, y, weight), prior, out)


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
        return [Pipeline([("seen", Seen(binned=True)), ("model", model)]) for model in models]
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
    *,
    copied: bool = True,
) -> Pipeline:
    """Fits a copy with weights; without, where all are one: boosting bins weighted columns slowly.

    Gaps, scales and the model all know the weights.
    """
    pipeline = clone(pipeline) if copied else pipeline
    if (weight == 1).all():
        return pipeline.fit(x, y)
    weights = {f"{step}__sample_weight": weight for step in pipeline.named_steps}
    return pipeline.fit(x, y, **weights)
