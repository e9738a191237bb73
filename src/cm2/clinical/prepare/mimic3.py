"""MIMIC-III (Johnson et al. 2016, Scientific Data 3:160035): where its stays and rows are.

A flat folder of upper-case CSV files. Measurements are those of CHARTEVENTS and LABEVENTS; notes
are NOTEEVENTS, which the public demo lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import ibis
import ibis.expr.types as ir

from cm2.clinical.prepare.mimic import ADMISSIONS, MIMIC
from cm2.clinical.prepare.source import DOCUMENTS, register, shaped, whole_years

__all__ = ["MIMIC3"]

OLDEST = 91.4
"""Birth dates of those over 89 are shifted so that they are about 300 years old at their first
admission; the documentation gives their median age."""


@register("mimic3")
class MIMIC3(MIMIC):
    """MIMIC-III Clinical Database 1.4, or its demo."""

    name = "mimic3"
    wanted = {
        "patients": {"subject_id": "int64", "gender": "string", "dob": "timestamp"},
        "admissions": ADMISSIONS,
        "icustays": {
            "subject_id": "int64",
            "hadm_id": "int64",
            "icustay_id": "int64",
            "first_careunit": "string",
            "last_careunit": "string",
            "first_wardid": "int64",
            "last_wardid": "int64",
            "intime": "timestamp",
            "outtime": "timestamp",
        },
        "chartevents": {
            "subject_id": "int64",
            "hadm_id": "int64",
            "icustay_id": "int64",
            "itemid": "int64",
            "charttime": "timestamp",
            "storetime": "timestamp",
            "value": "string",
            "valuenum": "float64",
            "valueuom": "string",
            "error": "int8",
        },
        "labevents": {
            "subject_id": "int64",
            "hadm_id": "int64",
            "itemid": "int64",
            "charttime": "timestamp",
            "value": "string",
            "valuenum": "float64",
            "valueuom": "string",
        },
        "noteevents": {
            "row_id": "int64",
            "subject_id": "int64",
            "hadm_id": "int64",
            "charttime": "timestamp",
            "storetime": "timestamp",
            "category": "string",
            "iserror": "int8",
            "text": "string",
        },
    }
    optional = frozenset({"labevents", "noteevents"})
    lazy = frozenset({"chartevents", "labevents", "noteevents"})
    note_tables = ("noteevents",)
    stay = "icustay_id"
    places = (("first_careunit", "last_careunit"), ("first_wardid", "last_wardid"))

    modalities = ("series", "notes")
    outcomes: ClassVar[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
        "phenotyping": {"diagnoses_icd": {"hadm_id": "int64", "icd9_code": "string"}}
    }

    def age(self, stays: ir.Table) -> ir.NumericValue:
        years = whole_years(stays.dob, stays.intime).cast("float64")
        return (years > 89).ifelse(OLDEST, years)

    def diagnoses(self) -> ir.Table:
        coded = self.raw["diagnoses_icd"]
        return coded.select("hadm_id", code=coded.icd9_code, version=ibis.literal(9, "int64"))

    def documents(self) -> ir.Table | None:
        if "noteevents" not in self.raw:
            return None
        note = self.raw["noteevents"]
        return shaped(
            note.mutate(
                note_id=note.row_id.cast("string"),
                error=ibis.coalesce(note.iserror, 0) == 1,
            ),
            DOCUMENTS,
        )
