"""`prepare`: one atomic folder, the same bytes every time, and a clear word on every fault."""

import dataclasses
import gzip
import importlib.util
import json
import shutil
import sys
import types
from pathlib import Path

import duckdb
import pandas as pd
import pytest

import raw_mimic3
from cm2.cli import main
from cm2.clinical.prepare import folder, manifest, summary
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.pipeline import prepare
from cm2.clinical.prepare.places import Named
from cm2.core.layout import EMBEDDINGS, TOKENS

SECRET = "71345"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw_mimic3.write(tmp_path_factory.mktemp("raw"), raw_mimic3.tables())


@pytest.fixture(scope="module")
def made(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    prepare("mimic3", raw, out)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def changed(tmp_path: Path, **tables: pd.DataFrame) -> Path:
    return raw_mimic3.write(tmp_path / "raw", raw_mimic3.tables() | tables)


def test_the_folder_holds_what_its_manifest_says(made: Path) -> None:
    about = json.loads((made / "manifest.json").read_text())
    stays = pd.read_parquet(made / "stays.parquet")
    assert set(about["files"]) == {"stays.parquet", "events.parquet", "series.parquet"}
    assert about["files"] == manifest.checksums(made)
    assert (about["source"], about["task"]) == ("mimic3", "in-hospital-mortality")
    assert about["synthetic"] is False
    assert list(about["modalities"]) == ["series"]
    assert "notes" in about["absent"]
    assert stays["stay_id"].tolist() == [101, 102, 103, 104, 105, 106, 122, 131]
    assert stays["label"].tolist() == [1, 0, 1, 0, 1, 0, 0, 0]
    assert stays["has_series"].all()
    assert stays["age"].tolist()[-2:] == [91.4, 50.0]
    assert stays.groupby("subject_id")["split"].nunique().eq(1).all()
    events = pd.read_parquet(made / "events.parquet")
    assert list(events) == ["stay_id", "variable", "hour", "value"]
    assert len(events) == 8 * 48 == about["counts"]["events"]
    series = pd.read_parquet(made / "series.parquet")
    assert len(series) == 8 * 48
    assert series.shape[1] == 2 + 76


def test_every_exclusion_is_counted(made: Path) -> None:
    flow = dict(json.loads((made / "manifest.json").read_text())["flow"])
    assert {step: number for step, number in flow.items() if number} == {
        "rows of stays found": 14,
        "excluded: discharge from the unit not after admission": 1,
        "excluded: transferred between units or wards": 1,
        "excluded: another stay in the same admission": 2,
        "excluded: younger than 18": 1,
        "excluded: left the unit before 48 h": 1,
        "stays kept": 8,
    }


def test_row_order_and_format_do_not_matter(made: Path, tmp_path: Path) -> None:
    shuffled = {n: t.sample(frac=1, random_state=1) for n, t in raw_mimic3.tables().items()}
    (tmp_path / "raw").mkdir()
    for k, (name, table) in enumerate(shuffled.items()):
        path = tmp_path / "raw" / name.lower()
        if k % 2:
            table.to_parquet(path.with_suffix(".parquet"))
        else:
            text = table.rename(columns=str.title).to_csv(index=False)
            path.with_suffix(".CSV.gz").write_bytes(gzip.compress(text.encode()))
    prepare("mimic3", tmp_path / "raw", tmp_path / "out")
    for name in ("stays.parquet", "events.parquet", "series.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (made / name).read_bytes()


def test_one_duckdb_file_is_read(made: Path, tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "raw.duckdb")) as database:
        database.execute("create schema mimiciii")
        for name, table in raw_mimic3.tables().items():
            database.register("shown", table)
            database.execute(f"create table mimiciii.{name.lower()} as from shown")
            database.unregister("shown")
    prepare("mimic3", tmp_path / "raw.duckdb", tmp_path / "out")
    for name in ("stays.parquet", "events.parquet", "series.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (made / name).read_bytes()


def test_a_result_that_is_there_is_not_made_again(
    raw: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(made, tmp_path / "out")
    first = json.loads((made / "manifest.json").read_text())
    monkeypatch.setattr("cm2.clinical.prepare.pipeline.start", None)
    assert prepare("mimic3", raw, out) == first
    for kept in (TOKENS, EMBEDDINGS):  # by readers, since
        (out / kept).mkdir()
        (out / kept / "report.npy").touch()
    assert prepare("mimic3", raw, out) == first
    with pytest.raises(TableError, match=r"differs in options \(hours: 48\.0 there, 24\.0 now\)"):
        prepare("mimic3", raw, out, Options(hours=24))
    (out / "stays.parquet").write_bytes(b"")
    with pytest.raises(TableError, match="was changed since"):
        prepare("mimic3", raw, out)


def test_another_result_is_replaced_if_asked(raw: Path, made: Path, tmp_path: Path) -> None:
    out = shutil.copytree(made, tmp_path / "out")
    prepare("mimic3", raw, out, Options(hours=24), overwrite=True)
    assert json.loads((out / "manifest.json").read_text())["options"]["hours"] == 24
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_an_interruption_leaves_nothing_and_the_next_run_starts_clean(
    raw: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("cm2.clinical.prepare.modalities.write_series", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare("mimic3", raw, out)
    assert not out.exists()
    left = tmp_path / ".out.partial"
    left.mkdir()
    (left / "junk").write_text("of a run that was killed")
    prepare("mimic3", raw, out)
    assert contents(out) == contents(made)


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_other_files_are_not_written_over(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("")
    with pytest.raises(TableError, match=r"no manifest\.json"):
        prepare("mimic3", raw, out, overwrite=True)
    with pytest.raises(TableError, match="outside the raw tables"):
        prepare("mimic3", raw, raw / "out")
    assert (out / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hours": 0}, "hours must be a positive number"),
        ({"hours": float("nan")}, "hours must be a positive number"),
        ({"hours_per_bin": 100}, "longer than the window"),
        ({"task": "sepsis"}, "task must be in-hospital-mortality or readmission"),
        ({"fractions": (0.5, 0.4, 0.3)}, "sum to 1"),
        ({"sections": ()}, "sections must be some of findings, impression"),
        ({"views": ()}, "views must name at least one"),
    ],
)
def test_options_are_checked_first(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_faults_of_tables_are_named_before_long_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = changed(tmp_path)
    command = ["prepare", "mimic3", "--raw", str(raw), "--out", str(tmp_path / "out")]
    (raw / "ADMISSIONS.csv").rename(raw / "hidden")
    assert main(command) == 2
    assert "no file for table(s) admissions" in capsys.readouterr().err
    (raw / "hidden").rename(raw / "ADMISSIONS.csv")
    stays = raw_mimic3.tables()["ICUSTAYS"]
    stays.drop(columns="OUTTIME").to_csv(raw / "ICUSTAYS.csv", index=False)
    assert main(command) == 2
    assert "lacks column(s) outtime" in capsys.readouterr().err
    stays.to_csv(raw / "ICUSTAYS.csv", index=False, sep=";")
    assert main(command) == 2
    assert "not delimited by commas" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_truncated_file_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    raw = changed(tmp_path)
    text = (raw / "CHARTEVENTS.csv").read_bytes() * 20
    (raw / "CHARTEVENTS.csv").unlink()
    (raw / "CHARTEVENTS.csv.gz").write_bytes(gzip.compress(text)[:-3000])
    with pytest.raises(TableError, match=r"CHARTEVENTS\.csv\.gz: truncated"):
        prepare("mimic3", raw, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw"]


def test_a_line_of_too_many_fields_is_not_quoted(tmp_path: Path) -> None:
    raw = changed(tmp_path)
    with (raw / "CHARTEVENTS.csv").open("a") as file:
        file.write(f'1,11,101,211,{SECRET},,{SECRET},,,,,,"open\n')
    with pytest.raises(TableError, match=r"CHARTEVENTS\.csv: .*never closed") as caught:
        prepare("mimic3", raw, tmp_path / "out")
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


def test_bad_times_and_repeated_stays_are_counted(tmp_path: Path) -> None:
    raw = raw_mimic3.tables()
    chart, stays = raw["CHARTEVENTS"], raw["ICUSTAYS"]
    chart = chart[chart["ICUSTAY_ID"] != 101].astype({"CHARTTIME": str})
    chart.loc[chart.index[chart["ICUSTAY_ID"] == 104][:2], "CHARTTIME"] = "yesterday"
    stays = pd.concat([stays, stays.query("ICUSTAY_ID == 102")]).astype(str)
    stays.loc[stays["ICUSTAY_ID"] == "103", "INTIME"] = "?"
    folder = changed(tmp_path, CHARTEVENTS=chart, ICUSTAYS=stays)
    about = prepare("mimic3", folder, tmp_path / "out")
    flow = dict(about["flow"])
    assert flow["excluded: a row of the same stay again"] == 1
    assert flow["excluded: no time of admission to the unit or of discharge"] == 1
    assert flow["excluded: no measurement in the window"] == 1
    assert about["measurements_left_out"]["heart_rate"] == {"unreadable charttime": 2}
    assert about["unreadable"] == {"icustays.intime": 1, "chartevents.charttime": 2}


def test_times_in_another_form_stop_the_run(tmp_path: Path) -> None:
    chart = raw_mimic3.tables()["CHARTEVENTS"]
    chart["CHARTTIME"] = chart["CHARTTIME"].dt.strftime("%m/%d/%Y %H:%M")
    folder = changed(tmp_path, CHARTEVENTS=chart)
    with pytest.raises(TableError, match=r"CHARTEVENTS\.csv: column charttime: \d+ of \d+ values"):
        prepare("mimic3", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_times_in_another_form_further_down_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cm2.clinical.prepare.tables.SAMPLE", 1)
    chart = raw_mimic3.tables()["CHARTEVENTS"]
    written = chart["CHARTTIME"].dt.strftime("%m/%d/%Y %H:%M")
    chart["CHARTTIME"] = chart["CHARTTIME"].astype(str).where(chart.index < 300, written)
    folder = changed(tmp_path, CHARTEVENTS=chart)
    with pytest.raises(TableError, match=r"chartevents\.charttime: \d+ of \d+ values"):
        prepare("mimic3", folder, tmp_path / "out")


def test_tables_without_a_row_are_named(raw: Path, tmp_path: Path) -> None:
    folder = changed(tmp_path)
    header = "SUBJECT_ID,HADM_ID,ITEMID,CHARTTIME,VALUE,VALUENUM,VALUEUOM\n"
    (folder / "LABEVENTS.csv").write_text(header)
    lines: list[str] = []
    about = prepare("mimic3", folder, tmp_path / "out", say=lines.append)
    assert about["empty"] == ["labevents"]
    assert "tables without a row: labevents" in lines
    text = (folder / "CHARTEVENTS.csv").read_text().split("\n", 1)[0]
    (folder / "CHARTEVENTS.csv").write_text(text + "\n")
    with pytest.raises(TableError, match=r"CHARTEVENTS\.csv: a header and no row"):
        prepare("mimic3", folder, tmp_path / "other")


def test_the_same_bytes_again_with_scratch_where_it_is_asked_for_and_left_empty(
    raw: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, seen = tmp_path / "scratch", []
    scratch.mkdir()
    from cm2.clinical.prepare import pipeline

    start, modes = pipeline.start, []

    def noted(*given: object, **options: object) -> object:
        seen.append(options["folder"])
        modes.append(options["folder"].stat().st_mode & 0o777)
        return start(*given, **options)

    monkeypatch.setattr(pipeline, "start", noted)
    engine = {"threads": 1, "memory_limit": "1GB"}
    prepare("mimic3", raw, tmp_path / "out", scratch=scratch, progress=True, **engine)
    assert seen[0].parent == scratch
    assert not any(scratch.iterdir())
    assert contents(tmp_path / "out") == contents(made)
    (seen[0] / "spilled").mkdir(parents=True)  # as a run that was killed leaves it
    prepare("mimic3", raw, tmp_path / "out", scratch=scratch, overwrite=True, **engine)
    assert seen[1] == seen[0]
    assert modes == [0o700, 0o700], "nobody else reads rows of patients"
    assert not any(scratch.iterdir())
    with pytest.raises(TableError, match="no such folder for --scratch"):
        prepare("mimic3", raw, tmp_path / "other", scratch=tmp_path / "nowhere")


def test_sets_of_modalities_are_counted(made: Path) -> None:
    about = json.loads((made / "manifest.json").read_text())
    assert about["sets"] == [{"modalities": ["series"], "stays": 8, "patients": 7}]
    assert "series  7 (8 stays)" in summary.text(about)


def test_the_lock_needs_nothing_that_windows_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    stand_in = types.SimpleNamespace(LK_NBLCK=2, locking=lambda file, mode, n: calls.append(mode))
    monkeypatch.setitem(sys.modules, "msvcrt", stand_in)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    spec = importlib.util.spec_from_file_location("folder_there", folder.__file__)
    there = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "platform", "win32")
    spec.loader.exec_module(there)
    monkeypatch.undo()
    with there.building(tmp_path / "out", owned="manifest.json") as partial:
        (partial / "manifest.json").write_text("{}")
    assert calls == [2]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_stays_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    stays = raw_mimic3.tables()["ICUSTAYS"]
    other = stays.query("ICUSTAY_ID == 102").assign(HADM_ID=13)
    folder = changed(tmp_path, ICUSTAYS=pd.concat([stays, other]))
    with pytest.raises(TableError, match="1 stay ids have several rows that differ"):
        prepare("mimic3", folder, tmp_path / "out")


def test_a_given_split_is_kept(raw: Path, tmp_path: Path) -> None:
    subjects = pd.DataFrame(
        {"subject_id": [1, 2, 3, 4], "split": ["train", "train", "validation", "test"]}
    )
    subjects.to_csv(tmp_path / "splits.csv", index=False)
    about = prepare(
        "mimic3", raw, tmp_path / "out", named=Named(split_file=tmp_path / "splits.csv")
    )
    stays = pd.read_parquet(tmp_path / "out" / "stays.parquet")
    assert dict(zip(stays["subject_id"], stays["split"], strict=True)) == dict(
        subjects.itertuples(index=False)
    )
    assert dict(about["flow"])["excluded: patient not in the file of splits"] == 3


@pytest.mark.parametrize(("definition", "positive"), [("survivors", 1), ("or-death", 3)])
def test_readmission_reports_what_its_positives_are(
    raw: Path, tmp_path: Path, definition: str, positive: int
) -> None:
    lines: list[str] = []
    options = Options(task="readmission", readmission=definition)
    about = prepare("mimic3", raw, tmp_path / "out", options, say=lines.append)
    stays = pd.read_parquet(tmp_path / "out" / "stays.parquet")
    assert sum(about["positives"].values()) == stays["label"].sum() == positive
    admissions = raw_mimic3.tables()["ADMISSIONS"].set_index("HADM_ID")
    died = admissions["HOSPITAL_EXPIRE_FLAG"][stays["hadm_id"]]
    assert died.any() == (definition == "or-death")
    assert ("died in hospital" in lines[-1]) == (positive > 0) or definition == "survivors"


def test_the_command_prints_the_flow(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main(["prepare", "mimic3", "--raw", str(raw), "--out", out, "--meds"]) == 0
    printed = capsys.readouterr().out
    assert "excluded: younger than 18" in printed
    assert (tmp_path / "out" / "meds" / "metadata" / "dataset.json").is_file()


def test_synthetic_tables_are_marked_and_labels_do_not_depend_on_measurements(
    made: Path, tmp_path: Path
) -> None:
    chart = raw_mimic3.tables()["CHARTEVENTS"].assign(VALUE=90, VALUENUM=90)
    raw = changed(tmp_path, CHARTEVENTS=chart)
    (raw / "SYNTHETIC_NOT_PATIENT_DATA.txt").write_text("")
    assert prepare("mimic3", raw, tmp_path / "out")["synthetic"] is True
    assert (tmp_path / "out/stays.parquet").read_bytes() == (made / "stays.parquet").read_bytes()


def test_options_are_in_the_manifest(made: Path) -> None:
    held = json.loads((made / "manifest.json").read_text())["options"]
    assert set(held) == {f.name for f in dataclasses.fields(Options)} - {"task"}


def test_folders_that_are_asked_for_must_be_there(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no such folder of notes"):
        prepare("mimic4", raw, tmp_path / "out", named=Named(notes=tmp_path / "nowhere"))


def test_a_split_without_training_stays_is_refused(raw: Path, tmp_path: Path) -> None:
    options = Options(fractions=(0.0, 0.5, 0.5))
    with pytest.raises(TableError, match="none of the 8 stays that are left is of the training"):
        prepare("mimic3", raw, tmp_path / "out", options)


def test_eicu_refuses_readmission(tmp_path: Path) -> None:
    with pytest.raises(
        TableError, match=r"eicu does not allow the task readmission.*other hospital"
    ):
        prepare("eicu", tmp_path, tmp_path / "out", Options(task="readmission"))


def test_the_version_is_that_of_the_folder_or_its_readme(tmp_path: Path) -> None:
    for name, version in (("mimic-iii-1.4", "1.4"), ("3.1", "3.1"), ("demo", None), ("a2.0", None)):
        (tmp_path / name).mkdir()
        assert manifest.source_version(tmp_path / name) == version
    (tmp_path / "demo" / "README.md").write_text("# A demo v2.0.1 of 5.0\n")
    assert manifest.source_version(tmp_path / "demo") == "2.0.1"


def test_spelling_of_csv_files_and_flags_does_not_matter(made: Path, tmp_path: Path) -> None:
    tables = raw_mimic3.tables()
    flags = tables["ADMISSIONS"]["HOSPITAL_EXPIRE_FLAG"].astype(bool)
    tables["ADMISSIONS"]["HOSPITAL_EXPIRE_FLAG"] = flags
    folder = raw_mimic3.write(tmp_path / "raw", tables)
    for path in folder.iterdir():
        text = path.read_bytes()
        header = text.split(b"\n", 1)[0] + b"\n"
        # A byte order mark, another system's line ends, a header again, no end of the last line.
        text = b"\xef\xbb\xbf" + (text + header).replace(b"\n", b"\r\n").rstrip()
        path.write_bytes(text)
    about = prepare("mimic3", folder, tmp_path / "out")
    flow = dict(about["flow"])
    assert flow["excluded: no identifier of stay, admission or patient"] == 1
    assert about["unreadable"]["icustays.intime"] == 1
    for name in ("stays.parquet", "events.parquet", "series.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (made / name).read_bytes(), name


def test_a_stay_with_a_looked_back_weight_alone_is_left_out(tmp_path: Path) -> None:
    tables = raw_mimic3.tables()
    charted = tables["CHARTEVENTS"]
    own = charted["ICUSTAY_ID"] == 106
    weighed = (
        charted[own]
        .head(1)
        .assign(
            ITEMID=762, CHARTTIME=raw_mimic3.START - pd.Timedelta(hours=1), VALUENUM=70, VALUE=70
        )
    )
    weighed["STORETIME"] = weighed["CHARTTIME"]
    raw = raw_mimic3.write(
        tmp_path / "raw", tables | {"CHARTEVENTS": pd.concat([charted[~own], weighed])}
    )
    about = prepare("mimic3", raw, tmp_path / "out")
    assert ["excluded: no measurement in the window", 1] in about["flow"]
    assert 106 not in set(pd.read_parquet(tmp_path / "out" / "events.parquet")["stay_id"])


def test_a_memory_limit_that_is_none_is_refused(tmp_path: Path) -> None:
    raw = raw_mimic3.write(tmp_path / "raw", raw_mimic3.tables())
    command = ["prepare", "mimic3", "--raw", str(raw), "--out", str(tmp_path / "out")]
    assert main([*command, "--memory-limit", "4 gigs"]) == 2
