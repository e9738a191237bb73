"""The keys of an experiment that a head of ``CM2Classifier`` knows, and the classifier of them.

Other keys are about the training of one network as in the paper, and mean nothing to a classifier
that trains several of them, or none.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from cm2.estimators import assembly
from cm2.estimators.classifier import CM2Classifier

__all__ = ["HEAD", "KINDS", "MODEL", "NETWORK", "TRAINING", "classifier", "default"]

NETWORK = "fusion"
"""The head that is one network, trained as in the paper; the others are those of a classifier."""

KINDS = (NETWORK, "pooled", "joint", "experts", "linear", "boosting")

HEAD = {
    key: key for key in ("n_networks", "n_imputations", "rank", "class_weight", "n_jobs")
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


def classifier(
    head: Mapping[str, Any],
    dim: int,
    encoders: Mapping[str, Mapping[str, Any]],
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    seed: int,
) -> CM2Classifier:
    """The classifier that an experiment describes, unfitted.

    Args:
        head: Its ``kind``, and the arguments in ``HEAD``.
        dim: Width of all embeddings.
        encoders: The encoder of each modality; others get small ones that start at random.
        model: The network's ``kind``, and the arguments in ``MODEL``.
        training: The arguments in ``TRAINING``.
        seed: Of everything.

    Raises:
        ValueError: If no head can be built of the arguments.
    """
    options: dict[str, Any] = {"head": head["kind"], "embedding_dim": dim, "random_state": seed}
    for section, names in ((head, HEAD), (model, MODEL), (training, TRAINING)):
        options |= {argument: section[key] for key, argument in names.items()}
    options["device"] = DEVICES.get(options["device"], options["device"])
    made = CM2Classifier(**options, encoders={k: dict(v) for k, v in encoders.items()})
    assembly.check(made.get_params(deep=False))
    return made
