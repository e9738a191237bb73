"""Which eICU columns are read, when a row counts as known, and what the variables are called.

Plausible ranges are wide: they remove typing errors, not illness.
"""

from __future__ import annotations

from typing import NamedTuple

STAY = "patientunitstayid"

STATISTICS = ("count", "total", "mean", "min", "max", "first", "last", "slope")
SERIES = ("count", "mean", "min", "max", "first", "last", "slope")
FLOW = ("count", "total")
EXAMINED = ("min", "max", "last")

BEFORE = -360.0
"""Readings from up to six hours before admission to the unit are used, in minutes."""


class Variable(NamedTuple):
    """Plausible range of a variable and how it is summarised."""

    low: float
    high: float
    statistics: tuple[str, ...] = SERIES


def _columns(texts: str = "", integers: str = "", floats: str = "") -> dict[str, str]:
    """Types of a table's columns; the stay's identifier always belongs to it."""
    return {
        STAY: "int64",
        **dict.fromkeys(integers.split(), "int64"),
        **dict.fromkeys(floats.split(), "float64"),
        **dict.fromkeys(texts.split(), "string"),
    }


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PHYSIOLOGY = _names(
    "intubated vent dialysis eyes motor verbal meds urine wbc temperature respiratoryrate sodium"
    " heartrate meanbp ph hematocrit creatinine albumin pao2 pco2 bun glucose bilirubin"
    " fio2"
)
CHRONIC = _names(
    "aids hepaticfailure lymphoma metastaticcancer leukemia immunosuppression cirrhosis diabetes"
    " electivesurgery readmit"
)
"""Facts of the admission in apachepredvar. Not read there: diedinhospital, dischargelocation,
var03hspxlos (outcomes or their forecasts); activetx, thrombolytics, ventday1, oob*day1 (what was
done, without a time); eyes, motor, verbal, meds, pao2, fio2, creatinine, day1* (second copies of
apacheapsvar); gender, age, admitsource, admitdiagnosis, visitnumber (in patient or admissiondx);
saps3*, sicuday, teachtype, region, bedcount, managementsystem (about hospitals, or constant)."""

WANTED: dict[str, dict[str, str]] = {
    "patient": _columns(
        "uniquepid gender age unittype unitadmitsource unitstaytype hospitaldischargestatus",
        "unitvisitnumber",
        "admissionheight admissionweight hospitaladmitoffset unitdischargeoffset",
    ),
    "admissiondx": _columns("admitdxpath", floats="admitdxenteredoffset"),
    "apacheapsvar": _columns(integers="apacheapsvarid", floats=" ".join(PHYSIOLOGY)),
    "apachepredvar": _columns(integers="apachepredvarid", floats=" ".join(CHRONIC)),
    "apachepatientresult": _columns(
        "apacheversion", "apachepatientresultsid", "predictedhospitalmortality"
    ),
    "vitalaperiodic": _columns(
        floats="observationoffset noninvasivesystolic noninvasivediastolic noninvasivemean"
    ),
    "respiratorycharting": _columns(
        "respchartvaluelabel respchartvalue", floats="respchartoffset respchartentryoffset"
    ),
    "intakeoutput": _columns(
        "cellpath", floats="intakeoutputoffset intakeoutputentryoffset cellvaluenumeric"
    ),
    "physicalexam": _columns(
        "physicalexampath physicalexamvalue physicalexamtext", floats="physicalexamoffset"
    ),
    "note": _columns("notepath", floats="noteoffset noteenteredoffset"),
    "pasthistory": _columns("pasthistorypath", floats="pasthistoryoffset pasthistoryenteredoffset"),
    "diagnosis": _columns("diagnosisstring", floats="diagnosisoffset"),
    "treatment": _columns("treatmentstring", floats="treatmentoffset"),
    "medication": _columns("drugname", floats="drugorderoffset drugstartoffset"),
    "infusiondrug": _columns("drugname", floats="infusionoffset"),
    "admissiondrug": _columns("drugname", floats="drugoffset drugenteredoffset"),
    "respiratorycare": _columns("airwaytype", floats="respcarestatusoffset ventstartoffset"),
}

