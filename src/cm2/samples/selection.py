"""Which stays of a prepared folder are taken, and which of their modalities are left.

The two settings, ``paired`` and ``partial``, are those of Wu et al. (2025), section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from numpy import ndarray

from cm2.core import removal
from cm2.core.errors import InputError
from cm2.core.layout import SPLITS
from cm2.samples.folder import Folder

__all__ = ["Selection", "chosen", "classes", "known", "outcomes", "select"]


class Selection(NamedTuple):
    """Stays of a prepared folder.

    Attributes:
        stays: The stays, in the order of the folder.
        has: Which modalities the folder says that each has.
        present: Which are left after removal.
    """

    stays: pd.DataFrame
    has: Bool[ndarray, "stay modality"]
    present: Bool[ndarray, "stay modality"]

    @property
    def ids(self) -> Int[ndarray, " stay"]:
        """The stays' identifiers."""
        return self.stays["stay_id"].to_numpy(np.int64)


def select(
    folder: Folder,
    modalities: Sequence[str],
    *,
    labels: Sequence[str],
    setting: str = "partial",
    missing_rate: int | float = 0.0,
    removable: str = "others",
    seed: int = 0,
    split: str | Sequence[str] | None = None,
    labelled: bool = False,
) -> Selection:
    """Takes stays, and removes modalities.

    Args:
        folder: The prepared data.
        modalities: Which, the first one foremost; see :func:`chosen`.
        labels: Names of labels that may hold together; empty where a stay is of one class.
        setting: ``"partial"`` takes the stays with the first modality, whatever else they have;
            ``"paired"`` those with all of them.
        missing_rate: Share of the modalities that is removed at random; see ``core.removal``.
        removable: ``"others"`` never removes the first modality, ``"any"`` leaves at least one.
        seed: Of the removal.
        split: ``"train"``, ``"validation"`` or ``"test"``, or several of them; None for all.
        labelled: Whether stays whose outcome is not known are left out.

    Raises:
        InputError: If a name or number cannot be used.
    """
    _one_of("setting", setting, ("partial", "paired"))
    _one_of("removable", removable, ("others", "any"))
    if not 0 <= missing_rate < 1:
        raise InputError(f"missing_rate should be in [0, 1), but is {missing_rate}")
    stays = folder.stays
    if split is not None:
        splits = [split] if isinstance(split, str) else list(split)
        for one in splits:
            _one_of("split", one, SPLITS)
        stays = stays.loc[stays["split"].isin(splits)]
    if labelled:
        stays = stays.loc[known(stays, labels)]
    has = folder.has(stays, modalities)
    kept = has.all(axis=1) if setting == "paired" else has[:, 0]
    stays = stays.iloc[np.flatnonzero(kept)].reset_index(drop=True)
    ids = stays["stay_id"].to_numpy(np.int64)
    left = removal.kept(has[kept], ids, modalities, missing_rate, removable, seed)
    return Selection(stays, has[kept], left)


def chosen(
    folder: Folder, modalities: Sequence[str] | None, embedded: Sequence[str] = ()
) -> tuple[str, ...]:
    """The modalities asked for, each of them there and named once; None for all."""
    names = tuple(folder.modalities if modalities is None else modalities)
    folder.check((*names, *embedded))
    if not names or len(set(names)) < len(names):
        raise InputError(f"modalities must be named, each once, but are {list(names)}")
    return names


def outcomes(stays: pd.DataFrame, labels: Sequence[str]) -> Int[ndarray, "stay ..."] | None:
    """Outcomes of stays: codes, or a column a label; None where one is not known."""
    if not set(_columns(labels)) <= set(stays) or not known(stays, labels).all():
        return None
    values = stays[_columns(labels)].to_numpy(np.int64)
    return values if labels else values[:, 0]


def classes(folder: Folder) -> int:
    """Number of classes, of the manifest or of the stays."""
    labels = folder.stays["label"].dropna()
    return max(folder.manifest.get("classes") or 2, int(labels.max()) + 1 if len(labels) else 0)


def known(stays: pd.DataFrame, labels: Sequence[str]) -> Bool[ndarray, " stay"]:
    """Of which stays the outcome, or each of several labels, is known."""
    columns = _columns(labels)
    if not set(columns) <= set(stays):
        return np.zeros(len(stays), bool)
    return stays[columns].notna().all(axis=1).to_numpy()


def _columns(labels: Sequence[str]) -> list[str]:
    return [f"label_{name}" for name in labels] or ["label"]


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name} is one of {', '.join(known)}, but is {value!r}")
