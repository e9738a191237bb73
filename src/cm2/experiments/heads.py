"""What an experiment trains: the classifier of its sections.

A head of ``CM2Classifier`` knows some keys of the sections, by names of its own; the others are
about the training of one network as in the paper, and mean nothing to a classifier that trains
several of them, or none. With the head ``fusion`` all keys are that network's.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cm2.core.errors import InputError
from cm2.estimators import assembly
from cm2.estimators.classifier import CM2Classifier
from cm2.estimators.heads import Fusion, encoding
from cm2.estimators.heads.networks import learned
from cm2.networks.models import Model

if TYPE_CHECKING:
    from cm2.experiments.config import Experiment

__all__ = [
    "HEAD",
    "KINDS",
    "MODEL",
    "NETWORK",
    "TRAINING",
    "build",
    "classifier",
    "default",
    "reading",
]

NETWORK = "fusion"
"""The head that is one network, trained as in the paper; the others are those of a classifier."""

TASK = "binary"
"""What that network learns of two classes: one logit."""

KINDS = (NETWORK, "pooled", "joint", "experts", "linear", "boosting")

HEAD = {
    key: key
    for key in ("n_networks", "n_imputations", "rank", "class_weight", "presence", "n_jobs")
}  # of no other section
MODEL = {
    "kind": "network",
    "copula": "copula",
    "components": "n_components",
    "coupling": "coupling",
    "imputation": "imputation",
    "fusion": "fusion",
    "posterior": "posterior",
    "objective": "objective",
}
TRAINING = {
    "max_epochs": "max_epochs",
    "patience": "patience",
    "lr": "learning_rate",
    "batch_size": "batch_size",
    "accelerator": "device",
    "progress": "verbose",
}
"""For each section its keys, and what the classifier calls them."""

DEVICES = {"gpu": "cuda"}
"""Lightning's names of devices, where the classifier has others."""


def default(argument: str) -> Any:
    """The default of an argument of the classifier."""
    return inspect.signature(CM2Classifier).parameters[argument].default


def classifier(experiment: Experiment, modalities: Sequence[str] = ()) -> CM2Classifier:
    """The classifier that an experiment describes, unfitted.

    Args:
        experiment: The experiment.
        modalities: Those of the data, which it is to be fitted to.

    Raises:
        ValueError: If no head can be built of the arguments.
    """
    head, training = experiment.head, experiment.training
    options: dict[str, Any] = {"random_state": experiment.seed}
    if head["kind"] == NETWORK:
        network = Fusion(
            experiment.dim,
            model=experiment.model,
            training=training,
            task=TASK,
            folds=1,
            seed=experiment.seed,
        )
        read = {key: experiment.data[key] for key in encoding.READING}
        return CM2Classifier(
            head=network,
            encoders=_encoders(experiment, modalities),
            reading=dict.fromkeys(modalities, read),
            **options,
        )
    options |= {"head": head["kind"], "embedding_dim": experiment.dim}
    options["encoders"] = {name: dict(section) for name, section in experiment.encoders.items()}
    for section, names in ((head, HEAD), (experiment.model, MODEL), (training, TRAINING)):
        options |= {argument: section[key] for key, argument in names.items()}
    options["device"] = DEVICES.get(options["device"], options["device"])
    made = CM2Classifier(**options)
    assembly.check(made.get_params(deep=False))
    return made


def build(
    experiment: Experiment,
    shape: Mapping[str, Mapping[str, Any]],
    classes: int,
    labels: Sequence[str] = (),
) -> Model:
    """Builds the network of an experiment, at the start of its training.

    Args:
        experiment: What names encoders and model.
        shape: For each modality, in order, what the data say of it, such as ``features``.
        classes: Number of classes.
        labels: Names of labels that may hold together, if a sample is not of one class.

    Raises:
        InputError: If an encoder is missing or does not fit.
    """
    encoders = _encoders(experiment, list(shape))
    task = learned(TASK, len(labels) or classes, several=bool(labels))
    return encoding.built(
        experiment.model, encoders, shape, experiment.dim, task.labels, experiment.seed
    )


def _encoders(experiment: Experiment, modalities: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The encoder of each modality of the data."""
    for name in modalities:
        if name not in experiment.encoders:
            raise InputError(
                f"the data have a modality {name!r}, but encoders names only "
                f"{list(experiment.encoders)}; leave it out of data.modalities or name one"
            )
    return {name: dict(experiment.encoders[name]) for name in modalities}


def reading(
    *,
    scaling: Literal["robust", "standard"] = "robust",
    tokenizer: str | Path | None = None,
    tokens: int = 512,
    chunks: int = 8,
    chunks_per_document: int | None = None,
    fitted_on: str | Path | None = None,
) -> None:
    """Keys of ``data`` that say how one network's data are read, and their defaults.

    Args:
        scaling: ``"robust"``, or ``"standard"`` for mean and deviation, as in the paper.
        tokenizer: A file ``tokenizer.json``, or the folder or hub name of a model; None for that of
            the encoder's weights, or else a small WordPiece vocabulary that is learned from the
            training split, once for a folder.
        tokens: Most tokens in a chunk of text.
        chunks: Most chunks of a stay; the last ones are kept.
        chunks_per_document: Most chunks of a document, the first ones; None for all. The reference
            is 1, with 5 chunks of 512 tokens.
        fitted_on: Folder whose training stays scales and vocabularies are learned from, such as the
            one that a model was trained on; None for ``root``.
    """
