"""From the arguments of a classifier to its heads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.base import clone

from cm2 import copulas, couplings
from cm2.core.errors import check_count
from cm2.core.pace import told
from cm2.estimators.heads import (
    Boosting,
    Embedded,
    Experts,
    Frozen,
    Fusion,
    Head,
    JointHead,
    Linear,
    Pool,
    Presence,
)
from cm2.estimators.heads.base import Held, hold
from cm2.estimators.heads.embedded import LEAST_NETWORKS
from cm2.estimators.heads.frozen import frozen as is_frozen
from cm2.estimators.heads.fusion import ACCELERATORS, MODEL
from cm2.estimators.heads.threads import same_warnings
from cm2.networks import fusions, imputers, models
from cm2.networks.models import objectives, posteriors
from cm2.samples import targets
from cm2.samples.container import Samples
from cm2.samples.inputs import Blocks, Reader

HEADS = ("linear", "boosting", "joint", "experts", "fusion")
FOLDS = 3
"""The least number for out-of-fold predictions; there are equally many for each network."""

MANY = 10
"""Labels, networks, or classes of experts, above which fitting takes long."""

LOG = logging.getLogger(__name__)

COUNTS = (
    "rank",
    "n_components",
    "embedding_dim",
    "n_imputations",
    "n_networks",
    "max_epochs",
    "patience",
    "batch_size",
)


def check(given: Mapping[str, Any]) -> None:
    """Refuses arguments that no head could be built of."""
    named = not isinstance(given["head"], Head)
    if named and given["head"] not in (*HEADS, "pooled"):
        raise ValueError(f"head must be one of {('pooled', *HEADS)}, got {given['head']!r}")
    for kind, name in (
        (copulas.REGISTRY, given["copula"]),
        (couplings.REGISTRY, given["coupling"]),
        (imputers.REGISTRY, imputation(given)),
        (fusions.REGISTRY, given["fusion"]),
        (posteriors.REGISTRY, given["posterior"]),
        (objectives.REGISTRY, given["objective"]),
        (models.REGISTRY, given["network"]),
    ):
        kind[name]  # an unknown name raises an error that lists the known ones
    if given["device"] not in ACCELERATORS:
        raise ValueError(f"device must be one of {list(ACCELERATORS)}, got {given['device']!r}")
    for name in COUNTS:
        check_count(name, given[name])
    if not isinstance(given["presence"], Integral | np.bool_):
        raise ValueError(f"presence must be True or False, got {given['presence']!r}")
    if not given["learning_rate"] > 0:
        raise ValueError(f"learning_rate must be positive, got {given['learning_rate']}")
    known = ("factor", "gaussian", "independence")
    if named and given["head"] == "experts" and given["copula"] not in known:
        raise ValueError(f"head='experts' knows {known}, got copula {given['copula']!r}")


def check_sizes(given: Mapping[str, Any], blocks: Blocks) -> None:
    """Refuses fewer samples of a modality than its marginal has components."""
    if given["head"] in ("fusion", "pooled"):
        counts = blocks.present.sum(axis=0)
        few = int(counts.argmin())
        if counts[few] < given["n_components"]:
            raise ValueError(
                f"modality {blocks.names[few]!r} is present in {counts[few]} samples; "
                f"n_components={given['n_components']} needs at least as many"
            )


def is_fusion(given: Mapping[str, Any]) -> bool:
    """Whether the head is networks alone."""
    return given["head"] == "fusion" or isinstance(given["head"], Fusion)


def learns_together(given: Mapping[str, Any]) -> bool:
    """Whether one head learns several labels, and not one head each."""
    return is_fusion(given) and not given["presence"] and given["class_weight"] is None


def learned_inputs(given: Mapping[str, Any], blocks: Blocks) -> list[str]:
    """The modalities that other heads read by what trained networks make of them."""
    still = given["encoders"] or {}
    return [one for one in blocks.unread if not (one in still and is_frozen(still[one]))]


def frozen(given: Mapping[str, Any], blocks: Blocks, seed: int) -> Frozen:
    """What gives other heads numbers of the modalities whose encoders no training changes."""
    learned = learned_inputs(given, blocks)
    names = [] if is_fusion(given) else [one for one in blocks.unread if one not in learned]
    encoders = {name: given["encoders"][name] for name in names}
    return Frozen(encoders, given["embedding_dim"], seed, ACCELERATORS[given["device"]])


def count_networks(given: Mapping[str, Any], blocks: Blocks) -> int:
    """How many networks a head averages."""
    if isinstance(given["head"], Fusion):
        return int(given["head"].folds)
    if given["head"] == "fusion":
        return given["n_networks"]
    if learned_inputs(given, blocks):
        return max(given["n_networks"], LEAST_NETWORKS)
    return given["n_networks"] if given["head"] == "pooled" else 0


def holds_out(given: Mapping[str, Any], blocks: Blocks) -> bool:
    """Whether a head learns from predictions of samples, or of networks, not seen."""
    several = is_fusion(given) and count_networks(given, blocks) > 1
    return given["presence"] or given["head"] == "pooled" or several


def announce(given: Mapping[str, Any], blocks: Blocks, classes: int, labels: int) -> None:
    """Says in the log what is to be fitted; as a warning, where that will take long."""
    head = given["head"]
    epochs = head.options["max_epochs"] if isinstance(head, Fusion) else given["max_epochs"]
    heads = 1 if learns_together(given) else labels
    networks = count_networks(given, blocks)
    if networks == 1 and (head == "pooled" or given["presence"]):
        networks += FOLDS  # without a fold each, for predictions of rows not seen
    slow = [f"{heads} labels, fitted one after the other"] if heads > MANY else []
    if classes > MANY and head in ("pooled", "experts"):
        slow.append(f"experts of {classes} classes")
    if heads * networks > MANY:
        slow.append(f"{heads * networks} networks")
    LOG.log(
        logging.WARNING if slow else logging.INFO,
        "head=%r, %d samples of %d modalities: %d labels, %d classes, %d networks of at most %d "
        "epochs%s",
        head if isinstance(head, str) else type(head).__name__,
        len(blocks.present),
        len(blocks.names),
        labels,
        classes,
        heads * networks,
        epochs,
        f"; this takes long: {', '.join(slow)}" if slow else "",
    )


def imputation(given: Mapping[str, Any]) -> str:
    """The imputer's name; a mean without a closed form would take 64 draws in each step."""
    if given["imputation"] != "auto":
        return given["imputation"]
    copula, coupling = copulas.REGISTRY[given["copula"]], couplings.REGISTRY[given["coupling"]]
    closed = coupling.mean_is_closed(copula, given["n_components"])
    return "conditional-mean" if closed else "conditional"


