"""A dozen made-up stays in the layout of the raw eICU tables, forbidden columns included."""

from pathlib import Path

import numpy as np
import pandas as pd

from cm2.clinical.prepare.eicu_columns import CHRONIC, PHYSIOLOGY, STAY

NOTE = "notes/Progress Notes/Interventions/"
EXAM = "notes/Progress Notes/Physical Exam/Physical Exam/"

OUTCOMES = {
    "patient": (
        "hospitaldischargelocation",
        "unitdischargestatus",
        "dischargeweight",
        "hospitaldischargeyear",
    ),
    "apachepredvar": ("diedinhospital", "dischargelocation", "var03hspxlos", "activetx"),
    "apachepatientresult": ("actualhospitalmortality", "actualiculos", "unabridgedunitlos"),
    "diagnosis": ("activeupondischarge",),
    "treatment": ("activeupondischarge",),
    "medication": ("drugstopoffset", "drugordercancelled"),
    "respiratorycare": ("ventendoffset",),
}


def tables(bare: int = 3) -> dict[str, pd.DataFrame]:
    """Builds all tables, two stays a patient.

    Stay 101 leaves early, 102 has no outcome, 103 to 109 have three rows a table, the next `bare`
    stays have none (but the first of them has APACHE's).
    """
    rng = np.random.default_rng(0)
    n = 9 + bare
    stays = np.arange(101, 101 + n)
    made = {
        "patient": pd.DataFrame(
            {
                STAY: stays,
                "uniquepid": [f"002-{k // 2}" for k in range(n)],
                "patienthealthsystemstayid": stays,
                "hospitalid": 60,
                "gender": np.where(np.arange(n) % 2, "Male", "Female"),
                "age": ["> 89", *map(str, rng.integers(30, 80, n - 1))],
                "unittype": "MICU",
                "unitadmitsource": "Floor",
                "unitstaytype": "admit",
                "hospitaldischargestatus": ["Alive", None, *(["Alive", "Expired"] * n)[: n - 2]],
                "unitvisitnumber": 1,
                "admissionheight": 170.0,
                "admissionweight": 70.0,
                "hospitaladmitoffset": -60,
                "unitdischargeoffset": [1439, *[1440] * (n - 1)],
                "unitdischargestatus": "Alive",
                "hospitaldischargeoffset": 4000,
            }
        )
    }
    seen = np.repeat(stays[:9], 3)
    minute = np.tile([10, 700, 1400], 9)
    k = len(seen)

    def events(**columns: object) -> pd.DataFrame:
        return pd.DataFrame({STAY: seen, **columns})

    made["vitalaperiodic"] = events(
        observationoffset=minute,
        noninvasivesystolic=rng.integers(90, 160, k),
        noninvasivediastolic=rng.integers(50, 90, k),
        noninvasivemean=rng.integers(60, 110, k),
    )
    made["respiratorycharting"] = events(
        respchartoffset=minute,
        respchartentryoffset=minute + 1,
        respchartvaluelabel="FiO2",
        respchartvalue=np.where(np.arange(k) % 2, "40", "0.4"),
    )
    made["intakeoutput"] = events(
        intakeoutputoffset=minute,
        intakeoutputentryoffset=minute,
        cellpath="flowsheet|Flowsheet Cell Labels|I&O|Output (ml)|Urine",
        cellvaluenumeric=rng.integers(50, 200, k),
    )
    made["physicalexam"] = events(
        physicalexamoffset=minute,
        physicalexampath=[EXAM + f"Neurologic/GCS/Motor Score/{v}" for v in rng.integers(1, 7, k)],
        physicalexamvalue="x",
        physicalexamtext=rng.integers(1, 7, k),
    )
    made["note"] = events(
        noteoffset=minute,
        noteenteredoffset=minute + 5,
        notepath=np.where(seen % 2, NOTE + "Major/Shock", NOTE + "Minor/Pain"),
    )
    made["pasthistory"] = events(
        pasthistoryoffset=minute,
        pasthistoryenteredoffset=minute + 5,
        pasthistorypath="notes/Progress Notes/Past History/Organ Systems/Renal/failure",
    )
    made["diagnosis"] = events(
        diagnosisoffset=minute,
        diagnosisstring=np.where(seen % 2, "pulmonary|failure", "renal|failure"),
    )
    made["treatment"] = events(
        treatmentoffset=minute, treatmentstring="cardiovascular|shock|vasopressors|norepinephrine"
    )
    made["medication"] = events(
        drugorderoffset=minute,
        drugstartoffset=minute,
        drugname=np.where(seen % 2, "WARFARIN SODIUM 5 MG PO TABS", "HEPARIN 5000 UNITS"),
    )
    made["infusiondrug"] = events(infusionoffset=minute, drugname="Norepinephrine (mcg/min)")
    made["admissiondrug"] = events(drugoffset=minute, drugenteredoffset=minute, drugname="ASPIRIN")
    made["respiratorycare"] = events(
        respcarestatusoffset=minute, ventstartoffset=minute, airwaytype="Oral ETT"
    )
    made["admissiondx"] = events(
        admitdxenteredoffset=minute,
        admitdxpath="admission diagnosis|Non-operative Organ Systems|Organ System|Respiratory",
    )
    some = stays[:10]
    made["apacheapsvar"] = pd.DataFrame(
        {
            "apacheapsvarid": some,
            STAY: some,
            **{c: rng.integers(1, 9, len(some)) for c in PHYSIOLOGY},
        }
    ).assign(ph=-1)
    made["apachepredvar"] = pd.DataFrame(
        {"apachepredvarid": some, STAY: some, **dict.fromkeys(CHRONIC, 0)}
    )
    made["apachepatientresult"] = pd.DataFrame(
        {
            "apachepatientresultsid": some,
            STAY: some,
            "apacheversion": "IVa",
            "predictedhospitalmortality": [-1.0, *rng.uniform(0, 1, len(some) - 1)][::-1],
        }
    )
    for name, columns in OUTCOMES.items():
        for column in columns:
            made[name][column] = 1
    return made


def write(folder: Path, raw: dict[str, pd.DataFrame]) -> Path:
    """Writes each table as ``.csv.gz``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in raw.items():
        table.to_csv(folder / f"{name}.csv.gz", index=False)
    return folder
