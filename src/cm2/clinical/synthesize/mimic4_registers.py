"""Tables of MIMIC-IV that say who was where, and its dictionaries of codes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.random import Generator

from cm2.clinical.synthesize import charting
from cm2.clinical.synthesize import diagnoses as codes
from cm2.clinical.synthesize.episodes import Episodes

__all__ = [
    "admissions", "d_diagnoses", "d_items", "d_labitems", "discharge_codes", "icustays",
    "patients", "services", "transfers",
]  # fmt: skip

UNITS = {
    "MICU": "Medical Intensive Care Unit (MICU)",
    "SICU": "Surgical Intensive Care Unit (SICU)",
    "CCU": "Coronary Care Unit (CCU)",
    "CSRU": "Cardiac Vascular Intensive Care Unit (CVICU)",
    "TSICU": "Trauma SICU (TSICU)",
}
SERVICES = {"MICU": "MED", "SICU": "SURG", "CCU": "CMED", "CSRU": "CSURG", "TSICU": "TRAUM"}
GROUPS = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019", "2020 - 2022")
OLDEST = 91  # the anchor age of everybody over 89
CENSORED = np.timedelta64(365, "D")


def patients(found: Episodes, rng: Generator) -> pd.DataFrame:
    """patients; deaths later than a year after the last discharge are not in the table."""
    people = found.patients
    age = np.floor(people["age"].to_numpy()).astype(int)
    seen = people["dod"] <= people["last"] + CENSORED
    return pd.DataFrame(
        {
            "subject_id": people["subject_id"],
            "gender": people["gender"],
            "anchor_age": np.where(age > 89, OLDEST, age),
            "anchor_year": people["first"].dt.year,
            "anchor_year_group": rng.choice(GROUPS, len(people)),
            "dod": people["dod"].where(seen).dt.strftime("%Y-%m-%d"),
        }
    )


def admissions(found: Episodes, rng: Generator) -> pd.DataFrame:
    """Admissions."""
    known = found.admissions
    size = len(known)
    died = known["deathtime"].notna().to_numpy()
    kind = rng.choice(["EW EMER.", "URGENT", "ELECTIVE", "OBSERVATION ADMIT"], size)
    emergency = kind == "EW EMER."
    arrived = known["admittime"] - pd.to_timedelta(rng.integers(60, 480, size), unit="min")
    left = rng.choice(["HOME", "SKILLED NURSING FACILITY", "HOME HEALTH CARE", "REHAB"], size)
    return pd.DataFrame(
        {
            "subject_id": known["subject_id"],
            "hadm_id": known["hadm_id"],
            "admittime": known["admittime"],
            "dischtime": known["dischtime"],
            "deathtime": known["deathtime"],
            "admission_type": kind,
            "admit_provider_id": [f"P{number:05d}" for number in rng.integers(0, 400, size)],
            "admission_location": np.where(emergency, "EMERGENCY ROOM", "PHYSICIAN REFERRAL"),
            "discharge_location": np.where(died, "DIED", left),
            "insurance": rng.choice(["Medicare", "Medicaid", "Private", "Other"], size),
            "language": rng.choice(["English", "Spanish", "Other"], size, p=[0.85, 0.1, 0.05]),
            "marital_status": rng.choice(["MARRIED", "SINGLE", "WIDOWED", "DIVORCED"], size),
            "race": rng.choice(["WHITE", "BLACK/AFRICAN AMERICAN", "ASIAN", "UNKNOWN"], size),
            "edregtime": arrived.where(emergency),
            "edouttime": (known["admittime"] + pd.Timedelta(minutes=47)).where(emergency),
            "hospital_expire_flag": died.astype(int),
        }
    )


def icustays(found: Episodes) -> pd.DataFrame:
    """icustays; the length is negative where the written end precedes the start."""
    stays = found.stays
    days = (stays["outtime"] - stays["intime"]).dt.total_seconds() / 86400
    return pd.DataFrame(
        {
            "subject_id": stays["subject_id"],
            "hadm_id": stays["hadm_id"],
            "stay_id": stays["stay_id"],
            "first_careunit": stays["first_unit"].map(UNITS),
            "last_careunit": stays["last_unit"].map(UNITS),
            "intime": stays["intime"],
            "outtime": stays["outtime"],
            "los": days.round(6),
        }
    )


def transfers(found: Episodes) -> pd.DataFrame:
    """transfers: into each stay, out of it to the ward, and the discharge."""
    stays = found.stays
    discharge = found.admissions["dischtime"].to_numpy()[stays["admission"]]
    into = pd.DataFrame(
        {
            "subject_id": stays["subject_id"],
            "hadm_id": stays["hadm_id"],
            "transfer_id": stays["stay_id"],
            "eventtype": np.where(stays["admission"].duplicated(), "transfer", "admit"),
            "careunit": stays["first_unit"].map(UNITS),
            "intime": stays["intime"],
            "outtime": stays["end"],
        }
    )
    out = into.assign(
        transfer_id=into["transfer_id"] + 1_000_000,
        eventtype="transfer",
        careunit="Medicine",
        intime=stays["end"],
        outtime=discharge,
    )
    last = ~stays["admission"].duplicated(keep="last")
    home = out[last].assign(
        transfer_id=out["transfer_id"] + 1_000_000,
        eventtype="discharge",
        careunit=None,
        intime=discharge[last],
        outtime=np.datetime64("NaT", "s"),
    )
    both = pd.concat([into, out, home.astype({"careunit": "object"})])
    return both.sort_values(["subject_id", "intime", "transfer_id"]).reset_index(drop=True)


def services(found: Episodes) -> pd.DataFrame:
    """services, one row an admission."""
    first = found.stays[~found.stays["admission"].duplicated()].reset_index(drop=True)
    return pd.DataFrame(
        {
            "subject_id": first["subject_id"],
            "hadm_id": first["hadm_id"],
            "transfertime": first["intime"],
            "prev_service": None,
            "curr_service": first["first_unit"].map(SERVICES),
        }
    )


def d_items() -> pd.DataFrame:
    """d_items, those of MetaVision in the catalogue."""
    charted = [item for item in charting.items() if item.system == "metavision"]
    return pd.DataFrame(
        {
            "itemid": [item.itemid for item in charted],
            "label": [item.label for item in charted],
            "abbreviation": [item.abbreviation for item in charted],
            "linksto": "chartevents",
            "category": [item.category for item in charted],
            "unitname": [item.unit for item in charted],
            "param_type": [item.parameter for item in charted],
            "lownormalvalue": None,
            "highnormalvalue": None,
        }
    )


def d_labitems() -> pd.DataFrame:
    """d_labitems."""
    labs = [item for item in charting.items() if item.system == "lab"]
    return pd.DataFrame(
        {
            "itemid": [item.itemid for item in labs],
            "label": [item.label for item in labs],
            "fluid": [item.abbreviation for item in labs],
            "category": [item.category for item in labs],
        }
    )


def d_diagnoses() -> pd.DataFrame:
    """d_icd_diagnoses, versions 9 and 10."""
    old = [(code.icd9, 9, code.title) for code in codes.CODES]
    new = [(code.icd10, 10, code.title) for code in codes.CODES]
    return pd.DataFrame(old + new, columns=["icd_code", "icd_version", "long_title"])


def discharge_codes(found: Episodes, rng: Generator) -> pd.DataFrame:
    """diagnoses_icd; an admission is coded in version 9 or in version 10."""
    drawn = codes.draw(found.stays, found.severity, found.readable, rng)
    stayed = found.admissions.iloc[drawn["admission"]].reset_index(drop=True)
    version = rng.choice([9, 10], len(found.admissions))[drawn["admission"]]
    numbers = np.asarray([[code.icd9, code.icd10] for code in codes.CODES], dtype=object)
    return pd.DataFrame(
        {
            "subject_id": stayed["subject_id"],
            "hadm_id": stayed["hadm_id"],
            "seq_num": drawn["seq_num"],
            "icd_code": numbers[drawn["code"], version - 9],
            "icd_version": version,
        }
    )
