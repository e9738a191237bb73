"""Raw files: the layout of the real ones, every fault, the latents, and the same bytes again."""

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from scipy.stats import spearmanr

from cm2.clinical import synthesize as package
from cm2.clinical.synthesize import MANIFEST, TRUTH, World, mimic3, synthesize
from cm2.clinical.synthesize.files import MARKER
from cm2.core.errors import InputError


def read(folder: Path, name: str, **options) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv.gz", low_memory=False, **options)


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rank(first, second) -> float:
    return float(spearmanr(first, second).statistic)


def test_columns_of_mimic3_are_those_of_the_real_files(
    mimic3, dataset: Callable[[str], Path]
) -> None:
    demo = dataset("mimiciii-demo")
    for path in mimic3.glob("[A-Z]*.csv.gz"):
        if (demo / path.name).is_file():
            with gzip.open(path, "rt") as ours, gzip.open(demo / path.name, "rt") as real:
                assert ours.readline() == real.readline(), path.name


def test_columns_of_notes_and_of_mimic4(mimic3, mimic4):
    notes = (
        "ROW_ID SUBJECT_ID HADM_ID CHARTDATE CHARTTIME STORETIME CATEGORY DESCRIPTION CGID"
        " ISERROR TEXT"
    )
    assert list(read(mimic3, "NOTEEVENTS")) == notes.split()
    wanted = {
        "hosp/patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
        "hosp/labevents": "labevent_id subject_id hadm_id specimen_id itemid order_provider_id"
        " charttime storetime value valuenum valueuom ref_range_lower ref_range_upper flag"
        " priority comments",
        "icu/icustays": "subject_id hadm_id stay_id first_careunit last_careunit intime outtime"
        " los",
        "icu/chartevents": "subject_id hadm_id stay_id caregiver_id charttime storetime itemid"
        " value valuenum valueuom warning",
        "note/radiology": "note_id subject_id hadm_id note_type note_seq charttime storetime text",
        "cxr/mimic-cxr-2.0.0-split": "dicom_id study_id subject_id split",
    }
    for name, columns in wanted.items():
        assert list(read(mimic4, name)) == columns.split()


@pytest.mark.parametrize("source", ["mimic3", "mimic4"])
def test_files_are_the_same_again(source, tmp_path):
    digests = []
    for name, seed in [("first", 1), ("second", 1), ("other", 2)]:
        synthesize(source, 12, tmp_path / name, seed=seed)
        digests.append(digest(tmp_path / name))
    assert digests[0] == digests[1] != digests[2]


