"""Published lists of who is in which part: those of the MIMIC-III benchmark, and MedFuse's.

Harutyunyan et al. (2019) publish for MIMIC-III, and Hayat et al. (2022, MedFuse) for MIMIC-IV, a
list of patients with a 1 for those of the test set, and another of the rest with a 1 for those of
validation. Their programs then write a list of stays for each part of a task. Either is read, from
a checkout of the repository or a folder of the lists alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.splits import Given

__all__ = ["PUBLISHED", "read"]


class Published(NamedTuple):
    """Lists of patients.

    Attributes:
        source: Whose patients they are of.
        test: Name of the list of the test set.
        validation: Name of the list of validation.
    """

    source: str
    test: str
    validation: str


PUBLISHED: Mapping[str, Published] = {
    "mimic3-benchmarks": Published("mimic3", "testset.csv", "valset.csv"),
    "medfuse": Published("mimic4", "testset_iv.csv", "valset_iv.csv"),
}

PLACES = (
    "",
    "mimic3benchmark/resources",
    "mimic3models/resources",
    "mimic4extract/mimic3benchmark/resources",
    "mimic4extract/mimic3models/resources",
    "ehr_utils/resources",
)
"""Where the lists of patients lie in a checkout."""

STAYS = {
    "train": "train_listfile.csv",
    "validation": "val_listfile.csv",
    "test": "test_listfile.csv",
}
"""Lists of the stays of a task, as the programs of both write them."""

STAY = re.compile("([0-9]+)_episode[0-9]+_timeseries[.]csv,")


def read(name: str, folder: Path, source: str) -> Given:
    """Reads published lists.

    Patients who are in no list of patients are for training, as in the programs of both; those of
    whom no list of stays has a stay are left out.

    Args:
        name: Whose lists, see `PUBLISHED`.
        folder: A checkout, or a folder of the lists of patients or of a task's lists of stays.
        source: The data set to be split.

    Raises:
        MissingError: They are not there.
        TableError: They are of another data set, or not as published.
    """
    published = PUBLISHED[name]
    if source != published.source:
        raise TableError(f"the lists of {name} are of patients of {published.source}, not {source}")
    if not folder.is_dir():
        raise MissingError(f"{folder}: no such folder of lists")
    patients = {
        part: next((path for path in _places(folder, file) if path.is_file()), None)
        for part, file in (("test", published.test), ("validation", published.validation))
    }
    stays = {part: folder / file for part, file in STAYS.items()}
    if patients["test"] and patients["validation"]:
        test, validation = _flagged(patients["test"]), _flagged(patients["validation"])
        listed = {
            "test": {subject for subject, flag in test.items() if flag},
            "validation": {subject for subject, flag in validation.items() if flag},
        }
        listed["train"] = (test.keys() | validation.keys()) - listed["test"] - listed["validation"]
        return Given(_disjoint(listed, folder), "train")
    if all(path.is_file() for path in stays.values()):
        return Given(_disjoint({part: _of_stays(path) for part, path in stays.items()}, folder))
    wanted = published.validation if patients["test"] else published.test
    raise MissingError(
        f"{folder}: neither {published.test} and {published.validation} nor"
        f" {', '.join(STAYS.values())} are there; the first path tried was {folder / wanted}"
    )


def _places(folder: Path, file: str) -> Iterator[Path]:
    for place in PLACES:
        yield folder / place / file


def _flagged(path: Path) -> dict[int, bool]:
    """Reads lines of a patient and 0 or 1."""
    found: dict[int, bool] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        subject, _, flag = (part.strip() for part in line.partition(","))
        if not (subject.isdecimal() and flag in ("0", "1")):
            raise TableError(f"{path}: line {number}: a patient's number and 0 or 1 are expected")
        if found.setdefault(int(subject), flag == "1") != (flag == "1"):
            raise TableError(f"{path}: line {number}: this patient stands there with 0 and with 1")
    return found


def _of_stays(path: Path) -> set[int]:
    """Reads the patients of a list of stays."""
    header, *lines = _text(path).splitlines() or [""]
    if header.split(",")[0].strip() != "stay":
        raise TableError(f"{path}: a list of stays begins with the column stay")
    stays = [STAY.match(line) for line in lines]
    if lost := sum(stay is None for stay in stays):
        raise TableError(f"{path}: {lost} stays are not written as SUBJECT_episodeN_timeseries.csv")
    return {int(stay[1]) for stay in stays if stay}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeError:
        raise TableError(f"{path}: not a text file in UTF-8") from None


def _disjoint(listed: Mapping[str, set[int]], folder: Path) -> dict[int, str]:
    found = {subject: part for part, subjects in listed.items() for subject in subjects}
    if (twice := sum(map(len, listed.values())) - len(found)) > 0:
        raise TableError(f"{folder}: {twice} patients stand in the lists of two parts")
    return found
