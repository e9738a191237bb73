"""Tables of MIMIC-III that say who was where, and its dictionaries of codes.

Names of columns are lower case here; the writer spells them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.random import Generator

from cm2.clinical.synthesize import charting, mimic
from cm2.clinical.synthesize import diagnoses as codes
from cm2.clinical.synthesize.episodes import Episodes

__all__ = [
    "CAREGIVERS", "admissions", "caregivers", "d_diagnoses", "d_items", "discharge_codes",
    "icustays", "patients", "transfers",
]  # fmt: skip

WARDS = {"MICU": 52, "SICU": 33, "CCU": 7, "CSRU": 12, "TSICU": 14, "NICU": 56}
WARD = 45  # of none of these units
UNITS = {name: name for name in WARDS}
CAREGIVERS = (21_001, 21_101)
WORDS = mimic.Words(
    kinds=("EMERGENCY", "ELECTIVE", "URGENT"),
    shares=(0.84, 0.13, 0.03),
    places=("EMERGENCY ROOM ADMIT", "PHYS REFERRAL/NORMAL DELI"),
    left=("HOME", "SNF", "HOME HEALTH CARE", "REHAB/DISTINCT PART HOSP"),
    dead="DEAD/EXPIRED",
)
OLDEST = 300.0
"""The age of patients over 89 at their first admission, by their shifted dates of birth."""

Array = np.ndarray


def patients(found: Episodes) -> pd.DataFrame:
    """PATIENTS."""
    people = found.patients
    years = np.where(people["age"] > 89, OLDEST, people["age"])
    first = people["first"].to_numpy().astype("M8[s]")
    birth = first - np.round(years * 365.2425 * 86400).astype("m8[s]")
    dod = people["dod"]
    return people[["subject_id", "gender", "dod"]].assign(
        dob=birth.astype("M8[D]").astype("M8[s]"),
        dod_hosp=dod.where(people["died"]),
        dod_ssn=dod.where(~people["died"] | (people.index % 3 == 0)),
        expire_flag=dod.notna().astype(int),
    )


def admissions(found: Episodes, rng: Generator) -> pd.DataFrame:
    """ADMISSIONS."""
    made = mimic.admissions(found, WORDS, rng)
    size = len(made)
    races = ["WHITE", "BLACK/AFRICAN AMERICAN", "UNKNOWN/NOT SPECIFIED", "OTHER"]
    return made.assign(
        insurance=rng.choice(["Medicare", "Private", "Medicaid"], size),
        language=pd.Series(rng.choice(["ENGL", "SPAN", "?"], size)).mask(lambda one: one == "?"),
        religion=rng.choice(["CATHOLIC", "NOT SPECIFIED", "JEWISH", "OTHER"], size),
        marital_status=rng.choice(["MARRIED", "SINGLE", "WIDOWED"], size),
        ethnicity=rng.choice(races, size),
        diagnosis=rng.choice(["SEPSIS", "PNEUMONIA", "CONGESTIVE HEART FAILURE"], size),
        has_chartevents_data=1,
    )


def icustays(found: Episodes, system: Array) -> pd.DataFrame:
    """ICUSTAYS."""
    made = mimic.icustays(found.stays, UNITS, digits=4)
    return made.assign(
        dbsource=system,
        first_wardid=made["first_careunit"].map(WARDS),
        last_wardid=made["last_careunit"].map(WARDS),
    )


def transfers(found: Episodes, system: Array) -> pd.DataFrame:
    """TRANSFERS: the move into each stay and the one out of it to the ward."""
    into, out = mimic.moves(found, UNITS)
    none = pd.array([None] * len(into), dtype="Int64")
    into = into.assign(
        stay_id=into["stay_id"].astype("Int64"),
        prev_careunit=None,
        curr_careunit=into["careunit"],
        prev_wardid=none,
        curr_wardid=into["careunit"].map(WARDS),
    )
    last = found.stays["last_unit"]
    out = out.assign(
        stay_id=none,
        prev_careunit=last,
        curr_careunit=None,
        prev_wardid=last.map(WARDS).astype("Int64"),
        curr_wardid=WARD,
    )
    both = pd.concat([part.assign(dbsource=system) for part in (into, out)])
    both = both.sort_values(["subject_id", "intime"], kind="stable")
    hours = (both["outtime"] - both["intime"]).dt.total_seconds() / 3600
    return both.assign(los=hours.round(2)).reset_index(drop=True)


def caregivers() -> pd.DataFrame:
    """CAREGIVERS."""
    ids = np.arange(*CAREGIVERS)
    labels = np.resize(["RN", "MD", "RT", "Res"], len(ids))
    titles = np.resize(["RN", "Attending", "Respiratory", "Resident/Fellow/PA/NP"], len(ids))
    return pd.DataFrame({"cgid": ids, "label": labels, "description": titles})


def d_items() -> pd.DataFrame:
    """D_ITEMS, the charted items of the catalogue."""
    made = mimic.d_items(charting.ICU_SYSTEMS)
    return made.assign(conceptid=pd.array([None] * len(made), dtype="Int64"))


def d_diagnoses() -> pd.DataFrame:
    """D_ICD_DIAGNOSES."""
    return pd.DataFrame(
        {
            "icd9_code": [code.icd9 for code in codes.CODES],
            "short_title": [code.title[:24] for code in codes.CODES],
            "long_title": [code.title for code in codes.CODES],
        }
    )


def discharge_codes(found: Episodes, rng: Generator) -> pd.DataFrame:
    """DIAGNOSES_ICD."""
    drawn = mimic.discharge_codes(found, rng)
    numbers = np.asarray([code.icd9 for code in codes.CODES], dtype=object)
    return drawn.assign(icd9_code=numbers[drawn["code"]])
