"""The MEDS folder, checked by the standard's own schemas."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
from meds import (
    CodeMetadataSchema,
    DataSchema,
    DatasetMetadataSchema,
    LabelSchema,
    SubjectSplitSchema,
    code_metadata_filepath,
    dataset_metadata_filepath,
    subject_splits_filepath,
)

from cm2.clinical.prepare import meds as meds_folder
from cm2.clinical.prepare.manifest import is_synthetic
from cm2.clinical.prepare.meds import ADMISSION, write_meds

STAYS = pd.DataFrame(
    {
        "stay_id": [30, 10, 20, 40],
        "subject_id": [3, 1, 1, 2],
        "intime": pd.to_datetime(
            [
                "2150-01-01 00:00:30",
                "2150-06-01 00:00:00",
                "2140-01-01 00:00:00",
                "2150-01-01 12:00:00",
            ]
        ),
        "split": ["test", "train", "train", "validation"],
    }
)
EVENTS = pd.DataFrame(
    {
        "stay_id": [10, 10, 20, 30],
        "variable": ["heart_rate", "ph", "heart_rate", "gcs_total"],
        "hour": [1.5, 0.25, 2.0, 1 / 3600],
        "value": [80.0, 7.4, 90.0, 15.0],
    }
)


def test_follows_the_standard(tmp_path):
    out = tmp_path / "meds"
    write_meds(EVENTS, STAYS, out, dataset="mimic3")
    shards = sorted(out.glob("data/**/*.parquet"))
    assert [shard.parent.name for shard in shards] == ["held_out", "train", "tuning"]
    frames = []
    for shard in shards:
        table = pq.read_table(shard)
        DataSchema.validate(table)
        frames.append(table.to_pandas())
        times = frames[-1].groupby("subject_id", sort=False)["time"]
        assert all(one.is_monotonic_increasing for _, one in times)
        assert frames[-1]["subject_id"].is_monotonic_increasing
    subjects = [set(frame["subject_id"]) for frame in frames]
    assert subjects == [{3}, {1}, {2}], "a subject is in one file"
    rows = pd.concat(frames)
    codes = pq.read_table(out / code_metadata_filepath)
    CodeMetadataSchema.validate(codes)
    assert set(rows["code"]) <= set(codes["code"].to_pylist())
    splits = pq.read_table(out / subject_splits_filepath)
    SubjectSplitSchema.validate(splits)
    assert splits.to_pydict() == {"subject_id": [1, 2, 3], "split": ["train", "tuning", "held_out"]}
    facts = json.loads((out / dataset_metadata_filepath).read_text())
    DatasetMetadataSchema.validate(facts)
    assert facts["dataset_name"] == "mimic3"


def test_times_are_exact_and_nothing_is_lost(tmp_path):
    write_meds(EVENTS, STAYS, tmp_path / "meds", dataset="mimic3")
    rows = pd.concat(pd.read_parquet(shard) for shard in (tmp_path / "meds").glob("data/*/*"))
    assert len(rows) == len(EVENTS) + len(STAYS)
    found = rows[rows["code"] == "gcs_total"].iloc[0]
    assert found["time"] == pd.Timestamp("2150-01-01 00:00:31")
    assert found["numeric_value"] == 15
    admitted = rows[rows["code"] == ADMISSION].set_index("stay_id")["time"]
    assert admitted.to_dict() == STAYS.set_index("stay_id")["intime"].to_dict()


def test_subjects_are_spread_over_files_and_each_is_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(meds_folder, "SHARD", 1)
    stays = STAYS.assign(split="train")
    write_meds(EVENTS, stays, tmp_path / "meds", dataset="mimic3")
    shards = sorted((tmp_path / "meds" / "data" / "train").iterdir())
    assert [shard.name for shard in shards] == ["0.parquet", "1.parquet", "2.parquet"]
    subjects = [pd.read_parquet(shard)["subject_id"].unique().tolist() for shard in shards]
    assert subjects == [[1], [2], [3]]


def test_made_up_data_say_so(tmp_path):
    write_meds(EVENTS, STAYS, tmp_path / "meds", dataset="mimic3", synthetic=True)
    facts = json.loads((tmp_path / "meds" / dataset_metadata_filepath).read_text())
    assert facts["dataset_name"] == "mimic3-synthetic"
    assert is_synthetic(tmp_path / "meds", []), "who reads the folder again says so too"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": ["test", "train", "validation", "train"]}, "1 subjects are in more than one"),
        ({"split": ["test", "train", "train", "tune"]}, "unknown split 'tune'; there are train"),
        ({"stay_id": [31, 10, 20, 40]}, "1 events belong to none of the stays"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write_meds(EVENTS, STAYS.assign(**change), tmp_path / "meds", dataset="mimic3")


def test_an_old_folder_is_not_written_over(tmp_path):
    (tmp_path / "old.txt").write_text("x")
    with pytest.raises(ValueError, match="must be new or empty"):
        write_meds(EVENTS, STAYS, tmp_path, dataset="mimic3")


TOLD = STAYS.assign(
    prediction_time=STAYS["intime"] + pd.Timedelta(hours=48),
    label=pd.array([1, 0, 1, 0], dtype="Int64"),
)


def test_labels_are_apart_and_follow_the_standard(tmp_path):
    write_meds(EVENTS, TOLD, tmp_path / "meds", dataset="mimic3", task="in-hospital-mortality")
    table = pq.read_table(tmp_path / "meds" / "labels" / "in-hospital-mortality.parquet")
    LabelSchema.validate(table)
    assert table.to_pylist() == [
        {"subject_id": subject, "prediction_time": pd.Timestamp(time), "boolean_value": value}
        for subject, time, value in (
            (1, "2140-01-03 00:00:00", True),
            (1, "2150-06-03 00:00:00", False),
            (2, "2150-01-03 12:00:00", False),
            (3, "2150-01-03 00:00:30", True),
        )
    ]
    rows = pd.concat(pd.read_parquet(shard) for shard in (tmp_path / "meds").glob("data/*/*"))
    assert set(rows["code"]) == {ADMISSION, *EVENTS["variable"]}, "no outcome is an event"


def test_lengths_of_stay_are_classes_and_hours(tmp_path):
    stays = TOLD.assign(remaining_hours=[1.5, 30.0, 2.0, 400.0], label=[0, 1, 0, 9])
    write_meds(EVENTS, stays, tmp_path / "meds", dataset="mimic3", task="length-of-stay")
    table = pq.read_table(tmp_path / "meds" / "labels" / "length-of-stay.parquet")
    LabelSchema.validate(table)
    assert table["integer_value"].to_pylist() == [0, 1, 9, 0]
    assert table["float_value"].to_pylist() == [2.0, 30.0, 400.0, 1.5]


def test_without_a_task_there_are_no_labels(tmp_path):
    write_meds(EVENTS, TOLD, tmp_path / "meds", dataset="mimic3")
    assert not (tmp_path / "meds" / "labels").exists()
