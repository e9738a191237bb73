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
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from cm2.core.errors import InputError
from cm2.core.files import DAMAGED, replacing, write_text
from cm2.core.layout import TOKENS
from cm2.samples import tokens, vocabulary
from cm2.samples.folder import Folder, hours_of

__all__ = ["Documents"]

ALGORITHM = 2
"""Counts changes in how texts are cut into chunks."""


class Documents:
    """The texts of some stays of a folder, beside which vocabularies and tokens are kept.

    Args:
        folder: The prepared data.
        name: Name of the modality.
        stays: The stays, in any order.
    """

    def __init__(self, folder: Folder, name: str, stays: Int[ndarray, " stay"]) -> None:
        self._folder = folder
        self._name = name
        self._stays = stays

    def take(self, rows: Int[ndarray, " row"]) -> Documents:
        """Those of some of the stays."""
        return Documents(self._folder, self._name, self._stays[rows])

    def has(self) -> Bool[ndarray, " stay"]:
        """Which of the stays have any, without reading them."""
        return np.isin(self._stays, _stays(self._folder, self._name))

    def texts(self) -> list[list[str]]:
        """The documents of each stay."""
        frame, _ = documents(self._folder, self._name)
        known: dict[Any, list[str]] = frame.groupby("stay_id")["text"].agg(list).to_dict()
        return [known.get(stay, []) for stay in self._stays]

    def vocabulary(self, patients: ndarray, learn: Callable[[], str]) -> str:
        """The vocabulary of these texts: that which is kept, or a new one, then kept.

        Args:
            patients: Whose each stay is.
            learn: Makes a new one.
        """
        order = np.argsort(self._stays)
        _, first, owner = np.unique(patients[order], return_index=True, return_inverse=True)
        # Which stays are of one patient matters, and not what the patient is called.
        alike = np.argsort(np.argsort(first))[owner].astype(np.int64)
        made_of = {
            **vocabulary.OPTIONS,
            "texts": _checksum(self._folder, self._name),
            "stays": hashlib.sha256(
                self._stays[order].astype(np.int64).tobytes() + alike.tobytes()
            ).hexdigest(),
        }
        path = _place(self._folder, self._name, made_of, "json")
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            text = learn()
        _keep(path, lambda place: write_text(place, text))
        return text

    def chunks(
        self,
        here: Bool[ndarray, " stay"],
        words: str,
        length: int,
        per_document: int | None = None,
    ) -> tuple[tokens.Chunks, Float[ndarray, " chunk"] | None]:
        """The chunks of these stays, each with the row it is of, and when they are from if known.

        Args:
            here: Which of the stays are asked for; the others have no chunk.
            words: The tokenizer, as JSON.
            length: Most tokens of a chunk.
            per_document: Most chunks of a document, the first ones; None for all.
        """
        made = _made(self._folder, self._name, words, length, per_document)
        first, end = (np.searchsorted(made.stays, self._stays, side) for side in ("left", "right"))
        self._folder.check_whole(self._name, here, end > first)  # blank documents have no chunk
        number = np.where(here, end - first, 0)
        picked = _ranges(first, number)
        lengths = made.lengths[picked]
        starts = np.cumsum(made.lengths) - made.lengths
        ids = np.asarray(made.ids[_ranges(starts[picked], lengths)])
        hours = None if made.hours is None else made.hours[picked]
        return tokens.Chunks(ids, lengths, np.repeat(np.arange(len(number)), number)), hours


def _ranges(first: Int[ndarray, " part"], number: Int[ndarray, " part"]) -> Int[ndarray, " all"]:
    """So many whole numbers from each first one on, one range after the other."""
    before = np.cumsum(number) - number
    return np.arange(int(number.sum())) + np.repeat(first - before, number)


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
        except (OSError, *DAMAGED):
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
    """Documents of a folder in the order of stays and positions, and their hours; no blank ones."""
    lines = bool(folder.modalities[name].get("lines", False))
    file = folder.modalities[name]["file"]
    frame = folder.table(file, ["stay_id", "position", "text"])
    frame = frame[frame["text"].str.strip() != ""].copy()
    hours = hours_of(frame, folder.root / file)
    frame["hour"] = np.float32(0.0) if hours is None else hours
    frame = frame.sort_values(["stay_id", "position"])
    if lines:
        groups = frame.groupby("stay_id")
        joined = {"text": groups["text"].agg("\n".join), "hour": groups["hour"].max()}
        frame = pd.DataFrame(joined).reset_index()
    return frame, None if hours is None else frame["hour"].to_numpy(np.float32)


def _stays(folder: Folder, name: str) -> Int[ndarray, " document"]:
    """Whose each document of a folder is."""
    found = folder.table(folder.modalities[name]["file"], ["stay_id"], whole=False)
    return found["stay_id"].to_numpy(np.int64)


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
