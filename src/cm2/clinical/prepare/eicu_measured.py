"""The laboratory and the bedside monitor of eICU as modalities: one row of numbers a stay.

Both tables may be absent, as in the demo. A stay has the modality where one plausible value was
measured, and written down, before the prediction time.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
import pandas as pd

from cm2.clinical.prepare.eicu_columns import STAY, Variable
from cm2.clinical.prepare.eicu_window import Window

__all__ = ["LABORATORY", "MONITOR", "measured"]

TESTED = ("count", "mean", "min", "max", "first", "last")

LABORATORY: dict[str, tuple[str, float, float]] = {
    "glucose": ("glucose", 10, 2000),
    "sodium": ("sodium", 90, 200),
    "potassium": ("potassium", 1, 12),
    "chloride": ("chloride", 50, 160),
    "bicarbonate": ("bicarbonate", 2, 60),
    "BUN": ("urea_nitrogen", 1, 300),
    "creatinine": ("creatinine", 0.1, 40),
    "calcium": ("calcium", 2, 20),
    "magnesium": ("magnesium", 0.2, 15),
    "phosphate": ("phosphate", 0.2, 25),
    "Hgb": ("hemoglobin", 2, 25),
    "Hct": ("hematocrit", 5, 75),
    "WBC x 1000": ("white_cells", 0, 500),
    "platelets x 1000": ("platelets", 1, 2000),
    "-lymphs": ("lymphocytes", 0, 100),
    "-polys": ("neutrophils", 0, 100),
    "-bands": ("bands", 0, 100),
    "MCV": ("cell_volume", 40, 150),
    "albumin": ("albumin", 0.5, 8),
    "total bilirubin": ("bilirubin", 0.05, 80),
    "AST (SGOT)": ("aspartate_aminotransferase", 1, 30000),
    "ALT (SGPT)": ("alanine_aminotransferase", 1, 30000),
    "alkaline phos.": ("alkaline_phosphatase", 1, 5000),
    "PT - INR": ("prothrombin_ratio", 0.5, 25),
    "PTT": ("thromboplastin_time", 10, 250),
    "fibrinogen": ("fibrinogen", 10, 2000),
    "lactate": ("lactate", 0.1, 40),
    "CPK": ("creatine_kinase", 1, 200000),
    "CPK-MB": ("creatine_kinase_mb", 0, 1000),
    "troponin - I": ("troponin_i", 0, 1000),
    "troponin - T": ("troponin_t", 0, 100),
    "pH": ("ph", 6.3, 8.4),
    "paO2": ("oxygen_pressure", 10, 700),
    "paCO2": ("carbon_dioxide_pressure", 5, 250),
    "Base Excess": ("base_excess", -60, 60),
}
"""Names of the laboratory: variable and plausible range. Inspired oxygen, a setting that is written
down with blood gases, is in the series and among the vital signs."""

MONITOR: dict[str, tuple[str, float, float]] = {
    "heartrate": ("heart_rate", 10, 300),
    "sao2": ("oxygen_saturation", 30, 100),
    "respiration": ("respiratory_rate", 1, 90),
    "temperature": ("temperature", 26, 45),
    "systemicsystolic": ("systolic_blood_pressure", 20, 300),
    "systemicdiastolic": ("diastolic_blood_pressure", 10, 200),
    "systemicmean": ("mean_blood_pressure", 10, 250),
}
"""Columns of the monitor: variable and plausible range."""


def measured(window: Window) -> dict[str, pd.DataFrame]:
    """Returns the modalities ``lab`` and ``monitor``, each where its table is there.

    Args:
        window: What was known in time.
    """
    found = {}
    if "lab" in window.tables:
        names = {name: Variable(low, high, TESTED) for name, low, high in LABORATORY.values()}
        found["lab"] = window.summaries(_laboratory(window), names)
    if "vitalperiodic" in window.tables:
        names = {name: Variable(low, high) for name, low, high in MONITOR.values()}
        found["monitor"] = window.summaries(_monitor(window), names)
    return found


def _laboratory(window: Window) -> ir.Table:
    """Results as long rows; one revised after the prediction time was another one before."""
    lab = window.tables["lab"].semi_join(window.kept, STAY)
    known = ibis.coalesce(lab.labresultrevisedoffset, lab.labresultoffset)
    lab = lab.filter(lab.labresultoffset < window.minutes, known < window.minutes)
    names = {label: name for label, (name, _, _) in LABORATORY.items()}
    return lab.select(
        STAY,
        minute=lab.labresultoffset.cast("float64"),
        variable=lab.labname.substitute(names, else_=ibis.null("string")),
        value=lab.labresult,
    )


def _monitor(window: Window) -> ir.Table:
    table = window.tables["vitalperiodic"].semi_join(window.kept, STAY)
    table = table.filter(table.observationoffset < window.minutes)
    named = {name: table[column] for column, (name, _, _) in MONITOR.items()}
    return (
        table.select(STAY, minute=table.observationoffset.cast("float64"), **named)
        .pivot_longer(list(named), names_to="variable", values_to="value")
        .select(STAY, "minute", "variable", "value")
    )
