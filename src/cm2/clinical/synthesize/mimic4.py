"""The layout of MIMIC-IV 3.1 with its radiology notes, of MIMIC-CXR-JPG 2.0.0 and MIMIC-CXR.

``hosp``, ``icu``, ``note`` and ``cxr`` hold compressed CSV files with lower-case names; the
pictures are ``cxr/files/pNN/pNNNNNNNN/sNNNNNNNN/<dicom>.jpg``. MIMIC-CXR's own reports are
``cxr-reports/files/pNN/pNNNNNNNN/sNNNNNNNN.txt``, beside the table of their sections. Published
split lists are in ``lists``. Identifiers lie above those of the real data. Written are the tables
that preparation may read, each with all its columns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.random import Generator

from cm2.clinical.synthesize import (
    cxr_reports,
    diagnoses,
    episodes,
    lists,
    mimic,
    rows,
    studies,
    xrays,
)
from cm2.clinical.synthesize import mimic4_registers as registers
from cm2.clinical.synthesize.episodes import Episodes, Ids
from cm2.clinical.synthesize.faults import Faults, pick
from cm2.clinical.synthesize.files import mark, write_csv
from cm2.clinical.synthesize.latents import MODALITIES, World
from cm2.clinical.synthesize.studies import LABELS, Studies

__all__ = ["VERSION", "write"]

VERSION = "3.1"
IDS = Ids(subject=99_000_000, admission=92_000_000, stay=93_000_000)
FIRST_STUDY = 95_000_000
CAREGIVERS = np.arange(101, 200)
LAYOUT = {
    "hosp/patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "hosp/admissions": "subject_id hadm_id admittime dischtime deathtime admission_type"
    " admit_provider_id admission_location discharge_location insurance language marital_status"
    " race edregtime edouttime hospital_expire_flag",
    "hosp/transfers": "subject_id hadm_id transfer_id eventtype careunit intime outtime",
    "hosp/services": "subject_id hadm_id transfertime prev_service curr_service",
    "hosp/d_labitems": "itemid label fluid category",
    "hosp/d_icd_diagnoses": "icd_code icd_version long_title",
    "hosp/diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
    "hosp/labevents": "labevent_id subject_id hadm_id specimen_id itemid order_provider_id"
    " charttime storetime value valuenum valueuom ref_range_lower ref_range_upper flag priority"
    " comments",
    "icu/icustays": "subject_id hadm_id stay_id first_careunit last_careunit intime outtime los",
    "icu/d_items": "itemid label abbreviation linksto category unitname param_type lownormalvalue"
    " highnormalvalue",
    "icu/caregiver": "caregiver_id",
    "icu/chartevents": "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value"
    " valuenum valueuom warning",
    "note/radiology": "note_id subject_id hadm_id note_type note_seq charttime storetime text",
    "note/radiology_detail": "note_id subject_id field_name field_value field_ordinal",
}
"""The columns of each table."""

# What MIMIC-CXR-JPG says of each view: procedure, view, orientation.
VIEWS = {
    "AP": ("CHEST (PORTABLE AP)", "antero-posterior", None),
    "PA": ("CHEST (PA AND LAT)", "postero-anterior", "Erect"),
    "LATERAL": ("CHEST (PA AND LAT)", "lateral", "Erect"),
}

Array = np.ndarray


def write(
    folder: Path, patients: int, world: World, faults: Faults, streams: dict[str, Generator]
) -> tuple[Episodes, dict[str, Array]]:
    """Writes all tables and pictures of a data set.

    Args:
        folder: An empty folder.
        patients: How many.
        world: Parameters of the generative model.
        faults: Rates of the faults.
        streams: A source of randomness for each part.

    Returns:
        Who was where, and for each modality whether a stay has it.
    """
    for name in (".", "hosp", "icu", "note", "cxr"):
        mark(folder / name)
    found = episodes.draw(patients, world, faults, IDS, streams["episodes"], minors=False)
    rng = streams["admissions"]
    size = len(found.stays)
    reported = rng.random(size) < world.text_rate
    pictured = rng.random(size) < world.image_rate

    def table(name: str, frame: pd.DataFrame | pa.Table) -> None:
        write_csv(mimic.laid_out(frame, LAYOUT[name]), folder / f"{name}.csv.gz", quote=False)

    table("hosp/patients", registers.patients(found, rng))
    table("hosp/admissions", registers.admissions(found, rng))
    table("hosp/transfers", registers.transfers(found))
    table("hosp/services", mimic.services(found))
    table("hosp/d_labitems", mimic.d_labitems())
    table("hosp/d_icd_diagnoses", registers.d_diagnoses())
    table("hosp/diagnoses_icd", registers.discharge_codes(found, streams["diagnoses"]))
    diagnoses.write_groups(folder, (9, 10))
    table("hosp/labevents", _labevents(found, faults, streams["laboratory"]))
    table("icu/icustays", registers.icustays(found))
    table("icu/d_items", registers.d_items())
    table("icu/caregiver", pd.DataFrame({"caregiver_id": CAREGIVERS}))
    table("icu/chartevents", _chartevents(found, faults, streams["chart"]))
    text = found.readable[:, MODALITIES.index("text")]
    drawn = studies.draw(
        found.stays, text, FIRST_STUDY, pictured, reported, faults, streams["studies"]
    )
    radiology, detail = _radiology(found, drawn)
    table("note/radiology", radiology)
    table("note/radiology_detail", detail)
    _xrays(folder / "cxr", found, drawn, faults, streams["images"])
    cxr_reports.write(folder / "cxr-reports", drawn, faults, streams["reports"])
    subjects = found.patients["subject_id"].to_numpy()
    lists.write(folder / "lists", subjects, faults, streams["lists"], ending="_iv")
    has = {"series": np.ones(size, dtype=bool), "text": reported, "image": pictured}
    return found, has


def _chartevents(found: Episodes, faults: Faults, rng: Generator) -> pa.Table:
    system = np.full(len(found.stays), "metavision")
    events = mimic.charted(found, system, faults, rng, flags=False)
    return pa.table(
        {
            **mimic.measured(events, found.stays),
            "caregiver_id": rng.choice(CAREGIVERS, len(events)),
            "warning": np.zeros(len(events), dtype=int),
        }
    )


def _labevents(found: Episodes, faults: Faults, rng: Generator) -> pa.Table:
    events = mimic.tested(found, faults, rng)
    size = len(events)
    columns = mimic.measured(events, found.stays)
    return pa.table(
        {
            **columns,
            "labevent_id": np.arange(1, size + 1),
            "hadm_id": rows.without(columns["hadm_id"], pick(size, 0.1, rng)),
            "specimen_id": rng.integers(1, 100_000_000, size),
            "order_provider_id": pa.nulls(size, pa.string()),
            "ref_range_lower": pa.nulls(size, pa.float64()),
            "ref_range_upper": pa.nulls(size, pa.float64()),
            "flag": pa.array(np.full(size, "abnormal"), mask=rng.random(size) < 0.7),
            "priority": pa.array(np.where(rng.random(size) < 0.6, "STAT", "ROUTINE")),
            "comments": pa.array(np.full(size, "___"), mask=rng.random(size) < 0.9),
        }
    )


def _radiology(found: Episodes, drawn: Studies) -> tuple[pd.DataFrame, pd.DataFrame]:
    reports = drawn.reports
    study = reports["study"].to_numpy()
    stay = drawn.studies["stay"].to_numpy()[study]
    subject = drawn.studies["subject_id"].to_numpy()[study]
    number = pd.Series(subject).groupby(subject).cumcount().to_numpy() + 1
    admission = pd.Series(found.stays["hadm_id"].to_numpy()[stay]).astype("Int64")
    names = [
        f"{person}-{kind}-{count}"
        for person, kind, count in zip(subject, reports["kind"], number, strict=True)
    ]
    radiology = pd.DataFrame(
        {
            "note_id": names,
            "subject_id": subject,
            "hadm_id": admission.where(reports["placed"]),
            "note_type": reports["kind"],
            "note_seq": number,
            "charttime": reports["time"],
            "storetime": reports["stored"],
            "text": reports["text"],
        }
    )
    detail = pd.DataFrame(
        {
            "note_id": names,
            "subject_id": subject,
            "field_name": "exam_name",
            "field_value": reports["exam"],
            "field_ordinal": 1,
        }
    )
    return radiology, detail


def _xrays(folder: Path, found: Episodes, drawn: Studies, faults: Faults, rng: Generator) -> None:
    images, known = drawn.images, drawn.studies
    study = known.iloc[images["study"]].reset_index(drop=True)
    turned = pick(len(images), faults.turned_image, rng)
    views = images["view"].map(VIEWS)
    clock = (
        study["time"].dt.strftime("%H%M%S").astype(int) + rng.integers(0, 1000, len(study)) / 1e3
    )
    metadata = pd.DataFrame(
        {
            "dicom_id": images["dicom_id"],
            "subject_id": study["subject_id"],
            "study_id": study["study_id"],
            "PerformedProcedureStepDescription": views.str[0],
            "ViewPosition": images["view"],
            "Rows": np.where(turned, xrays.COLUMNS, xrays.ROWS),
            "Columns": np.where(turned, xrays.ROWS, xrays.COLUMNS),
            "StudyDate": study["time"].dt.strftime("%Y%m%d"),
            "StudyTime": clock.round(3),
            "ProcedureCodeSequence_CodeMeaning": views.str[0],
            "ViewCodeSequence_CodeMeaning": views.str[1],
            "PatientOrientationCodeSequence_CodeMeaning": views.str[2],
        }
    )
    part = rng.choice(["train", "validate", "test"], len(found.patients), p=[0.9, 0.05, 0.05])
    person = np.searchsorted(found.patients["subject_id"], study["subject_id"])
    split = metadata[["dicom_id", "study_id", "subject_id"]].assign(split=part[person])
    labels = known.loc[np.unique(images["study"]), ["subject_id", "study_id", *LABELS]]
    name = "mimic-cxr-2.0.0"
    write_csv(metadata, folder / f"{name}-metadata.csv.gz", quote=False)
    write_csv(split, folder / f"{name}-split.csv.gz", quote=False)
    write_csv(labels, folder / f"{name}-chexpert.csv.gz", quote=False)
    _pictures(folder / "files", found, study, images, turned, faults, rng)


def _pictures(
    folder: Path,
    found: Episodes,
    study: pd.DataFrame,
    images: pd.DataFrame,
    turned: Array,
    faults: Faults,
    rng: Generator,
) -> None:
    """Writes the pictures; some files are cut short, and some are not there."""
    latent = found.readable[:, MODALITIES.index("image")]
    corrupt = pick(len(images), faults.corrupt_image, rng)
    lost = pick(len(images), faults.lost_image, rng) & ~corrupt
    columns = (study["stay"], study["subject_id"], study["study_id"], study["earlier"])
    for row, (stay, subject, number, earlier) in enumerate(zip(*columns, strict=True)):
        seen = np.full(2, -1.0) if earlier else latent[stay]
        picture = xrays.pixels(seen, images["view"].iloc[row], rng)
        if lost[row]:
            continue
        data = xrays.jpeg(picture, turned=bool(turned[row]))
        place = folder / f"p{str(subject)[:2]}" / f"p{subject}" / f"s{number}"
        place.mkdir(parents=True, exist_ok=True)
        dicom = images["dicom_id"].iloc[row]
        (place / f"{dicom}.jpg").write_bytes(data[: len(data) // 2] if corrupt[row] else data)
