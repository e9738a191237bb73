"""Folders that are named: found from where one stands, and of use, or the run stops."""

import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pytest

import raw_mimic3
from cm2.clinical.prepare.engine import DuckDB
from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.pipeline import prepare
from cm2.clinical.prepare.places import Named
from cm2.clinical.prepare.tables import Tables
from cm2.clinical.synthesize import synthesize

SHORT = Options(hours=24)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "mimic4"
    synthesize("mimic4", 25, folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def expected(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    return modalities(prepare("mimic4", whole, tmp_path_factory.mktemp("out") / "out", SHORT))


@pytest.fixture
def apart(whole: Path, tmp_path: Path) -> Path:
    """The same tables in three folders, as PhysioNet gives them."""
    for name in ("hosp", "icu"):
        shutil.copytree(whole / name, tmp_path / "mimic-iv" / name)
    shutil.copytree(whole / "note", tmp_path / "notes" / "note")
    shutil.copytree(whole / "cxr", tmp_path / "images")
    return tmp_path


def modalities(about: dict) -> dict[str, int]:
    return {name: facts["stays"] for name, facts in about["modalities"].items()}


@pytest.mark.parametrize(("notes", "images"), [("notes", "images"), ("notes/note", "images/files")])
def test_relative_folders_are_those_of_the_caller(
    apart: Path, expected: dict, notes: str, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(apart)
    if images == "images":
        # Pictures may lie without the level of `files`.
        for folder in Path("images/files").iterdir():
            folder.rename(Path("images") / folder.name)
        Path("images/files").rmdir()
    about = prepare(
        "mimic4",
        Path("mimic-iv"),
        Path("out"),
        SHORT,
        named=Named(notes=Path(notes), images=Path(images)),
    )
    assert modalities(about) == expected
    assert expected["cxr"] > 0
    assert expected["report"] > 0


def test_notes_stand_beside_a_database(apart: Path, expected: dict) -> None:
    with duckdb.connect(str(apart / "raw.duckdb")) as database:
        for path in (apart / "mimic-iv").rglob("*.csv.gz"):
            database.execute(
                f"create table {path.name.removesuffix('.csv.gz')} as"
                f" from read_csv('{path}', all_varchar=true)"
            )
    about = prepare(
        "mimic4", apart / "raw.duckdb", apart / "out", SHORT, named=Named(notes=apart / "notes")
    )
    assert modalities(about)["report"] == expected["report"]
    assert {"database", "radiology"} <= set(about["input"])


def test_a_named_folder_that_is_of_no_use_stops_the_run(apart: Path) -> None:
    (apart / "empty").mkdir()
    raw, out, empty = apart / "mimic-iv", apart / "out", apart / "empty"
    with pytest.raises(MissingError, match=r"nothing of use as --notes; the first path tried was"):
        prepare("mimic4", raw, out, SHORT, named=Named(notes=empty))
    with pytest.raises(MissingError, match=r"nothing of use as --images.*empty/files"):
        prepare("mimic4", raw, out, SHORT, named=Named(images=empty))
    with pytest.raises(MissingError, match="no such folder of images"):
        prepare("mimic4", raw, out, SHORT, named=Named(images=apart / "nowhere"))
    with pytest.raises(MissingError, match="mimic3 has no images in a folder of their own"):
        prepare("mimic3", raw, out, SHORT, named=Named(images=empty))
    shutil.rmtree(apart / "images/files")
    with pytest.raises(MissingError, match="images: has no pictures, nor has"):
        prepare("mimic4", raw, out, SHORT, named=Named(images=apart / "images"))
    (empty / "files").mkdir()
    with pytest.raises(MissingError, match=r"nothing of use as --images.*empty/files"):
        prepare("mimic4", raw, out, SHORT, named=Named(images=empty))
    (apart / "images" / "files" / "p10").mkdir(parents=True)
    with pytest.raises(MissingError, match=r"none of the \d+ chosen images is there.*IMAGE\.jpg"):
        prepare("mimic4", raw, out, SHORT, named=Named(images=apart / "images"))
    (empty / "files" / "p10").mkdir()
    with pytest.raises(MissingError, match=r"the table mimic-cxr-2\.0\.0-metadata is not in it"):
        prepare("mimic4", raw, out, SHORT, named=Named(images=empty))
    assert not out.exists()


def test_pictures_that_come_later_are_noticed(apart: Path) -> None:
    raw, out, images = apart / "mimic-iv", apart / "out", apart / "images"
    pictures = sorted((images / "files").rglob("*.jpg"))
    hidden = {path: path.with_suffix(".hidden") for path in pictures[::2]}
    for path, place in hidden.items():
        path.rename(place)
    first = prepare("mimic4", raw, out, SHORT, named=Named(images=images))
    assert prepare("mimic4", raw, out, SHORT, named=Named(images=images)) == first
    for path, place in hidden.items():
        place.rename(path)
    missing = first["counts"]["cxr"]["missing"]
    with pytest.raises(TableError, match=r"differs in its pictures: (\d+) that were missing") as e:
        prepare("mimic4", raw, out, SHORT, named=Named(images=images))
    # One file of the synthetic set is lost for good.
    assert f": {missing} that" in str(e.value) or f": {missing - 1} that" in str(e.value)
    whole = prepare("mimic4", raw, out, SHORT, named=Named(images=images), overwrite=True)
    assert whole["counts"]["cxr"]["written"] > first["counts"]["cxr"]["written"]
    path = pd.read_parquet(out / "images.parquet")["path"][0]
    picture = images / path
    picture.write_bytes(picture.read_bytes() + b"replaced")
    with pytest.raises(TableError, match="differs in its pictures: 0 that were missing"):
        prepare("mimic4", raw, out, SHORT, named=Named(images=images))


def test_characters_of_patterns_in_a_path_are_characters(tmp_path: Path) -> None:
    counts = {"mimic[12]": 3, "mimic1": 5, "a*b": 7, "aXb": 9, "what?": 11}
    for name, rows in counts.items():
        (tmp_path / name).mkdir()
        frame = pd.DataFrame({"stay": range(rows)})
        frame.to_csv(tmp_path / name / "plain.csv", index=False)
        frame.to_csv(tmp_path / name / "packed.csv.gz", index=False)
        frame.to_parquet(tmp_path / name / "columns.parquet")
    wanted = {name: {"stay": "int64"} for name in ("plain", "packed", "columns")}
    for name, rows in counts.items():
        with Tables(tmp_path / name, wanted) as tables:
            for table in wanted:
                assert len(tables[table].execute()) == rows, (name, table)


def test_a_broken_file_in_such_a_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "mimic[12]"
    folder.mkdir()
    (folder / "plain.csv").write_text('stay\n1\n2,"open\n')
    engine = DuckDB()
    table = engine.read(folder / "plain.csv", ["stay"])
    with pytest.raises(TableError, match=r"mimic\[12\]/plain\.csv: .*cannot be read"):
        engine.frame(table)
    engine.close()


def test_a_table_may_be_a_folder_of_parquet_files(tmp_path: Path) -> None:
    tables = raw_mimic3.tables()
    raw = raw_mimic3.write(tmp_path / "raw", tables)
    prepare("mimic3", raw, tmp_path / "whole")
    (raw / "CHARTEVENTS.csv").unlink()
    chart = tables["CHARTEVENTS"].astype({"ERROR": "float64"})
    for part in range(3):
        place = raw / "chartevents" / f"part{part % 2}"
        place.mkdir(parents=True, exist_ok=True)
        chart.iloc[part::3].to_parquet(place / f"{part}.parquet")
    about = prepare("mimic3", raw, tmp_path / "parts")
    for name in ("stays.parquet", "events.parquet", "series.parquet"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {"chartevents/part0/0.parquet", "chartevents/part1/1.parquet"} <= set(about["input"])
