"""Published lists of who is in which part: the MIMIC-III benchmark's, MedFuse's, CareBench's.

Harutyunyan et al. (2019) publish for MIMIC-III, and Hayat et al. (2022, MedFuse) for MIMIC-IV, a
list of patients with a 1 for those of the test set, and another of the rest with a 1 for those of
validation. Their programs then write a list of stays for each part of a task. Either is read, from
a checkout of the repository or a folder of the lists alone. CareBench (Yin et al. 2026, When does
multimodal learning help in healthcare?, https://arxiv.org/abs/2602.23614) has lists of stays alone,
three for each of five folds, as its program writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.identifiers import whole_number, whole_numbers
from cm2.clinical.prepare.splits import Given, texts

__all__ = ["PUBLISHED", "read"]


class Published(NamedTuple):
    """Lists of patients, or of stays.

    Attributes:
        source: Whose patients they are of.
        stays: Names of the lists of stays of each part.
        test: Name of the list of patients of the test set; "" where there are no such lists.
        validation: Name of that of validation.
    """

    source: str
    stays: Mapping[str, str]
    test: str = ""
    validation: str = ""


STAYS = {
    "train": "train_listfile.csv",
    "validation": "val_listfile.csv",
    "test": "test_listfile.csv",
}
"""Lists of the stays of a task, as the programs of the benchmark and of MedFuse write them."""

FOLD = {"train": "stays_train.csv", "validation": "stays_val.csv", "test": "stays_test.csv"}
"""Tables of the stays of a fold, as the program of CareBench writes them."""

PUBLISHED: Mapping[str, Published] = {
    "mimic3-benchmarks": Published("mimic3", STAYS, "testset.csv", "valset.csv"),
    "medfuse": Published("mimic4", STAYS, "testset_iv.csv", "valset_iv.csv"),
    "carebench": Published("mimic4", FOLD),
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

STAY = re.compile("([0-9]+)_episode[0-9]+_timeseries[.]csv,")


def read(name: str, folder: Path, source: str) -> Given:
    """Reads published lists.

    Patients who are in no list of patients are for training, as in the programs of both; those of
    whom no list of stays has a stay are left out.

    Args:
        name: Whose lists, see `PUBLISHED`.
        folder: A checkout, or a folder of the lists of patients or of a task's (or a fold's) lists
            of stays.
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
    stays = {part: folder / file for part, file in published.stays.items()}
    patients = {
        part: next((path for path in _places(folder, file) if path.is_file()), None)
        for part, file in (("test", published.test), ("validation", published.validation))
        if file
    }
    test, validation = patients.get("test"), patients.get("validation")
    if test and validation:
        flagged = {"test": _flagged(test), "validation": _flagged(validation)}
        listed = {part: {who for who, flag in of.items() if flag} for part, of in flagged.items()}
        listed["train"] = set().union(*flagged.values()) - listed["test"] - listed["validation"]
        return Given(_disjoint(listed, folder), "train")
    if all(path.is_file() for path in stays.values()):
        return Given(_disjoint({part: _of_stays(path) for part, path in stays.items()}, folder))
    wanted = published.validation if test else published.test
    first = wanted or next(path.name for path in stays.values() if not path.is_file())
    neither = (
        f"neither {published.test} and {published.validation} nor " if wanted else "not all of "
    )
    raise MissingError(
        f"{folder}: {neither}{', '.join(published.stays.values())} are there; the first path tried"
        f" was {folder / first}"
    )


def _places(folder: Path, file: str) -> Iterator[Path]:
    for place in PLACES:
        yield folder / place / file


def _flagged(path: Path) -> dict[int, bool]:
    """Reads lines of a patient and 0 or 1."""
    found: dict[int, bool] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        subject, _, flag = (part.strip() for part in line.partition(","))
        patient = whole_number(subject)
        if patient is None or flag not in ("0", "1"):
            raise TableError(f"{path}: line {number}: a patient's number and 0 or 1 are expected")
        if found.setdefault(patient, flag == "1") != (flag == "1"):
            raise TableError(f"{path}: line {number}: this patient stands there with 0 and with 1")
    return found


def _of_stays(path: Path) -> set[int]:
    """Reads the patients of a list of stays: from their names, or a column of patients."""
    header, *lines = _text(path).splitlines() or [""]
    names = [name.strip() for name in header.split(",")]
    if "subject_id" in names:
        subjects = whole_numbers(texts(path, "stays")["subject_id"])
        if lost := int(subjects.isna().sum()):
            raise TableError(f"{path}: {lost} stays have no number of a patient")
        return set(subjects.astype("int64"))
    if names[0] != "stay":
        raise TableError(
            f"{path}: a list of stays begins with the column stay, or has one subject_id"
        )
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