def build(
    given: Mapping[str, Any], seed: int, blocks: Blocks, held: Held | None, part: str = ""
) -> Head:
    """The head that the arguments name, unfitted, for samples of these modalities.

    Args:
        given: The classifier's arguments.
        seed: Of everything random.
        blocks: The training samples.
        held: Those that stop the training of networks.
        part: Folder of its logs within ``run_dir``, if there are several heads.
    """
    networks = max(count_networks(given, blocks), 1)
    run_dir = None if given["run_dir"] is None else str(Path(given["run_dir"]) / part)
    fusion = Fusion(
        given["embedding_dim"],
        given["n_imputations"],
        model=model(given),
        training={
            "max_epochs": given["max_epochs"],
            "patience": given["patience"],
            "lr": given["learning_rate"],
            "batch_size": given["batch_size"],
            "progress": given["verbose"],
            "accelerator": ACCELERATORS[given["device"]],
        },
        folds=networks,
        seed=seed,
        run_dir=run_dir,
        encoders=given["encoders"],
        n_jobs=given["n_jobs"],
    )
    fusion.held = held
    joint = JointHead(
        copula=given["copula"], coupling=given["coupling"], rank=given["rank"], random_state=seed
    )
    heads: dict[str, Head] = {
        "linear": Linear(random_state=seed),
        "boosting": Boosting(random_state=seed),
        "joint": joint,
        "experts": Experts(copula=given["copula"], random_state=seed),
        "fusion": fusion,
    }
    unread = learned_inputs(given, blocks)
    if unread:  # the other heads read numbers: networks have to make some first
        for name in HEADS[:-1]:
            heads[name] = Embedded(heads[name], fusion, seed)
    folds = networks * -(-FOLDS // networks)
    head = given["head"]
    if isinstance(head, Head):
        head = clone(head)
        hold(head, held)
        if isinstance(head, Fusion):
            head.encoders = head.encoders or given["encoders"]
        elif unread:
            head = Embedded(head, fusion, seed)
    else:
        pooled = head == "pooled"
        head = Pool(heads, None, folds, seed, given["n_jobs"]) if pooled else heads[head]
    return Presence(head, folds, seed) if given["presence"] else head


def model(given: Mapping[str, Any]) -> dict[str, Any]:
    """The network's kind and arguments, of which rivals get none."""
    if given["network"] != "cm2":
        return {"kind": given["network"]}
    return MODEL | {
        "copula": given["copula"],
        "components": given["n_components"],
        "imputation": imputation(given),
        **{name: given[name] for name in ("coupling", "fusion", "posterior", "objective")},
    }


@same_warnings()
def fit(
    heads: Sequence[Head],
    frozen: Frozen,
    blocks: Blocks,
    parts: Sequence[tuple[Int[ndarray, " n ..."], Float[ndarray, " n"]]],
    weight: Float[ndarray, " n"],
    groups: ndarray | None,
) -> None:
    """Fits a head for each label, or one for all, after all heads have been checked.

    Args:
        heads: The heads.
        frozen: What gives them numbers of frozen encoders.
        blocks: The training samples.
        parts: Codes and weights that each learns.
        weight: Weights of the samples, whatever a label's classes weigh.
        groups: The patient of each sample, if some have several.
    """
    for head, (codes, _) in zip(heads, parts, strict=True):
        head.check(codes, groups)
    blocks = frozen.fit(blocks, weight)
    for head, part in told(zip(heads, parts, strict=True), len(heads), "labels"):
        head.fit(blocks, *part, groups)


def held(validation: Any, reader: Reader, classes: ndarray, labels: tuple[int, ...]) -> Held | None:
    """The samples that stop training, as heads see them.

    Args:
        validation: What the user gave, if anything.
        reader: What reads them.
        classes: Those of the training.
        labels: How many labels a sample had there, in a tuple; an empty one for a class.

    Raises:
        ValueError: If they are no samples with outcomes as in training.
    """
    if validation is None:
        return None
    if not isinstance(validation, Samples):
        found = type(validation).__name__
        raise ValueError(f"validation must be Samples(X, y=y), but is of type {found}")
    codes = targets.known_codes(validation.y, len(validation), classes, labels)
    blocks = reader.blocks(validation, trained=True)
    known = np.flatnonzero(blocks.present.any(axis=1))
    if not len(known):
        raise ValueError("validation has no sample with a modality")
    return Held(blocks.take(known), codes[known])


def weighed(
    held: Held | None,
    codes: Int[ndarray, " n ..."],
    classes: ndarray,
    class_weight: Any,
    label: int | None = None,
) -> Held | None:
    """Rows that stop training, weighed as it weighs their classes, by one label or all.

    Args:
        held: The rows.
        codes: What is learned in training.
        classes: The labels of its codes.
        class_weight: As the user gave it.
        label: Number of the label; None for all.
    """
    if held is None:
        return None
    held = held if label is None else held._replace(y=held.y[:, label])
    if class_weight is None or codes.ndim > 1:
        return held
    return held._replace(weight=targets.weights_by_code(codes, classes, class_weight)[held.y])


def drawn(heads: Sequence[Head], name: Any, blocks: Blocks, draws: int) -> Blocks:
    """Rows of which networks draw what is missing.

    Raises:
        ValueError: If a head predicts without a network that imputes, or there is not one draw.
    """
    check_count("draws", draws)
    for head in heads:
        network_head(head, name).imputing()
        inner = _within(head)
        parts = inner.heads_.values() if isinstance(inner, Pool) else [inner]
        if not any(isinstance(one, Fusion) for one in parts):
            raise ValueError(
                f"head={name!r} predicts without its networks, so that nothing is drawn: the pool "
                "has left them out, or others read their embeddings; use head='fusion'"
            )
    return blocks._replace(draws=draws)


def _within(head: Head) -> Head:
    """The head that presence stands before, or the head itself."""
    return head.head_ if isinstance(head, Presence) else head


def embedding_head(head: Head, name: Any) -> JointHead | Fusion:
    """What embeds for a head."""
    inner = _within(head)
    return inner if isinstance(inner, JointHead) else network_head(head, name)


def network_head(head: Head, name: Any) -> Fusion:
    """The head with networks, of one that may be made of several, and its name for an error."""
    head = _within(head)
    if isinstance(head, Pool):
        head = (head.heads_ | head.left_out_)["fusion"]
    head = head.fusion_ if isinstance(head, Embedded) else head
    if not isinstance(head, Fusion):
        raise ValueError(
            f"head={name!r} has no network, whose embeddings could be imputed; "
            "use 'fusion' or 'pooled'"
        )
    return head
