"""Stays of a prepared folder in whole batches, by what is learned from its training stays."""

from pathlib import Path
from typing import Any

from cm2.core.errors import InputError
from cm2.samples.batches import ArrayDataset
from cm2.samples.inputs import Reader
from cm2.samples.kinds import LearnedEvents, LearnedText
from cm2.samples.kinds.events import UNSEEN
from cm2.samples.stays import Stays

READING = ("scaling", "tokenizer", "tokens", "chunks", "chunks_per_document")


def fitted(root: str | Path, modalities: Any = None, **options: Any) -> Reader:
    """A reader fitted to the training stays of a folder."""
    read = {key: options.pop(key) for key in READING if key in options}
    train = Stays.open(root, split="train", modalities=modalities, **options).samples
    reader = Reader(options=dict.fromkeys(train.columns, read))
    try:
        reader.fit_blocks(train, patients=train.groups)
    except ValueError as error:
        raise InputError(f"{root}: {error}") from error
    return reader


class Prepared(ArrayDataset):
    """The stays of a split in whole batches, read with ``reader`` or one fitted to ``fitted_on``.

    What the batches hold is what networks are trained on.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        modalities: Any = None,
        split: str | None = "train",
        fitted_on: str | Path | None = None,
        reader: Reader | None = None,
        labelled: bool = False,
        labels: Any = None,
        **options: Any,
    ) -> None:
        home = fitted_on or root
        self.reader = reader or fitted(home, modalities, **options)
        options = {key: value for key, value in options.items() if key not in READING}
        names = self.reader.names_ if modalities is None else modalities
        opened = Stays.open(
            root, split=split, modalities=names, labelled=labelled, labels=labels, **options
        )
        blocks = self.reader.blocks(self.reader.check(opened.samples))
        super().__init__(blocks.raw, blocks.present, opened.target)
        self.stays, self.classes, self.labels = opened.stays, opened.classes, opened.labels
        self.modalities, self.shape = tuple(blocks.names), blocks.shapes

    @property
    def vocabularies(self) -> dict[str, str]:
        """Of each modality that is text its tokenizer, as JSON."""
        known = self.reader.learned_
        return {n: one.vocabulary_ for n, one in known.items() if isinstance(one, LearnedText)}

    @property
    def variables(self) -> list[str | None]:
        """What each number of ``Events.variable`` stands for."""
        for one in self.reader.learned_.values():
            if isinstance(one, LearnedEvents):
                return [None] * (UNSEEN + 1) + one.names_
        return []
