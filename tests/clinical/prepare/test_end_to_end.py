"""From raw files to a prepared folder: synthetic MIMIC-III and MIMIC-IV, and the real demos."""

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.phenotypes import PHENOTYPES
from cm2.clinical.prepare.pipeline import prepare
from cm2.clinical.prepare.places import Named
from cm2.clinical.prepare.variables import NAMES
from cm2.clinical.synthesize import TRUTH, synthesize
from cm2.clinical.synthesize.diagnoses import CODES, GROUPS
from prepared_batches import Prepared

DEMOS = {"mimic3": "mimiciii-demo", "eicu": "eicu-demo"}
HOURS = 48
SOURCES = ["mimic3", "mimic4"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("raw")
    for source in SOURCES:
        synthesize(source, 40, folder / source, seed=5)
    return {source: folder / source for source in SOURCES}


@pytest.fixture(scope="module")
def made(raw, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("prepared")
    for source in SOURCES:
        prepare(source, raw[source], folder / source)
    return {source: folder / source for source in SOURCES}


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def table(folder: Path, name: str) -> pd.DataFrame:
    return pq.read_table(folder / f"{name}.parquet").to_pandas()


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def raw_table(folder: Path, name: str) -> pd.DataFrame:
    frame = pd.read_csv(folder / f"{name}.csv.gz", low_memory=False)
    return frame.rename(columns=str.lower)


@pytest.mark.parametrize("source", SOURCES)
def test_folder_is_as_its_manifest_says(made, source):
    folder, about = made[source], manifest(made[source])
    assert about["synthetic"] is True
    assert about["source"] == source
    assert about["task"] == "in-hospital-mortality"
    assert "diagnoses_icd" not in about["input"], "codes are there, and are read for no other task"
    wanted = {"mimic3": {"series", "notes"}, "mimic4": {"series", "cxr", "report"}}[source]
    assert set(about["modalities"]) == wanted
    found = digests(folder)
    del found["manifest.json"]
    assert about["files"] == found
    stays = table(folder, "stays")
    columns = ["stay_id", "subject_id", "hadm_id", "split", "label", "age", "prediction_time"]
    assert list(stays)[:7] == columns
    groups = {"mimic3": set(), "mimic4": {"anchor_year_group"}}[source]
    assert set(list(stays)[7:]) == {f"has_{name}" for name in wanted} | groups
    assert stays["stay_id"].is_monotonic_increasing
    assert stays["stay_id"].is_unique
    assert about["flow"][-1] == ["stays kept", len(stays)]
    for name, facts in about["modalities"].items():
        index = folder / facts.get("index", facts["file"])
        holders = set(pq.read_table(index, columns=["stay_id"])["stay_id"].to_pylist())
        assert holders == set(stays.loc[stays[f"has_{name}"], "stay_id"])
        assert facts["stays"] == len(holders) > 0


@pytest.mark.parametrize("source", SOURCES)
def test_a_patient_is_in_one_split(made, source):
    stays = table(made[source], "stays")
    assert stays.groupby("subject_id")["split"].nunique().max() == 1
    assert set(stays["split"]) == {"train", "validation", "test"}


@pytest.mark.parametrize("source", SOURCES)
def test_series_is_a_full_grid_of_finite_numbers(made, source):
    series = table(made[source], "series")
    facts = manifest(made[source])["modalities"]["series"]
    stays = table(made[source], "stays")
    stays = stays[stays["has_series"]]
    assert facts["bins"] == HOURS
    assert series["stay_id"].tolist() == np.repeat(stays["stay_id"], HOURS).tolist()
    assert series["bin"].tolist() == list(range(HOURS)) * len(stays)
    values = series[facts["columns"]]
    assert (values.dtypes == "float32").all()
    assert np.isfinite(values.to_numpy()).all()
    assert values.shape[1] == 76
    train = series["stay_id"].isin(stays.loc[stays["split"] == "train", "stay_id"])
    assert 40 < values.loc[train, "heart_rate"].median() < 140, "in beats a minute"
    assert not {"mean", "deviation"} & set(facts)


@pytest.mark.parametrize("source", SOURCES)
def test_labels_are_deaths_in_hospital(made, raw, source):
    name, flag = {
        "mimic3": ("ADMISSIONS", "hospital_expire_flag"),
        "mimic4": ("hosp/admissions", "hospital_expire_flag"),
    }[source]
    stays = table(made[source], "stays")
    truth = raw_table(raw[source], name).set_index("hadm_id")[flag]
    assert stays["label"].tolist() == truth[stays["hadm_id"]].tolist()
    assert 0 < stays["label"].mean() < 1
    assert (stays["age"] >= 18).all()


@pytest.mark.parametrize("source", SOURCES)
def test_faults_of_measurements_are_mended_or_left_out(made, source):
    events = table(made[source], "events")
    assert set(events["variable"]) <= set(NAMES)
    inside = events["hour"].between(0, HOURS, inclusive="left")
    assert set(events.loc[~inside, "variable"]) <= {"height", "weight"}
    assert events["hour"].between(-24, HOURS, inclusive="left").all()
    ranges = events.groupby("variable")["value"].agg(["min", "max"])
    for variable, (low, high) in {
        "fraction_inspired_oxygen": (0.21, 1.0),
        "temperature": (33, 42),
        "ph": (6.8, 7.7),
        "height": (140, 206),
        "weight": (35, 200),
        "gcs_total": (3, 15),
        "systolic_blood_pressure": (0, 375),
        "oxygen_saturation": (0, 100),
        "glucose": (30, 1000),
    }.items():
        assert low <= ranges.loc[variable, "min"] <= ranges.loc[variable, "max"] <= high, variable
    left_out = manifest(made[source])["measurements_left_out"]
    reasons = {reason for counts in left_out.values() for reason in counts}
    assert {"outside stay", "implausible", "unreadable"} <= reasons
    assert ("error flag" in reasons) == (source == "mimic3")


@pytest.mark.parametrize("source", SOURCES)
def test_total_of_the_coma_scale_is_the_sum_of_its_parts(made, source):
    events = table(made[source], "events")
    wide = events[events["variable"].str.startswith("gcs")].pivot_table(
        index=["stay_id", "hour"], columns="variable", values="value", aggfunc="last"
    )
    whole = wide.dropna()
    parts = whole[["gcs_eye", "gcs_motor", "gcs_verbal"]].sum(axis=1)
    assert len(whole) > 100
    assert (parts == whole["gcs_total"]).mean() > 0.95  # the rest are corrected entries
    assert (whole["gcs_verbal"] == 1).any()


def test_faults_of_stays_are_counted(made):
    flow = dict(manifest(made["mimic3"])["flow"])
    for reason in (
        "discharge from the unit not after admission",
        "transferred between units or wards",
        "another stay in the same admission",
        "younger than 18",
        "left the unit before 48 h",
    ):
        assert flow[f"excluded: {reason}"] >= 1, reason
    assert flow["rows of stays found"] - sum(
        number for step, number in flow.items() if step.startswith("excluded")
    ) == len(table(made["mimic3"], "stays"))


def test_notes_tell_nothing_of_the_end(made):
    notes = table(made["mimic3"], "notes")
    assert notes["hour"].between(0, HOURS).all()
    assert not notes["category"].str.contains("ischarge").any()
    assert not notes["text"].str.contains("Expired|Discharge Disposition").any()
    assert not notes["text"].str.contains("[**", regex=False).any()
    assert not notes.duplicated(["stay_id", "hour", "text"]).any()
    counts = manifest(made["mimic3"])["counts"]["notes"]
    assert counts["flagged as an error"] >= 1
    assert counts["discharge summary"] >= 1


def test_reports_and_images(made):
    folder = made["mimic4"]
    reports = table(folder, "reports")
    assert set(reports["section"]) == {"findings", "impression"}
    assert reports["hour"].between(0, HOURS).all()
    images = np.load(folder / "images.npy", mmap_mode="r")
    index = table(folder, "images")
    assert images.shape == (len(index), 256, 256)
    assert images.dtype == np.uint8
    assert index["row"].tolist() == list(range(len(index)))
    assert set(index["view"]) <= {"AP", "PA"}
    assert index["hour"].between(0, HOURS).all()
    assert index["stay_id"].is_unique
    assert images.reshape(len(index), -1).std(1).min() > 20  # no blank picture


def test_what_modalities_share_survives_preparation(made, raw):
    truth = pd.read_csv(raw["mimic4"] / TRUTH).set_index("stay_id")
    events = table(made["mimic4"], "events")
    rate = events[events["variable"] == "heart_rate"].groupby("stay_id")["value"].median()
    assert spearmanr(rate, truth.loc[rate.index, "series_1"]).statistic > 0.4
    images = np.load(made["mimic4"] / "images.npy")
    stays = table(made["mimic4"], "images")["stay_id"]
    lungs = images[:, 96:128, 64:82].mean((1, 2))
    assert spearmanr(lungs, truth.loc[stays, "image_1"]).statistic > 0.6


def test_removal_is_that_of_the_reader_and_spares_the_first(made, raw, tmp_path):
    options = Options(missing_rate=0.4, seed=3)
    whole = table(made["mimic4"], "stays")
    # The seed would deal out the patients anew too.
    parts = whole[["subject_id", "split"]].drop_duplicates()
    parts.to_csv(tmp_path / "splits.csv", index=False)
    named = Named(split_file=tmp_path / "splits.csv")
    about = prepare("mimic4", raw["mimic4"], tmp_path / "out", options, named, threads=1)
    found, known = digests(tmp_path / "out"), digests(made["mimic4"])
    assert {name for name in known if found.get(name) != known[name]} == {
        "manifest.json",
        "stays.parquet",
    }, "what is removed stays in its file, which is the same bytes again"
    names = ["series", "cxr", "report"]
    flags = [f"has_{name}" for name in names]
    stays = table(tmp_path / "out", "stays")
    others = flags[1:]
    pd.testing.assert_frame_equal(
        stays.drop(columns=others), whole.drop(columns=others), check_exact=True
    )
    assert (stays[flags] <= whole[flags]).all(axis=None)
    gone = (whole[flags] & ~stays[flags]).sum()
    assert about["removed"] == {name: gone[f"has_{name}"] for name in names}
    for name in names[1:]:
        share = gone[f"has_{name}"] / whole[f"has_{name}"].sum()
        assert 0.2 < share < 0.6
        assert about["modalities"][name]["stays"] == stays[f"has_{name}"].sum()
    read = Prepared(
        made["mimic4"], modalities=names, missing_rate=0.4, seed=3, split=None, tokens=16
    )
    assert (read.present.numpy() == stays.loc[stays["has_series"], flags].to_numpy()).all()


def test_a_killed_run_leaves_no_folder_and_the_next_one_is_whole(made, raw, tmp_path):
    out = tmp_path / "out"
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from cm2.clinical.prepare import modalities\n"
        "from cm2.clinical.prepare.pipeline import prepare\n"
        "modalities.write_documents = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare('mimic3', Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, raw["mimic3"], out], capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert any(path.name.startswith(".") for path in tmp_path.iterdir())
    prepare("mimic3", raw["mimic3"], out, threads=1)
    assert digests(out) == digests(made["mimic3"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_phenotypes_are_the_codes_of_the_admission(raw, tmp_path):
    files = [raw["mimic4"] / name for name in GROUPS.values()]
    tables = tmp_path / "tables"
    tables.mkdir()
    for name in ("hosp", "icu"):
        (tables / name).symlink_to(raw["mimic4"] / name)
    about = prepare(
        "mimic4", tables, tmp_path / "out", Options(task="phenotyping"), named=Named(ccs=files)
    )
    stays = table(tmp_path / "out", "stays")
    rows = raw_table(tables, "hosp/diagnoses_icd").astype({"icd_code": str})
    by_number = {number: group for group, number in PHENOTYPES.items()}
    known = {code: by_number.get(c.ccs) for c in CODES for code in (c.icd9, c.icd10)}
    found = {
        (hadm, known[code]) for hadm, code in zip(rows["hadm_id"], rows["icd_code"], strict=True)
    }
    for group in PHENOTYPES:
        drawn = [(hadm, group) in found for hadm in stays["hadm_id"]]
        assert stays[f"label_{group}"].astype(bool).tolist() == drawn, group
        assert about["positives"][group] == sum(drawn)
    assert about["counts"]["diagnoses"]["of no category"] == 0
    assert sum(number > 0 for number in about["positives"].values()) > 20


COUNTS = {
    # stays, positive, events; stays without any value of a variable
    "mimic3": (
        57, 17, 27_321,
        {
            "capillary_refill_rate": 41, "fraction_inspired_oxygen": 15, "height": 32, "ph": 19,
            "weight": 3,
        },
    ),
    "eicu": (
        717, 77, 208_937,
        {
            "capillary_refill_rate": 717, "diastolic_blood_pressure": 25,
            "fraction_inspired_oxygen": 406, "gcs_eye": 717, "gcs_motor": 717, "gcs_total": 717,
            "gcs_verbal": 717, "glucose": 717, "heart_rate": 717, "height": 15,
            "mean_blood_pressure": 24, "oxygen_saturation": 581, "ph": 717,
            "respiratory_rate": 457, "systolic_blood_pressure": 25, "temperature": 717,
            "weight": 12,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("source", COUNTS)
def test_counts_of_the_real_demos(
    source: str, dataset: Callable[[str], Path], tmp_path: Path
) -> None:
    stays, positive, events, missing = COUNTS[source]
    about = prepare(source, dataset(DEMOS[source]), tmp_path / "out")
    assert about["synthetic"] is False
    assert about["flow"][-1][1] == stays
    assert sum(part["positive"] for part in about["counts"]["stays"].values()) == positive
    assert about["counts"]["events"] == events
    without = {name: n for name, n in about["counts"]["series"]["stays without"].items() if n}
    assert without == missing
