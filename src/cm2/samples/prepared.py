"""Prepared clinical data as batches: the torch side of ``cm2 prepare``.

The stays of a folder (:mod:`.stays`), read as all samples are (:mod:`.inputs`), in whole batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cm2.core.errors import InputError
from cm2.samples.batches import ArrayDataset
from cm2.samples.inputs import Reader
from cm2.samples.kinds import LearnedEvents, LearnedText
from cm2.samples.kinds.events import UNSEEN
from cm2.samples.stays import Stays

__all__ = ["Fitted", "Prepared"]


class Fitted(NamedTuple):
    """What was learned from training stays, with which others are read.

    Attributes:
        reader: Scales, columns, variables and vocabularies.
        labels: Names of labels that may hold together; empty where a stay is of one class.
        classes: Number of classes.
    """

    reader: Reader
    labels: tuple[str, ...]
    classes: int


class Prepared(ArrayDataset):
    """The stays of a split, handed out in whole batches.

    Series come as ``Padded`` numbers, text as ``Padded`` token numbers (stay, chunk, token), images
    as bytes, tables and embeddings as numbers, measurements as ``Events``. The hours of chunks and
    images stand in ``hours`` of the batch. Scales, vocabularies and what flags a gap are learned
    from the training stays, as :class:`~cm2.samples.inputs.Reader` does it for all samples; what a
    row holds for an absent modality is zeros. Images stay on disk.

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
        scaling: ``"robust"``, or ``"standard"`` for mean and deviation, as in the paper.
        fitted_on: Folder whose training stays are learned from, such as the one that a model was
            trained on; None for ``root``.
        embedded: Modalities whose encoder has run before; see ``cm2.samples.embeddings``.
        learned: What was learned before, as the attribute of this name has it, in place of
            ``fitted_on``. Of its modalities those that are not named are missing.
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
        learned: What was learned from the training stays, none of which are in it.
        variables: What each number of ``Events.variable`` stands for, ``None`` for padding and for
            what training has not seen; no list if events are not read.
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
        scaling: Literal["robust", "standard"] = "robust",
        fitted_on: str | Path | None = None,
        embedded: Sequence[str] = (),
        learned: Fitted | None = None,
        labelled: bool = False,
        verify: bool = True,
    ) -> None:
        if chunks < 1:
            raise InputError(f"a stay needs room for a chunk, but chunks is {chunks}")
        taken: dict[str, Any] = {
            "setting": setting,
            "missing_rate": missing_rate,
            "removable": removable,
            "seed": seed,
            "embedded": embedded,
            "verify": verify,
        }
        own = blocks = None
        if learned is None:
            text = {
                "tokenizer": tokenizer,
                "tokens": tokens,
                "chunks": chunks,
                "chunks_per_document": chunks_per_document,
            }
            home = root if fitted_on is None else fitted_on
            training = Stays.open(home, split="train", modalities=modalities, **taken)
            reader = Reader(options={n: text | {"scaling": scaling} for n in training.modalities})
            try:
                blocks = reader.fit_blocks(training.samples, patients=training.samples.groups)
            except ValueError as error:
                raise InputError(f"{home}: {error}") from error
            learned = Fitted(reader, training.labels, training.classes)
            own = training if split == "train" and home == root and not labelled else None
        if own is None or blocks is None:
            own = Stays.open(
                root,
                split=split,
                modalities=learned.reader.names_ if modalities is None else modalities,
                labels=learned.labels,
                classes=learned.classes,
                labelled=labelled,
                **taken,
            )
            try:
                blocks = learned.reader.blocks(own.samples)
            except ValueError as error:
                raise InputError(f"{root}: {error}") from error
        super().__init__(blocks.raw, blocks.present, own.target)
        self.learned = learned
        self.modalities = tuple(blocks.names)
        self.stays = own.stays
        self.shape = blocks.shapes
        self.classes = own.classes
        self.labels = own.labels
        self.checksum = own.checksum
        self.synthetic = own.synthetic
        self.source = own.source

    @property
    def vocabularies(self) -> dict[str, str]:
        """Of each modality that is text its tokenizer, as JSON."""
        known = self.learned.reader.learned_
        return {n: one.vocabulary_ for n, one in known.items() if isinstance(one, LearnedText)}

    @property
    def variables(self) -> list[str | None]:
        """What each number of ``Events.variable`` stands for."""
        for one in self.learned.reader.learned_.values():
            if isinstance(one, LearnedEvents):
                return [None] * (UNSEEN + 1) + one.names_
        return []