TIMES: dict[str, tuple[str, ...]] = {
    name: tuple(column for column in columns if column.endswith("offset"))
    for name, columns in WANTED.items()
    if not name.startswith(("patient", "apache"))
}
"""The times of a row, of the event and of its entry; all lie before the window's end."""

OLDEST = "> 89"
CATEGORIES: dict[str, tuple[str, ...]] = {
    "unittype": (
        "Med-Surg ICU",
        "MICU",
        "Cardiac ICU",
        "SICU",
        "CCU-CTICU",
        "Neuro ICU",
        "CSICU",
        "CTICU",
    ),
    "unitadmitsource": (
        "Emergency Department",
        "Floor",
        "Operating Room",
        "ICU to SDU",
        "Direct Admit",
        "Recovery Room",
        "Step-Down Unit (SDU)",
        "Acute Care/Floor",
        "ICU",
        "Other Hospital",
    ),
    "unitstaytype": ("admit", "stepdown/other", "readmit", "transfer"),
}
ADMISSION: dict[str, str] = {
    "operative": r"within 4 hours of admission\?\|Yes$",
    "elective": r"\|Elective\|Yes$",
    **{
        f"organ={system}": rf"Organ System\|{system}"
        for system in (
            "Cardiovascular",
            "Respiratory",
            "Neurologic",
            "Gastrointestinal",
            "Metabolic",
            "Genitourinary",
            "Trauma",
            "Hematology",
            "Musculoskeletal",
        )
    },
    "sepsis": r"\|Sepsis",
    "cardiac_arrest": r"\|Cardiac arrest",
}

NORMAL: dict[str, float] = {
    "heartrate": 75,
    "meanbp": 90,
    "temperature": 37,
    "respiratoryrate": 16,
    "sodium": 140,
    "wbc": 9,
    "hematocrit": 42,
    "ph": 7.4,
    "pco2": 40,
}
SKEWED = ["creatinine", "bun", "bilirubin", "glucose", "urine", "wbc"]

PRESSURES = {
    "noninvasivesystolic": "systolic_blood_pressure",
    "noninvasivediastolic": "diastolic_blood_pressure",
    "noninvasivemean": "mean_blood_pressure",
}
CHARTED = {
    "fio2": "fraction_inspired_oxygen",
    "fio2 (%)": "fraction_inspired_oxygen",
    "o2 percentage": "fraction_inspired_oxygen",
    "peep": "peep",
    "peep/cpap": "peep",
    "sao2": "oxygen_saturation",
    "rr (patient)": "respiratory_rate",
    "total rr": "respiratory_rate",
    "lpm o2": "oxygen_flow",
    "vent rate": "ventilator_rate",
    "mean airway pressure": "mean_airway_pressure",
    "peak insp. pressure": "peak_airway_pressure",
}
PER_CENT = ("fraction_inspired_oxygen", "exam_fraction_inspired_oxygen")
"""Some rows hold fractions: values up to 1 are taken times 100."""

FLUIDS = {
    "urine": r"(?i)\|Output \(ml\)\|.*(urin|foley|void|indwelling)",
    "output": r"\|Output \(ml\)\|",
    "intake": r"\|Intake \(ml\)\|",
    "blood_products": r"\|Blood Products \(ml\)\|",
}
VITALS: dict[str, Variable] = {
    "systolic_blood_pressure": Variable(20, 300),
    "diastolic_blood_pressure": Variable(10, 200),
    "mean_blood_pressure": Variable(10, 250),
    "fraction_inspired_oxygen": Variable(21, 100),
    "peep": Variable(0, 40),
    "oxygen_saturation": Variable(30, 100),
    "respiratory_rate": Variable(1, 90),
    "oxygen_flow": Variable(0.1, 100),
    "ventilator_rate": Variable(1, 60),
    "mean_airway_pressure": Variable(1, 60),
    "peak_airway_pressure": Variable(1, 100),
    "urine": Variable(0, 5000, FLOW),
    "output": Variable(0, 5000, FLOW),
    "intake": Variable(0, 10000, FLOW),
    "blood_products": Variable(0, 5000, FLOW),
}

