"""Rivals on the same input as the classifier: a dict of modalities, a row of NaN where one misses.

Late fusion, stacking, and one model on the concatenated features. Each tunes its regularisation by
cross-validated log loss on the training data, so that a comparison with them means something.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from cm2.heads.base import class_prior, row_weights, stratified_folds

Kind = Literal["linear", "boosting", "forest"]
_LOWEST = 1e-6


class Fill(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Fills gaps with a column's mean or median and adds one column a distinct pattern of gaps.

    Columns that are missing together, as those of one modality are, share one indicator: several
    equal ones would be penalised less by a ridge than one.
    """

    def __init__(self, strategy: Literal["mean", "median"] = "median") -> None:
        self.strategy = strategy

    def fit(self, X: Float[ndarray, "n feature"], y: object = None) -> Self:
        """Learns the fills and which indicators tell rows apart."""
        self.imputer_ = SimpleImputer(strategy=self.strategy, keep_empty_features=True).fit(X)
        gaps = np.isnan(X)
        first = np.unique(gaps, axis=1, return_index=True)[1]
        self.indicators_ = [
            int(j) for j in sorted(first) if gaps[:, j].any() and not gaps[:, j].all()
        ]
        return self

    def transform(self, X: Float[ndarray, "n feature"]) -> Float[ndarray, "n more"]:
        """Filled columns, then indicators."""
        gaps = np.isnan(X[:, self.indicators_]).astype(np.float64)
        return np.hstack([self.imputer_.transform(X), gaps])


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
) -> Tuned:
    """Fits the settings of a kind of model and keeps the one of lowest held-out log loss.

    Forests are judged out of bag, others by five-fold cross-validation.
    """
    prior = class_prior(y, weight, labels)
    if (np.bincount(y, minlength=labels) > 1).sum() < 2:
        return Tuned(None, prior, np.tile(prior, (len(y), 1)))
    best, lowest = None, np.inf
    for candidate in _candidates(kind, seed, strategy):
        if kind == "forest":
            model = _fit(candidate, x, y, weight)
            votes = np.nan_to_num(model.named_steps["model"].oob_decision_function_)
            votes[votes.sum(axis=1) == 0] = prior[model.classes_]
            held_out = _complete(votes, model.classes_, prior)
        else:
            folds = stratified_folds(y, 5, seed)
            held_out = _cross_predict(candidate, x, y, weight, folds, prior)
        mixed = 0.99 * held_out + 0.01 * prior if kind == "forest" else held_out
        loss = -np.average(np.log(np.maximum(mixed[np.arange(len(y)), y], _LOWEST)), weights=weight)
        if loss < lowest:
            best, lowest, out = candidate, loss, held_out
    if kind != "forest":
        best = _fit(clone(best), x, y, weight)
    return Tuned(best, prior, out)


class Rival(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """What all rivals share: reading the dict of modalities, class labels, prediction."""

    random_state: int

    def fit(
        self,
        X: Mapping[str, Any],
        y: Any,
        sample_weight: Float[ndarray, " n"] | None = None,
    ) -> Self:
        """Fits to labelled samples.

        Args:
            X: Arrays or data frames of shape (n, p) by modality; a row of NaN is a modality that
                the sample lacks, single NaN are filled.
            y: Class labels.
            sample_weight: Weights of the samples.
        """
        self.classes_, codes = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"there should be at least two classes, got only {self.classes_}")
        self.widths_ = {name: np.shape(block)[1] for name, block in X.items()}
        weight = row_weights(sample_weight, len(codes))
        kept = weight > 0
        values = {name: block[kept] for name, block in self._read(X).items()}
        self._fit(values, codes[kept], weight[kept])
        return self

    def predict_proba(self, X: Mapping[str, Any]) -> Float[ndarray, "n label"]:
        """Class probabilities; a modality that X lacks counts as missing."""
        check_is_fitted(self, "widths_")
        return self._proba(self._read(X))

    def predict(self, X: Mapping[str, Any]) -> ndarray:
        """The most probable class."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    @abstractmethod
    def _fit(
        self,
        values: dict[str, Float[ndarray, "n _"]],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
    ) -> None: ...

    @abstractmethod
    def _proba(self, values: dict[str, Float[ndarray, "n _"]]) -> Float[ndarray, "n label"]: ...

    def _read(self, X: Mapping[str, Any]) -> dict[str, Float[ndarray, "n _"]]:
        unknown = sorted(set(X) - set(self.widths_))
        if unknown:
            raise ValueError(f"unknown modality {unknown[0]!r}; fitted with {list(self.widths_)}")
        rows = len(next(iter(X.values())))
        values = {}
        for name, width in self.widths_.items():
            block = np.asarray(X[name], np.float64) if name in X else np.full((rows, width), np.nan)
            if block.shape != (rows, width):
                raise ValueError(
                    f"modality {name!r} should have shape {(rows, width)}, got {block.shape}"
                )
            values[name] = block
        return values


class LateFusion(Rival):
    """One expert a modality, averaged over the modalities that a sample has.

    Args:
        expert: "linear" or "forest".
        average: "probability" for the mean of probabilities, "log" for their geometric mean.
        random_state: Seed of folds and forests.
    """

    def __init__(
        self,
        expert: Literal["linear", "forest"] = "linear",
        average: Literal["probability", "log"] = "probability",
        random_state: int = 0,
    ) -> None:
        self.expert = expert
        self.average = average
        self.random_state = random_state

    def _fit(
        self,
        values: dict[str, Float[ndarray, "n _"]],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
    ) -> None:
        if self.average not in ("probability", "log"):
            raise ValueError(f"average should be 'probability' or 'log', got {self.average!r}")
        self.prior_ = class_prior(y, weight, len(self.classes_))
        self.experts_ = _experts(
            self.expert, values, y, weight, len(self.classes_), self.random_state
        )

    def _proba(self, values: dict[str, Float[ndarray, "n _"]]) -> Float[ndarray, "n label"]:
        there = _present(values)
        each = np.stack([self.experts_[m].proba(block) for m, block in values.items()])
        if self.average == "log":
            each = np.log(np.maximum(each, _LOWEST))
        total = np.einsum("nm,mnc->nc", there, each)
        mean = total / np.maximum(there.sum(axis=1, keepdims=True), 1)
        if self.average == "log":
            mean = softmax(mean, axis=1)
        return np.where(there.any(axis=1, keepdims=True), mean, self.prior_)


class Stacking(Rival):
    """Logistic regression on the experts' out-of-fold log odds and on what is present.

    Args:
        expert: "linear" or "forest".
        random_state: Seed of folds and forests.
    """

    def __init__(
        self, expert: Literal["linear", "forest"] = "linear", random_state: int = 0
    ) -> None:
        self.expert = expert
        self.random_state = random_state

    def _fit(
        self,
        values: dict[str, Float[ndarray, "n _"]],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
    ) -> None:
        labels = len(self.classes_)
        self.experts_ = _experts(self.expert, values, y, weight, labels, self.random_state)
        there = _present(values)
        held_out = []
        for m, expert in enumerate(self.experts_.values()):
            full = np.tile(expert.prior, (len(y), 1))
            full[there[:, m]] = expert.held_out
            held_out.append(full)
        odds = self._odds(np.stack(held_out), there)
        self.stacker_ = tune("linear", odds, y, weight, labels, self.random_state)

    def _proba(self, values: dict[str, Float[ndarray, "n _"]]) -> Float[ndarray, "n label"]:
        each = np.stack([self.experts_[m].proba(block) for m, block in values.items()])
        return self.stacker_.proba(self._odds(each, _present(values)))

    def _odds(
        self, proba: Float[ndarray, "modality n label"], there: Bool[ndarray, "n modality"]
    ) -> Float[ndarray, "n column"]:
        """Log odds less the prior's, zero where a modality is missing; then what is present."""
        prior = np.stack([expert.prior for expert in self.experts_.values()])
        relative = np.log(np.maximum(proba, _LOWEST)) - np.log(prior)[:, None]
        odds = (relative[:, :, 1:] - relative[:, :, :1]) * there.T[:, :, None]
        return np.hstack([*odds, there.astype(np.float64)])


