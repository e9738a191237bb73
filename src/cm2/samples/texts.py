"""Documents as token numbers: read with one vocabulary, made once, and kept beside the data.

``tokens/`` in a prepared folder holds vocabularies learned from its training split and the tokens
of its texts. The names of files tell what they were made of, so that nothing old is read, and all
of it may be deleted; where it cannot be written it is made anew each time, the same.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from cm2.core.errors import InputError
from cm2.core.files import replacing, write_text
from cm2.core.layout import TOKENS
from cm2.core.records import Padded
from cm2.samples import tokens, vocabulary
from cm2.samples.folder import Folder
from cm2.samples.readers import NEVER, Ragged, Reader, hours_of

__all__ = ["Text", "documents"]

ALGORITHM = 1
"""Counts changes in how texts are cut into chunks."""


class Text(Reader):
    """Documents as token numbers, in chunks: ``stay_id, position, text``, sorted.

    Where the manifest says that rows are ``lines``, those of a stay are one document, whose hour is
    that of the last line.

    Attributes:
        vocabulary: The tokenizer, as JSON.

    Args:
        folder: The prepared data.
        name: Name of the modality.
        stays: The stays that are answered for, sorted.
        fit: The data from whose training split a vocabulary is learned; None if it is given.
        vocabulary: A tokenizer as JSON, such as that of a trained model.
        tokenizer: In its place, as ``tokens.load`` takes it; None for both learns a vocabulary.
        length: Most tokens in a chunk.
        chunks: Most chunks of a stay; the last ones are kept.
        per_document: Most chunks of a document, the first ones; None for all.
    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        stays: Int[ndarray, " stay"],
        fit: Folder | None,
        *,
        vocabulary: str | None = None,
        tokenizer: str | Path | None = None,
        length: int = 512,
        chunks: int = 8,
        per_document: int | None = None,
    ) -> None:
        if chunks < 1:
            raise InputError(f"a stay needs room for a chunk, but chunks is {chunks}")
        if vocabulary is not None:
            self.vocabulary = vocabulary
        elif tokenizer is not None:
            self.vocabulary = tokens.load(tokenizer).to_str()
        elif fit is not None:
            self.vocabulary = _learned(fit, name)
        else:
            raise InputError(
                f"modality {name!r} is text: what was learned needs its vocabulary in vocabularies"
            )
        self.shape = {"vocabulary": tokens.parse(self.vocabulary).get_vocab_size()}
        found = _made(folder, name, self.vocabulary, length, per_document).of(stays)
        number = np.bincount(np.searchsorted(stays, found.stays), minlength=len(stays))
        self.has = number > 0
        self._chunks = Ragged(np.arange(len(found.stays)), number)
        self._chunks.keep_last(chunks)
        self._chunks.flat[-1] = -1
        self._tokens = Ragged(found.ids, found.lengths)
        self._hours = None if found.hours is None else np.append(found.hours, NEVER)

    def take(self, rows: Int[ndarray, " batch"]) -> Padded:
        chunks, _ = self._chunks.take(rows)
        ids, mask = self._tokens.take(chunks)
        return Padded(torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(mask))

    def hours(self, rows: Int[ndarray, " batch"]) -> Float[Tensor, "batch chunk"] | None:
        if self._hours is None:
            return None
        return torch.from_numpy(self._hours[self._chunks.take(rows)[0]])


class Made(NamedTuple):
    """All chunks of a folder's texts, in the order of stays and documents.

    Attributes:
        ids: Token numbers of all chunks.
        lengths: Tokens in each chunk.
        stays: Whose each chunk is.
        hours: When it is from; None if that is not known.
    """

    ids: Int[ndarray, " token"]
    lengths: Int[ndarray, " chunk"]
    stays: Int[ndarray, " chunk"]
    hours: Float[ndarray, " chunk"] | None

    def of(self, stays: Int[ndarray, " stay"]) -> Made:
        """Returns the chunks of some stays."""
        kept = np.isin(self.stays, stays)
        return Made(
            np.asarray(self.ids[np.repeat(kept, self.lengths)]),
            self.lengths[kept],
            self.stays[kept],
            None if self.hours is None else self.hours[kept],
        )

    def write(self, path: Path) -> None:
        """Writes the tokens, and then the table of chunks, without which they do not count."""
        with replacing(path.with_suffix(".npy")) as part, part.open("wb") as file:
            np.save(file, self.ids)
        known = {"length": self.lengths, "stay_id": self.stays, "hour": self.hours}
        frame = pd.DataFrame({name: column for name, column in known.items() if column is not None})
        with replacing(path) as part:
            frame.to_parquet(part, index=False)

    @classmethod
    def read(cls, path: Path) -> Made:
        """Reads what ``write`` wrote; the tokens stay on disk."""
        try:
            frame = pd.read_parquet(path)
            ids = np.load(path.with_suffix(".npy"), mmap_mode="r")
            lengths, stays = frame["length"].to_numpy(), frame["stay_id"].to_numpy()
            hours = frame["hour"].to_numpy() if "hour" in frame else None
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, EOFError):
            raise InputError(f"{path}: not readable; delete {path.parent}") from None
        if lengths.sum() != len(ids):
            raise InputError(f"{path}: does not fit the tokens beside it; delete {path.parent}")
        return cls(ids, lengths, stays, hours)


