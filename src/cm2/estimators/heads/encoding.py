"""Blocks as networks read them: in batches, and by the encoders that a user names."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from cm2.core import persistence
from cm2.core.errors import InputError
from cm2.core.numerics import seeded
from cm2.core.records import Batch
from cm2.networks import models
from cm2.networks.encoders import REGISTRY as ENCODERS
from cm2.networks.encoders import Encoder, sections
from cm2.networks.models import Model
from cm2.samples.batches import ArrayDataset, loader
from cm2.samples.inputs import Blocks

CHUNK = 2048
"""Rows that are predicted at a time."""

CHUNK_OF_INPUTS = 64
"""The same where there are series, texts or images."""


READ = ("tokenizer", "weights", "tokens")
"""Arguments of encoders that say how their modality is to be read."""


READING = ("scaling", "tokenizer", "tokens", "chunks", "chunks_per_document")
"""What else may be said of that."""


def reading(
    encoders: Mapping[str, Any], more: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, dict[str, Any]]:
    """How modalities are to be read: what their encoders say, and what is said beside.

    Args:
        encoders: Of each modality its ``kind`` and arguments, or an encoder.
        more: Of each modality what is said beside; that wins, unless it is ``None``.

    Raises:
        ValueError: If an encoder is neither, or of no known kind.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, section in encoders.items():
        if isinstance(section, Encoder):
            found[name] = {key: section.given[key] for key in READ if key in section.given}
            found[name]["template"] = True
            continue
        if not isinstance(section, Mapping) or "kind" not in section:
            what = "a section without kind" if isinstance(section, Mapping) else repr(section)
            raise ValueError(
                f"encoders.{name} must be an Encoder or a section of arguments and a kind, "
                f"{', '.join(sorted(ENCODERS))}; but is {what}"
            )
        sections.encoder(section["kind"])  # an unknown kind raises an error that lists the known
        found[name] = dict(section)
    for name, given in (more or {}).items():
        said = {key: value for key, value in given.items() if value is not None}
        if unknown := sorted(set(said) - set(READING)):
            raise ValueError(f"reading.{name} knows {', '.join(READING)}, but not {unknown[0]!r}")
        found[name] = found.get(name, {}) | said
    return dict(persistence.plain(found))


def batches(blocks: Blocks) -> DataLoader[Batch]:
    """Returns the rows of blocks in batches, in their order."""
    size = CHUNK_OF_INPUTS if blocks.inputs else CHUNK
    return loader(ArrayDataset(blocks.raw, blocks.present), size)


def start(section: Any, dim: int, shape: Mapping[str, Any]) -> Encoder:
    """An encoder at the start of its training.

    Args:
        section: Its ``kind`` and arguments, or an encoder, which is copied.
        dim: Width of the embedding.
        shape: Arguments that follow from the data.
    """
    if isinstance(section, Encoder):
        return copy.deepcopy(section)
    if "vocabulary" in shape:  # the tokens have been made already
        section = {key: value for key, value in section.items() if key != "tokenizer"}
    return sections.build(section, dim, shape)


def built(
    model: Mapping[str, Any],
    encoders: Mapping[str, Any],
    shapes: Mapping[str, Mapping[str, Any]],
    dim: int,
    labels: int,
    seed: int,
) -> Model:
    """A network at the start of its training.

    Args:
        model: Its ``kind`` and arguments.
        encoders: For each modality, in order, the section of its encoder, or an encoder.
        shapes: Of each modality arguments that follow from the data.
        dim: Width of all embeddings.
        labels: Number of logits.
        seed: Of its parameters.

    Raises:
        InputError: If an encoder cannot be built; the error names the modality.
    """
    made: dict[str, Encoder] = {}
    with seeded(seed):
        for name, section in encoders.items():
            try:
                made[name] = start(section, dim, shapes[name])
            except (ValueError, ImportError) as error:
                raise InputError(f"encoders.{name}: {error}") from error
        options = {key: value for key, value in model.items() if key != "kind"}
        architecture: Any = models.REGISTRY[model["kind"]]
        network: Model = architecture(made, labels, **options)
    return network


def try_encoder(section: Any, dim: int, blocks: Blocks, name: str, seed: int) -> Encoder:
    """Builds the encoder that was named and reads a row with it, to find a mistake at once.

    Returns:
        The encoder, in evaluation mode.

    Raises:
        ValueError: If it cannot be built or does not read the modality.
    """
    row = np.flatnonzero(blocks.present[:, blocks.names.index(name)])[:1]
    part = ArrayDataset(blocks.take(row).raw, blocks.present[row])
    try:
        with seeded(seed), torch.no_grad():
            encoder = start(section, dim, blocks.shapes[name]).eval()
            if len(row):  # what was learned before may know modalities that these samples lack
                encoder(part[[0]].inputs[name])
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        kind = type(section).__name__ if isinstance(section, Encoder) else section["kind"]
        raise ValueError(
            f"encoders.{name}: {kind!r} does not read this modality: {error}"
        ) from error
    return encoder
