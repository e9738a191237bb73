"""Tables of MIMIC-III that say who was where, and its dictionaries of codes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.random import Generator

from cm2.clinical.synthesize import charting
from cm2.clinical.synthesize import diagnoses as codes
from cm2.clinical.synthesize.episodes import Episodes

__all__ = [
    "admissions", "caregivers", "d_diagnoses", "d_items", "d_labitems", "discharge_codes",
    "icustays", "patients", "services", "transfers",
]  # fmt: skip

WARDS = {"MICU": 52, "SICU": 33, "CCU": 7, "CSRU": 12, "TSICU": 14, "NICU": 56}
SERVICES = {"MICU": "MED", "SICU": "SURG", "CCU": "CMED", "CSRU": "CSURG", "TSICU": "TRAUM"}

Array = np.ndarray


def _numbered(frame: pd.DataFrame) -> pd.DataFrame:
    frame.insert(0, "ROW_ID", np.arange(1, len(frame) + 1))
    return frame


def patients(found: Episodes) -> pd.DataFrame:
    """PATIENTS; a patient over 89 is 300 years old at the first admission."""
    people = found.patients
    # Dates of birth of patients over 89 are shifted to 300 years before their first admission.
    years = np.where(people["age"] > 89, 300.0, people["age"])
    first = people["first"].to_numpy().astype("M8[s]")
    birth = first - np.round(years * 365.2425 * 86400).astype("m8[s]")
    dod = people["dod"]
    return _numbered(
        pd.DataFrame(
            {
                "SUBJECT_ID": people["subject_id"],
                "GENDER": people["gender"],
                "DOB": birth.astype("M8[D]").astype("M8[s]"),
                "DOD": dod,
                "DOD_HOSP": dod.where(people["died"]),
                "DOD_SSN": dod.where(~people["died"] | (people.index % 3 == 0)),
                "EXPIRE_FLAG": dod.notna().astype(int),
            }
        )
    )


def admissions(found: Episodes, rng: Generator) -> pd.DataFrame:
    """ADMISSIONS."""
    known = found.admissions
    size = len(known)
    died = known["deathtime"].notna().to_numpy()
    newborn = known["newborn"].to_numpy()
    kind = rng.choice(["EMERGENCY", "ELECTIVE", "URGENT"], size, p=[0.84, 0.13, 0.03])
    emergency = (kind == "EMERGENCY") & ~newborn
    arrived = known["admittime"] - pd.to_timedelta(rng.integers(60, 480, size), unit="min")
    left = rng.choice(["HOME", "SNF", "HOME HEALTH CARE", "REHAB/DISTINCT PART HOSP"], size)
    return _numbered(
        pd.DataFrame(
            {
                "SUBJECT_ID": known["subject_id"],
                "HADM_ID": known["hadm_id"],
                "ADMITTIME": known["admittime"],
                "DISCHTIME": known["dischtime"],
                "DEATHTIME": known["deathtime"],
                "ADMISSION_TYPE": np.where(newborn, "NEWBORN", kind),
                "ADMISSION_LOCATION": np.where(
                    emergency, "EMERGENCY ROOM ADMIT", "PHYS REFERRAL/NORMAL DELI"
                ),
                "DISCHARGE_LOCATION": np.where(died, "DEAD/EXPIRED", left),
                "INSURANCE": rng.choice(["Medicare", "Private", "Medicaid"], size),
                "LANGUAGE": pd.Series(rng.choice(["ENGL", "SPAN", "?"], size)).mask(
                    lambda language: language == "?"
                ),
                "RELIGION": rng.choice(["CATHOLIC", "NOT SPECIFIED", "JEWISH", "OTHER"], size),
                "MARITAL_STATUS": rng.choice(["MARRIED", "SINGLE", "WIDOWED"], size),
                "ETHNICITY": rng.choice(
                    ["WHITE", "BLACK/AFRICAN AMERICAN", "UNKNOWN/NOT SPECIFIED", "OTHER"], size
                ),
                "EDREGTIME": arrived.where(emergency),
                "EDOUTTIME": (known["admittime"] + pd.Timedelta(minutes=47)).where(emergency),
                "DIAGNOSIS": rng.choice(["SEPSIS", "PNEUMONIA", "CONGESTIVE HEART FAILURE"], size),
                "HOSPITAL_EXPIRE_FLAG": died.astype(int),
                "HAS_CHARTEVENTS_DATA": 1,
            }
        )
    )


def icustays(stays: pd.DataFrame, system: Array) -> pd.DataFrame:
    """ICUSTAYS; the length is negative where the written end precedes the start."""
    days = (stays["outtime"] - stays["intime"]).dt.total_seconds() / 86400
    return _numbered(
        pd.DataFrame(
            {
                "SUBJECT_ID": stays["subject_id"],
                "HADM_ID": stays["hadm_id"],
                "ICUSTAY_ID": stays["stay_id"],
                "DBSOURCE": system,
                "FIRST_CAREUNIT": stays["first_unit"],
                "LAST_CAREUNIT": stays["last_unit"],
                "FIRST_WARDID": stays["first_unit"].map(WARDS),
                "LAST_WARDID": stays["last_unit"].map(WARDS),
                "INTIME": stays["intime"],
                "OUTTIME": stays["outtime"],
                "LOS": days.round(4),
            }
        )
    )


def transfers(found: Episodes, system: Array) -> pd.DataFrame:
    """TRANSFERS: the move into each stay and the one out of it to the ward."""
    stays = found.stays
    discharge = found.admissions["dischtime"].to_numpy()[stays["admission"]]
    into = pd.DataFrame(
        {
            "SUBJECT_ID": stays["subject_id"],
            "HADM_ID": stays["hadm_id"],
            "ICUSTAY_ID": stays["stay_id"].astype("Int64"),
            "DBSOURCE": system,
            "EVENTTYPE": np.where(stays["admission"].duplicated(), "transfer", "admit"),
            "PREV_CAREUNIT": None,
            "CURR_CAREUNIT": stays["first_unit"],
            "PREV_WARDID": pd.array([None] * len(stays), dtype="Int64"),
            "CURR_WARDID": stays["first_unit"].map(WARDS),
            "INTIME": stays["intime"],
            "OUTTIME": stays["end"],
        }
    )
    out = into.assign(
        ICUSTAY_ID=pd.array([None] * len(stays), dtype="Int64"),
        EVENTTYPE="transfer",
        PREV_CAREUNIT=stays["last_unit"],
        CURR_CAREUNIT=None,
        PREV_WARDID=stays["last_unit"].map(WARDS).astype("Int64"),
        CURR_WARDID=45,
        INTIME=stays["end"],
        OUTTIME=discharge,
    )
    both = pd.concat([into, out]).sort_values(["SUBJECT_ID", "INTIME"], kind="stable")
    both["LOS"] = ((both["OUTTIME"] - both["INTIME"]).dt.total_seconds() / 3600).round(2)
    return _numbered(both.reset_index(drop=True).astype({"PREV_CAREUNIT": "object"}))


def services(found: Episodes) -> pd.DataFrame:
    """SERVICES, one row an admission."""
    first = found.stays[~found.stays["admission"].duplicated()].reset_index(drop=True)
    return _numbered(
        pd.DataFrame(
            {
                "SUBJECT_ID": first["subject_id"],
                "HADM_ID": first["hadm_id"],
                "TRANSFERTIME": first["intime"],
                "PREV_SERVICE": pd.array([None] * len(first), dtype="string"),
                "CURR_SERVICE": first["first_unit"].map(SERVICES).fillna("NB"),
            }
        )
    )


def caregivers() -> pd.DataFrame:
    """CAREGIVERS."""
    ids = np.arange(21_001, 21_101)
    labels = np.resize(["RN", "MD", "RT", "Res"], len(ids))
    titles = np.resize(["RN", "Attending", "Respiratory", "Resident/Fellow/PA/NP"], len(ids))
    return _numbered(pd.DataFrame({"CGID": ids, "LABEL": labels, "DESCRIPTION": titles}))


def d_items() -> pd.DataFrame:
    """D_ITEMS, the charted items of the catalogue."""
    charted = [item for item in charting.items() if item.system in charting.ICU_SYSTEMS]
    return _numbered(
        pd.DataFrame(
            {
                "ITEMID": [item.itemid for item in charted],
                "LABEL": [item.label for item in charted],
                "ABBREVIATION": [item.abbreviation for item in charted],
                "DBSOURCE": [item.system for item in charted],
                "LINKSTO": "chartevents",
                "CATEGORY": [item.category for item in charted],
                "UNITNAME": [i.unit if i.system == "metavision" else None for i in charted],
                "PARAM_TYPE": [item.parameter for item in charted],
                "CONCEPTID": pd.array([None] * len(charted), dtype="Int64"),
            }
        )
    )


def d_labitems() -> pd.DataFrame:
    """D_LABITEMS."""
    labs = [item for item in charting.items() if item.system == "lab"]
    return _numbered(
        pd.DataFrame(
            {
                "ITEMID": [item.itemid for item in labs],
                "LABEL": [item.label for item in labs],
                "FLUID": [item.abbreviation for item in labs],
                "CATEGORY": [item.category for item in labs],
                "LOINC_CODE": [item.parameter for item in labs],
            }
        )
    )


def d_diagnoses() -> pd.DataFrame:
    """D_ICD_DIAGNOSES."""
    return _numbered(
        pd.DataFrame(
            {
                "ICD9_CODE": [code.icd9 for code in codes.CODES],
                "SHORT_TITLE": [code.title[:24] for code in codes.CODES],
                "LONG_TITLE": [code.title for code in codes.CODES],
            }
        )
    )


def discharge_codes(found: Episodes, rng: Generator) -> pd.DataFrame:
    """DIAGNOSES_ICD."""
    drawn = codes.draw(found.stays, found.severity, found.readable, rng)
    stayed = found.admissions.iloc[drawn["admission"]].reset_index(drop=True)
    numbers = np.asarray([code.icd9 for code in codes.CODES], dtype=object)
    return _numbered(
        pd.DataFrame(
            {
                "SUBJECT_ID": stayed["subject_id"],
                "HADM_ID": stayed["hadm_id"],
                "SEQ_NUM": drawn["seq_num"],
                "ICD9_CODE": numbers[drawn["code"]],
            }
        )
    )
