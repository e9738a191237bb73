"""PhysioNet/Computing in Cardiology Challenge 2012: death in hospital from the first 48 hours.

Silva, Moody, Scott, Celi and Mark (2012), Computing in Cardiology 39:245-248. A folder holds sets
of one text file a stay (``set-a``, ``set-b`` and, where given, ``set-c``, each a folder or a
``.tar.gz``) and ``Outcomes-a.txt`` and so on. All stays are kept. Negative values mean "not
measured"; no other value is taken away.

Sets are splits: a is training and validation, b the test, c a test too. Length of stay and survival
leak and are not read; SAPS-I and SOFA are scores to compare with, in a table that is no modality.
"""

from __future__ import annotations

import io
import math
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from cm2.clinical.prepare import splits
from cm2.clinical.prepare.collection import Collected, Collection, register
from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.identifiers import whole_numbers
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.variables import Variable

__all__ = ["MODALITIES", "PhysioNet2012"]

HOURS = 48.0
HEADER = b"Time,Parameter,Value"
TIME = r"^[0-9]{2}:[0-5][0-9]$"
STATIC = ("Age", "Gender", "Height", "Weight")
UNITS = (1, 2, 3, 4)
"""Coronary care, cardiac surgery recovery, medical, surgical."""

MODALITIES: dict[str, tuple[str, ...]] = {
    "vitals": ("HR", "Temp", "RespRate", "NISysABP", "NIDiasABP", "NIMAP"),
    "arterial": ("SysABP", "DiasABP", "MAP"),
    "neuro": ("GCS",),
    "gas": ("pH", "PaO2", "PaCO2", "SaO2", "FiO2", "MechVent"),
    "chemistry": ("BUN", "Creatinine", "Na", "K", "HCO3", "Mg", "Glucose"),
    "blood": ("HCT", "WBC", "Platelets"),
    "liver": ("ALP", "ALT", "AST", "Bilirubin", "Albumin"),
    "lactate": ("Lactate",),
    "cardiac": ("TroponinT", "TroponinI", "Cholesterol"),
    "urine": ("Urine",),
}
"""Blocks of variables that are measured or not together; beside them is ``static``."""

VARIABLES = tuple(
    Variable(name, "", math.nan)
    for name in sorted({"Weight", *(v for names in MODALITIES.values() for v in names)})
)
"""The 37 variables of the series; before its first observation one has its training median."""

MEASURES = ("first", "last", "min", "max", "mean", "count")
OUTCOMES = ("RecordID", "SAPS-I", "SOFA", "In-hospital_death")


class _Set(NamedTuple):
    letter: str
    records: Path
    outcomes: Path


