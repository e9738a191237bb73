"""Folders that were named beside the raw tables: what is taken from each.

What was named must be of use: a folder that holds nothing stops the run.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cm2.clinical.prepare.errors import MissingError
from cm2.clinical.prepare.tables import SUFFIXES, look

__all__ = [
    "Named",
    "below",
    "has_pictures",
    "level",
    "notes",
    "pictures",
    "reports",
    "tables_of_images",
]

GROUP = re.compile("p[0-9]{2}")


@dataclass(frozen=True)
class Named:
    """Files and folders that are named beside the raw tables; None where one is not.

    Attributes:
        split_file: CSV file with the columns ``subject_id`` and ``split``, in the place of a seed.
        split_lists: Folder of the published lists that the options name.
        notes: Folder of the notes where it is not ``raw/note``.
        notes_list: CSV file with the column ``stay_id``, if notes are read of a list of stays.
        images: Folder of MIMIC-CXR-JPG where it is not ``raw/cxr``.
        labels: Samples and outcomes of MEDS, see `meds_source`.
        codes: Map from codes of MEDS to variables, see `codes`.
        reports: MIMIC-CXR's own reports, a folder or the file of their sections, to be joined to
            the images in the place of the reports in ``raw/note``.
        ccs: For the task ``"phenotyping"``, HCUP's single-level CCS, a file for each version of
            ICD in the tables, see `phenotypes.read`.
    """

    split_file: Path | None = None
    split_lists: Path | None = None
    notes: Path | None = None
    notes_list: Path | None = None
    images: Path | None = None
    labels: Path | None = None
    codes: Path | None = None
    reports: Path | None = None
    ccs: Sequence[Path] = ()


def notes(folder: Path, names: Collection[str], source: str) -> dict[str, Path]:
    """Finds the tables of notes in a folder that was named, or in `note` below it.

    Args:
        folder: As it was named.
        names: The tables that are looked for.
        source: Who looks for them.

    Raises:
        MissingError: None is there.
    """
    _check(folder, "notes", names, source)
    found = look([folder, folder / "note"], names)
    if not found:
        raise MissingError(_nothing(folder, "notes", folder / (min(names) + SUFFIXES[0])))
    return found


def tables_of_images(folder: Path, names: Collection[str], source: str) -> dict[str, Path]:
    """Finds the tables of images in a folder that was named; it may hold pictures alone.

    Args:
        folder: As it was named.
        names: The tables that are looked for.
        source: Who looks for them.

    Raises:
        MissingError: Neither tables nor pictures are there.
    """
    _check(folder, "images", names, source)
    # The tables lie beside the folder `files`, which may be the one that was named.
    found = look([folder, *([folder.parent] if folder.name == "files" else [])], names)
    if not found and not has_pictures(folder):
        raise MissingError(_nothing(folder, "images", folder / "files"))
    return found


def reports(named: Path, table: str, source: str, *, pictured: bool) -> Path:
    """Finds the pictures' own reports: one table of their sections, or a folder of texts.

    Args:
        named: That table, or a folder with it or with the texts.
        table: Its name.
        source: Who looks for them.
        pictured: Whether the source has pictures.

    Returns:
        The file of the table, or else the folder of the texts.

    Raises:
        MissingError: Neither is there.
    """
    if not pictured:
        raise MissingError(f"{source} has no reports of pictures; leave --reports")
    if named.is_file():
        return named
    if not named.is_dir():
        raise MissingError(f"{named}: no such folder of reports")
    found = look([named], [table])
    if not found and not has_pictures(named):
        raise MissingError(_nothing(named, "reports", named / (table + SUFFIXES[0])))
    return found.get(table, named)


def pictures(named: Path | None, usual: Path) -> Path:
    """Returns the folder of the pictures: the one that was named, unless it has tables alone.

    Args:
        named: As it was named.
        usual: Where they are otherwise.
    """
    if named is None or (not has_pictures(named) and has_pictures(usual)):
        return usual
    return named


def level(root: Path) -> str:
    """Returns what the paths of pictures begin with below a folder: `files/`, or nothing.

    Args:
        root: The folder of the pictures.
    """
    return "files/" if (root / "files").is_dir() else ""


def below(root: Path, paths: Sequence[str]) -> list[str]:
    """Returns paths of the data set, from a folder that may be that of the data set or its `files`.

    Args:
        root: The folder.
        paths: Such as ``files/p10/p10000032``.
    """
    beginning = level(root)
    return [beginning + path.removeprefix("files/") for path in paths]


def has_pictures(folder: Path) -> bool:
    """Whether a folder has pictures of some patients, below `files` or at once.

    Args:
        folder: Which; it may be absent.
    """
    if not folder.is_dir():
        return False
    inside = folder / level(folder)
    return any(GROUP.fullmatch(path.name) for path in inside.iterdir())


def _check(folder: Path, option: str, names: Collection[str], source: str) -> None:
    if not names:
        raise MissingError(f"{source} has no {option} in a folder of their own; leave --{option}")
    if not folder.is_dir():
        raise MissingError(f"{folder}: no such folder of {option}")


def _nothing(folder: Path, option: str, first: Path) -> str:
    return f"{folder}: holds nothing of use as --{option}; the first path tried was {first}"
