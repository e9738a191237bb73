"""From the arguments of a classifier to its heads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from numpy import ndarray

from cm2 import copulas, couplings
from cm2.estimators.heads import (
    Boosting,
    Embedded,
    Experts,
    Fusion,
    Head,
    JointHead,
    Linear,
    Pool,
    Presence,
)
from cm2.estimators.heads.base import Held
from cm2.estimators.heads.embedded import LEAST_NETWORKS
from cm2.estimators.heads.fusion import ACCELERATORS
from cm2.networks import fusions, imputers, models
from cm2.networks.models import objectives, posteriors
from cm2.samples.inputs import Blocks

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
    if given["head"] not in (*HEADS, "pooled"):
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
        if given[name] < 1:
            raise ValueError(f"{name} must be at least 1, got {given[name]}")
    if not given["learning_rate"] > 0:
        raise ValueError(f"learning_rate must be positive, got {given['learning_rate']}")
    known = ("factor", "gaussian", "independence")
    if given["head"] == "experts" and given["copula"] not in known:
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


def count_networks(given: Mapping[str, Any], blocks: Blocks) -> int:
    """How many networks a head averages."""
    if given["head"] == "fusion":
        return given["n_networks"]
    if blocks.unread:  # the other heads read what a network makes of rows that it did not see
        return max(given["n_networks"], LEAST_NETWORKS)
    return given["n_networks"] if given["head"] == "pooled" else 0


def announce(given: Mapping[str, Any], blocks: Blocks, classes: int, labels: int) -> None:
    """Says in the log what is to be fitted; as a warning, where that will take long."""
    networks = count_networks(given, blocks)
    if networks == 1 and (given["head"] == "pooled" or given["presence"]):
        networks += FOLDS  # without a fold each, for predictions of rows not seen
    slow = [f"{labels} labels, fitted one after the other"] if labels > MANY else []
    if classes > MANY and given["head"] in ("pooled", "experts"):
        slow.append(f"experts of {classes} classes")
    if labels * networks > MANY:
        slow.append(f"{labels * networks} networks")
    LOG.log(
        logging.WARNING if slow else logging.INFO,
        "head=%r, %d samples of %d modalities: %d labels, %d classes, %d networks of at most %d "
        "epochs%s",
        given["head"],
        len(blocks.present),
        len(blocks.names),
        labels,
        classes,
        labels * networks,
        given["max_epochs"],
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
        copula=given["copula"],
        components=given["n_components"],
        embedding_dim=given["embedding_dim"],
        coupling=given["coupling"],
        imputation=imputation(given),
        imputations=given["n_imputations"],
        fusion=given["fusion"],
        posterior=given["posterior"],
        objective=given["objective"],
        folds=networks,
        max_epochs=given["max_epochs"],
        patience=given["patience"],
        lr=given["learning_rate"],
        batch_size=given["batch_size"],
        seed=seed,
        run_dir=run_dir,
        progress=given["verbose"],
        network=given["network"],
        encoders=given["encoders"],
        device=given["device"],
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
    if blocks.unread:  # the other heads read numbers: networks have to make some first
        for name in HEADS[:-1]:
            heads[name] = Embedded(heads[name], fusion, seed)
    folds = networks * -(-FOLDS // networks)
    pooled = given["head"] == "pooled"
    head = heads[given["head"]] if not pooled else Pool(heads, None, folds, seed, given["n_jobs"])
    return Presence(head, folds, seed) if given["presence"] else head


def fitted(
    heads: Sequence[Head],
    blocks: Blocks,
    parts: Sequence[tuple[Int[ndarray, " n"], Float[ndarray, " n"]]],
    groups: ndarray | None,
) -> list[Head]:
    """Fits a head for each label, after all of them have been checked.

    Args:
        heads: The heads.
        blocks: The training samples.
        parts: Codes and weights of each label.
        groups: The patient of each sample, if some have several.
    """
    for head, (codes, _) in zip(heads, parts, strict=True):
        head.check(codes, groups)
    return [head.fit(blocks, *part, groups) for head, part in zip(heads, parts, strict=True)]
