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

from cm2.clinical.prepare.images import CHEXPERT as CHEXPERT_LABELS
from cm2.clinical.prepare.images import studies
from cm2.clinical.prepare.mimic import ADMISSIONS, MIMIC
from cm2.clinical.prepare.source import DOCUMENTS, IMAGES, register, shaped

__all__ = ["CHEXPERT", "METADATA", "MIMIC4"]

METADATA = "mimic-cxr-2.0.0-metadata"
CHEXPERT = "mimic-cxr-2.0.0-chexpert"
OLDEST, MASKED = 89, 91
"""Ages above the first are given as the second."""


@register("mimic4")
class MIMIC4(MIMIC):
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
        "admissions": ADMISSIONS,
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
    subfolders = ("hosp", "icu", "note", "cxr")
    note_tables = ("radiology",)
    image_tables = (METADATA, CHEXPERT)

    modalities = ("series", "cxr", "report")
    outcomes: ClassVar[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
        "phenotyping": {
            "diagnoses_icd": {"hadm_id": "int64", "icd_code": "string", "icd_version": "int64"}
        }
    }
    grouping = ("anchor_year_group",)
    text = "report"

    def age(self, stays: ir.Table) -> ir.NumericValue:
        # The anchor year is shifted like all dates; ages over 89 are given as 91.
        age = stays.anchor_age + stays.intime.year() - stays.anchor_year
        return (age > OLDEST).ifelse(MASKED, age)

    def groups(self) -> ir.Table:
        """The years in which a stay was: those of the patient's anchor year, as much later."""
        stays, patients = self.raw["icustays"], self.raw["patients"].distinct()
        joined = stays.left_join(patients, "subject_id")
        later = joined.intime.year() - joined.anchor_year
        first, last = (
            (joined.anchor_year_group.re_extract(end, 1).try_cast("int64") + later).cast("string")
            for end in (r"^([0-9]{4})", r"([0-9]{4})$")
        )
        return joined.select("stay_id", anchor_year_group=first + " - " + last).distinct()

    def diagnoses(self) -> ir.Table:
        coded = self.raw["diagnoses_icd"]
        return coded.select("hadm_id", code=coded.icd_code, version=coded.icd_version)

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