class Concatenated(Rival):
    """One model on the features of all modalities side by side.

    Gaps are filled by the median (or mean) and flagged by indicators; boosting sees them as they
    are.

    Args:
        model: "linear" (logistic regression), "boosting" or "forest".
        fill: "median" or "mean".
        random_state: Seed.
    """

    def __init__(
        self,
        model: Kind = "linear",
        fill: Literal["mean", "median"] = "median",
        random_state: int = 0,
    ) -> None:
        self.model = model
        self.fill = fill
        self.random_state = random_state

    def _fit(
        self,
        values: dict[str, Float[ndarray, "n _"]],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
    ) -> None:
        x = np.hstack(list(values.values()))
        labels = len(self.classes_)
        self.tuned_ = tune(self.model, x, y, weight, labels, self.random_state, self.fill)

    def _proba(self, values: dict[str, Float[ndarray, "n _"]]) -> Float[ndarray, "n label"]:
        return self.tuned_.proba(np.hstack(list(values.values())))


def _experts(
    kind: Kind,
    values: dict[str, Float[ndarray, "n _"]],
    y: Int[ndarray, " n"],
    weight: Float[ndarray, " n"],
    labels: int,
    seed: int,
) -> dict[str, Tuned]:
    """A tuned model of each modality, from the rows that have it."""
    there = _present(values)
    return {
        name: tune(kind, block[rows], y[rows], weight[rows], labels, seed)
        for (name, block), rows in zip(values.items(), there.T, strict=True)
    }


def _present(values: dict[str, Float[ndarray, "n _"]]) -> Bool[ndarray, "n modality"]:
    return np.stack([~np.isnan(block).all(axis=1) for block in values.values()], axis=1)


def _candidates(kind: Kind, seed: int, strategy: Literal["mean", "median"]) -> list[Pipeline]:
    """The settings that compete."""
    models: list[Any]
    if kind == "linear":
        models = [LogisticRegression(C=c, max_iter=1000) for c in (1e-3, 1e-2, 0.1, 1.0, 10.0)]
    elif kind == "forest":
        models = [
            RandomForestClassifier(300, min_samples_leaf=leaf, oob_score=True, random_state=seed)
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


def _cross_predict(
    candidate: Pipeline,
    x: Float[ndarray, "n feature"],
    y: Int[ndarray, " n"],
    weight: Float[ndarray, " n"],
    folds: Int[ndarray, " n"],
    prior: Float[ndarray, " label"],
) -> Float[ndarray, "n label"]:
    """Probabilities of each row by a model fitted without its fold."""
    out = np.tile(prior, (len(y), 1))
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        if len(np.unique(y[train])) > 1:
            model = _fit(clone(candidate), x[train], y[train], weight[train])
            out[test] = _complete(model.predict_proba(x[test]), model.classes_, prior)
    return out


def _complete(
    proba: Float[ndarray, "n seen"], codes: Int[ndarray, " seen"], prior: Float[ndarray, " label"]
) -> Float[ndarray, "n label"]:
    """Adds the classes that a model has not seen, at their prior probability."""
    full = np.tile(prior, (len(proba), 1))
    full[:, codes] = proba / proba.sum(axis=1, keepdims=True) * prior[codes].sum()
    return full
