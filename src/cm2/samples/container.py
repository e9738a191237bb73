"""What is learned from and predicted: samples with their modalities, which may be missing.

scikit-learn counts the keys of a dict where it means samples, so a dict cannot be cross-validated;
``Samples`` can be indexed as an array is, and its rows keep their patients and outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool
from numpy import ndarray

from cm2.core import given
from cm2.core.errors import InputError
from cm2.core.registry import hint
from cm2.samples import opened, selection, tables, targets
from cm2.samples.folder import Folder
from cm2.samples.kinds import column, kind_of

Groups = Mapping[str, Any]
"""Columns of each modality in one two-dimensional array: slices, positions or column names."""


class Samples:
    """Samples by modality, of any kind.

    A modality is an array or DataFrame (samples, columns), a list of arrays (steps, variables) or
    one array (samples, steps, variables), a list of texts, a list of images (paths, PIL images or
    arrays of uint8), or embeddings. ``None``, or NaN throughout, means that a sample lacks it.
    Kinds are found by looking: strings are text unless each names an image file that exists. Names
    of files that lead nowhere are refused, since a vocabulary must not be learned of paths. A
    modality that all samples lack shows no kind, and needs one.

    Arrays of float64 (series and tables), of uint8 (images) and texts are held as they are, without
    a copy; frames and other numbers as float64 beside what was given. Images given by path stay on
    disk.

    Args:
        X: The modalities by name; or one array, whose columns are those of ``modalities``.
        kinds: Kinds of modalities where they should not be found by looking: ``"table"``,
            ``"series"``, ``"text"``, ``"image"`` or ``"embedding"``.
        ids: Name of each sample.
        groups: Patient of each sample, if some have several.
        y: Outcomes.
        modalities: Columns of each modality, if ``X`` is one array.

    Attributes:
        columns: The modalities.
        present: Which modalities each sample has.
        kinds: Their kinds.
        shape: Number of samples and of modalities.
        index: Of the frames or series that were given, if any were.

    Raises:
        ValueError: If modalities differ in their samples, or one cannot be read.

    Example:
        >>> S = Samples({"labs": np.zeros((3, 2)), "notes": ["cough", None, "fever"]}, y=[0, 1, 1])
        >>> S
        Samples(3 samples: labs (table), notes (text, 2))
        >>> S[1:].y.tolist()
        [1, 1]
    """

    index: pd.Index | None = None  # also of samples that were pickled when they had none

    def __init__(
        self,
        X: Any,
        *,
        kinds: Mapping[str, str] | None = None,
        ids: Any = None,
        groups: Any = None,
        y: Any = None,
        modalities: Groups | None = None,
    ) -> None:
        parts = _parts(X, modalities)
        kinds = kinds or {}
        for name in kinds:
            if name not in parts:
                raise ValueError(unknown(name, list(parts), "X has"))
        self.columns = {
            name: column(name, values, kinds.get(name)) for name, values in parts.items()
        }
        self.index = self._checked(parts)
        self.ids = self._told("ids", ids)
        self.groups = self._told("groups", groups)
        if self.groups is not None:
            targets.check_known(self.groups)
        self.y = self._told("y", y)

    @classmethod
    def open(
        cls,
        root: str | Path,
        modalities: Sequence[str] | None = None,
        split: str | Sequence[str] | None = None,
        *,
        setting: Literal["partial", "paired"] = "partial",
        missing_rate: int | float = 0.0,
        removable: Literal["others", "any"] = "others",
        seed: int = 0,
        embedded: Sequence[str] = (),
        labelled: bool = False,
        verify: bool = True,
    ) -> Samples:
        """The stays of a folder that ``cm2 prepare`` wrote, in the units of measurement.

        ``ids`` are the stays, ``groups`` the patients, and ``y`` the classes, or zeros and ones in
        a column a label; ``None`` where an outcome is not known. Scales of the folder are undone:
        what reads samples learns its own. A gap in a series is filled, as it was in preparing;
        masks and columns of zeros and ones stay. Images stay on disk until they are read.

        Args:
            root: The folder.
            modalities: Which, in this order; all if ``None``, series first, then by name.
            split: ``"train"``, ``"validation"`` or ``"test"``, or several of them; all if ``None``.
            setting: ``"partial"`` takes the stays with the first modality, whatever else they have;
                ``"paired"`` those with all of them.
            missing_rate: Share of the modalities that is removed at random. What is removed depends
                on stay and seed only, and what is removed at a rate is removed at all higher ones.
            removable: ``"others"`` never removes the first modality, ``"any"`` leaves at least one.
            seed: Of the removal.
            embedded: Modalities whose encoder has run before, by ``cm2 embed``.
            labelled: Whether stays whose outcome is not known are left out.
            verify: Whether files are checked against their checksums.

        Raises:
            InputError: If the folder is not whole, or a name or number cannot be used.
        """
        return cls.of(
            Folder(root, verify=verify),
            modalities,
            split,
            setting=setting,
            missing_rate=missing_rate,
            removable=removable,
            seed=seed,
            embedded=embedded,
            labelled=labelled,
        )

    @classmethod
    def of(
        cls,
        folder: Folder,
        modalities: Sequence[str] | None = None,
        split: str | Sequence[str] | None = None,
        *,
        setting: str = "partial",
        embedded: Sequence[str] = (),
        labelled: bool = False,
        **removal: Any,
    ) -> Samples:
        """The stays of a folder that has been opened; see :meth:`open`."""
        names = selection.chosen(folder, modalities, embedded)
        taken = selection.select(
            folder,
            names,
            labels=folder.labels,
            setting=setting,
            split=split,
            labelled=labelled,
            **removal,
        )
        if not len(taken.stays):
            outcome = " and a label" if labelled else ""
            raise InputError(
                f"{folder.root}: no stay of {split or 'any split'} has {names[0]!r}{outcome} "
                f"in the setting {setting!r}"
            )
        return cls(
            opened.columns(folder, names, taken, embedded),
            ids=taken.ids,
            groups=taken.stays["subject_id"].to_numpy(),
            y=selection.outcomes(taken.stays, folder.labels),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples and of modalities."""
        return len(next(iter(self.columns.values()))), len(self.columns)

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each modality."""
        return {name: kind_of(one) for name, one in self.columns.items()}

    @property
    def present(self) -> Bool[ndarray, "n modality"]:
        """Which modalities each sample has."""
        return np.stack([one.present for one in self.columns.values()], axis=1)

    def to_learn(
        self, y: Any, sample_weight: Any, groups: Any, *, class_weight: Any, constant: bool
    ) -> targets.Targets:
        """What is to be learned of the samples, checked.

        Args:
            y: Labels; those of the samples if not given. So with groups.
            sample_weight: Weights, if there are any.
            groups: Patients.
            class_weight: Weights of the classes, as in scikit-learn.
            constant: Whether one of several labels may be the same for every sample.

        Raises:
            ValueError: If one cannot be used; the error says which and why.
        """
        rows = len(self)
        for name, one in {"y": y, "sample_weight": sample_weight, "groups": groups}.items():
            given.check_index(name, one, self.index, "X")
        labels = targets.checked_labels(self.y if y is None else y, rows)
        weight = targets.checked_weights(sample_weight, rows)
        kept = np.flatnonzero(weight > 0)
        codes, classes = targets.encoded(labels[kept], constant=constant)
        weight = targets.weighted(weight[kept], codes, classes, class_weight)
        groups = self.groups if groups is None else groups
        if groups is not None:
            groups = targets.checked_groups(groups, rows)[kept]
        return targets.Targets(kept, codes, classes, weight, groups)

    def __len__(self) -> int:
        """Returns the number of samples."""
        return self.shape[0]

    def __getitem__(self, key: Any) -> Samples:
        """Returns some of the samples: a slice, positions or a mask; also as ``S[rows, ...]``."""
        if isinstance(key, tuple):
            key, *rest = key
            if rest != [...]:
                raise IndexError("samples are chosen by rows, as S[rows] or S[rows, ...]")
        rows = np.atleast_1d(np.arange(len(self))[key])
        part = object.__new__(Samples)
        part.columns = {name: whole.take(rows) for name, whole in self.columns.items()}
        part.index = None if self.index is None else self.index[rows]
        part.ids, part.groups, part.y = (
            None if told is None else told[rows] for told in (self.ids, self.groups, self.y)
        )
        return part

    def __repr__(self) -> str:
        """Returns kinds and, where they are not all, how many samples have a modality."""
        named = []
        for (name, one), kind in zip(self.columns.items(), self.kinds.values(), strict=True):
            count = int(one.present.sum())
            named.append(f"{name} ({kind}{'' if count == len(self) else f', {count}'})")
        return f"Samples({len(self)} samples: {', '.join(named)})"

    def _checked(self, parts: Mapping[str, Any]) -> pd.Index | None:
        """The index of the modalities, if all of them have the same samples in the same order."""
        lengths = {name: len(one) for name, one in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"modalities have different numbers of rows: {lengths}")
        indexed = {k: t for k, t in parts.items() if isinstance(t, pd.DataFrame)}
        if not indexed:
            return None
        first = next(iter(indexed))
        index, whose = indexed[first].index, f"modality {first!r}"
        for name, one in parts.items():
            given.check_index(f"modality {name!r}", one, index, whose)
        for name, one in indexed.items():
            if not one.index.equals(index):
                raise ValueError(f"the index of modality {name!r} differs from that of {whose}")
        return index

    def _told(self, name: str, values: Any) -> ndarray | None:
        if values is None:
            return None
        given.check_index(name, values, self.index, "X")
        array = given.told(name, values)
        if array.shape[:1] != (len(self),):
            raise ValueError(
                f"{name} has the shape {array.shape}, but there are {len(self)} samples"
            )
        return array


def samples(X: Any, kinds: Mapping[str, str] | None = None, modalities: Any = None) -> Samples:
    """What a user gave as samples; those that are samples already stay as they are."""
    return X if isinstance(X, Samples) else Samples(X, kinds=kinds, modalities=modalities)


def _parts(X: Any, modalities: Groups | None) -> dict[str, Any]:
    """The modalities of what the user gave."""
    if not tables.is_dict(X):
        tables.check_dimensions(X, "X")
        X = tables.as_table(X)
        return {"features": X} if modalities is None else tables.parted(X, modalities)
    if modalities is not None:
        raise ValueError("`modalities` names the columns of one two-dimensional X, but X is a dict")
    if not X:
        raise ValueError("X has no modality")
    return dict(X)


def unknown(name: object, known: list[str], who: str) -> str:
    """What is said of a modality that is not known, with the nearest one that is."""
    return f"unknown modality {name!r}{hint(name, known)} {who}: {', '.join(known)}"