_RUNNING = r"(?m)^(?:infusion|treatment)\|.*"
GIVEN: dict[str, str] = {
    "vasopressor": _RUNNING
    + r"(?:norepinephrine|levophed|vasopressin|phenylephrine|neo-?synephrine|epinephrine|dopamine)",
    "inotrope": _RUNNING + r"(?:dobutamine|milrinone)",
    "ventilation": r"(?m)^(?:treatment\|.*mechanical ventilation|airway\|.*(?:ett|trach))",
    "non_invasive_ventilation": r"(?m)^treatment\|.*non-invasive ventilation",
    "sedation": _RUNNING + r"(?:propofol|midazolam|versed|dexmedetomidine|precedex)",
    "dialysis": r"(?m)^treatment\|.*(?:dialysis|cvvh)",
    "blood_products": r"(?m)^treatment\|.*(?:packed red blood|platelet|plasma)",
    "bicarbonate": _RUNNING + r"bicarb",
    "antibiotics": r"(?m)^treatment\|.*antibacterials",
    "resuscitation": r"(?m)^treatment\|.*(?:cpr|defibrillation|hypothermia)",
}

ADMISSION_PREFIX = "admission diagnosis|"
EXAM_PREFIX = "notes/Progress Notes/Physical Exam/Physical Exam/"
OPTIONS_PREFIX = "notes/Progress Notes/Physical Exam/"
NOTE_PREFIX = r"^notes/(Progress Notes/)?"
HISTORY_PREFIX = r"^notes/Progress Notes/Past History/"
_SIGNS = "Constitutional/Vital Sign and Physiological Data"
_BALANCE = "Constitutional/Weight and I&O/I&&O (ml)"
EXAM_PATHS = {
    "Neurologic/GCS/Eyes Score": "exam_gcs_eye",
    "Neurologic/GCS/Motor Score": "exam_gcs_motor",
    "Neurologic/GCS/Verbal Score": "exam_gcs_verbal",
    "Neurologic/GCS": "exam_gcs_total",
    **{
        f"{_SIGNS}/{path} {when}": f"exam_{name}_{when.lower()}"
        for path, name in {
            "HR/HR": "heart_rate",
            "BP (systolic)/BP (systolic)": "systolic_blood_pressure",
            "BP (diastolic)/BP (diastolic)": "diastolic_blood_pressure",
            "Resp Rate/Resp": "respiratory_rate",
            "O2 Sat%/O2 Sat%": "oxygen_saturation",
        }.items()
        for when in ("Current", "Lowest", "Highest")
    },
    f"{_SIGNS}/FiO2%/FiO2%": "exam_fraction_inspired_oxygen",
    f"{_SIGNS}/PEEP/PEEP": "exam_peep",
    f"{_SIGNS}/Vent Rate/Vent Rate Current": "exam_ventilator_rate",
    f"{_BALANCE}/Urine": "exam_urine",
    f"{_BALANCE}/Total Net": "exam_net_balance",
}
_RANGES = {
    "gcs_eye": (1, 4),
    "gcs_motor": (1, 6),
    "gcs_verbal": (1, 5),
    "gcs_total": (3, 15),
    "heart_rate": (10, 300),
    "systolic_blood_pressure": (20, 300),
    "diastolic_blood_pressure": (10, 200),
    "respiratory_rate": (1, 90),
    "oxygen_saturation": (30, 100),
    "fraction_inspired_oxygen": (21, 100),
    "peep": (0, 40),
    "ventilator_rate": (1, 60),
    "urine": (0, 20000),
    "net_balance": (-20000, 20000),
}
EXAM: dict[str, Variable] = {
    name: Variable(
        *next(
            limits for key, limits in _RANGES.items() if name.removeprefix("exam_").startswith(key)
        ),
        EXAMINED if "gcs" in name else ("last",),
    )
    for name in EXAM_PATHS.values()
}
