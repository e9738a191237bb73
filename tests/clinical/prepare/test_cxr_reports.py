"""MIMIC-CXR's own reports: image and report of one study together, or neither."""

import shutil
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cm2.cli import main
from cm2.clinical.prepare import images
from cm2.clinical.prepare.cxr_reports import Reports
from cm2.clinical.prepare.engine import DuckDB
from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.pipeline import prepare
from cm2.clinical.prepare.places import Named
from cm2.clinical.synthesize import synthesize

INTIME = pd.Timestamp("2100-01-01 10:00:00")
HOUR = pd.Timedelta(hours=1)
ORDER = ("impression", "findings", "last_paragraph", "comparison")
TEXT = (
    " FINAL REPORT\n COMPARISON: None.\n\n FINDINGS: Clear {study}.\n\n"
    " IMPRESSION: Normal {study}.\n"
)
SHORT = Options(hours=24)
EVERY = Options(hours=24, sections=ORDER, sections_kept="every")


def place(study: int) -> str:
    return f"files/p10/p10/s{study}"


def taken(root: Path, *rows: dict) -> ibis.Table:
    """AP images of stay 1, an hour in, unless a row says otherwise, each a study of its own."""
    usual = {"subject_id": 10, "time": INTIME + HOUR, "view": "AP"}
    frame = pd.DataFrame(
        [
            usual
            | dict.fromkeys(images.CHEXPERT, 0.0)
            | {"study_id": study, "dicom_id": "d", "path": f"{place(study)}/d.jpg"}
            | row
            for study, row in enumerate(rows)
        ]
    )
    frame["time"] = pd.to_datetime(frame["time"]).astype("datetime64[us]")
    for path in frame["path"]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 9, np.uint8)).save(root / path)
    return ibis.memtable(frame)


def tell(root: Path, *studies: int, text: str = TEXT) -> None:
    for study in studies:
        path = root / f"{place(study)}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(study=study))


def written(
    reports: Path, root: Path, table: ibis.Table, out: Path, **options: object
) -> tuple[list[str], list[str], dict]:
    """The paths of the pictures and the texts of the reports that are written, and the counts."""
    out.mkdir()
    stays = ibis.memtable(pd.DataFrame({"stay_id": [1], "subject_id": [10], "intime": [INTIME]}))
    chosen = Options(**{"sections": ORDER, **options})
    engine = DuckDB()
    made = dict(Reports(reports).write(engine, stays, table, root, out, chosen, threads=1))
    engine.close()
    rows = pd.read_parquet(out / "reports.parquet")
    pictures = pd.read_parquet(out / "images.parquet")
    assert made["cxr"].stays == made["report"].stays == set(rows["stay_id"])
    assert rows["hour"].isin(pictures["hour"]).all()
    return pictures["path"].tolist(), rows["text"].tolist(), made["report"].counts


def test_the_image_is_the_last_one_with_a_report(tmp_path: Path) -> None:
    table = taken(tmp_path, {}, {"time": INTIME + 2 * HOUR}, {"time": INTIME + 3 * HOUR})
    tell(tmp_path, 0, 1)
    found = written(tmp_path, tmp_path, table, tmp_path / "out")
    assert found[:2] == ([f"{place(1)}/d.jpg"], ["Normal 1."])
    assert (found[2]["studies in the window"], found[2]["no report"]) == (3, 1)
    left = (tmp_path / "out/reports-missing.csv").read_text()
    assert left == f"study,reason\n{place(2)},no report\n"


@pytest.mark.parametrize("selection", ["window", "reference"])
def test_a_report_of_a_study_after_the_window_is_never_taken(
    tmp_path: Path, selection: str
) -> None:
    end = INTIME + 48 * HOUR
    by = (pd.Timedelta(seconds=1), HOUR, 1000 * HOUR)
    outside = [{"time": time} for later in by for time in (end + later, INTIME - later)]
    table = taken(tmp_path, {}, *outside)
    tell(tmp_path, *range(1 + len(outside)))
    found = written(tmp_path, tmp_path, table, tmp_path / "out", selection=selection)
    assert found[:2] == ([f"{place(0)}/d.jpg"], ["Normal 0."])
    assert found[2]["studies in the window"] == 1
    # Where only the later study has a report, there is none of the stay.
    (tmp_path / f"{place(0)}.txt").unlink()
    with pytest.raises(MissingError, match="none of the 1 studies with an X-ray in the window has"):
        written(tmp_path, tmp_path, table, tmp_path / "other", selection=selection)


def test_a_picture_that_cannot_be_read_takes_its_report_along(tmp_path: Path) -> None:
    table = taken(tmp_path, {})
    tell(tmp_path, 0)
    (tmp_path / place(0) / "d.jpg").write_bytes(b"cut")
    assert written(tmp_path, tmp_path, table, tmp_path / "out")[:2] == ([], [])


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        (TEXT, {}, ["Normal 0."]),
        (TEXT, {"sections": ("findings", "impression")}, ["Clear 0."]),
        (TEXT, {"sections_kept": "every"}, ["Normal 0.", "Clear 0.", "None."]),
        (" COMPARISON: None.\n \n Low volumes.\n", {}, ["Low volumes."]),
        (" COMPARISON: Low volumes.\n", {}, ["Low volumes."]),
        (" a wet read\n", {}, ["a wet read"]),
        (" COMPARISON: x\n", {"sections": ("findings",)}, ["COMPARISON: x"]),
    ],
)
def test_the_first_section_that_is_not_empty_is_taken(
    tmp_path: Path, text: str, options: dict, expected: list[str]
) -> None:
    table = taken(tmp_path, {})
    tell(tmp_path, 0, text=text)
    assert written(tmp_path, tmp_path, table, tmp_path / "out", **options)[1] == expected


