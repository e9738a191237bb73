"""MIMIC-IV (Johnson et al. 2023, Scientific Data 10:1), its notes, and MIMIC-CXR-JPG.

Tables lie in `hosp` and `icu`; radiology reports (MIMIC-IV-Note) in `note`, pictures and their
metadata (MIMIC-CXR-JPG 2.0.0) in `cxr`. Deaths are those in hospital: `dod` is censored a year
after the last discharge, so it is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import ibis
import ibis.expr.types as ir

from cm2.prepare.images import CHEXPERT as CHEXPERT_LABELS
from cm2.prepare.images import studies
from cm2.prepare.source import (
    DOCUMENTS,
    IMAGES,
    MEASUREMENTS,
    STAYS,
    Source,
    register,
    shaped,
)

__all__ = ["CHEXPERT", "METADATA", "MIMIC4"]

METADATA = "mimic-cxr-2.0.0-metadata"
CHEXPERT = "mimic-cxr-2.0.0-chexpert"


@register("mimic4")
class MIMIC4(Source):
    """MIMIC-IV 2 or 3, with radiology reports and chest X-rays where they are there."""

    name = "mimic4"
    wanted = {
        "patients": {
            "subject_id": "int64",
            "gender": "string",
            "anchor_age": "int64",
            "anchor_year": "int64",
            "anchor_year_group": "string",
        },
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
            "stay_id": "int64",
            "first_careunit": "string",
            "last_careunit": "string",
            "intime": "timestamp",
            "outtime": "timestamp",
        },
        "chartevents": {
            "subject_id": "int64",
            "hadm_id": "int64",
            "stay_id": "int64",
            "itemid": "int64",
            "charttime": "timestamp",
            "storetime": "timestamp",
            "value": "string",
            "valuenum": "float64",
            "valueuom": "string",
        },
        "labevents": {
            "subject_id": "int64",
            "hadm_id": "int64",
            "itemid": "int64",
            "charttime": "timestamp",
            "storetime": "timestamp",
            "value": "string",
            "valuenum": "float64",
            "valueuom": "string",
        },
        "radiology": {
            "note_id": "string",
            "subject_id": "int64",
            "hadm_id": "int64",
            "charttime": "timestamp",
            "storetime": "timestamp",
            "text": "string",
        },
        METADATA: {
            "dicom_id": "string",
            "subject_id": "int64",
            "study_id": "int64",
            "viewposition": "string",
            "studydate": "string",
            "studytime": "string",
        },
        CHEXPERT: {
            "study_id": "int64",
            **{name.replace("_", " "): "float64" for name in CHEXPERT_LABELS},
        },
    }
    optional = frozenset({"labevents", "radiology", METADATA, CHEXPERT})
    lazy = frozenset({"chartevents", "labevents", "radiology"})
    filled = frozenset({"patients", "admissions", "icustays", "chartevents"})
    subfolders = ("hosp", "icu", "note", "cxr")
    note_tables = ("radiology",)
    image_tables = (METADATA, CHEXPERT)

    modalities = ("series", "cxr", "report")
    tasks = (*Source.tasks, "phenotyping")
    outcomes: ClassVar[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
        "phenotyping": {
            "diagnoses_icd": {"hadm_id": "int64", "icd_code": "string", "icd_version": "int64"}
        }
    }
    grouping = ("anchor_year_group",)
    text = "report"

    def stays(self) -> ir.Table:
        stays = self.raw["icustays"]
        stays = stays.mutate(transferred=stays.first_careunit != stays.last_careunit)
        admissions = self.raw["admissions"].drop("subject_id").distinct()
        patients = self.raw["patients"].distinct()
        joined = stays.left_join(admissions, "hadm_id").left_join(patients, "subject_id")
        joined = joined.drop("hadm_id_right", "subject_id_right")
        # The anchor year is shifted like all dates; ages over 89 are given as 91.
        return shaped(
            joined.mutate(
                died=joined.hospital_expire_flag,
                age=joined.anchor_age + joined.intime.year() - joined.anchor_year,
            ),
            STAYS,
        )

    def groups(self) -> ir.Table:
        stays, patients = self.raw["icustays"], self.raw["patients"].distinct()
        joined = stays.left_join(patients, "subject_id")
        return joined.select("stay_id", "anchor_year_group").distinct()

    def diagnoses(self) -> ir.Table:
        coded = self.raw["diagnoses_icd"]
        return coded.select("hadm_id", code=coded.icd_code, version=coded.icd_version)

    def measurements(self) -> ir.Table:
        chart = self.raw["chartevents"]
        tables = [chart.mutate(origin=ibis.literal("chartevents"))]
        if "labevents" in self.raw:
            lab = self.raw["labevents"]
            tables.append(lab.mutate(origin=ibis.literal("labevents"), stay_id=ibis.null("int64")))
        return ibis.union(
            *(
                shaped(
                    table.mutate(
                        item=table.itemid.cast("string"),
                        text=table.value,
                        number=table.valuenum,
                        unit=table.valueuom,
                        error=ibis.literal(False),
                    ),
                    MEASUREMENTS,
                )
                for table in tables
            )
        )

    def documents(self) -> ir.Table | None:
        if "radiology" not in self.raw:
            return None
        return shaped(
            self.raw["radiology"].mutate(
                category=ibis.literal("Radiology"), error=ibis.literal(False)
            ),
            DOCUMENTS,
        )

    def images(self) -> ir.Table | None:
        if METADATA not in self.raw:
            return None
        has_labels = CHEXPERT in self.raw
        return shaped(
            studies(self.raw[METADATA], self.raw[CHEXPERT] if has_labels else None), IMAGES
        )
