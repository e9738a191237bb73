"""MIMIC-IV (Johnson et al. 2023, Scientific Data 10:1), its notes, and MIMIC-CXR-JPG.

Tables lie in `hosp` and `icu`; radiology reports (MIMIC-IV-Note) in `note`, pictures and their
metadata (MIMIC-CXR-JPG 2.0.0) in `cxr`. Deaths are those in hospital: `dod` is censored a year
after the last discharge, so it is not read.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from cm2.prepare.source import (
    DOCUMENTS,
    FINDINGS,
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

    wanted = {
        "patients": {
            "subject_id": "int64",
            "gender": "string",
            "anchor_age": "int64",
            "anchor_year": "int64",
        },
        "admissions": {
            "subject_id": "int64",
            "hadm_id": "int64",
            "admittime": "timestamp",
            "dischtime": "timestamp",
            "deathtime": "timestamp",
            "hospital_expire_flag": "int64",
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
            "subject_id": "int64",
            "study_id": "int64",
            **{name.lower(): "float64" for name in FINDINGS},
        },
    }
    optional = frozenset({"labevents", "radiology", METADATA, CHEXPERT})
    lazy = frozenset({"chartevents", "labevents", "radiology"})
    subfolders = ("hosp", "icu", "note", "cxr")

    def stays(self) -> ir.Table:
        stays = self.raw["icustays"].distinct()
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
        image = self.raw[METADATA]
        subject, study = image.subject_id.cast("string"), image.study_id.cast("string")
        image = image.mutate(
            time=_time(image.studydate, image.studytime),
            view=image.viewposition,
            path=ibis.literal("files/p")
            + subject.left(2)
            + "/p"
            + subject
            + "/s"
            + study
            + "/"
            + image.dicom_id
            + ".jpg",
        )
        if CHEXPERT not in self.raw:
            return shaped(image.mutate(**dict.fromkeys(FINDINGS, ibis.null("float64"))), IMAGES)
        labels = self.raw[CHEXPERT].rename({name: name.lower() for name in FINDINGS})
        labels = labels.drop("subject_id").distinct(on="study_id", keep="first")
        return shaped(image.left_join(labels, "study_id").drop("study_id_right"), IMAGES)


def _time(date: ir.Value, time: ir.Value) -> ir.Value:
    """Reads 21800506 and 213014.531 (or 13014.531: leading noughts are lost) as a time."""
    clock = time.split(".")[0].lpad(6, "0")
    written = (
        date.left(4)
        + "-"
        + date.substr(4, 2)
        + "-"
        + date.substr(6, 2)
        + " "
        + clock.left(2)
        + ":"
        + clock.substr(2, 2)
        + ":"
        + clock.substr(4, 2)
    )
    return written.try_cast("timestamp")
