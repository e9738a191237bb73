"""A trained run: its model, read from one file whatever the head, and what that says of data.

While a single network is trained, ``begun.cm2`` holds the model as it was before the first step,
and ``best.ckpt`` the weights of its best epoch so far: together they are a trained run too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from cm2.core.errors import InputError
from cm2.estimators.classifier import CM2Classifier
from cm2.experiments import config, folder, predictions
from cm2.experiments.config import Experiment
from cm2.experiments.predictions import Predictions
from cm2.networks import training
from cm2.networks.encoders.sections import arguments
from cm2.networks.models import Model
from cm2.samples.container import Samples
from cm2.samples.folder import Folder
from cm2.samples.stays import Stays

__all__ = ["Trained", "load", "stays"]

LOG = logging.getLogger(__name__)

IMPUTING = ("pooled", "fusion")
"""Heads whose networks draw what is missing, if they are of the paper's kind."""


class Trained:
    """A trained run.

    Args:
        run: Its folder.

    Raises:
        InputError: If the folder holds no trained model.
    """

    def __init__(self, run: Path) -> None:
        self.run = Path(run)
        for name in ("config.yaml", "environment.json"):
            if not (self.run / name).is_file():
                raise InputError(f"{run}: no {name}; give the folder of a run of cm2 train")
        self.experiment = config.load(self.run / "config.yaml")
        self.facts: dict[str, Any] = folder.facts(self.run)["data"]
        self.model = _model(self.run)

    @property
    def network(self) -> Model:
        """The first network.

        Raises:
            ValueError: If the head has none.
        """
        return self.model.networks_[0]

    def data(self, split: str | None, *, root: Path | None = None, labelled: bool = False) -> Stays:
        """Reads the data of the run, or others.

        Of the run's own, modalities are removed as in the experiment; of others none is, and where
        the setting is ``"partial"`` they may lack all modalities but the first.

        Args:
            split: Which split; ``None`` for all stays.
            root: Other prepared data.
            labelled: Whether stays whose outcome is not known are left out.

        Raises:
            InputError: If the model cannot read them.
        """
        read = Folder(root or self.experiment.data["root"], verify=self.experiment.data["verify"])
        wanted = list(self.model.modalities_)
        if self.experiment.data["setting"] == "partial":
            known = (*read.modalities, *read.beside)
            lacking = [name for name in wanted[1:] if name not in known]
            wanted = [name for name in wanted if name not in lacking]
            for name in lacking:
                LOG.warning("%s: has no modality %r: it is missing for all stays", read.root, name)
        changed = {} if read.checksum == self.facts["checksum"] else {"missing_rate": 0.0}
        return self._open(read, split, wanted, labelled=labelled, **changed)

    def _open(
        self, read: Folder, split: str | None, modalities: Sequence[str], **changed: Any
    ) -> Stays:
        """Opens stays that the model can read."""
        window = self.facts.get("hours")
        if None not in (window, read.hours) and read.hours != window:
            raise InputError(
                f"{read.root}: holds the first {read.hours} hours of a stay; the fitted model "
                f"expects {window}"
            )
        changed["modalities"] = modalities
        changed["embedded"] = [
            name for name in self.experiment.data["embedded"] if name in modalities
        ]
        opened = stays(self.experiment, split, self.facts, root=read, **changed)
        try:
            self.model.reader_.check(opened.samples)
        except ValueError as error:
            raise InputError(f"{read.root}: {error}") from error
        return opened

    def predictions(self, asked: Stays) -> Predictions:
        """Predicts; the spread is that of networks if they impute, and else zero."""
        probability = self.model.predict_proba(asked.samples)
        spread = np.zeros_like(probability)
        experiment = self.experiment
        if experiment.head["kind"] in IMPUTING and experiment.model["kind"] == "cm2":
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
        read = Folder(root, verify=self.experiment.data["verify"])
        opened = self._open(read, None, [modality], missing_rate=0.0)
        try:
            z = self.model.embed(opened.samples)
        except ValueError as error:
            raise InputError(str(error)) from error
        has = opened.samples.present[:, 0]
        ids = opened.stays["stay_id"].to_numpy(np.int64)
        return ids[has], z[has, known.index(modality)]

    def _of_all(self, values: Float[ndarray, "n seen"], asked: Stays) -> Float[ndarray, "n label"]:
        """A column for each class of the data, zeros for those that no training stay was of."""
        full = np.zeros((len(values), max(asked.classes, int(self.model.classes_.max()) + 1)))
        full[:, self.model.classes_] = values
        return full


def stays(
    experiment: Experiment,
    split: str | Sequence[str] | None,
    facts: dict[str, Any] | None = None,
    **changed: Any,
) -> Stays:
    """Opens prepared data; labels and classes are those of the run where it says them."""
    known = {} if facts is None else {key: facts[key] for key in ("labels", "classes")}
    options = {
        key: experiment.data[key] for key in arguments(Samples.open) if key in experiment.data
    }
    return Stays.open(**(options | changed), split=split, **known)


def load(path: Path) -> CM2Classifier:
    """Reads a model.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        return CM2Classifier.load(path)
    except ValueError as error:
        raise InputError(str(error)) from error


def _model(run: Path) -> CM2Classifier:
    """The model of a run that is finished, or of one that is not with its best epoch so far."""
    if (run / folder.MODEL).is_file():
        return load(run / folder.MODEL)
    if not (run / folder.BEST).is_file():
        raise InputError(f"{run}: no {folder.MODEL}; give the folder of a run of cm2 train")
    if not (run / folder.BEGUN).is_file():
        raise folder.of_before(run, folder.MODEL)
    model = load(run / folder.BEGUN)
    model.networks_[0].load_state_dict(training.best(run))
    return model
