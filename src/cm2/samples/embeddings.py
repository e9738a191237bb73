"""Embeddings that an encoder made before, kept beside prepared data and read in its place.

``embeddings/<modality>.npy`` has a row for each row of ``stays.parquet``, NaN where the modality is
absent; ``<modality>.json`` says what made it and, by the checksum of the manifest, of which data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.lib.format import open_memmap

from cm2.core.errors import InputError
from cm2.core.files import DAMAGED, to_json, write_text
from cm2.core.layout import EMBEDDINGS
from cm2.samples.folder import Folder

__all__ = ["read", "save"]


def save(
    root: str | Path,
    modality: str,
    stays: Int[ndarray, " stay"],
    values: Float[ndarray, "stay dim"],
    made: Mapping[str, Any],
) -> Path:
    """Writes the embeddings of a modality, in the place of earlier ones.

    Args:
        root: The prepared folder.
        modality: Its name there.
        stays: The stays that have it, in any order.
        values: Their embeddings.
        made: What made them, for the record.

    Returns:
        The array's file.
    """
    folder = Folder(root)
    folder.check([modality])
    known = folder.stays["stay_id"].to_numpy()
    if not np.isin(stays, known).all():
        raise InputError(f"{folder.root}: some of the embedded stays are not in stays.parquet")
    rows = np.full((len(known), values.shape[1]), np.nan, np.float32)
    rows[np.searchsorted(known, stays)] = values
    path = folder.root / EMBEDDINGS / f"{modality}.npy"
    path.parent.mkdir(exist_ok=True)
    # The description goes first and comes last: an array without one is not read.
    path.with_suffix(".json").unlink(missing_ok=True)
    np.save(path, rows)
    text = to_json({**made, "manifest": folder.checksum}, sort_keys=True)
    write_text(path.with_suffix(".json"), text)
    return path


def read(folder: Folder, name: str) -> Float[ndarray, "stay dim"]:
    """Reads what :func:`save` wrote: a row a stay of the folder, NaN where the modality is absent.

    Raises:
        InputError: If there are none, or they are of other data.
    """
    path = folder.root / EMBEDDINGS / f"{name}.npy"
    try:
        of = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["manifest"]
        values = np.array(open_memmap(path, mode="r"), np.float32)
    except FileNotFoundError:
        raise InputError(f"{path}: no embeddings of {name!r}; run cm2 embed first") from None
    except (OSError, *DAMAGED):
        raise InputError(f"{path}: not readable; run cm2 embed again") from None
    if of != folder.checksum:
        raise InputError(f"{path}: made of other data than these; run cm2 embed again")
    if values.ndim != 2 or len(values) != len(folder.stays):
        raise InputError(
            f"{path}: needs a row for each of {len(folder.stays)} stays, but its shape is"
            f" {values.shape}; run cm2 embed again"
        )
    return np.asarray(values)
