"""Runs whose head is one of a classifier: trained from a prepared folder, kept in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from cm2.core.errors import InputError
from cm2.estimators.classifier import CM2Classifier
from cm2.experiments import config, folder, heads, predictions
from cm2.experiments.config import Experiment
from cm2.experiments.predictions import Predictions
from cm2.samples.stays import Stays

__all__ = ["FILE", "Classifier", "train"]

FILE = "model.cm2"

LEARNED = ("train", "validation")
"""Splits that training sees: the first is learned from, the second stops networks."""


def train(experiment: Experiment, out: Path) -> None:
    """Fits the classifier of an experiment to the training stays, and keeps it.

    The validation stays stop the training of its networks, and nothing else is learned from them.

    A folder whose classifier is there already stays as it is.

    Raises:
        InputError: If the data do not fit.
    """
    if (out / FILE).exists():
        return
    learned = _stays(experiment, LEARNED)
    root = experiment.data["root"]
    if learned.target is None:
        raise InputError(f"{root}: has stays without a label, to learn from")
    parts = (experiment.head, experiment.dim, experiment.encoders, experiment.model)
    model = heads.classifier(*parts, experiment.training, experiment.seed)
    try:
        watched = (learned.stays["split"] == "validation").to_numpy()
        stop = learned.samples[watched] if watched.any() else None
        model.fit(learned.samples[~watched], validation=stop)
    except ValueError as error:  # of the data: the arguments have been checked
        raise InputError(f"{root}: {error}") from error
    rows = learned.stays["split"].value_counts()
    facts = {
        "shape": {name: {"kind": kind} for name, kind in learned.samples.kinds.items()},
        "classes": learned.classes,
        "labels": list(learned.labels),
        "checksum": learned.checksum,
        "rows": {split: int(rows.get(split, 0)) for split in LEARNED},
    }
    folder.begin(experiment, out, folder.environment(facts, experiment.encoders))
    model.save(out / FILE)


class Classifier:
    """A trained run of a classifier.

    Args:
        run: Its folder.

    Raises:
        InputError: If the folder holds no fitted classifier.
    """

    def __init__(self, run: Path) -> None:
        self.run = Path(run)
        self.experiment = config.load(self.run / "config.yaml")
        for name in ("environment.json", FILE):
            if not (self.run / name).is_file():
                raise InputError(f"{run}: no {name}; give the folder of a run of cm2 train")
        self.facts: dict[str, Any] = folder.facts(self.run)["data"]
        try:
            self.model = CM2Classifier.load(self.run / FILE)
        except ValueError as error:
            raise InputError(str(error)) from error

    def data(self, split: str | None, *, root: Path | None = None, labelled: bool = False) -> Stays:
        """Reads the data of the run, or others.

        Args:
            split: Which split; ``None`` for all stays.
            root: Other prepared data.
            labelled: Whether stays whose outcome is not known are left out.

        Raises:
            InputError: If the classifier cannot read them.
        """
        changed: dict[str, Any] = {"modalities": self.model.modalities_}
        return self._open(split, root, labelled=labelled, **changed)

    def _open(self, split: str | None, root: Path | None, **changed: Any) -> Stays:
        """Opens stays that the classifier can read."""
        place = root or self.experiment.data["root"]
        stays = _stays(self.experiment, split, self.facts, root=place, **changed)
        try:
            self.model.reader_.check(stays.samples)
        except ValueError as error:
            raise InputError(f"{place}: {error}") from error
        return stays

    def predictions(self, asked: Stays) -> Predictions:
        """Predicts; the spread is that of a pool's networks if they impute, and else zero."""
        probability = self.model.predict_proba(asked.samples)
        spread = np.zeros_like(probability)
        experiment = self.experiment
        if experiment.head["kind"] == "pooled" and experiment.model["kind"] == "cm2":
            spread = self.model.predict_spread(asked.samples)
        if not asked.labels:
            probability, spread = (self._of_all(one, asked) for one in (probability, spread))
        shape = probability.shape if asked.labels else (len(asked),)
        target = np.full(shape, -1) if asked.target is None else asked.target
        patient = predictions.anonymous(asked.stays["subject_id"].to_numpy())
        return Predictions(target, probability, spread, asked.samples.present, patient)

    def embed(
        self, root: Path, modality: str
    ) -> tuple[Int[ndarray, " stay"], Float[ndarray, "stay dim"]]:
        """Embeds a modality of all stays that have it, by the first network.

        Raises:
            InputError: If the head has no embeddings, or there is no such modality.
        """
        known = list(self.model.modalities_)
        if modality not in known:
            raise InputError(f"there is no modality {modality!r}; there are {known}")
        # Whatever else they lack, and whatever the experiment removed.
        whole: dict[str, Any] = {"modalities": [modality], "missing_rate": 0.0}
        whole["embedded"] = [one for one in self.experiment.data["embedded"] if one == modality]
        stays = self._open(None, root, **whole)
        try:
            z = self.model.embed(stays.samples)
        except ValueError as error:
            raise InputError(str(error)) from error
        has = stays.samples.present[:, 0]
        ids = stays.stays["stay_id"].to_numpy(np.int64)
        return ids[has], z[has, known.index(modality)]

    def _of_all(self, values: Float[ndarray, "n seen"], asked: Stays) -> Float[ndarray, "n label"]:
        """A column for each class of the data, zeros for those that no training stay was of."""
        full = np.zeros((len(values), max(asked.classes, int(self.model.classes_.max()) + 1)))
        full[:, self.model.classes_] = values
        return full


def _stays(
    experiment: Experiment,
    split: str | Sequence[str] | None,
    facts: dict[str, Any] | None = None,
    **changed: Any,
) -> Stays:
    """Opens prepared data; labels and classes are those of the run where it says them."""
    known = {} if facts is None else {key: facts[key] for key in ("labels", "classes")}
    return Stays.open(**(experiment.data | changed), split=split, **known)
