"""Rivals on the same input as the classifier: a dict of modalities, a row of NaN where one misses.

Late fusion, stacking, one model on the concatenated features, and one on imputed ones. Each tunes
its regularisation by cross-validated log loss on the training data, so that a comparison with them
means something.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from cm2.estimators.heads.base import class_prior
from cm2.estimators.heads.threads import same_warnings
from cm2.estimators.tuning import LOWEST, Kind, Seen, Tuned, tune
from cm2.samples.tables import present
from cm2.samples.targets import check_patients, checked_groups, row_weights


class Rival(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """What all rivals share: reading the dict of modalities, class labels, prediction."""

    random_state: int

    def fit(
        self,
        X: Mapping[str, Any],
        y: Any,
        sample_weight: Float[ndarray, " n"] | None = None,
        *,
        groups: ndarray | None = None,
    ) -> Self:
        """Fits to labelled samples.

        Args:
            X: Arrays or data frames of shape (n, p) by modality; a row of NaN is a modality that
                the sample lacks, single NaN are filled.
            y: Class labels.
            sample_weight: Weights of the samples.
            groups: Patient of each sample, if some have several; all folds keep them together.
        """
        self.classes_, codes = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"there should be at least two classes, got only {self.classes_}")
        self.widths_ = {name: np.shape(block)[1] for name, block in X.items()}
        weight = row_weights(sample_weight, len(codes))
        kept = weight > 0
        self.prior_ = class_prior(codes, weight, len(self.classes_))
        values = {name: block[kept] for name, block in self._read(X).items()}
        if groups is not None:
            groups = checked_groups(groups, len(codes))[kept]
            check_patients(groups, 2, type(self).__name__)
        with same_warnings():
            self._fit(values, codes[kept], weight[kept], groups)
        return self

    def predict_proba(self, X: Mapping[str, Any]) -> Float[ndarray, "n label"]:
        """Class probabilities; a modality that X lacks counts as missing.

        A sample without any gets the class frequencies of the training.
        """
        check_is_fitted(self, "widths_")
        values = self._read(X)
        known = present(values).any(axis=1, keepdims=True)
        return np.where(known, self._proba(values), self.prior_)

    def predict(self, X: Mapping[str, Any]) -> ndarray:
        """The most probable class."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    @abstractmethod
    def _fit(
        self,
        values: dict[str, Float[ndarray, "n _"]],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        groups: ndarray | None,
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
        groups: ndarray | None,
    ) -> None:
        if self.average not in ("probability", "log"):
            raise ValueError(f"average should be 'probability' or 'log', got {self.average!r}")
        self.experts_ = _experts(
            self.expert, values, y, weight, len(self.classes_), self.random_state, groups
        )

    def _proba(self, values: dict[str, Float[ndarray, "n _"]]) -> Float[ndarray, "n label"]:
        there = present(values)
        each = np.stack([self.experts_[m].proba(block) for m, block in values.items()])
        if self.average == "log":
            each = np.log(np.maximum(each, LOWEST))
        total = np.einsum("nm,mnc->nc", there, each)
        mean = total / np.maximum(there.sum(axis=1, keepdims=True), 1)
        if self.average == "log":
            mean = softmax(mean, axis=1)
        return np.asarray(mean)


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
        groups: ndarray | None,
    ) -> None:
        labels = len(self.classes_)
        self.experts_ = _experts(self.expert, values, y, weight, labels, self.random_state, groups)
        there = present(values)
        held_out = []
        for m, expert in enumerate(self.experts_.values()):
            full = np.tile(expert.prior, (len(y), 1))
            full[there[:, m]] = expert.held_out
            held_out.append(full)
        odds = self._odds(np.stack(held_out), there)
        self.stacker_ = tune("linear", odds, y, weight, labels, self.random_state, groups=groups)

    def _proba(self, values: dict[str, Float[ndarray, "n _"]]) -> Float[ndarray, "n label"]:
        each = np.stack([self.experts_[m].proba(block) for m, block in values.items()])
        return self.stacker_.proba(self._odds(each, present(values)))

    def _odds(
        self, proba: Float[ndarray, "modality n label"], there: Bool[ndarray, "n modality"]
    ) -> Float[ndarray, "n column"]:
        """Log odds less the prior's, zero where a modality is missing; then what is present."""
        prior = np.stack([expert.prior for expert in self.experts_.values()])
        relative = np.log(np.maximum(proba, LOWEST)) - np.log(prior)[:, None]
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
        groups: ndarray | None,
    ) -> None:
        x = np.hstack(list(values.values()))
        labels = len(self.classes_)
        self.tuned_ = tune(self.model, x, y, weight, labels, self.random_state, self.fill, groups)

    def _proba(self, values: dict[str, Float[ndarray, "n _"]]) -> Float[ndarray, "n label"]:
        return self.tuned_.proba(np.hstack(list(values.values())))


class Imputed(Rival):
    """Logistic regression on all features, gaps filled by chained regressions.

    The nearest thing to conditional imputation without a copula: each column is regressed on all
    others in turn (van Buuren and Groothuis-Oudshoorn 2011, mice; here ridge regressions and their
    means, as scikit-learn's ``IterativeImputer`` does).

    Args:
        rounds: Passes over all columns.
        random_state: Seed of the folds.
    """

    def __init__(self, rounds: int = 5, random_state: int = 0) -> None:
        self.rounds = rounds
        self.random_state = random_state

    def _fit(
        self,
        values: dict[str, Float[ndarray, "n _"]],
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        groups: ndarray | None,
    ) -> None:
        x = np.hstack(list(values.values()))
        # Rounds are few and fixed, so that it is not said that they did not converge.
        chained = IterativeImputer(Ridge(10.0), max_iter=self.rounds, tol=0.0)
        self.filled_ = make_pipeline(Seen(), StandardScaler(), chained)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            filled = self.filled_.fit_transform(x)
        labels = len(self.classes_)
        self.tuned_ = tune("linear", filled, y, weight, labels, self.random_state, groups=groups)

    def _proba(self, values: dict[str, Float[ndarray, "n _"]]) -> Float[ndarray, "n label"]:
        return self.tuned_.proba(self.filled_.transform(np.hstack(list(values.values()))))


def _experts(
    kind: Kind,
    values: dict[str, Float[ndarray, "n _"]],
    y: Int[ndarray, " n"],
    weight: Float[ndarray, " n"],
    labels: int,
    seed: int,
    groups: ndarray | None,
) -> dict[str, Tuned]:
    """A tuned model of each modality, from the rows that have it."""
    there = present(values)
    return {
        name: tune(
            kind,
            block[rows],
            y[rows],
            weight[rows],
            labels,
            seed,
            groups=None if groups is None else groups[rows],
        )
        for (name, block), rows in zip(values.items(), there.T, strict=True)
    }
