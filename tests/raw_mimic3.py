"""A few made-up stays in the layout of raw MIMIC-III, one for each exclusion of the cohort."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

START = pd.Timestamp("2150-01-01 10:00:00")
HEART_RATE, PER_STAY = 211, 50


class Stay(NamedTuple):
    """One row of ICUSTAYS with its admission and patient."""

    subject: int
    hadm: int
    stay: int
    day: int = 0
    hours: float = 72.0
    age: int = 50
    died: int = 0
    ward: int = 1


STAYS = (
    *(Stay(k, 10 + k, 100 + k, died=k % 2) for k in range(1, 7)),
    Stay(1, 31, 131, day=20),  # the first patient comes back
    Stay(7, 17, 107, age=17),
    Stay(8, 18, 108, ward=2),  # transferred
    Stay(9, 19, 109),  # two stays in one admission
    Stay(9, 19, 119, day=10),
    Stay(10, 20, 120, hours=47.9),
    Stay(11, 21, 121, hours=-1),
    Stay(12, 22, 122, age=300),  # over 89
)


def tables(stays: tuple[Stay, ...] = STAYS) -> dict[str, pd.DataFrame]:
    """Builds all tables, with a heart rate an hour for each stay."""
    starts = [START + pd.Timedelta(days=one.day) for one in stays]
    ends = [start + pd.Timedelta(hours=one.hours) for one, start in zip(stays, starts, strict=True)]
    rows = list(zip(stays, starts, ends, strict=True))
    patients = {one.subject: one for one in stays}
    admissions = {one.hadm: row for row in rows for one in row[:1]}
    return {
        "PATIENTS": pd.DataFrame(
            {
                "SUBJECT_ID": list(patients),
                "GENDER": "F",
                "DOB": [f"{2150 - one.age}-01-01 00:00:00" for one in patients.values()],
            }
        ),
        "ADMISSIONS": pd.DataFrame(
            {
                "SUBJECT_ID": [one.subject for one, _, _ in admissions.values()],
                "HADM_ID": list(admissions),
                "ADMITTIME": [start for _, start, _ in admissions.values()],
                "DISCHTIME": [end for _, _, end in admissions.values()],
                "DEATHTIME": [end if one.died else pd.NaT for one, _, end in admissions.values()],
                "HOSPITAL_EXPIRE_FLAG": [one.died for one, _, _ in admissions.values()],
            }
        ),
        "ICUSTAYS": pd.DataFrame(
            {
                "SUBJECT_ID": [one.subject for one in stays],
                "HADM_ID": [one.hadm for one in stays],
                "ICUSTAY_ID": [one.stay for one in stays],
                "FIRST_CAREUNIT": "MICU",
                "LAST_CAREUNIT": "MICU",
                "FIRST_WARDID": 1,
                "LAST_WARDID": [one.ward for one in stays],
                "INTIME": starts,
                "OUTTIME": ends,
            }
        ),
        "CHARTEVENTS": pd.DataFrame(
            [
                {
                    "SUBJECT_ID": one.subject,
                    "HADM_ID": one.hadm,
                    "ICUSTAY_ID": one.stay,
                    "ITEMID": HEART_RATE,
                    "CHARTTIME": start + pd.Timedelta(hours=hour),
                    "STORETIME": start + pd.Timedelta(hours=hour, minutes=5),
                    "VALUE": 60 + hour % 40,
                    "VALUENUM": 60 + hour % 40,
                    "VALUEUOM": "bpm",
                    "ERROR": None,
                }
                for one, start, _ in rows
                for hour in range(PER_STAY)
            ]
        ),
    }


def write(folder: Path, raw: dict[str, pd.DataFrame]) -> Path:
    """Writes tables as upper-case CSV files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in raw.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder
