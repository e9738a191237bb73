"""Prepared clinical data as batches: the torch side of ``cm2 prepare``.

Series and images are indexed by whole batches; images stay on disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from cm2.core.errors import InputError
from cm2.core.records import Batch
from cm2.samples.embeddings import Embedding
from cm2.samples.events import Events
from cm2.samples.folder import Folder
from cm2.samples.readers import Image, Reader, Series, Tabular
from cm2.samples.selection import chosen, classes, outcomes, select
from cm2.samples.texts import Text

__all__ = ["Prepared"]


class Prepared(Dataset[Batch]):
    """The stays of a split, handed out in whole batches.

    Series come as ``Padded`` numbers, text as ``Padded`` token numbers (stay, chunk, token), images
    as bytes, tables and embeddings as numbers, measurements as ``Events``. The hours of chunks and
    images stand in ``hours`` of the batch. Tables are standardised by the training split, a
    missing number is its mean, and columns with missing numbers have a flag; what a row holds for
    an absent modality is zeros.

    Args:
        root: Folder that ``cm2 prepare`` wrote.
        modalities: Which, in the order of the model; None for all, series first, then by name.
            ``"events"`` are the measurements of which the series were made, where the folder has
            them; a stay has them if it has the series, and they are read if they are named.
        setting: ``"partial"`` takes the stays with the first modality, whatever else they have;
            ``"paired"`` those with all of them.
        missing_rate: Share of the modalities that is removed at random. What is removed depends on
            stay and seed only, and what is removed at a rate is removed at all higher ones.
        removable: ``"others"`` never removes the first modality, ``"any"`` leaves at least one.
        seed: Of the removal.
        split: ``"train"``, ``"validation"`` or ``"test"``; None for all.
        tokenizer: A file ``tokenizer.json``, or the folder or hub name of a model; None learns a
            small WordPiece vocabulary from the training split, once for a folder.
        tokens: Most tokens in a chunk of text.
        chunks: Most chunks of a stay; the last ones are kept.
        chunks_per_document: Most chunks of a document, the first ones; None for all. The reference
            is 1, with 5 chunks of 512 tokens.
        fitted_on: Folder whose training split gives scales and vocabulary, such as the one that a
            model was trained on; None for ``root``.
        embedded: Modalities whose encoder has run before; see ``cm2.samples.embeddings``.
        vocabularies: Of each modality that is text the tokenizer as JSON, such as those of a
            trained model, in place of ``tokenizer``.
        learned: What an earlier reading learned from a training split, as its attribute of this
            name says it, such as that of a trained model; in place of ``fitted_on``.
        labelled: Whether stays whose outcome is not known are left out.
        verify: Whether files are checked against their checksums.

    Attributes:
        modalities: Names, in the order of ``present``.
        stays: The stays, in the order of rows.
        present: Which modalities each stay has, after removal.
        target: The label of each stay, or its zeros and ones where several may hold together; None
            where one is not known.
        shape: Arguments of each modality's encoder that follow from the data.
        vocabularies: Of each modality that is text its tokenizer, as JSON.
        learned: What was learned from the training split, as JSON: classes, labels, and of each
            modality its kind and scales. Neither a row of the data nor an identifier.
        variables: What each number of ``Events.variable`` stands for: ``name``, and the ``mean``
            and ``deviation`` by which values were scaled; None if events are not read.
        classes: Number of classes; two for each of several labels.
        labels: Names of labels that may hold together; empty where a stay is of one class.
        checksum: Of the folder's manifest.
        synthetic: Whether the data were generated.

    Raises:
        InputError: If the folder is not whole, or a name or number cannot be used.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        modalities: Sequence[str] | None = None,
        setting: Literal["partial", "paired"] = "partial",
        missing_rate: int | float = 0.0,
        removable: Literal["others", "any"] = "others",
        seed: int = 0,
        split: str | None = "train",
        tokenizer: str | Path | None = None,
        tokens: int = 512,
        chunks: int = 8,
        chunks_per_document: int | None = None,
        fitted_on: str | Path | None = None,
        embedded: Sequence[str] = (),
        vocabularies: Mapping[str, str] | None = None,
        learned: Mapping[str, Any] | None = None,
        labelled: bool = False,
        verify: bool = True,
    ) -> None:
        folder = Folder(root, verify=verify)
        self.modalities = chosen(folder, modalities, embedded)
        fit = None
        if learned is None:
            fit = folder if fitted_on is None else Folder(fitted_on, verify=verify)
            chosen(fit, self.modalities)
            learned = _learned(fit, self.modalities, embedded)
        self.learned = dict(learned)
        self.checksum = folder.checksum
        self.synthetic = folder.synthetic
        self.source = str(folder.manifest.get("source", ""))
        self.labels = tuple(self.learned["labels"])
        self.classes = max(int(self.learned["classes"]), classes(folder))
        taken = select(
            folder,
            self.modalities,
            labels=self.labels,
            setting=setting,
            missing_rate=missing_rate,
            removable=removable,
            seed=seed,
            split=split,
            labelled=labelled,
        )
        self.stays: pd.DataFrame = taken.stays
        self._ids = taken.ids
        text = {
            "tokenizer": tokenizer,
            "length": tokens,
            "chunks": chunks,
            "per_document": chunks_per_document,
        }
        given = vocabularies or {}
        self._readers = {
            name: _reader(
                folder,
                name,
                self._ids,
                _kind(folder, name, embedded),
                self.learned["modalities"],
                text | {"vocabulary": given.get(name), "fit": fit},
            )
            for name in self.modalities
        }
        for column, (name, reader) in enumerate(self._readers.items()):
            folder.check_whole(name, taken.has[:, column], reader.has)
        self.shape = {name: reader.shape for name, reader in self._readers.items()}
        self.vocabularies = {
            name: reader.vocabulary
            for name, reader in self._readers.items()
            if isinstance(reader, Text)
        }
        events = [reader for reader in self._readers.values() if isinstance(reader, Events)]
        self.variables: pd.DataFrame | None = events[0].variables if events else None
        self._present = taken.present
        self.present: Bool[Tensor, "stay modality"] = torch.from_numpy(self._present)
        found = outcomes(self.stays, self.labels)
        self.target = None if found is None else torch.tensor(found)

    def __len__(self) -> int:
        """Returns the number of stays."""
        return len(self._ids)

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor | ndarray) -> Batch:
        """Returns the batch of the given rows; one row number gives a batch of one."""
        if not isinstance(rows, slice):
            rows = np.atleast_1d(np.asarray(rows, np.int64))
        index = np.arange(len(self))[rows]
        picked = torch.from_numpy(index)
        asked = {
            name: np.where(self._present[index, column], index, -1)
            for column, name in enumerate(self.modalities)
        }
        hours = {name: self._readers[name].hours(rows) for name, rows in asked.items()}
        return Batch(
            inputs={name: self._readers[name].take(rows) for name, rows in asked.items()},
            present=self.present[picked],
            target=None if self.target is None else self.target[picked],
            rows=picked,
            hours={name: hour for name, hour in hours.items() if hour is not None},
        )


