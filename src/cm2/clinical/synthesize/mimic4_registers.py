"""Tables of MIMIC-IV that say who was where, and its dictionaries of codes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.random import Generator

from cm2.clinical.synthesize import diagnoses as codes
from cm2.clinical.synthesize import mimic
from cm2.clinical.synthesize.episodes import Episodes

__all__ = [
    "admissions", "d_diagnoses", "d_items", "discharge_codes", "icustays", "patients", "transfers",
]  # fmt: skip

UNITS = {
    "MICU": "Medical Intensive Care Unit (MICU)",
    "SICU": "Surgical Intensive Care Unit (SICU)",
    "CCU": "Coronary Care Unit (CCU)",
    "CSRU": "Cardiac Vascular Intensive Care Unit (CVICU)",
    "TSICU": "Trauma SICU (TSICU)",
}
WORDS = mimic.Words(
    kinds=("EW EMER.", "URGENT", "ELECTIVE", "OBSERVATION ADMIT"),
    shares=None,
    places=("EMERGENCY ROOM", "PHYSICIAN REFERRAL"),
    left=("HOME", "SKILLED NURSING FACILITY", "HOME HEALTH CARE", "REHAB"),
    dead="DIED",
)
GROUPS = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019", "2020 - 2022")
OLDEST = 91  # the anchor age of everybody over 89
CENSORED = np.timedelta64(365, "D")


def patients(found: Episodes, rng: Generator) -> pd.DataFrame:
    """patients; deaths later than a year after the last discharge are not in the table."""
    people = found.patients
    age = np.floor(people["age"].to_numpy()).astype(int)
    seen = people["dod"] <= people["last"] + CENSORED
    return people[["subject_id", "gender"]].assign(
        anchor_age=np.where(age > 89, OLDEST, age),
        anchor_year=people["first"].dt.year,
        anchor_year_group=rng.choice(GROUPS, len(people)),
        dod=people["dod"].where(seen).dt.strftime("%Y-%m-%d"),
    )


def admissions(found: Episodes, rng: Generator) -> pd.DataFrame:
    """Admissions."""
    made = mimic.admissions(found, WORDS, rng)
    size = len(made)
    return made.assign(
        admit_provider_id=[f"P{number:05d}" for number in rng.integers(0, 400, size)],
        insurance=rng.choice(["Medicare", "Medicaid", "Private", "Other"], size),
        language=rng.choice(["English", "Spanish", "Other"], size, p=[0.85, 0.1, 0.05]),
        marital_status=rng.choice(["MARRIED", "SINGLE", "WIDOWED", "DIVORCED"], size),
        race=rng.choice(["WHITE", "BLACK/AFRICAN AMERICAN", "ASIAN", "UNKNOWN"], size),
    )


def icustays(found: Episodes) -> pd.DataFrame:
    """Stays, with the units' full names."""
    return mimic.icustays(found.stays, UNITS, digits=6)


def transfers(found: Episodes) -> pd.DataFrame:
    """transfers: into each stay, out of it to the ward, and the discharge."""
    into, out = mimic.moves(found, UNITS)
    into = into.assign(transfer_id=into["stay_id"])
    out = out.assign(transfer_id=into["transfer_id"] + 1_000_000, careunit="Medicine")
    last = ~found.stays["admission"].duplicated(keep="last")
    home = out[last].assign(
        transfer_id=out["transfer_id"] + 1_000_000,
        eventtype="discharge",
        careunit=None,
        intime=out["outtime"],
        outtime=np.datetime64("NaT", "s"),
    )
    both = pd.concat([into, out, home.astype({"careunit": "object"})])
    return both.sort_values(["subject_id", "intime", "transfer_id"]).reset_index(drop=True)


def d_items() -> pd.DataFrame:
    """d_items, those of MetaVision in the catalogue."""
    return mimic.d_items(["metavision"]).assign(lownormalvalue=None, highnormalvalue=None)


def d_diagnoses() -> pd.DataFrame:
    """d_icd_diagnoses, versions 9 and 10."""
    old = [(code.icd9, 9, code.title) for code in codes.CODES]
    new = [(code.icd10, 10, code.title) for code in codes.CODES]
    return pd.DataFrame(old + new, columns=["icd_code", "icd_version", "long_title"])


def discharge_codes(found: Episodes, rng: Generator) -> pd.DataFrame:
    """diagnoses_icd; an admission is coded in version 9 or in version 10."""
    drawn = mimic.discharge_codes(found, rng)
    version = rng.choice([9, 10], len(found.admissions))[drawn["admission"]]
    numbers = np.asarray([[code.icd9, code.icd10] for code in codes.CODES], dtype=object)
    return drawn.assign(icd_code=numbers[drawn["code"], version - 9], icd_version=version)