@register("physionet2012")
class PhysioNet2012(Collection):
    """The sets of the challenge that a folder holds; set a must be there."""

    name = "physionet2012"

    def files(self, options: Options) -> dict[str, Path]:
        found = {}
        for one in self._sets():
            found[f"outcomes_{one.letter}"] = one.outcomes
            inside = sorted(one.records.glob("*.txt")) if one.records.is_dir() else [one.records]
            found |= {f"set_{one.letter}/{path.name}": path for path in inside}
        return found

    def collect(self, options: Options, given: Mapping[int, str] | None) -> Collected:
        if options.hours > HOURS:
            raise TableError(
                f"the records end after 48 h; a window of {options.hours:g} h is asked"
            )
        sets = self._sets()
        outcomes = pd.concat([_outcomes(one) for one in sets], ignore_index=True)
        _unique(outcomes["RecordID"], "stands in more than one row of outcomes")
        rows = pd.concat([_records(one) for one in sets], ignore_index=True)
        _agree(rows, outcomes)
        number = pd.to_numeric(rows["value"], errors="coerce")
        unreadable = {"records.value": int((number.isna() & rows["value"].notna()).sum())}
        rows["value"] = number.where(np.isfinite(number))
        negative = rows["value"] < 0
        left_out = rows.loc[negative].groupby("variable").size()
        # The records end at 48:00, which is a part of them.
        whole = options.hours == HOURS
        inside = rows["hour"] <= HOURS if whole else rows["hour"] < options.hours
        rows = rows[inside & ~negative & rows["value"].notna()]
        rows = rows.sort_values(["stay_id", "variable", "hour", "value"], ignore_index=True)
        summary = _summary(rows, outcomes["RecordID"])
        stays = _stays(outcomes, summary["first"]["Age"])
        stays["split"] = _parts(stays, sets, options, given)
        stays = stays.dropna(subset="split")
        kept = stays["stay_id"]
        numbers = {"static": _static(summary["first"])}
        numbers |= {name: _block(summary, names) for name, names in MODALITIES.items()}
        scores = outcomes[["RecordID", "SAPS-I", "SOFA"]].set_axis(
            ["stay_id", "saps_i", "sofa"], axis=1
        )
        flow = [("stays found", len(outcomes))]
        if given is not None:
            flow.append(("excluded: patient not in the file of splits", len(outcomes) - len(stays)))
        return Collected(
            stays=stays,
            variables=VARIABLES,
            events=rows[rows["stay_id"].isin(kept) & rows["variable"].isin(_names())],
            numbers={name: frame[frame.index.isin(kept)] for name, frame in numbers.items()},
            beside={"scores": scores[scores["stay_id"].isin(kept)].sort_values("stay_id")},
            flow=flow,
            left_out={str(name): {"negative": int(n)} for name, n in left_out.items()},
            unreadable={name: count for name, count in unreadable.items() if count},
            positive="died in hospital",
        )

    def _sets(self) -> list[_Set]:
        found = []
        for letter in "abc":
            places = [self.raw / f"set-{letter}", self.raw / f"set-{letter}.tar.gz"]
            records = next((place for place in places if place.exists()), None)
            outcomes = self.raw / f"Outcomes-{letter}.txt"
            if records is not None and outcomes.is_file():
                found.append(_Set(letter, records, outcomes))
            elif letter == "a":
                raise MissingError(
                    f"{self.raw}: no set-a (folder or .tar.gz) with an Outcomes-a.txt beside it"
                )
        return found


def _names() -> list[str]:
    return [one.name for one in VARIABLES]


def _unique(values: pd.Series, fault: str) -> None:
    if repeated := int(values.duplicated().sum()):
        raise TableError(f"{repeated} RecordID(s): each {fault}")


def _agree(rows: pd.DataFrame, outcomes: pd.DataFrame) -> None:
    there, told = set(rows["stay_id"]), set(outcomes["RecordID"])
    if there != told:
        raise TableError(
            f"{len(told - there)} stays have an outcome but no record,"
            f" {len(there - told)} a record but no outcome"
        )


def _outcomes(one: _Set) -> pd.DataFrame:
    frame = pd.read_csv(one.outcomes, skipinitialspace=True)
    frame.columns = [str(name).strip() for name in frame.columns]
    if missing := [name for name in OUTCOMES if name not in frame]:
        raise TableError(f"{one.outcomes}: lacks column(s) {', '.join(missing)}")
    stays = whole_numbers(frame["RecordID"])
    frame = frame[list(OUTCOMES)].apply(pd.to_numeric, errors="coerce").assign(RecordID=stays)
    if not frame["In-hospital_death"].isin([0, 1]).all() or frame["RecordID"].isna().any():
        raise TableError(f"{one.outcomes}: RecordID and In-hospital_death must be numbers, 0 or 1")
    scores = frame[["SAPS-I", "SOFA"]]
    frame[["SAPS-I", "SOFA"]] = scores.where(scores >= 0)
    return frame.assign(letter=one.letter).astype({"RecordID": "int64"})


def _texts(records: Path) -> Iterator[tuple[str, bytes]]:
    """The name and content of each record."""
    if records.is_dir():
        for path in records.glob("*.txt"):
            yield path.name, path.read_bytes()
        return
    try:
        with tarfile.open(records) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".txt") else None
                if file is not None:
                    yield Path(member.name).name, file.read()
    except (tarfile.TarError, EOFError, OSError):
        raise TableError(f"{records}: truncated or not a .tar.gz archive") from None


