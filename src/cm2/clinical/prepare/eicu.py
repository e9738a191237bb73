"""What eICU has of a stay beyond series: modalities that are numbers, and the score to beat.

Source: Pollard et al. (2018), The eICU Collaborative Research Database, Scientific Data 5:180178.
Every row used here was both measured and written down before the prediction time (the series of
`cm2 prepare` is made elsewhere, from rows by their time of measurement); no column that is
known only at discharge is ever read (``docs`` of the columns: https://eicu-crd.mit.edu).
"""

from __future__ import annotations

import ibis.expr.types as ir
import numpy as np
import pandas as pd

from cm2.clinical.prepare import eicu_columns as columns
from cm2.clinical.prepare.eicu_columns import STAY
from cm2.clinical.prepare.eicu_measured import measured
from cm2.clinical.prepare.eicu_window import Window
from cm2.clinical.prepare.source import Raw

__all__ = ["DAY", "numbers", "scores"]

DAY = 24.0
"""Hours after which APACHE is known: it is of the worst values of the first day."""


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
    if window.minutes >= DAY * 60:
        inputs["apache"] = _apache(window.tables, window.kept)
    return inputs


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


def scores(tables: Raw, kept: ir.Table) -> pd.DataFrame:
    """Hospital mortality as APACHE IVa predicts it; NaN where a stay has no prediction.

    Args:
        tables: The raw tables.
        kept: A column ``patientunitstayid``: the stays.
    """
    result = tables["apachepatientresult"]
    result = result.filter(result.apacheversion == "IVa")
    frame = _one_row(result, kept, ("predictedhospitalmortality",), "apachepatientresultsid")
    score = frame["predictedhospitalmortality"].astype("float64")
    stays = np.sort(kept.execute()[STAY].to_numpy())
    known = score.where(score.between(0, 1)).reindex(stays)
    return known.rename("apache_iva").rename_axis("stay_id").to_frame()