def _made(folder: Folder, name: str, words: str, length: int, per_document: int | None) -> Made:
    """The tokens of all texts of a folder: those that are kept, or new ones, then kept."""
    made_of = {
        "algorithm": ALGORITHM,
        "vocabulary": hashlib.sha256(words.encode()).hexdigest(),
        "texts": _checksum(folder, name),
        "lines": bool(folder.modalities[name].get("lines", False)),
        "tokens": length,
        "chunks_per_document": per_document,
    }
    path = _place(folder, name, made_of, "parquet")
    try:
        return Made.read(path)
    except FileNotFoundError:
        pass
    frame, hours = documents(folder, name)
    found = tokens.chunk(tokens.parse(words), frame["text"].tolist(), length, per_document)
    owners = frame["stay_id"].to_numpy(np.int64)[found.texts]
    new = Made(found.ids, found.lengths, owners, None if hours is None else hours[found.texts])
    _keep(path, new.write)
    return new


def documents(folder: Folder, name: str) -> tuple[pd.DataFrame, Float[ndarray, " document"] | None]:
    """Documents of a folder in the order of stays and positions, and their hours."""
    lines = bool(folder.modalities[name].get("lines", False))
    file = folder.modalities[name]["file"]
    frame = folder.table(file, ["stay_id", "position", "text"])
    hours = hours_of(frame, folder.root / file)
    frame["hour"] = np.float32(0.0) if hours is None else hours
    frame = frame.sort_values(["stay_id", "position"])
    if lines:
        groups = frame.groupby("stay_id")
        joined = {"text": groups["text"].agg("\n".join), "hour": groups["hour"].max()}
        frame = pd.DataFrame(joined).reset_index()
    return frame, None if hours is None else frame["hour"].to_numpy(np.float32)


def _learned(folder: Folder, name: str) -> str:
    """The vocabulary of the training texts: that which is kept, or a new one, then kept."""
    made_of = {
        **vocabulary.OPTIONS,
        "texts": _checksum(folder, name),
        "stays": folder.manifest["files"]["stays.parquet"],
    }
    path = _place(folder, name, made_of, "json")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _learn(path, name, folder)


def _learn(path: Path, name: str, folder: Folder) -> str:
    frame = folder.table(folder.modalities[name]["file"], ["stay_id", "text"])
    train = folder.stays.loc[folder.stays["split"] == "train"].set_index("stay_id")["subject_id"]
    frame = frame[frame["stay_id"].isin(train.index)]
    patients = train.loc[frame["stay_id"]].to_numpy()
    try:
        text = vocabulary.learn(frame["text"].tolist(), patients).to_str()
    except InputError as error:
        raise InputError(f"{folder.root}, modality {name!r}: {error}") from None
    _keep(path, lambda place: write_text(place, text))
    return text


def _checksum(folder: Folder, name: str) -> str:
    """The checksum of a modality's file, which is compared with the file itself."""
    file = folder.modalities[name]["file"]
    folder.path(file)
    return str(folder.manifest["files"][file])


def _place(folder: Folder, name: str, made_of: Mapping[str, Any], ending: str) -> Path:
    text = json.dumps(made_of, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return folder.root / TOKENS / f"{name}-{key}.{ending}"


def _keep(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file if that is possible."""
    try:
        path.parent.mkdir(exist_ok=True)
        write(path)
    except OSError as error:
        warnings.warn(
            f"{path.parent}: cannot be written to ({error.strerror}), so that texts are read anew"
            " each time",
            stacklevel=2,
        )
