"""Files and folders: where results go, where data are, and writing in one step.

In one step means that another process finds what was there before, or all of the new.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cm2.core.errors import InputError

DAMAGED = (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading arrays by name, or JSON, raises where the file is cut short or another one."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a place beside a file to write to, which takes the file's place at the end.

    Where the writing fails, the file stays as it was, and nothing is left beside it. The place has
    a name of its own, so that of several processes the last one to end gives the file, whole.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / "a.txt") as part:
        ...         _ = part.write_text("whole")
        ...     [entry.name for entry in Path(folder).iterdir()]
        ['a.txt']
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def open_folder(out: Path, ours: Callable[[Path], bool], what: str) -> Path:
    """Makes a folder for results, before any long work.

    Args:
        out: Where, as ``--out`` names it.
        ours: Says of a folder whether it holds an earlier result; any other content is left alone.
        what: What such a result is called.

    Returns:
        The folder, which exists and can be written to.

    Raises:
        InputError: If it is a file, holds anything else, or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out names {out}, which is a file; give a folder")
    if out.is_dir() and any(out.iterdir()) and not ours(out):
        raise InputError(
            f"--out names {out}, which is not empty and holds no {what}; give a new folder"
        )
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    return out


def check_writable(out: Path) -> None:
    """Checks that a folder can be made and written, and leaves nothing behind.

    Args:
        out: The folder, which need not be there.

    Raises:
        InputError: If it cannot.
    """
    place = out.absolute()
    try:
        there = next(path for path in (place, *place.parents) if path.exists())
        with tempfile.TemporaryDirectory(dir=there, prefix=".probe"):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"--out names {out}, which cannot be written: {reason}") from error


def named_folders(words: Sequence[str], names: Sequence[str]) -> dict[str, Path]:
    """Reads the words of ``--data``, each ``NAME=DIR``.

    Args:
        words: As they were given.
        names: Those that are known.

    Raises:
        InputError: If a word is not of that form, a name unknown, or a folder not there.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, separator, folder = word.partition("=")
        if not separator or name not in names:
            raise InputError(
                f"--data takes NAME=DIR with a name of {', '.join(names)}, not {word!r}"
            )
        if not folder:
            raise InputError(f"--data {word}: no folder is named; give {name}=DIR")
        if not Path(folder).exists():
            raise InputError(f"--data {name}: there is no {folder}")
        found[name] = Path(folder)
    return found


def write_text(path: str | Path, text: str) -> None:
    """Writes a text in one step."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


def write_arrays(path: str | Path, **arrays: Any) -> None:
    """Writes arrays by name, compressed, in one step."""
    with replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)


@contextmanager
def open_arrays(path: str | Path) -> Iterator[Any]:
    """Opens what :func:`write_arrays` wrote, as a mapping; ``DAMAGED`` are the faults of it."""
    with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        yield file


def checksum(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def slug(text: str) -> str:
    """A text as part of a file's name.

    Example:
        >>> slug("AUROC, by patient")
        'auroc-by-patient'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def to_json(content: Any, **options: Any) -> str:
    """Returns JSON in lines; a number that is not finite, which JSON does not know, is null.

    Args:
        content: Of dictionaries, lists, texts and numbers.
        options: Others of ``json.dumps``.

    Example:
        >>> print(to_json({"auroc": float("nan")}), end="")
        {
          "auroc": null
        }
    """
    return json.dumps(_finite(content), indent=2, allow_nan=False, **options) + "\n"


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content