def test_everything_says_that_it_is_synthetic(mimic3, mimic4):
    for folder in (mimic3, mimic4):
        about = json.loads((folder / MANIFEST).read_text())
        assert about["synthetic"] is True
        assert about["world"]["dependence"] == World().dependence
        for path in folder.rglob("*.gz"):
            header = path.read_bytes()[:40]
            assert header[4:8] == b"\0\0\0\0"
            assert header[10:].startswith(b"SYNTHETIC_")
            assert (path.parent / MARKER).is_file()
    assert all(b"SYNTHETIC" in path.read_bytes()[:200] for path in mimic4.rglob("*.jpg"))
    assert read(mimic3, "PATIENTS")["SUBJECT_ID"].min() > 900_000
    assert read(mimic4, "hosp/patients")["subject_id"].min() > 99_000_000


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    out = tmp_path / "raw"
    with monkeypatch.context() as patch:
        patch.setattr(mimic3, "_chartevents", broken)
        with pytest.raises(KeyboardInterrupt):
            synthesize("mimic3", 12, out)
    assert not out.exists()
    synthesize("mimic3", 12, out)
    synthesize("mimic3", 12, out, seed=4)
    assert json.loads((out / MANIFEST).read_text())["seed"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_what_is_not_synthetic_is_not_written_over(tmp_path):
    (tmp_path / "PATIENTS.csv.gz").write_bytes(b"")
    with pytest.raises(InputError, match="no synthetic data set"):
        synthesize("mimic3", 12, tmp_path)
    with pytest.raises(InputError, match="at least 1"):
        synthesize("mimic3", 0, tmp_path / "raw")
    with pytest.raises(InputError, match="source must be"):
        package.synthesize("mimic2", 12, tmp_path / "raw")


def test_faults_of_mimic3_stays_are_there(mimic3):
    stays = read(mimic3, "ICUSTAYS", parse_dates=["INTIME", "OUTTIME"])
    patients = read(mimic3, "PATIENTS")
    assert (stays["OUTTIME"] < stays["INTIME"]).any()
    assert (stays["FIRST_CAREUNIT"] != stays["LAST_CAREUNIT"]).any()
    assert stays["HADM_ID"].duplicated().any()
    assert read(mimic3, "ADMISSIONS")["SUBJECT_ID"].duplicated().any()
    born = patients["DOB"].str[:4].astype(int)
    seen = stays.groupby("SUBJECT_ID")["INTIME"].min().dt.year
    age = seen.reindex(patients["SUBJECT_ID"]).to_numpy() - born
    assert (age >= 299).any()
    assert (age < 18).any()
    assert 0 < read(mimic3, "ADMISSIONS")["HOSPITAL_EXPIRE_FLAG"].mean() < 0.5


def test_faults_of_mimic3_events_are_there(mimic3):
    events = read(mimic3, "CHARTEVENTS", dtype={"VALUE": str})
    by_item = dict(list(events.groupby("ITEMID")))
    assert (by_item[190]["VALUENUM"] <= 1).any()
    assert (by_item[190]["VALUENUM"] > 1.1).any()
    assert (by_item[223835]["VALUENUM"] <= 1).any()
    assert (by_item[223835]["VALUENUM"] > 20).any()
    assert (by_item[678]["VALUENUM"] > 90).any()
    assert by_item[676]["VALUENUM"].lt(45).any()
    assert {920, 226531, 763, 52, 456, 220052, 220181, 198} <= set(by_item)
    assert (by_item[723]["VALUE"] == "1.0 ET/Trach").any()
    assert (by_item[223900]["VALUE"] == "No Response-ETT").any()
    assert events["ERROR"].eq(1).any()
    assert events["ICUSTAY_ID"].isna().any()
    assert events["HADM_ID"].isna().any()
    assert events["STORETIME"].isna().any()
    key = ["SUBJECT_ID", "ITEMID", "CHARTTIME"]
    assert events.duplicated(key).any()
    assert (events["VALUENUM"].isna() & (events["ITEMID"] == 211)).any() or (
        events["VALUENUM"].isna() & events["VALUE"].isin(["unable to obtain", ">500"])
    ).any()
    labs = read(mimic3, "LABEVENTS")
    assert {51491, 51478, 50820} <= set(labs["ITEMID"])


def test_faults_of_mimic3_notes_are_there(mimic3):
    notes = read(mimic3, "NOTEEVENTS")
    assert notes["ISERROR"].eq(1).any()
    assert notes.loc[notes["CATEGORY"] == "Discharge summary", "CHARTTIME"].isna().all()
    assert notes.loc[notes["CATEGORY"].str.startswith("Nursing"), "CHARTTIME"].isna().any()
    assert notes.duplicated(["HADM_ID", "CHARTDATE", "TEXT"]).any()
    assert notes["TEXT"].str.contains(r"[**", regex=False).any()


def test_clean_tables_have_no_faults(tmp_path):
    synthesize("mimic3", 30, tmp_path / "raw", world=World(messiness=0.0))
    events = read(tmp_path / "raw", "CHARTEVENTS", dtype={"VALUE": str})
    assert not events["ERROR"].eq(1).any()
    assert events["ICUSTAY_ID"].notna().all()
    assert not events.duplicated(["ICUSTAY_ID", "ITEMID", "CHARTTIME"]).any()


def test_xrays_of_mimic4(mimic4):
    metadata = read(mimic4, "cxr/mimic-cxr-2.0.0-metadata")
    paths = {path.stem: path for path in mimic4.rglob("*.jpg")}
    assert set(paths) < set(metadata["dicom_id"])  # one at least is lost
    row = metadata[metadata["dicom_id"].isin(paths)].iloc[0]
    subject, study = str(row["subject_id"]), row["study_id"]
    place = f"cxr/files/p{subject[:2]}/p{subject}/s{study}/{row['dicom_id']}.jpg"
    assert paths[row["dicom_id"]] == mimic4 / place
    assert set(metadata["ViewPosition"]) == {"AP", "PA", "LATERAL"}
    assert set(read(mimic4, "cxr/mimic-cxr-2.0.0-chexpert")["study_id"]) <= set(
        metadata["study_id"]
    )
    sizes, broken, turned = set(), 0, 0
    for path in paths.values():
        with Image.open(path) as image:
            try:
                turned += image.getexif().get(0x0112, 1) != 1
                sizes.add(ImageOps.exif_transpose(image).size)
            except OSError:
                broken += 1
    assert sizes == {(300, 320)}
    assert broken >= 1
    assert turned >= 1


def test_reports_of_mimic4(mimic4):
    reports = read(mimic4, "note/radiology")
    assert reports["note_id"].is_unique
    assert reports["text"].str.contains("FINDINGS:").any()
    assert not reports["text"].str.contains("FINDINGS:").all()
    assert reports["text"].str.contains("IMPRESSION:").any()
    assert reports["text"].str.contains("___").any()
    assert reports["hadm_id"].isna().any()
    assert set(reports["note_type"]) == {"RR", "AR"}
    patients = read(mimic4, "hosp/patients")
    assert (patients["anchor_age"] == 91).any()
    assert not patients["anchor_age"].eq(90).any()


def test_own_reports_of_mimic4(mimic4):
    table = pd.read_csv(mimic4 / "cxr-reports/mimic_cxr_sectioned.csv")
    names = "study impression findings last_paragraph comparison"
    assert list(table) == names.split()
    texts = {path.stem: path for path in (mimic4 / "cxr-reports").rglob("s*.txt")}
    assert set(texts) == set(table["study"])
    studies = read(mimic4, "cxr/mimic-cxr-2.0.0-metadata").drop_duplicates("study_id")
    known = {f"s{row.study_id}": row.subject_id for row in studies.itertuples()}
    assert set(texts) < set(known)  # one at least is lost
    for study, path in texts.items():
        subject = str(known[study])
        assert path == mimic4 / f"cxr-reports/files/p{subject[:2]}/p{subject}/{study}.txt"
        assert "SYNTHETIC" in path.read_text()[:100]
    told = table["impression"].notna()
    assert (told != table["last_paragraph"].notna()).all()
    assert 0 < table["findings"].isna().mean() < 0.5
    assert (mimic4 / "cxr-reports" / MARKER).is_file()


def test_published_lists(mimic3, mimic4):
    for folder, ending, patients in (
        (mimic3, "", read(mimic3, "PATIENTS")["SUBJECT_ID"]),
        (mimic4, "_iv", read(mimic4, "hosp/patients")["subject_id"]),
    ):
        test, rest = (
            pd.read_csv(folder / f"lists/{name}{ending}.csv", names=["subject", "flag"])
            for name in ("testset", "valset")
        )
        assert set(test["subject"]) < set(patients)  # one at least is in no list
        assert set(rest["subject"]) == set(test.loc[test["flag"] == 0, "subject"])
        assert 0 < test["flag"].mean() < 0.4
        assert 0 < rest["flag"].mean() < 0.4


def test_modalities_tell_their_latents(mimic3, mimic4):
    truth = read(mimic3, TRUTH.removesuffix(".csv.gz")).set_index("stay_id")
    events = read(mimic3, "CHARTEVENTS", dtype={"VALUE": str})
    rate = events[events["ITEMID"].isin([211, 220045])].groupby("ICUSTAY_ID")["VALUENUM"].median()
    assert rank(rate, truth["series_1"].reindex(rate.index)) > 0.5
    stays = read(mimic3, "ICUSTAYS").drop_duplicates("HADM_ID").set_index("HADM_ID")
    notes = read(mimic3, "NOTEEVENTS")
    grave = notes["TEXT"].str.count("pressor dose|hypotensive|lethargic|oliguric|lactate rising")
    share = grave.groupby(notes["HADM_ID"]).mean()
    assert rank(share, truth["text_1"].reindex(stays["ICUSTAY_ID"][share.index])) > 0.5
    truth4 = read(mimic4, TRUTH.removesuffix(".csv.gz")).set_index("stay_id")
    stays4 = read(mimic4, "icu/icustays", parse_dates=["intime", "outtime"])
    metadata = read(mimic4, "cxr/mimic-cxr-2.0.0-metadata", dtype={"StudyDate": str})
    clock = metadata["StudyTime"].astype(int).astype(str).str.zfill(6)
    metadata["time"] = pd.to_datetime(metadata["StudyDate"] + clock, format="%Y%m%d%H%M%S")
    joined = metadata[metadata["ViewPosition"] == "AP"].merge(stays4, on="subject_id")
    inside = (joined["time"] >= joined["intime"]) & (joined["time"] <= joined["outtime"])
    paths = {path.stem: path for path in mimic4.rglob("*.jpg")}
    brightness, latent = [], []
    for row in joined[inside].drop_duplicates("stay_id").itertuples():
        try:
            with Image.open(paths[row.dicom_id]) as image:
                pixels = np.asarray(ImageOps.exif_transpose(image), dtype=float)
        except (OSError, KeyError):
            continue
        brightness.append(pixels[120:160, 75:95].mean())
        latent.append(truth4.loc[row.stay_id, "image_1"])
    assert len(latent) > 15
    assert rank(brightness, latent) > 0.8
