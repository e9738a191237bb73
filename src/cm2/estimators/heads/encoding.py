"""Blocks as networks read them: in batches, and by the encoders that a user names."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from cm2.core.numerics import seeded
from cm2.core.records import Batch
from cm2.networks.encoders import Encoder, sections
from cm2.samples.batches import ArrayDataset, loader
from cm2.samples.inputs import Blocks

CHUNK = 2048
"""Rows that are predicted at a time."""

CHUNK_OF_INPUTS = 64
"""The same where there are series, texts or images."""


def batches(blocks: Blocks) -> DataLoader[Batch]:
    """Returns the rows of blocks in batches, in their order."""
    size = CHUNK_OF_INPUTS if blocks.inputs else CHUNK
    return loader(ArrayDataset(blocks.raw, blocks.present), size)


def start(section: Any, dim: int, shape: Mapping[str, int]) -> Encoder:
    """An encoder at the start of its training.

    Args:
        section: Its ``kind`` and arguments, or an encoder, which is copied.
        dim: Width of the embedding.
        shape: Arguments that follow from the data.
    """
    if isinstance(section, Encoder):
        return copy.deepcopy(section)
    return sections.build(section, dim, shape)


def try_encoder(section: Any, dim: int, blocks: Blocks, name: str, seed: int) -> None:
    """Reads a row with the encoder that was named, so that a mistake is found at once.

    Raises:
        ValueError: If it cannot be built or does not read the modality.
    """
    row = np.flatnonzero(blocks.present[:, blocks.names.index(name)])[:1]
    batch = ArrayDataset(blocks.take(row).raw, blocks.present[row])[[0]]
    try:
        with seeded(seed), torch.no_grad():
            start(section, dim, blocks.shapes[name]).eval()(batch.inputs[name])
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        kind = type(section).__name__ if isinstance(section, Encoder) else section["kind"]
        raise ValueError(
            f"encoders.{name}: {kind!r} does not read this modality: {error}"
        ) from error