def _records(one: _Set) -> pd.DataFrame:
    """All rows of a set: ``stay_id``, ``variable``, ``hour``, ``value`` as text."""
    found: list[bytes] = []
    for name, text in sorted(_texts(one.records)):
        header, _, body = text.replace(b"\r\n", b"\n").partition(b"\n")
        stay = re.match(r"^([0-9]+)\.txt$", name)
        if header.strip() != HEADER or not stay:
            raise TableError(
                f"{one.records}: a record is a file RecordID.txt that begins with the line"
                f" {HEADER.decode()}"
            )
        # In front of the rows of each record stands one that says whose they are.
        found.append(b",__stay__," + stay[1].encode() + b"\n" + body.rstrip(b"\n") + b"\n")
    if not found:
        raise MissingError(f"{one.records}: holds no record")
    names = ["time", "variable", "value"]
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(b"".join(found)),
            pyarrow.csv.ReadOptions(column_names=names),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True
            ),
        )
    except pa.ArrowInvalid:
        raise TableError(f"{one.records}: a row does not have the three columns") from None
    frame = table.to_pandas()
    marks = frame["variable"] == "__stay__"
    stays = whole_numbers(frame.loc[marks, "value"])
    if stays.isna().any():
        raise TableError(f"{one.records}: a record is named by a number of more than 64 bits")
    frame["stay_id"] = stays.to_numpy(np.int64)[marks.cumsum() - 1]
    frame = frame[~marks & frame["variable"].notna()]
    code, times = pd.factorize(frame["time"])
    if (code < 0).any() or not all(re.match(TIME, time) for time in times):
        raise TableError(f"{one.records}: times must read like 07:30, hours and minutes")
    hours = np.array([int(time[:2]) + int(time[3:]) / 60 for time in times])
    return frame.assign(hour=hours[code])[["stay_id", "variable", "hour", "value"]]


def _summary(rows: pd.DataFrame, stays: pd.Series) -> dict[str, pd.DataFrame]:
    """For each measure a table of stays and variables; the order of rows is that of time."""
    grouped = rows.groupby(["stay_id", "variable"])["value"]
    columns = [*STATIC[:3], "ICUType", *_names()]
    index = pd.Index(np.sort(stays), name="stay_id")
    found = {}
    for measure in MEASURES:
        wide = pd.DataFrame(grouped.agg(measure).unstack("variable"))
        found[measure] = wide.reindex(index=index, columns=columns)
    return found


def _static(first: pd.DataFrame) -> pd.DataFrame:
    frame = first[list(STATIC)].copy()
    for unit in UNITS:
        frame[f"ICUType={unit}"] = (first["ICUType"] == unit).astype(float)
    return frame


def _block(summary: dict[str, pd.DataFrame], names: tuple[str, ...]) -> pd.DataFrame:
    """The measures of some variables; a count is 0 where another variable was measured."""
    frame = pd.DataFrame(
        {f"{name}_{measure}": summary[measure][name] for name in names for measure in MEASURES}
    )
    there = frame.notna().any(axis=1)
    counts = [f"{name}_count" for name in names]
    frame[counts] = frame[counts].fillna(0.0).where(there, np.nan)
    return frame


def _stays(outcomes: pd.DataFrame, age: pd.Series) -> pd.DataFrame:
    ids = outcomes["RecordID"]
    return pd.DataFrame(
        {
            "stay_id": ids,
            "subject_id": ids,
            "hadm_id": ids,
            "label": outcomes["In-hospital_death"].astype("int64"),
            "age": age.reindex(ids).to_numpy(),
            "set": outcomes["letter"],
        }
    )


def _parts(
    stays: pd.DataFrame,
    sets: list[_Set],
    options: Options,
    given: Mapping[int, str] | None,
) -> pd.Series:
    """Set a is training and validation, the others the test; a alone is split in three."""
    if given is not None:
        return stays["subject_id"].map(dict(given))
    _, validation, _ = options.fractions
    shares = options.fractions if len(sets) == 1 else (1 - validation, validation, 0.0)
    dealt = splits.assign(stays["subject_id"], shares, seed=options.seed)
    return stays["subject_id"].map(dealt).where(stays["set"] == "a", "test")
