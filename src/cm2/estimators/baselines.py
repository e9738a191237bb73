"""Rivals on the same input as the classifier: a dict of modalities, a row of NaN where one misses.

Late fusion, stacking, one model on the concatenated features, and one on imputed ones. Each tunes
its regularisation by cross-validated log loss on the training data, so that a comparison with them
means something.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
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

from cm2.core.fitting import whole
from cm2.estimators.heads.base import class_prior
from cm2.estimators.heads.threads import same_warnings
from cm2.estimators.tuning import LOWEST, Kind, Seen, Tuned, tune
from cm2.samples.container import Samples, samples, unknown
from cm2.samples.kinds import kind_of
from cm2.samples.kinds.table import Numbers
from cm2.samples.tables import check_columns, columns, is_dict, present, width
from cm2.samples.targets import check_patients


class Rival(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """What all rivals share: reading the dict of modalities, class labels, prediction."""

    random_state: int
    classes_: ndarray
    columns_: dict[str, list[str] | int]
    prior_: Float[ndarray, " label"]

    @whole
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, groups: Any = None) -> Self:
        """Fits to labelled samples.

        Args:
            X: Tables by modality, each an array, data frame or sparse matrix (n, p); or
                :class:`.Samples` of them. A row of NaN is a modality that the sample lacks, single
                NaN are filled.
            y: Class labels; those of ``X`` if it is ``Samples`` and none are given.
            sample_weight: Weights of the samples.
            groups: Patient of each sample, if some have several; all folds keep them together.

        Raises:
            ValueError: If a modality is no table of finite numbers, or labels, weights and patients
                are not one a sample. What was learned before then stays as it was.
        """
        given, tables = _tables(X)
        learned = given.to_learn(y, sample_weight, groups, class_weight=None, constant=False)
        kept, codes, self.classes_, weight, patients = learned
        if codes.ndim > 1:
            raise ValueError(
                f"{type(self).__name__} learns one class a sample, but y has {codes.shape[1]} "
                "labels: fit one to each column"
            )
        if patients is not None:
            check_patients(patients, 2, type(self).__name__)
        self.columns_ = {name: columns(one.values) for name, one in tables.items()}
        self.prior_ = class_prior(codes, weight, len(self.classes_))
        values = {name: block[kept] for name, block in self._read(tables, len(given)).items()}
        with same_warnings():
            self._fit(values, codes, weight, patients)
        return self

    def predict_proba(self, X: Any) -> Float[ndarray, "n label"]:
        """Class probabilities; a modality that X lacks counts as missing.

        A sample without any gets the class frequencies of the training.

        Raises:
            ValueError: If a modality is unknown, or has other columns than in training.
        """
        check_is_fitted(self, "columns_")
        given, tables = _tables(X)
        values = self._read(tables, len(given))
        known = present(values).any(axis=1, keepdims=True)
        return np.where(known, self._proba(values), self.prior_)

    def predict(self, X: Any) -> ndarray:
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

    def _read(self, tables: dict[str, Numbers], rows: int) -> dict[str, Float[ndarray, "n _"]]:
        """The numbers of each modality, NaN where there are none."""
        there = {}
        for name, column in tables.items():
            if name not in self.columns_:
                raise ValueError(unknown(name, list(self.columns_), "The model knows"))
            if column.present.any():
                found = columns(column.values)
                check_columns(f"modality {name!r}", found, self.columns_[name])
                there[name] = column
        return {
            name: there[name].numbers() if name in there else np.full((rows, width(wanted)), np.nan)
            for name, wanted in self.columns_.items()
        }


def _tables(X: Any) -> tuple[Samples, dict[str, Numbers]]:
    """What the user gave, and its modalities, each of which is a table of numbers."""
    tables = {}
    given = samples(X, dict.fromkeys(X, "table") if is_dict(X) else None)
    for name, column in given.columns.items():
        if not isinstance(column, Numbers):
            raise ValueError(
                f"modality {name!r} is of kind {kind_of(column)!r}, but this estimator reads tables"
            )
        column.check(column.present)
        tables[name] = column
    return given, tables


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
