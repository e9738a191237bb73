"""The tables of MIMIC-III v1.4, as flat compressed CSV files with upper-case names.

Written are the tables that preparation may read, each with all its columns; identifiers lie above
those of the real data.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.random import Generator

from cm2.clinical.synthesize import charting, diagnoses, episodes, lists, mimic, notes, rows
from cm2.clinical.synthesize import mimic3_registers as registers
from cm2.clinical.synthesize.episodes import Episodes, Ids
from cm2.clinical.synthesize.faults import Faults, pick
from cm2.clinical.synthesize.files import mark, to_arrow, write_csv
from cm2.clinical.synthesize.latents import MODALITIES, World

__all__ = ["VERSION", "write"]

VERSION = "1.4"
IDS = Ids(subject=900_000, admission=1_100_000, stay=1_200_000)
LAYOUT = {
    "PATIENTS": "subject_id gender dob dod dod_hosp dod_ssn expire_flag",
    "ADMISSIONS": "subject_id hadm_id admittime dischtime deathtime admission_type"
    " admission_location discharge_location insurance language religion marital_status ethnicity"
    " edregtime edouttime diagnosis hospital_expire_flag has_chartevents_data",
    "ICUSTAYS": "subject_id hadm_id stay_id dbsource first_careunit last_careunit first_wardid"
    " last_wardid intime outtime los",
    "TRANSFERS": "subject_id hadm_id stay_id dbsource eventtype prev_careunit curr_careunit"
    " prev_wardid curr_wardid intime outtime los",
    "SERVICES": "subject_id hadm_id transfertime prev_service curr_service",
    "CAREGIVERS": "cgid label description",
    "D_ITEMS": "itemid label abbreviation dbsource linksto category unitname param_type conceptid",
    "D_LABITEMS": "itemid label fluid category loinc_code",
    "D_ICD_DIAGNOSES": "icd9_code short_title long_title",
    "DIAGNOSES_ICD": "subject_id hadm_id seq_num icd9_code",
    "CHARTEVENTS": "subject_id hadm_id stay_id itemid charttime storetime cgid value valuenum"
    " valueuom warning error resultstatus stopped",
    "LABEVENTS": "subject_id hadm_id itemid charttime value valuenum valueuom flag",
    "NOTEEVENTS": "subject_id hadm_id chartdate charttime storetime category description cgid"
    " iserror text",
}
"""The columns of each table as MIMIC-IV would name them; rows are numbered in front of these."""

Array = np.ndarray


def write(
    folder: Path, patients: int, world: World, faults: Faults, streams: dict[str, Generator]
) -> tuple[Episodes, dict[str, Array]]:
    """Writes all tables of a data set.

    Args:
        folder: An empty folder.
        patients: How many.
        world: Parameters of the generative model.
        faults: Rates of the faults.
        streams: A source of randomness for each part.

    Returns:
        Who was where, and for each modality whether a stay has it.
    """
    mark(folder)
    found = episodes.draw(patients, world, faults, IDS, streams["episodes"], minors=True)
    rng = streams["admissions"]
    stays = found.stays
    # A patient's stays are all of one era: CareVue until 2008, MetaVision since.
    era = rng.random(len(found.patients)) < 0.5
    person = np.searchsorted(found.patients["subject_id"], stays["subject_id"])
    system = np.where(era[person], *reversed(charting.ICU_SYSTEMS))
    noted = rng.random(len(stays)) < world.text_rate

    def table(name: str, frame: pd.DataFrame | pa.Table) -> None:
        write_csv(_spelled(name, frame), folder / f"{name}.csv.gz", quote=True)

    table("PATIENTS", registers.patients(found))
    table("ADMISSIONS", registers.admissions(found, rng))
    table("ICUSTAYS", registers.icustays(found, system))
    table("TRANSFERS", registers.transfers(found, system))
    table("SERVICES", mimic.services(found))
    table("CAREGIVERS", registers.caregivers())
    table("D_ITEMS", registers.d_items())
    table("D_LABITEMS", mimic.d_labitems())
    table("D_ICD_DIAGNOSES", registers.d_diagnoses())
    table("DIAGNOSES_ICD", registers.discharge_codes(found, streams["diagnoses"]))
    diagnoses.write_groups(folder, (9,))
    table("CHARTEVENTS", _chartevents(found, system, faults, streams["chart"]))
    table("LABEVENTS", _labevents(found, faults, streams["laboratory"]))
    table("NOTEEVENTS", _noteevents(found, system, noted, faults, streams["notes"]))
    lists.write(folder / "lists", found.patients["subject_id"].to_numpy(), faults, streams["lists"])
    return found, {"series": np.ones(len(stays), dtype=bool), "text": noted}


def _spelled(name: str, frame: pd.DataFrame | pa.Table) -> pa.Table:
    """Numbers the rows, and spells the names of columns as MIMIC-III does."""
    table = to_arrow(mimic.laid_out(frame, LAYOUT[name]))
    names = [*table.column_names]
    if "stay_id" in names:
        names[names.index("stay_id")] = "icustay_id"
    numbered = table.add_column(0, "row_id", [np.arange(1, len(table) + 1)])
    return numbered.rename_columns(["ROW_ID", *(column.upper() for column in names)])


def _chartevents(found: Episodes, system: Array, faults: Faults, rng: Generator) -> pa.Table:
    events = mimic.charted(found, system, faults, rng, flags=True)
    modern = system[events["stay"]] == "metavision"
    # CareVue has no flags: errors are entered rows there.
    events = events[modern | (events["error"] == 0)].reset_index(drop=True)
    modern = system[events["stay"]] == "metavision"
    size = len(events)
    stopped = np.where(rng.random(size) < 0.002, "D/C'd", "NotStopd")
    lost = pick(size, faults.no_admission_id, rng)
    unplaced = lost | pick(size, faults.no_stay_id, rng)
    columns = mimic.measured(events, found.stays)
    return pa.table(
        {
            **columns,
            "hadm_id": rows.without(columns["hadm_id"], lost),
            "stay_id": rows.without(columns["stay_id"], unplaced),
            "cgid": rng.integers(*registers.CAREGIVERS, size),
            "warning": pa.array(np.zeros(size, dtype=int), mask=~modern),
            "error": pa.array(events["error"].to_numpy(), mask=~modern),
            "resultstatus": pa.nulls(size, pa.string()),
            "stopped": pa.array(stopped, type=pa.string(), mask=modern),
        }
    )


def _labevents(found: Episodes, faults: Faults, rng: Generator) -> pa.Table:
    events = mimic.tested(found, faults, rng)
    size = len(events)
    columns = mimic.measured(events, found.stays)
    return pa.table(
        {
            **columns,
            "hadm_id": rows.without(columns["hadm_id"], pick(size, 0.1, rng)),
            "flag": pa.array(np.full(size, "abnormal"), mask=rng.random(size) < 0.7),
        }
    )


def _noteevents(
    found: Episodes, system: Array, noted: Array, faults: Faults, rng: Generator
) -> pa.Table:
    text = found.readable[:, MODALITIES.index("text")]
    written = notes.draw(found.stays, found.admissions, text, system, noted, faults, rng)
    admissions = found.admissions.iloc[written["admission"]]
    dictated = written["category"].isin(["Radiology", "ECG", "Discharge summary"]).to_numpy()
    caregivers = rng.integers(*registers.CAREGIVERS, len(written))
    return pa.table(
        {
            "subject_id": admissions["subject_id"].to_numpy(),
            "hadm_id": admissions["hadm_id"].to_numpy(),
            "chartdate": pa.array(written["date"]).cast(pa.date32()),
            "charttime": rows.seconds(written["time"]),
            "storetime": rows.seconds(written["stored"]),
            "category": pa.array(written["category"], type=pa.string()),
            "description": pa.array(written["description"], type=pa.string()),
            "cgid": pa.array(caregivers, mask=dictated),
            "iserror": pa.array(written["error"], from_pandas=True),
            "text": pa.array(written["text"], type=pa.string()),
        }
    )
