"""Length of stay, and patients without an outcome yet."""

import json
from pathlib import Path

import pandas as pd
import pytest

import raw_mimic3
from cm2.clinical.prepare import labels
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.pipeline import prepare
from prepared_batches import Prepared
from raw_mimic3 import Stay

LENGTHS = (48, 71.9, 72, 100, 120, 240, 248, 383.9, 384, 2000)
"""Hours in the unit; the first day beyond the window of 48 hours ends at 72."""
CODES = [0, 0, 1, 2, 3, 8, 8, 8, 9, 9]


def write(folder: Path, **changed: pd.DataFrame) -> Path:
    stays = tuple(Stay(k, 10 + k, 100 + k, hours=h) for k, h in enumerate(LENGTHS, start=1))
    return raw_mimic3.write(folder, raw_mimic3.tables(stays) | changed)


def test_classes_are_those_of_the_benchmark(tmp_path: Path) -> None:
    about = prepare("mimic3", write(tmp_path / "raw"), tmp_path / "out", Options(task=TASK))
    stays = pd.read_parquet(tmp_path / "out" / "stays.parquet")
    assert stays["remaining_hours"].tolist() == pytest.approx([h - 48 for h in LENGTHS])
    assert stays["label"].tolist() == CODES
    assert about["classes"] == 10 == len(labels.ENDS) + 1
    assert about["positives"]["stay less than a day more"] == 2
    assert about["positives"]["stay 8 to 14 days more"] == 3
    assert sum(about["positives"].values()) == len(stays)
    data = Prepared(tmp_path / "out", split=None)
    assert data.classes == 10
    assert data.target is not None
    assert data.target.tolist() == CODES


TASK = "length-of-stay"


def test_patients_who_are_still_there_have_no_label(tmp_path: Path) -> None:
    raw = raw_mimic3.tables()
    stays = raw["ICUSTAYS"]
    there = stays["ICUSTAY_ID"].isin([101, 102])
    raw["ICUSTAYS"] = stays.assign(OUTTIME=stays["OUTTIME"].mask(there))
    admitted = raw["ADMISSIONS"]["HADM_ID"].isin([11, 12])
    flags = raw["ADMISSIONS"]["HOSPITAL_EXPIRE_FLAG"].astype("Int64").mask(admitted)
    raw["ADMISSIONS"] = raw["ADMISSIONS"].assign(
        HOSPITAL_EXPIRE_FLAG=flags, DEATHTIME=raw["ADMISSIONS"]["DEATHTIME"].mask(admitted)
    )
    folder = raw_mimic3.write(tmp_path / "raw", raw)
    about = prepare("mimic3", folder, tmp_path / "new", Options(task="none"))
    frame = pd.read_parquet(tmp_path / "new" / "stays.parquet")
    assert {101, 102} <= set(frame["stay_id"])
    assert frame["label"].isna().all()
    assert about["positives"] == {}
    assert Prepared(tmp_path / "new", split=None).target is None
    prepare("mimic3", folder, tmp_path / "old")
    known = pd.read_parquet(tmp_path / "old" / "stays.parquet")
    assert not {101, 102} & set(known["stay_id"])
    manifest = json.loads((tmp_path / "old" / "manifest.json").read_text())
    assert manifest["classes"] == 2


def test_tasks_that_a_source_does_not_tell_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="task must be"):
        Options(task="length_of_stay")
    with pytest.raises(TableError, match="eicu does not allow the task readmission"):
        prepare("eicu", tmp_path, tmp_path / "out", Options(task="readmission"))
