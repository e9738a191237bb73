"""In-hospital mortality after the first day of an eICU unit stay, as modalities.

Source: Pollard et al. (2018), The eICU Collaborative Research Database, Scientific Data 5:180178.
Every row used here was both measured and written down before the prediction time (the series of
`cm2 prepare` is made elsewhere, from rows by their time of measurement); no column that is
known only at discharge is ever read (``docs`` of the columns: https://eicu-crd.mit.edu).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd

from cm2.clinical.prepare import eicu_columns as columns
from cm2.clinical.prepare.eicu_columns import STAY
from cm2.clinical.prepare.eicu_measured import measured
from cm2.clinical.prepare.eicu_window import Window
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.source import Raw
from cm2.clinical.prepare.tables import Tables

__all__ = ["Cohort", "featurize", "in_hospital_mortality", "numbers"]


@dataclass(frozen=True)
class Cohort:
    """Stays with their modalities, outcome and the clinical score to beat.

    Attributes:
        inputs: Numeric modalities, one frame each, indexed by stay; a row of NaN where the stay
            lacks the modality.
        documents: Modalities of coded paths, one line a path; null where the stay lacks it. A
            modality may have numbers and a document.
        target: 1 for death in hospital, else 0.
        patient: The patient of each stay (a patient may have several).
        score: Hospital mortality predicted by APACHE IVa; NaN where there is none.
        flow: The cohort's making: what was found, each exclusion, what is left.
        unreadable: Number of values of ``"table.column"`` that were not numbers.
    """

    inputs: dict[str, pd.DataFrame]
    documents: dict[str, pd.Series]
    target: pd.Series
    patient: pd.Series
    score: pd.Series
    flow: list[tuple[str, int]]
    unreadable: dict[str, int]


def in_hospital_mortality(folder: Path, *, hours: float | int = 24) -> Cohort:
    """Builds the cohort of stays that last at least ``hours``, seen through their first ``hours``.

    Args:
        folder: The raw eICU tables, as ``.csv``, ``.csv.gz`` or ``.parquet``.
        hours: Prediction time, counted from admission to the unit. APACHE's variables are the
            worst of the first day, so that they are left out where this is under 24.

    Raises:
        FileNotFoundError: A table is missing.
        TableError: A column is missing, a file is broken, or no stay is left.
    """
    if not hours > 0:
        raise ValueError(f"hours must be positive, got {hours}")
    with Tables(folder, columns.WANTED) as tables:
        minutes = hours * 60.0
        stays, flow = _stays(tables["patient"].execute().sort_values(STAY), minutes)
        index = pd.Index(stays[STAY], name=STAY)
        kept = ibis.memtable(pd.DataFrame({STAY: index}))
        window = Window(tables, kept, minutes)
        treatment = window.document(window.treatments())
        inputs = numbers(window, stays, treatment)
        documents = {
            "notes": window.document(window.notes()),
            "diagnosis": window.document(window.diagnoses()),
            "treatment": treatment,
        }
        return Cohort(
            inputs={name: frame.reindex(index) for name, frame in inputs.items()},
            documents={name: text.reindex(index).rename(name) for name, text in documents.items()},
            target=pd.Series(
                (stays["hospitaldischargestatus"] == "Expired").to_numpy(int), index, name="died"
            ),
            patient=pd.Series(stays["uniquepid"].to_numpy(), index, name="patient"),
            score=_score(tables, kept).reindex(index),
            flow=flow,
            unreadable=dict(sorted(tables.unreadable.items())),
        )


def numbers(window: Window, patient: pd.DataFrame, treatment: pd.Series) -> dict[str, pd.DataFrame]:
    """Returns the modalities that are numbers, each indexed by the stays that have it.

    Args:
        window: What was known in time.
        patient: The rows of table ``patient`` of the stays.
        treatment: The document of treatments.
    """
    inputs = {
        "static": _static(patient.set_index(STAY), window),
        "vitals": window.summaries(window.vitals(), columns.VITALS),
        "exam": window.summaries(window.readings(), columns.EXAM),
        "treatment": _given(treatment),
    }
    inputs |= measured(window)
    if window.minutes >= 24 * 60:
        inputs["apache"] = _apache(window.tables, window.kept)
    return inputs


def featurize(
    cohort: Cohort, train: pd.Index, *, dimensions: int = 16, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Returns every modality as numbers; documents are vectorised on training rows only.

    Args:
        cohort: What ``in_hospital_mortality`` returned.
        train: Index labels (stays) of the training rows.
        dimensions: Numbers a document.
        seed: Of the randomised SVD.
    """
    # scikit-learn is slow to import, and `cm2 prepare` does without it.
    from cm2.clinical.prepare.documents import vectorize

    return {
        name: pd.concat(
            [
                *([cohort.inputs[name]] if name in cohort.inputs else []),
                *(
                    [vectorize(cohort.documents[name], train, dimensions, seed=seed)]
                    if name in cohort.documents
                    else []
                ),
            ],
            axis=1,
        )
        for name in dict.fromkeys([*cohort.inputs, *cohort.documents])
    }


