"""What a prepared folder says about itself: `manifest.json`, the same bytes for the same run.

It holds counts, never a value of a patient, and no time, path or name of a machine.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cm2.core.files import checksum, to_json
from cm2.core.layout import EMBEDDINGS, FORMAT, MANIFEST, TOKENS

__all__ = [
    "checksums",
    "digest",
    "fingerprint",
    "fingerprint_of_many",
    "is_synthetic",
    "read",
    "source_version",
    "write",
]

EDGE = 1 << 16


def fingerprint(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Describes input files so that a change is noticed without reading them whole.

    Args:
        files: The file of each table.

    Returns:
        For each table its size in bytes and a digest of size, beginning and end.
    """
    return {table: _edges(path) for table, path in sorted(files.items())}


def fingerprint_of_many(root: Path, paths: Iterable[str]) -> str:
    """Describes many small files in one digest; one that is not there counts as such.

    Args:
        root: The folder of the files.
        paths: From there.
    """
    every = hashlib.blake2b(digest_size=16)
    for path in sorted(paths):
        there = (root / path).is_file()
        every.update(f"{path},{_edges(root / path)['digest'] if there else 'missing'}\n".encode())
    return every.hexdigest()


def _edges(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        digest.update(file.read(EDGE))
        file.seek(max(size - EDGE, 0))
        digest.update(file.read(EDGE))
    return {"bytes": size, "digest": digest.hexdigest()}


def digest(content: Mapping[int, str]) -> str:
    """Returns a digest of a split that was given.

    Args:
        content: The part of each patient.
    """
    lines = "".join(f"{subject},{part}\n" for subject, part in sorted(content.items()))
    return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def is_synthetic(raw: Path, files: Iterable[Path]) -> bool:
    """Tells whether raw files were made by ``cm2 synthesize``.

    A notice in the folder says so, and so does the name inside a compressed file, which stays with
    it when it is copied elsewhere.

    Args:
        raw: The folder of raw tables.
        files: The files that are read.
    """
    if raw.is_dir() and any(p.name.lower().startswith("synthetic") for p in raw.iterdir()):
        return True
    return any(_head(path).find(b"SYNTHETIC_") >= 0 for path in files)


def source_version(raw: Path) -> str | None:
    """Finds the version of a data set in the name of its folder, or in its README's first line.

    PhysioNet's folders end in it (``mimiciii/1.4``); no table states it.

    Args:
        raw: The folder of raw tables.
    """
    if named := re.search(r"(?:^|[-_v])([0-9]+(?:[.][0-9]+)+)$", raw.resolve().name):
        return named[1]
    for path in sorted(raw.iterdir()) if raw.is_dir() else []:
        if path.is_file() and path.stem.lower() == "readme":
            with path.open(encoding="utf-8", errors="replace") as file:
                if found := re.search(r"\bv([0-9]+(?:[.][0-9]+)+)\b", file.readline(1000)):
                    return found[1]
    return None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(256)


def checksums(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file in a folder, by its path from there.

    What readers keep beside them does not count.

    Args:
        folder: The folder.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and path.name != MANIFEST and name.parts[0] not in (TOKENS, EMBEDDINGS):
            found[name.as_posix()] = checksum(path)
    return found


def write(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the manifest of a folder whose other files are all there.

    Args:
        folder: The folder.
        content: Everything but version, format and checksums.

    Returns:
        The manifest.
    """
    manifest = {
        **content,
        "format": FORMAT,
        "cm2_version": version("cm2"),
        "files": checksums(folder),
    }
    text = to_json(manifest, sort_keys=True, ensure_ascii=False)
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return json.loads(text)


def read(folder: Path) -> dict[str, Any] | None:
    """Reads the manifest of a folder; None if there is none that can be read.

    Args:
        folder: May be absent.
    """
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