READERS: dict[str, type[Reader]] = {
    "series": Series,
    "tabular": Tabular,
    "text": Text,
    "image": Image,
    "events": Events,
    "embedding": Embedding,
}


def _kind(folder: Folder, name: str, embedded: Sequence[str]) -> str:
    """How a modality is read, which is another way if its encoder has run before."""
    kind = str(folder.facts(name)["kind"])
    if kind not in READERS:
        raise InputError(f"{folder.root}: modality {name!r} is of the unknown kind {kind!r}")
    return "embedding" if name in embedded else kind


def _learned(fit: Folder, modalities: Sequence[str], embedded: Sequence[str]) -> dict[str, Any]:
    """What the training split of a folder gives to reading: ``Prepared.learned``."""
    kinds = {name: _kind(fit, name, embedded) for name in modalities}
    return {
        "classes": classes(fit),
        "labels": list(fit.labels),
        "modalities": {
            name: {"kind": kind, "learned": READERS[kind].learn(fit, name)}
            for name, kind in kinds.items()
        },
    }


def _reader(
    folder: Folder,
    name: str,
    stays: Int[ndarray, " stay"],
    kind: str,
    learned: Mapping[str, Any],
    text: dict[str, Any],
) -> Reader:
    if name not in learned:
        raise InputError(f"nothing was learned of a modality {name!r}, but of {list(learned)}")
    if learned[name]["kind"] != kind:
        raise InputError(
            f"{folder.root}: modality {name!r} is of the kind {kind!r}, but was"
            f" {learned[name]['kind']!r} in the training"
        )
    if kind == "text":
        return Text(folder, name, stays, **text)
    if kind in ("image", "embedding"):
        return (Image if kind == "image" else Embedding)(folder, name, stays)
    scaled: Any = READERS[kind]
    reader: Reader = scaled(folder, name, stays, learned[name]["learned"])
    return reader
