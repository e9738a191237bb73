"""Texts: one a sample, or several documents in their order."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from cm2.core.records import Padded
from cm2.samples import tokens, vocabulary
from cm2.samples.kinds import paths
from cm2.samples.kinds.base import Column, Inputs, Learned, Listed, entries, register
from cm2.samples.ragged import NEVER, Ragged
from cm2.samples.texts import Documents

CHUNKS = 8
"""Most chunks of a sample; the last ones are kept."""

TOKENS = 128
"""Most tokens of a chunk, unless the encoder says otherwise."""


class Tokens(Inputs):
    """Texts as token numbers, in chunks.

    Args:
        chunks: The number of each chunk of all samples, ``-1`` for none.
        tokens: The tokens of each chunk.
        size: Of the vocabulary.
        rows: Which of the samples these are.
        hours: When each chunk is from; ``None`` if that is not known.
    """

    def __init__(
        self,
        chunks: Ragged,
        tokens: Ragged,
        size: int,
        rows: Int[ndarray, " row"],
        hours: Float[ndarray, " chunk"] | None = None,
    ) -> None:
        self.shape = {"vocabulary": size}
        self._chunks = chunks
        self._tokens = tokens
        self._rows = np.append(rows, -1)
        self._hours = None if hours is None else np.append(hours, NEVER)

    def take(self, rows: Int[ndarray, " batch"]) -> Padded:
        chunks, _ = self._chunks.take(self._rows[rows])
        ids, mask = self._tokens.take(chunks)
        return Padded(torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(mask))

    def hours(self, rows: Int[ndarray, " batch"]) -> Float[Tensor, "batch chunk"] | None:
        if self._hours is None:
            return None
        return torch.from_numpy(self._hours[self._chunks.take(self._rows[rows])[0]])

    def select(self, rows: Int[ndarray, " row"]) -> Tokens:
        part = copy.copy(self)
        part._rows = np.append(self._rows[rows], -1)
        return part


class LearnedText(Learned):
    """A tokenizer: that of the encoder's published weights, or one learned from training texts.

    Of the options it reads ``tokenizer`` or ``weights``, and ``tokens`` of a chunk, ``chunks`` of a
    sample and ``chunks_per_document``.

    Attributes:
        vocabulary_: The tokenizer, as JSON.
    """

    def fit(
        self,
        column: Any,
        weight: Float[ndarray, " n"] | None = None,
        patients: ndarray | None = None,
    ) -> Self:
        options = self.options or {}
        if options.get("chunks", CHUNKS) < 1:
            raise ValueError(
                f"modality {column.name!r}: a sample needs room for a chunk, but chunks is "
                f"{options['chunks']}"
            )
        source = options.get("tokenizer") or options.get("weights")
        if source is not None:
            self.vocabulary_ = tokens.load(source).to_str()
            return self
        if options.get("template"):
            raise ValueError(
                f"encoders.{column.name}: it is not known of which tokenizer an Encoder object "
                "without weights reads tokens; give its arguments as a section, such as "
                "{'kind': 'text', 'width': 32}, for which a vocabulary is learned, or one with a "
                "'tokenizer'"
            )
        owners = np.arange(len(column)) if patients is None else np.asarray(patients)
        try:
            self.vocabulary_ = column.vocabulary(owners)
        except ValueError as error:
            raise ValueError(f"modality {column.name!r}: {error}") from None
        return self

    def check(self, column: Any) -> None:
        return None

    def empty(self, rows: int) -> Column:
        return TextColumn("", [None] * rows)

    def inputs(self, column: Any, here: Bool[ndarray, " n"]) -> Inputs | None:
        options = self.options or {}
        most = options.get("chunks", CHUNKS)
        length = options.get("tokens") or TOKENS
        found, hours = column.chunks(
            here, self.vocabulary_, length, options.get("chunks_per_document")
        )
        number = np.bincount(found.texts, minlength=len(column))
        chunks = Ragged(np.arange(len(found.texts)), number)
        chunks.keep_last(most)
        chunks.flat[-1] = -1
        size = tokens.parse(self.vocabulary_).get_vocab_size()
        rows = np.arange(len(column))
        return Tokens(chunks, Ragged(found.ids, found.lengths), size, rows, hours)


@register("text")
class TextColumn(Listed):
    """A text, or a list of texts, a sample; ``None`` or blank where it is missing.

    Attributes:
        values: The documents of each sample; a folder's are read each time.
        kept: Where they are from, if vocabularies and tokens are kept there.
    """

    learned = LearnedText
    encoder = {"kind": "text", "width": 32, "layers": 1, "heads": 2, "tokens": TOKENS}

    kept: Documents | None = None

    def __init__(self, name: str, values: Any) -> None:
        listed = entries(values)
        if listed is None:
            raise ValueError(
                f"modality {name!r} is to be text, one a sample, but is a {type(values).__name__}"
            )
        documents = [_documents(name, row, one) for row, one in enumerate(listed)]
        self.keep(name, documents, [len(one) > 0 for one in documents])

    @classmethod
    def of(cls, name: str, kept: Documents, present: Bool[ndarray, " n"]) -> Self:
        """Texts of a folder, which are read only if their vocabulary or tokens are not kept."""
        column = cls(name, [None] * len(present))
        column.kept, column.present = kept, present
        return column

    @property
    def values(self) -> list[list[str]]:
        """The documents of each sample."""
        if self.kept is None:
            return self._values
        texts = zip(self.kept.texts(), self.present, strict=True)
        return [documents if there else [] for documents, there in texts]

    @values.setter
    def values(self, values: list[list[str]]) -> None:
        self._values = values

    @classmethod
    def fits(cls, values: Any) -> bool:
        listed = enumerate(entries(values) or [])
        found = [(row, text) for row, one in listed if one is not None for text in _several(one)]
        if not found or not all(isinstance(text, str) for _, text in found):
            return False
        if paths.are_images(found):
            raise ValueError("samples have lists of image files, but may have one image each")
        return True

    def take(self, rows: Int[ndarray, " row"]) -> Self:
        if self.kept is None:
            return super().take(rows)
        part = type(self).of(self.name, self.kept.take(rows), self.present[rows])
        part.rows = self.rows[rows]
        return part

    def vocabulary(self, patients: ndarray) -> str:
        """A vocabulary learned from these texts, as JSON; see :mod:`cm2.samples.vocabulary`."""

        def learn() -> str:
            documents = self.values
            owners = np.repeat(patients, [len(one) for one in documents])
            texts = [text for one in documents for text in one]
            return str(vocabulary.learn(texts, owners).to_str())

        return learn() if self.kept is None else self.kept.vocabulary(patients, learn)

    def chunks(
        self,
        here: Bool[ndarray, " n"],
        words: str,
        length: int,
        per_document: int | None,
    ) -> tuple[tokens.Chunks, Float[ndarray, " chunk"] | None]:
        """The texts in chunks, each with the row it is of, and when they are from if known.

        Args:
            here: Which samples have the modality; the others have no chunk.
            words: The tokenizer, as JSON.
            length: Most tokens of a chunk.
            per_document: Most chunks of a document, the first ones; ``None`` for all.
        """
        if self.kept is not None:
            return self.kept.chunks(here, words, length, per_document)
        known = [one if there else [] for one, there in zip(self.values, here, strict=True)]
        texts = [text for one in known for text in one]
        found = tokens.chunk(tokens.parse(words), texts, length, per_document)
        owners = np.repeat(np.arange(len(known)), [len(one) for one in known])
        return found._replace(texts=owners[found.texts]), None


def _several(value: Any) -> list[Any]:
    """The documents of a sample that has some, of which there may be none."""
    several = isinstance(value, list | tuple) or (isinstance(value, ndarray) and value.ndim > 0)
    return list(value) if several else [value]


def _documents(name: str, row: int, one: Any) -> list[str]:
    texts = [] if one is None else _several(one)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"modality {name!r}: row {row} is no text, nor a list of texts")
    return [text for text in texts if text.strip()]
