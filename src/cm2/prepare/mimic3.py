"""MIMIC-III (Johnson et al. 2016, Scientific Data 3:160035): where its stays and rows are.

A flat folder of upper-case CSV files. Measurements are those of CHARTEVENTS and LABEVENTS; notes
are NOTEEVENTS, which the public demo lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import ibis
import ibis.expr.types as ir

from cm2.prepare.source import (
    DOCUMENTS,
    MEASUREMENTS,
    STAYS,
    Source,
    register,
    shaped,
    whole_years,
)

__all__ = ["MIMIC3"]

OLDEST = 91.4
"""Birth dates of those over 89 are shifted so that they are about 300 years old at their first
admission; the documentation gives their median age."""


@register("mimic3")
class MIMIC3(Source):
    """MIMIC-III Clinical Database 1.4, or its demo."""

    name = "mimic3"
    wanted = {
        "patients": {"subject_id": "int64", "gender": "string", "dob": "timestamp"},
        "admissions": {
            "subject_id": "int64",
            "hadm_id": "int64",
            "admittime": "timestamp",
            "dischtime": "timestamp",
            "deathtime": "timestamp",
            "hospital_expire_flag": "int8",
        },
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
    filled = frozenset({"patients", "admissions", "icustays", "chartevents"})
    note_tables = ("noteevents",)

    modalities = ("series", "notes")
    tasks = (*Source.tasks, "phenotyping")
    outcomes: ClassVar[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
        "phenotyping": {"diagnoses_icd": {"hadm_id": "int64", "icd9_code": "string"}}
    }

    def stays(self) -> ir.Table:
        stays = self.raw["icustays"]
        stays = stays.mutate(
            stay_id=stays.icustay_id,
            transferred=(stays.first_careunit != stays.last_careunit)
            | (stays.first_wardid != stays.last_wardid),
        )
        admissions = self.raw["admissions"].drop("subject_id").distinct()
        patients = self.raw["patients"].distinct()
        joined = stays.left_join(admissions, "hadm_id").left_join(patients, "subject_id")
        joined = joined.drop("hadm_id_right", "subject_id_right")
        age = whole_years(joined.dob, joined.intime).cast("float64")
        return shaped(
            joined.mutate(died=joined.hospital_expire_flag, age=(age > 89).ifelse(OLDEST, age)),
            STAYS,
        )

    def diagnoses(self) -> ir.Table:
        coded = self.raw["diagnoses_icd"]
        return coded.select("hadm_id", code=coded.icd9_code, version=ibis.literal(9, "int64"))

    def measurements(self) -> ir.Table:
        chart = self.raw["chartevents"]
        tables = [
            shaped(
                chart.mutate(
                    stay_id=chart.icustay_id,
                    item=chart.itemid.cast("string"),
                    origin=ibis.literal("chartevents"),
                    text=chart.value,
                    number=chart.valuenum,
                    unit=chart.valueuom,
                    error=ibis.coalesce(chart.error, 0) == 1,
                ),
                MEASUREMENTS,
            )
        ]
        if "labevents" in self.raw:
            lab = self.raw["labevents"]
            tables.append(
                shaped(
                    lab.mutate(
                        stay_id=ibis.null("int64"),
                        item=lab.itemid.cast("string"),
                        origin=ibis.literal("labevents"),
                        storetime=ibis.null("timestamp"),
                        text=lab.value,
                        number=lab.valuenum,
                        unit=lab.valueuom,
                        error=ibis.literal(False),
                    ),
                    MEASUREMENTS,
                )
            )
        return ibis.union(*tables)

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
