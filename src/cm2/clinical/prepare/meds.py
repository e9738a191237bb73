"""Events in the Medical Event Data Standard (https://medical-event-data-standard.github.io).

A folder of ``data/<split>/<n>.parquet`` (``subject_id``, ``time``, ``code``, ``numeric_value``),
``metadata/codes.parquet``, ``metadata/subject_splits.parquet`` and ``metadata/dataset.json``. It
holds the admissions to the unit and what was observed in the window after them (height and weight
also shortly before), and nothing later: no discharge, no death. Outcomes are apart, in
``labels/<task>.parquet``: `prediction_time` is the end of the window.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cm2.clinical.prepare.variables import VARIABLES
from cm2.core.files import to_json

__all__ = ["ADMISSION", "SPLITS", "write_meds"]

ADMISSION = "ICU_ADMISSION"
NOTICE = "SYNTHETIC_NOT_PATIENT_DATA.txt"
SHARD = 2000
"""Subjects of one file: what is held in memory beside the events themselves."""

SPLITS = {"train": "train", "validation": "tuning", "test": "held_out"}
DATA = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us")),
        pa.field("code", pa.string(), nullable=False),
        pa.field("numeric_value", pa.float32()),
        pa.field("stay_id", pa.int64()),
    ]
)
CODES = pa.schema(
    [
        pa.field("code", pa.string(), nullable=False),
        pa.field("description", pa.string()),
    ]
)
SUBJECTS = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)


def write_meds(
    events: pd.DataFrame,
    stays: pd.DataFrame,
    out: Path,
    *,
    dataset: str,
    task: str = "none",
    synthetic: bool = False,
) -> None:
    """Writes a MEDS folder.

    Args:
        events: ``stay_id``, ``variable``, ``hour`` and ``value``, as in ``events.parquet``.
        stays: ``stay_id``, ``subject_id``, ``intime`` and ``split`` (``"train"``,
            ``"validation"`` or ``"test"``); a subject is in one split. For labels also
            ``prediction_time`` and ``label``, of lengths of stay ``remaining_hours``.
        out: The folder, which must be new or empty.
        dataset: The data set's name, such as ``"mimic3"``.
        task: What the labels are; ``"none"`` where there are none.
        synthetic: Whether the data are made up, which their name then says.
    """
    subjects = _subjects(stays)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out}: the folder for MEDS must be new or empty")
    unknown = len(events) - int(events["stay_id"].isin(stays["stay_id"]).sum())
    if unknown:
        raise ValueError(f"{unknown} events belong to none of the stays")
    for split, members in subjects.groupby("split"):
        (out / "data" / str(split)).mkdir(parents=True)
        for number, start in enumerate(range(0, len(members), SHARD)):
            own = stays[stays["subject_id"].isin(members["subject_id"].iloc[start : start + SHARD])]
            shard = _rows(events[events["stay_id"].isin(own["stay_id"])], own)
            _write(shard, DATA, out / "data" / str(split) / f"{number}.parquet")
    metadata = out / "metadata"
    metadata.mkdir(parents=True)
    _write(subjects, SUBJECTS, metadata / "subject_splits.parquet")
    _write(_codes(), CODES, metadata / "codes.parquet")
    if task != "none":
        (out / "labels").mkdir()
        pq.write_table(_labels(stays), out / "labels" / f"{task}.parquet", compression="zstd")
    if synthetic:
        (out / NOTICE).write_text("These events are made up; there are no patients.\n")
    facts = {
        "dataset_name": f"{dataset}-synthetic" if synthetic else dataset,
        "etl_name": "cm2",
        "etl_version": version("cm2"),
        "meds_version": "0.4",
        "raw_source_id_columns": ["stay_id"],
    }
    (metadata / "dataset.json").write_text(to_json(facts), encoding="utf-8")


def _subjects(stays: pd.DataFrame) -> pd.DataFrame:
    unknown = set(stays["split"]) - set(SPLITS)
    if unknown:
        raise ValueError(f"unknown split {min(unknown)!r}; there are {', '.join(SPLITS)}")
    subjects = stays[["subject_id", "split"]].drop_duplicates().sort_values("subject_id")
    twice = int(subjects["subject_id"].duplicated().sum())
    if twice:
        raise ValueError(f"{twice} subjects are in more than one split")
    return subjects.assign(split=subjects["split"].map(SPLITS))


def _labels(stays: pd.DataFrame) -> pa.Table:
    """One row a stay: a truth value, or of lengths of stay the class and the hours."""
    from meds.schema import LabelSchema

    stays = stays.sort_values(["subject_id", "prediction_time", "stay_id"], ignore_index=True)
    columns = {
        LabelSchema.subject_id_name: stays["subject_id"],
        LabelSchema.prediction_time_name: stays["prediction_time"].astype("datetime64[us]"),
    }
    if "remaining_hours" in stays:
        columns[LabelSchema.integer_value_name] = stays["label"].astype("int64")
        columns[LabelSchema.float_value_name] = stays["remaining_hours"].astype("float32")
    else:
        columns[LabelSchema.boolean_value_name] = stays["label"].astype(bool)
    table = pa.Table.from_pandas(pd.DataFrame(columns), preserve_index=False)
    return LabelSchema.align(table.replace_schema_metadata(None))


def _rows(events: pd.DataFrame, stays: pd.DataFrame) -> pd.DataFrame:
    """Puts admissions and observations on the calendar, sorted by subject and time."""
    known = stays[["stay_id", "subject_id", "intime"]]
    observed = events.merge(known, on="stay_id", how="inner", validate="many_to_one")
    seconds = (observed["hour"] * 3600).round().astype("int64")
    observed = observed.assign(
        time=observed["intime"].astype("datetime64[us]") + pd.to_timedelta(seconds, unit="s"),
        code=observed["variable"],
        numeric_value=observed["value"].astype("float32"),
    )
    admitted = known.assign(
        time=known["intime"].astype("datetime64[us]"), code=ADMISSION, numeric_value=float("nan")
    )
    rows = pd.concat([admitted[DATA.names], observed[DATA.names]], ignore_index=True)
    return rows.sort_values(["subject_id", "time"], kind="stable", ignore_index=True)


def _codes() -> pd.DataFrame:
    described = [
        (one.name, one.name.replace("_", " ") + (f" ({one.unit})" if one.unit else ""))
        for one in VARIABLES
    ]
    described.append((ADMISSION, "admission to the intensive care unit"))
    return pd.DataFrame(described, columns=["code", "description"])


def _write(frame: pd.DataFrame, schema: pa.Schema, path: Path) -> None:
    table = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(None), path, compression="zstd")
