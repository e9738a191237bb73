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

from cm2.clinical.synthesize import charting, diagnoses, episodes, lists, notes, rows
from cm2.clinical.synthesize import mimic3_registers as registers
from cm2.clinical.synthesize.episodes import Episodes, Ids
from cm2.clinical.synthesize.faults import Faults, pick
from cm2.clinical.synthesize.files import mark, write_csv
from cm2.clinical.synthesize.latents import MODALITIES, World

__all__ = ["VERSION", "write"]

VERSION = "1.4"
IDS = Ids(subject=900_000, admission=1_100_000, stay=1_200_000)

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
        write_csv(frame, folder / f"{name}.csv.gz", quote=True)

    table("PATIENTS", registers.patients(found))
    table("ADMISSIONS", registers.admissions(found, rng))
    table("ICUSTAYS", registers.icustays(stays, system))
    table("TRANSFERS", registers.transfers(found, system))
    table("SERVICES", registers.services(found))
    table("CAREGIVERS", registers.caregivers())
    table("D_ITEMS", registers.d_items())
    table("D_LABITEMS", registers.d_labitems())
    table("D_ICD_DIAGNOSES", registers.d_diagnoses())
    table("DIAGNOSES_ICD", registers.discharge_codes(found, streams["diagnoses"]))
    diagnoses.write_groups(folder, (9,))
    table("CHARTEVENTS", _chartevents(found, system, faults, streams["chart"]))
    table("LABEVENTS", _labevents(found, faults, streams["laboratory"]))
    table("NOTEEVENTS", _noteevents(found, system, noted, faults, streams["notes"]))
    lists.write(folder / "lists", found.patients["subject_id"].to_numpy(), faults, streams["lists"])
    return found, {"series": np.ones(len(stays), dtype=bool), "text": noted}


def _chartevents(found: Episodes, system: Array, faults: Faults, rng: Generator) -> pa.Table:
    readable = found.readable[:, MODALITIES.index("series")]
    charted = charting.chart(found.stays, readable, system, faults, rng)
    events = rows.spread(charted, found.stays, faults, rng, flags=True)
    stay = events["stay"].to_numpy()
    modern = system[stay] == "metavision"
    # CareVue has no flags: errors are entered rows there.
    events = events[modern | (events["error"] == 0)].reset_index(drop=True)
    stay = events["stay"].to_numpy()
    modern = system[stay] == "metavision"
    size = len(events)
    stopped = np.where(rng.random(size) < 0.002, "D/C'd", "NotStopd")
    lost = pick(size, faults.no_admission_id, rng)
    unplaced = lost | pick(size, faults.no_stay_id, rng)
    flag = pd.array(events["error"].to_numpy(), dtype="Int64")
    flag[~modern] = pd.NA
    return pa.table(
        {
            "ROW_ID": np.arange(1, size + 1),
            "SUBJECT_ID": found.stays["subject_id"].to_numpy()[stay],
            "HADM_ID": rows.without(found.stays["hadm_id"].to_numpy()[stay], lost),
            "ICUSTAY_ID": rows.without(found.stays["stay_id"].to_numpy()[stay], unplaced),
            "ITEMID": events["itemid"].to_numpy(),
            "CHARTTIME": rows.seconds(events["charttime"]),
            "STORETIME": rows.seconds(events["storetime"]),
            "CGID": rng.integers(21_001, 21_101, size),
            "VALUE": rows.texts(events["number"], events["text"]),
            "VALUENUM": pa.array(events["number"], from_pandas=True),
            "VALUEUOM": pa.array(events["unit"], type=pa.string(), from_pandas=True),
            "WARNING": pa.array(np.zeros(size, dtype=int), mask=~modern),
            "ERROR": pa.array(flag, from_pandas=True),
            "RESULTSTATUS": pa.nulls(size, pa.string()),
            "STOPPED": pa.array(stopped, type=pa.string(), mask=modern),
        }
    )


def _labevents(found: Episodes, faults: Faults, rng: Generator) -> pa.Table:
    readable = found.readable[:, MODALITIES.index("series")]
    drawn = charting.laboratory(found.stays, readable, faults, rng)
    events = rows.spread(drawn, found.stays, faults, rng, flags=False)
    stay = events["stay"].to_numpy()
    size = len(events)
    outpatient = pick(size, 0.1, rng)
    return pa.table(
        {
            "ROW_ID": np.arange(1, size + 1),
            "SUBJECT_ID": found.stays["subject_id"].to_numpy()[stay],
            "HADM_ID": rows.without(found.stays["hadm_id"].to_numpy()[stay], outpatient),
            "ITEMID": events["itemid"].to_numpy(),
            "CHARTTIME": rows.seconds(events["charttime"]),
            "VALUE": rows.texts(events["number"], events["text"]),
            "VALUENUM": pa.array(events["number"], from_pandas=True),
            "VALUEUOM": pa.array(events["unit"], type=pa.string(), from_pandas=True),
            "FLAG": pa.array(np.full(size, "abnormal"), mask=rng.random(size) < 0.7),
        }
    )


def _noteevents(
    found: Episodes, system: Array, noted: Array, faults: Faults, rng: Generator
) -> pa.Table:
    text = found.readable[:, MODALITIES.index("text")]
    written = notes.draw(found.stays, found.admissions, text, system, noted, faults, rng)
    admissions = found.admissions.iloc[written["admission"]]
    size = len(written)
    dictated = written["category"].isin(["Radiology", "ECG", "Discharge summary"]).to_numpy()
    return pa.table(
        {
            "ROW_ID": np.arange(1, size + 1),
            "SUBJECT_ID": admissions["subject_id"].to_numpy(),
            "HADM_ID": admissions["hadm_id"].to_numpy(),
            "CHARTDATE": pa.array(written["date"]).cast(pa.date32()),
            "CHARTTIME": rows.seconds(written["time"]),
            "STORETIME": rows.seconds(written["stored"]),
            "CATEGORY": pa.array(written["category"], type=pa.string()),
            "DESCRIPTION": pa.array(written["description"], type=pa.string()),
            "CGID": pa.array(rng.integers(21_001, 21_101, size), mask=dictated),
            "ISERROR": pa.array(written["error"], from_pandas=True),
            "TEXT": pa.array(written["text"], type=pa.string()),
        }
    )