def _stays(patient: pd.DataFrame, minutes: float) -> tuple[pd.DataFrame, list[tuple[str, int]]]:
    """Applies the exclusions one after the other and counts each."""
    if repeated := int(patient[STAY].duplicated().sum()):
        raise TableError(f"table patient: {repeated} rows repeat a {STAY}, one row a stay expected")
    flow = [("unit stays in the folder", len(patient))]
    exclusions = {
        "no stay or patient identifier": lambda p: p[STAY].isna() | p["uniquepid"].isna(),
        "no time of unit discharge": lambda p: p["unitdischargeoffset"].isna(),
        f"left the unit before {minutes / 60:g} h": lambda p: p["unitdischargeoffset"] < minutes,
        "hospital discharge status unknown": lambda p: (
            ~p["hospitaldischargestatus"].isin(["Alive", "Expired"])
        ),
    }
    for reason, excluded in exclusions.items():
        out = excluded(patient).to_numpy(bool)
        patient = patient[~out]
        flow.append((f"excluded: {reason}", int(out.sum())))
    flow.append(("stays kept", len(patient)))
    flow.append(
        ("deaths in hospital", int((patient["hospitaldischargestatus"] == "Expired").sum()))
    )
    if patient.empty:
        raise TableError(f"no stay is left: {flow}")
    return patient.astype({STAY: "int64"}).reset_index(drop=True), flow


def _static(patient: pd.DataFrame, window: Window) -> pd.DataFrame:
    """What is known at the door: never missing as a whole."""
    number = patient[["admissionheight", "admissionweight"]]
    height = number["admissionheight"].where(number["admissionheight"].between(100, 230))
    weight = number["admissionweight"].where(number["admissionweight"].between(25, 350))
    before = (-patient["hospitaladmitoffset"] / 60).clip(lower=0)
    age = patient["age"].replace(columns.OLDEST, "90")
    frame = pd.DataFrame(
        {
            "age": pd.to_numeric(age, errors="coerce"),
            "female": (patient["gender"] == "Female").astype(float),
            "height": height,
            "weight": weight,
            "body_mass_index": weight / (height / 100) ** 2,
            "log_hours_in_hospital": np.log1p(before),
            "unit_visit": patient["unitvisitnumber"].clip(upper=3).astype(float),
        },
        index=patient.index,
    )
    for column, values in columns.CATEGORIES.items():
        for value in values:
            frame[f"{column}={value}"] = (patient[column] == value).astype(float)
    admission = window.rows("admissiondx")
    paths = admission.select(STAY, path=admission.admitdxpath).distinct().execute()
    for name, pattern in columns.ADMISSION.items():
        found = paths.loc[paths["path"].str.contains(pattern, regex=True, na=False), STAY]
        frame[name] = frame.index.isin(found).astype(float)
    return frame


def _apache(tables: Raw, kept: ir.Table) -> pd.DataFrame:
    """APACHE's physiology (worst of the first day; -1 is missing) and chronic conditions."""
    physiology = _one_row(tables["apacheapsvar"], kept, columns.PHYSIOLOGY, "apacheapsvarid")
    chronic = _one_row(tables["apachepredvar"], kept, columns.CHRONIC, "apachepredvarid")
    frame = physiology.join(chronic, how="left").astype("float64")
    frame = frame.mask(frame < 0)
    frame["gcs"] = frame["eyes"] + frame["motor"] + frame["verbal"]
    frame["oxygenation"] = frame["pao2"] / frame["fio2"].clip(lower=21)
    for name, normal in columns.NORMAL.items():
        frame[f"{name}_deviation"] = (frame[name] - normal).abs()
    frame[columns.SKEWED] = np.log1p(frame[columns.SKEWED])
    return frame


def _given(document: pd.Series) -> pd.DataFrame:
    """Whether the treatments that matter most stand in the document."""
    return pd.DataFrame(
        {
            name: document.str.contains(pattern, regex=True).astype(float)
            for name, pattern in columns.GIVEN.items()
        },
        index=document.index,
    )


def _one_row(table: ir.Table, kept: ir.Table, names: tuple[str, ...], key: str) -> pd.DataFrame:
    """The row of smallest key of each stay."""
    table = table.semi_join(kept, STAY)
    chosen = table.group_by(STAY).agg(**{key: table[key].min()})
    frame = table.semi_join(chosen, [STAY, key]).select(STAY, *names).execute()
    return frame.drop_duplicates(STAY).set_index(STAY).sort_index()


def _score(tables: Raw, kept: ir.Table) -> pd.Series:
    result = tables["apachepatientresult"]
    result = result.filter(result.apacheversion == "IVa")
    frame = _one_row(result, kept, ("predictedhospitalmortality",), "apachepatientresultsid")
    score = frame["predictedhospitalmortality"].astype("float64")
    return score.where(score.between(0, 1)).rename("apache_iva")
