"""What a model predicts for a data set, how good that is, and how to keep it without names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from cm2.core.errors import InputError
from cm2.core.files import DAMAGED, open_arrays, write_arrays
from cm2.evaluation import bootstrap, metrics

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Predictions", "anonymous", "meds", "notes"]


class Predictions(NamedTuple):
    """Probabilities of the rows of a data set, in its order.

    Attributes:
        target: Class codes, or one column a label where several may hold together.
        probability: Of each class or label, averaged over imputations.
        spread: Standard deviation of the probability over imputations.
        present: Which modalities each row has.
        patient: An anonymous number of each row's patient, from 0; see :func:`anonymous`. None in
            files from before there was one, and then each row counts as a patient.
    """

    target: Int[ndarray, n * label]
    probability: Float[ndarray, "n label"]
    spread: Float[ndarray, "n label"]
    present: Bool[ndarray, "n modality"]
    patient: Int[ndarray, " n"] | None = None

    def save(self, path: Path) -> None:
        """Writes the arrays, and nothing that names a patient."""
        known = {name: one for name, one in self._asdict().items() if one is not None}
        write_arrays(path, **known)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Reads what ``save`` wrote."""
        try:
            with open_arrays(path) as file:
                return cls(**{name: file[name] for name in cls._fields if name in file})
        except DAMAGED:
            raise InputError(f"{path}: damaged or no file of predictions; predict anew") from None

    @property
    def positives(self) -> int:
        """Number of rows of another class than 0, or with any label."""
        return int((self.target.reshape(len(self.target), -1) > 0).any(axis=1).sum())

    def summary(
        self, modalities: Sequence[str], labels: Sequence[str] = (), *, replicates: int = 1000
    ) -> dict[str, Any]:
        """Counts, and every measure with its bootstrap interval.

        Args:
            modalities: Names of the columns of ``present``.
            labels: Names of the columns of the target, if it has any.
            replicates: Bootstrap samples behind the intervals.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            values = metrics.evaluate(
                self.target, self.probability, groups=self.patient, replicates=replicates
            )
        known = "no row is positive" if self.positives == 0 else "rows of a class are missing"
        undefined = (f"not defined, since {known}",)
        notes = [
            (
                metrics.named(name, labels),
                found.notes if np.isfinite(found.value) else undefined + found.notes,
            )
            for name, found in values.items()
        ]
        return {
            "rows": len(self.target),
            "patients": None if self.patient is None else len(np.unique(self.patient)),
            "positives": self.positives,
            "present": {
                name: float(share)
                for name, share in zip(modalities, self.present.mean(axis=0), strict=True)
            },
            "measures": {
                metrics.named(name, labels): list(found[:3]) for name, found in values.items()
            },
            "notes": bootstrap.told(notes),
        }


def notes(result: Mapping[str, Any]) -> list[str]:
    """The notes of a ``test.json``, also of one that kept them by measure and apart."""
    kept = result.get("notes", [])
    told = bootstrap.told(kept.items()) if isinstance(kept, Mapping) else list(kept)
    return [*told, *([result["note"]] if "note" in result else [])]


def anonymous(subjects: ndarray, seed: int = 0) -> Int[ndarray, " n"]:
    """Numbers patients from 0 in the order of a shuffle, so that a number tells nothing of whom.

    The same patients get the same numbers in every run, and are drawn alike in its bootstrap.

    Example:
        >>> anonymous(np.array([907, 901, 907, 955]))
        array([0, 2, 0, 1])
    """
    names, place = np.unique(subjects, return_inverse=True)
    return np.asarray(np.random.default_rng(seed).permutation(len(names))[place])


def meds(stays: pd.DataFrame, found: Predictions) -> pa.Table:
    """Returns predictions in the schema of ``meds-evaluation``, a row a stay.

    Args:
        stays: ``subject_id`` and ``prediction_time`` of the rows.
        found: Of two classes. Where an outcome is not known there is no column of outcomes.

    Raises:
        InputError: There are more classes, or rows without a prediction time.
    """
    import pyarrow as pa

    try:
        from meds.schema import LabelSchema
    except ImportError as error:
        raise ImportError("predictions in MEDS need: pip install 'cm2[tables]'") from error
    if found.probability.shape[1] != 2:
        raise InputError(
            f"meds-evaluation knows two classes, but the model has {found.probability.shape[1]}"
        )
    times = stays.get("prediction_time", pd.Series(pd.NaT, stays.index))
    if unknown := int(times.isna().sum()):
        raise InputError(
            f"{unknown} of {len(stays)} stays have no prediction_time: their source has no"
            " calendar, or they were prepared by an older cm2"
        )
    positive = found.probability[:, 1]
    outcome = {} if (found.target < 0).any() else {LabelSchema.boolean_value_name: found.target > 0}
    columns = {
        LabelSchema.subject_id_name: stays["subject_id"].to_numpy(np.int64),
        LabelSchema.prediction_time_name: times.to_numpy("datetime64[us]"),
        **outcome,
        "predicted_boolean_value": positive > 0.5,
        "predicted_boolean_probability": positive.astype(np.float32),
    }
    return pa.table(columns)
