"""A folder that ``cm2 prepare`` wrote: its manifest, its stays, and whether it is whole.

Nothing of ``cm2.clinical`` is needed to read it. Messages name files and columns, never a patient.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray

from cm2.core.errors import InputError
from cm2.core.files import checksum
from cm2.core.layout import FORMAT, MANIFEST, SPLITS, ordered
from cm2.core.registry import hint

__all__ = ["Folder", "finite", "hours_of"]

EVENTS = "events"
"""Name of the measurements that a grid was made of, and of their file."""


class Folder:
    """A prepared data set on disk.

    Args:
        root: The folder.
        verify: Whether files are checked against their checksums before they are read; a file is
            read for that once in a process, unless it changes.

    Attributes:
        manifest: What the folder says about itself.
        checksum: SHA-256 of the manifest, which names all other checksums.
        modalities: Facts of each modality, series first, then by name.
        beside: Facts of what modalities were made of and can be read in their place: ``events``
            for the grid of a source that keeps its measurements.
        stays: One row a stay, sorted by ``stay_id``.
        labels: Names of labels that may hold together; empty where a stay is of one class.

    Raises:
        InputError: If the folder is not whole, or cannot be read by this version.
    """

    def __init__(self, root: str | Path, *, verify: bool = True) -> None:
        self.root = Path(root)
        self.verify = verify
        path = self.root / MANIFEST
        try:
            text = path.read_bytes()
            self.manifest: dict[str, Any] = json.loads(text)
            self.checksum = hashlib.sha256(text).hexdigest()
        except FileNotFoundError:
            raise InputError(
                f"{self.root}: no {MANIFEST}; give a folder that cm2 prepare wrote"
            ) from None
        except ValueError:
            raise InputError(f"{path}: not readable as JSON; prepare the data again") from None
        self._check_format(path)
        found: dict[str, dict[str, Any]] = self.manifest["modalities"]
        self.modalities = {name: found[name] for name in ordered(found)}
        self.beside = self._beside()
        self.labels: tuple[str, ...] = tuple(self.manifest.get("labels") or ())
        self.stays = self._stays()

    @property
    def synthetic(self) -> bool:
        """Whether the data were generated and describe no patient."""
        return bool(self.manifest.get("synthetic", False))

    @property
    def hours(self) -> float | int | None:
        """Length of the window before the prediction, if the folder says it."""
        found: float | int | None = self.manifest.get("options", {}).get("hours")
        return found

    def _beside(self) -> dict[str, dict[str, Any]]:
        file = f"{EVENTS}.parquet"
        grids = [name for name, facts in self.modalities.items() if facts["kind"] == "series"]
        if not grids or EVENTS in self.modalities or file not in self.manifest["files"]:
            return {}
        return {EVENTS: {"kind": "events", "file": file, "grid": grids[0]}}

    def facts(self, name: str) -> dict[str, Any]:
        """Returns what the manifest says of a modality, or of what one was made of."""
        return self.modalities[name] if name in self.modalities else self.beside[name]

    def check(self, names: Iterable[str]) -> None:
        """Checks names of modalities.

        Raises:
            InputError: One is not there.
        """
        known = [*self.modalities, *self.beside]
        for name in names:
            if name not in known:
                raise InputError(
                    f"{self.root}: no modality {name!r}{hint(name, known)} There are "
                    f"{', '.join(known)}"
                )

    def has(self, stays: pd.DataFrame, names: Sequence[str]) -> Bool[ndarray, "stay modality"]:
        """Returns which of these modalities the stays have; events where they have the grid."""
        columns = [f"has_{self.facts(name).get('grid', name)}" for name in names]
        return stays[columns].to_numpy(bool)

    def check_whole(
        self, name: str, said: Bool[ndarray, " stay"], found: Bool[ndarray, " stay"]
    ) -> None:
        """Checks that there is something of a modality for the stays that are said to have it.

        Raises:
            InputError: If there is not.
        """
        lacking = int((said & ~found).sum())
        if lacking:
            raise InputError(
                f"{self.root}: has nothing of modality {name!r} for {lacking} stays that"
                " stays.parquet says have it"
            )

    def path(self, name: str) -> Path:
        """Returns where a file is, checked.

        Raises:
            InputError: If it is not there, or not as it was written.
        """
        path = self.root / name
        if not path.is_file():
            raise InputError(f"{path}: is not there; prepare or copy the data again")
        wanted = self.manifest["files"].get(name)
        if wanted is None:
            raise InputError(f"{path}: is not named in the manifest of {self.root}")
        if self.verify:
            stat = path.stat()
            if _checksum(path, stat.st_size, stat.st_mtime_ns) != wanted:
                raise InputError(
                    f"{path}: is not as it was written (its checksum differs); it was changed or"
                    " cut short, prepare or copy the data again"
                )
        return path

    def table(
        self,
        name: str,
        columns: Sequence[str] = (),
        *,
        repeated: Sequence[str] = (),
        whole: bool = True,
    ) -> pd.DataFrame:
        """Reads a Parquet file.

        Args:
            name: Name of the file.
            columns: Columns that it must have.
            repeated: Columns of few different texts, each of which is kept once.
            whole: Whether to read its other columns too.

        Raises:
            InputError: If it cannot be read or lacks a column.
        """
        path = self.path(name)
        try:
            some = None if whole else list(columns)
            frame = pd.read_parquet(path, columns=some, read_dictionary=list(repeated))
        except (OSError, ValueError):
            raise InputError(f"{path}: not readable as Parquet; prepare the data again") from None
        missing = [column for column in columns if column not in frame]
        if missing:
            raise InputError(
                f"{path}: lacks the columns {missing}; there are {list(map(str, frame.columns))}"
            )
        return frame

    def _check_format(self, path: Path) -> None:
        written = self.manifest.get("format", 1)
        if written > FORMAT:
            raise InputError(
                f"{path}: written in format {written} by cm2 {self.manifest.get('cm2_version')},"
                f" but cm2 {version('cm2')} reads up to format {FORMAT}; install a newer cm2"
            )
        for key in ("files", "modalities"):
            if not isinstance(self.manifest.get(key), dict):
                raise InputError(f"{path}: has no entry {key!r}; prepare the data again")

    def _stays(self) -> pd.DataFrame:
        names = [f"has_{name}" for name in self.modalities]
        names += [f"label_{name}" for name in self.labels]
        stays = self.table("stays.parquet", ["stay_id", "subject_id", "split", "label", *names])
        path = self.root / "stays.parquet"
        if not stays["stay_id"].is_monotonic_increasing or not stays["stay_id"].is_unique:
            raise InputError(f"{path}: stays must be unique and sorted by stay_id")
        unknown = sorted(set(stays["split"]) - set(SPLITS))
        if unknown:
            raise InputError(f"{path}: splits are {', '.join(SPLITS)}, but there is {unknown[0]!r}")
        parts = stays.groupby("subject_id")["split"].nunique()
        if (parts > 1).any():
            raise InputError(f"{path}: {int((parts > 1).sum())} patients are in two splits")
        return stays.reset_index(drop=True)


@lru_cache(maxsize=256)
def _checksum(path: Path, size: int, changed: int) -> str:
    """The checksum of a file; size and time of change are part of the key of what is kept."""
    return checksum(path)


def finite(numbers: ndarray, path: Path) -> ndarray:
    """Returns the numbers of a file.

    Raises:
        InputError: If one is missing or infinite.
    """
    if not np.isfinite(numbers).all():
        raise InputError(f"{path}: has missing or infinite values")
    return numbers


def hours_of(table: pd.DataFrame, path: Path) -> Float[ndarray, " row"] | None:
    """The column ``hour``; None where there is none, or nothing in it."""
    if "hour" not in table or table["hour"].isna().all():
        return None
    return finite(table["hour"].to_numpy(np.float32), path)
