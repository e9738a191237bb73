"""PhysioNet 2012 as modalities: the first 48 hours of 4,000 stays a set, eleven modalities.

A folder holds ``set-a.tar.gz`` (one text file a stay: Time, Parameter, Value) and
``Outcomes-a.txt``; likewise for set b. Silva et al. (2012), "Predicting in-hospital mortality of
ICU patients: the PhysioNet/Computing in Cardiology Challenge 2012".
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int
from numpy import ndarray

SERIES = {
    "vitals": ("HR", "Temp", "RespRate", "NISysABP", "NIDiasABP", "NIMAP"),
    "arterial line": ("SysABP", "DiasABP", "MAP"),
    "coma": ("GCS",),
    "gases and ventilation": ("pH", "PaO2", "PaCO2", "SaO2", "FiO2", "MechVent"),
    "chemistry": ("BUN", "Creatinine", "Na", "K", "HCO3", "Mg", "Glucose"),
    "blood count": ("HCT", "WBC", "Platelets"),
    "liver": ("ALP", "ALT", "AST", "Bilirubin", "Albumin"),
    "lactate": ("Lactate",),
    "cardiac": ("TroponinT", "TroponinI", "Cholesterol"),
    "urine": ("Urine",),
}
STATIC = ("Age", "Gender", "Height", "Weight")
UNITS = (1, 2, 3, 4)
"""Types of intensive-care unit, each a column."""
MEASURES = ("first", "last", "min", "max", "mean", "count")


class Stays(NamedTuple):
    """The modalities of the stays, rows of NaN where one was never measured, and who died."""

    X: dict[str, pd.DataFrame]
    y: Int[ndarray, " n"]


def read(folder: Path, letter: str) -> Stays:
    """Reads one set.

    Args:
        folder: Where the archives and outcomes are.
        letter: "a" or "b".
    """
    outcomes = pd.read_csv(folder / f"Outcomes-{letter}.txt", index_col="RecordID").sort_index()
    long = _measurements(folder / f"set-{letter}.tar.gz")
    long = long[long["Value"] >= 0]
    by_variable = long.groupby(["Parameter", "stay"], sort=False)["Value"]
    table = by_variable.agg(list(MEASURES)).unstack("Parameter").reindex(outcomes.index)
    X = {"static": _static(table["first"])}
    for name, variables in SERIES.items():
        part = {
            f"{variable} {measure}": table[measure, variable]
            for variable in variables
            for measure in MEASURES
        }
        frame = pd.DataFrame(part)
        here = frame.notna().any(axis=1)
        counts = [column for column in frame if column.endswith("count")]
        frame[counts] = frame[counts].fillna(0.0).where(here, np.nan)
        X[name] = frame
    return Stays(X, outcomes["In-hospital_death"].to_numpy(np.int64))


def _static(first: pd.DataFrame) -> pd.DataFrame:
    frame = first[list(STATIC)].copy()
    for unit in UNITS:
        frame[f"unit {unit}"] = (first["ICUType"] == unit).astype(float)
    return frame


def _measurements(archive: Path) -> pd.DataFrame:
    """All rows of all stays, in their order, with the stay that each is of."""
    parts = []
    with tarfile.open(archive) as stays:
        for member in stays:
            file = stays.extractfile(member) if member.name.endswith(".txt") else None
            if file is not None:
                lines = file.read().decode().split("\n", 1)[1]
                stay = Path(member.name).stem
                parts.append("".join(f"{stay},{line}\n" for line in lines.splitlines()))
    names = ["stay", "Time", "Parameter", "Value"]
    return pd.read_csv(io.StringIO("".join(parts)), names=names, usecols=names[:1] + names[2:])