def test_sections_of_the_table(tmp_path: Path) -> None:
    table = taken(tmp_path, *({"time": INTIME + hour * HOUR} for hour in range(1, 4)))
    sections = tmp_path / "mimic_cxr_sectioned.csv"
    sections.write_text(
        'study,impression,findings,last_paragraph,comparison\ns0,," two\n lines",,None.\ns1,,,,\n'
    )
    found = written(sections, tmp_path, table, tmp_path / "out")
    assert found[:2] == ([f"{place(0)}/d.jpg"], ["two lines"])
    assert (found[2]["an empty report"], found[2]["no report"]) == (1, 1)
    assert written(sections, tmp_path, table, tmp_path / "all", sections_kept="every")[1] == [
        "two lines",
        "None.",
    ]
    sections.write_text("study,impression\ns0,Normal.\n")
    with pytest.raises(TableError, match=r"lacks column\(s\) findings, last_paragraph, comparison"):
        Reports(sections)


def test_a_report_in_another_encoding_is_listed(tmp_path: Path) -> None:
    table = taken(tmp_path, {}, {})
    tell(tmp_path, 0)
    (tmp_path / f"{place(1)}.txt").write_bytes(b"IMPRESSION: 37\xb0\n")
    assert written(tmp_path, tmp_path, table, tmp_path / "out")[2]["not in UTF-8"] == 1


def test_the_fingerprint_is_of_reports_that_were_taken_or_missing(tmp_path: Path) -> None:
    table = taken(tmp_path, {}, {"time": INTIME + 2 * HOUR}, {"time": INTIME + 3 * HOUR})
    tell(tmp_path, 0, 1)
    written(tmp_path, tmp_path, table, tmp_path / "out")
    reports = Reports(tmp_path)
    first = reports.fingerprint(tmp_path / "out")
    tell(tmp_path, 0, text="IMPRESSION: of a study that was passed over")
    assert reports.fingerprint(tmp_path / "out") == first
    tell(tmp_path, 1, text="IMPRESSION: replaced")
    second = reports.fingerprint(tmp_path / "out")
    tell(tmp_path, 2)
    assert len({first, second, reports.fingerprint(tmp_path / "out")}) == 3


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "mimic4"
    synthesize("mimic4", 25, folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def texts(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    shutil.copytree(raw / "cxr-reports/files", folder / "files")
    return folder


@pytest.fixture(scope="module")
def made(raw: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    prepare("mimic4", raw, out, EVERY, named=Named(reports=texts))
    return out


def test_texts_and_table_tell_the_same(raw: Path, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["prepare", "mimic4", "--raw", str(raw), "--hours", "24", "--sections"]
    command += [",".join(ORDER), "--sections-kept", "every", "--out", str(out)]
    # The folder holds both; the table wins.
    assert main([*command, "--reports", str(raw / "cxr-reports")]) == 0
    found = pd.read_parquet(out / "reports.parquet")
    pd.testing.assert_frame_equal(found, pd.read_parquet(made / "reports.parquet"))
    stays = pd.read_parquet(out / "stays.parquet")
    assert (stays["has_report"] == stays["has_cxr"]).all()
    assert 1 < stays["has_report"].sum() < len(stays)
    assert set(found["section"]) == set(ORDER)


def test_another_report_is_noticed(raw: Path, made: Path, texts: Path, tmp_path: Path) -> None:
    def again() -> None:
        prepare("mimic4", raw, made, EVERY, named=Named(reports=texts))

    again()
    paths = pd.read_parquet(made / "images.parquet")["path"]
    text = texts / f"{paths[0].rpartition('/')[0]}.txt"
    text.rename(tmp_path / "hidden")
    with pytest.raises(TableError, match="differs in its reports"):
        again()
    (tmp_path / "hidden").rename(text)
    again()


def test_texts_and_none_are_not_the_same(
    raw: Path, made: Path, texts: Path, tmp_path: Path
) -> None:
    """The table of sections lies among the raw tables, and is read where no texts are named."""
    with pytest.raises(TableError, match="holds a result that differs in"):
        prepare("mimic4", raw, made, EVERY)
    prepare("mimic4", raw, tmp_path / "out", EVERY)
    with pytest.raises(TableError, match="holds a result that differs in"):
        prepare("mimic4", raw, tmp_path / "out", EVERY, named=Named(reports=texts))


def test_reports_that_are_of_no_use_stop_the_run(raw: Path, tmp_path: Path) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MissingError, match=r"as --reports; the first path .*mimic_cxr_sectioned"):
        prepare("mimic4", raw, out, SHORT, named=Named(reports=empty))
    with pytest.raises(MissingError, match="no such folder of reports"):
        prepare("mimic4", raw, out, SHORT, named=Named(reports=tmp_path / "nowhere"))
    with pytest.raises(MissingError, match="mimic3 has no reports of pictures"):
        prepare("mimic3", raw, out, SHORT, named=Named(reports=empty))
    (empty / "files" / "p10").mkdir(parents=True)
    with pytest.raises(MissingError, match=r"tried was like .*files/pNN/pSUBJECT/sSTUDY\.txt"):
        prepare("mimic4", raw, out, SHORT, named=Named(reports=empty))
    tables = tmp_path / "tables"
    tables.mkdir()
    for name in ("hosp", "icu"):
        (tables / name).symlink_to(raw / name)
    with pytest.raises(MissingError, match="metadata is not in it, and --reports join the images"):
        prepare("mimic4", tables, out, SHORT, named=Named(reports=raw / "cxr-reports"))
    assert not out.exists()
