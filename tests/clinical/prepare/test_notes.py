"""Text of a stay: inside the window, once, in order, cleaned; reports fall into their sections."""

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cm2.clinical.prepare import notes, reports
from cm2.clinical.prepare.engine import start

INTIME = pd.Timestamp("2100-01-01 10:00:00")
HOUR = pd.Timedelta(hours=1)


@pytest.fixture(scope="module")
def engine():
    engine = start("duckdb")
    yield engine
    engine.close()


def stays():
    frame = pd.DataFrame(
        {
            "stay_id": [1, 2],
            "subject_id": [10, 20],
            "hadm_id": [100, 200],
            "intime": [INTIME, INTIME],
        }
    )
    return ibis.memtable(frame)


def documents(*rows: dict):
    """Notes of stay 1, an hour in, unless a row says otherwise."""
    usual = {
        "subject_id": 10,
        "hadm_id": 100,
        "charttime": INTIME + HOUR,
        "storetime": pd.NaT,
        "category": "Nursing",
        "error": False,
    }
    frame = pd.DataFrame(
        [usual | {"note_id": f"n{i:02}", "text": f"text {i}"} | row for i, row in enumerate(rows)]
    )
    frame["hadm_id"] = frame["hadm_id"].astype("Int64")
    frame["charttime"] = pd.to_datetime(frame["charttime"]).astype("datetime64[us]")
    frame["storetime"] = pd.to_datetime(frame["storetime"]).astype("datetime64[us]")
    return ibis.memtable(pa.Table.from_pandas(frame, preserve_index=False))


def chosen(engine, table, **options) -> pd.DataFrame:
    return engine.frame(notes.select(stays(), table, **options).order_by("stay_id", "position"))


def texts(engine, table, **options) -> list[str]:
    return chosen(engine, table, **options)["text"].tolist()


def test_the_window_is_half_open(engine) -> None:
    table = documents(
        {"charttime": INTIME - pd.Timedelta(seconds=1), "text": "before"},
        {"charttime": INTIME, "text": "at its start"},
        {"charttime": INTIME + 48 * HOUR - pd.Timedelta(seconds=1), "text": "at its end"},
        {"charttime": INTIME + 48 * HOUR, "text": "after"},
    )
    found = chosen(engine, table)
    assert found["text"].tolist() == ["at its start", "at its end"]
    np.testing.assert_allclose(found["hour"], [0, 48 - 1 / 3600])
    assert texts(engine, table, hours=49) == ["at its start", "at its end", "after"]


def test_what_is_left_out_is_counted(engine, tmp_path) -> None:
    table = documents(
        {},
        {"error": True},
        {"category": "Discharge summary"},
        {"charttime": pd.NaT},
        {"text": " "},
        {"text": None},
        {"subject_id": 77},
        {"hadm_id": 999},
    )
    counts = notes.write_notes(engine, stays(), table, tmp_path / "notes.parquet")
    assert counts == {
        "flagged as an error": 1,
        "discharge summary": 1,
        "without a time": 1,
        "empty": 2,
        "usable": 2,
        "in the window": 1,
        "stored after the window": 0,
        "without a storetime": 1,
        "written": 1,
        "stays": 1,
    }


def test_what_was_stored_too_late_is_counted_and_left_out_if_asked(engine, tmp_path) -> None:
    table = documents(
        {"storetime": INTIME + 47 * HOUR},
        {"storetime": INTIME + 48 * HOUR},
        {"storetime": INTIME + 60 * HOUR},
        {},
    )
    path = tmp_path / "notes.parquet"
    counts = notes.write_notes(engine, stays(), table, path)
    assert (counts["stored after the window"], counts["without a storetime"]) == (2, 1)
    assert counts["written"] == 4
    late = notes.write_notes(engine, stays(), table, path, known_by="storetime")
    assert late == counts | {"written": 2}
    assert pq.read_table(path)["text"].to_pylist() == ["text 0", "text 3"]


def test_identical_texts_are_kept_once_for_each_stay(engine) -> None:
    table = documents(
        {"charttime": INTIME + 3 * HOUR, "text": "seen [**2100-1-1**] by\n Dr. [**Name (NI) 7**]"},
        {"charttime": INTIME + 2 * HOUR, "text": "seen [**2100-1-2**] by Dr. [**Last\nName**] "},
        {"subject_id": 20, "hadm_id": None, "text": "seen ___ by Dr. ___"},
    )
    found = chosen(engine, table)
    assert found["text"].tolist() == ["seen ___ by Dr. ___"] * 2
    assert found["stay_id"].tolist() == [1, 2]
    assert found["hour"].tolist() == [2, 1]


def test_order_is_that_of_time_then_number(engine, tmp_path) -> None:
    late, early = {"charttime": INTIME + 9 * HOUR}, {"charttime": INTIME + HOUR}
    notes.write_notes(
        engine, stays(), documents(late, early, late, early), tmp_path / "notes.parquet"
    )
    table = pq.read_table(tmp_path / "notes.parquet")
    assert table["text"].to_pylist() == ["text 1", "text 3", "text 0", "text 2"]
    assert table["position"].to_pylist() == [0, 1, 2, 3]


def test_the_reference_wants_more_than_five_and_keeps_five(engine) -> None:
    six = [{"charttime": INTIME + hour * HOUR} for hour in (-30, 1, 2, 3, 4, 48)]
    late = {"charttime": INTIME + 49 * HOUR}
    found = texts(engine, documents(*six, late), selection="reference")
    assert found == [f"text {i}" for i in range(1, 6)]
    assert texts(engine, documents(*six[1:], late), selection="reference") == []
    # Documents of one charttime count as one.
    assert texts(engine, documents(*six[1:], six[1]), selection="reference") == []
    joined = texts(engine, documents(*six, six[5]), selection="reference")
    assert joined == [f"text {i}" for i in range(1, 7)]


def test_an_unknown_selection_is_named() -> None:
    with pytest.raises(ValueError, match="one of window, reference, not 'all'"):
        notes.select(stays(), documents({}), selection="all")


@pytest.mark.parametrize("selection", ["window", "reference"])
@pytest.mark.parametrize("dialect", ["bigquery"])
def test_the_choice_compiles_elsewhere(selection: str, dialect: str) -> None:
    table = notes.select(stays(), documents({}), selection=selection)
    assert "SELECT" in ibis.to_sql(table, dialect=dialect)
    assert "SELECT" in ibis.to_sql(notes.excluded(stays(), documents({})), dialect=dialect)


REPORT = """
                                 FINAL REPORT
 EXAMINATION:  CHEST (PORTABLE AP)

 INDICATION:  ___ year old woman with dyspnea  // pneumonia?

 FINDINGS:

 AP portable chest.  Heart size:  normal.
 Portable technique: limits the view.

 {header}
 {body}

 RECOMMENDATION(S):  Repeat film.
"""


@pytest.mark.parametrize(
    "header", ["IMPRESSION:", "Impression:", "IMPRESSION", "CONCLUSION:", "IMPRESSOIN:"]
)
def test_sections_are_found_under_many_headers(header: str) -> None:
    found = reports.split(REPORT.format(header=header, body="No pneumonia."))
    assert found == {
        "findings": "AP portable chest. Heart size: normal. Portable technique: limits the view.",
        "impression": "No pneumonia.",
    }


def test_reports_without_the_usual_headers() -> None:
    assert reports.split("FINDINGS/IMPRESSION: clear") == {"impression": "clear"}
    assert reports.split("CHEST, TWO VIEWS: clear\nIMPRESSION: fine") == {
        "findings": "clear",
        "impression": "fine",
    }
    assert reports.split("a wet read without headers") == {}
    assert reports.split("IMPRESSION:\n\nIMPRESSION: 1. a\nIMPRESSION: 2. b") == {
        "impression": "1. a 2. b"
    }
    assert reports.split("") == {}


CT = """
 EXAMINATION:  CT ABD & PELVIS WITH CONTRAST

 TECHNIQUE:  Helical images of the abdomen and pelvis.
 DOSE:  Total DLP (Body) = 812 mGy-cm.

 COMPARISON:  Chest radiograph of ___.

 FINDINGS:

 LOWER CHEST:  Small effusions.

 ABDOMEN:

 HEPATOBILIARY:  Normal liver.
 SPLEEN:  Normal.
 LYMPH NODES: None enlarged.

 IMPRESSION:

 1. No abscess.  NOTIFICATION:  Discussed with Dr. ___ by telephone.
"""


def test_organs_of_a_tomography_stay_in_its_findings() -> None:
    assert reports.split(CT) == {
        "findings": "LOWER CHEST: Small effusions. ABDOMEN: HEPATOBILIARY: Normal liver."
        " SPLEEN: Normal. LYMPH NODES: None enlarged.",
        "impression": "1. No abscess.",
    }


@pytest.mark.parametrize(
    "header",
    [
        "NOTIFICATION",
        "RECOMMENDATION(S)",
        "ADDENDUM",
        "COMPARISON",
        "TECHNIQUE",
        "CLINICAL HISTORY",
    ],
)
def test_sections_of_the_report_end_others(header: str) -> None:
    text = f"FINDINGS: Clear.\nIMPRESSION: Normal.\n{header}: Something else."
    assert reports.split(text) == {"findings": "Clear.", "impression": "Normal."}


def test_views_stand_for_the_findings_of_chest_films_only() -> None:
    views = "PORTABLE CHEST: Clear.\nIMPRESSION: Normal."
    assert reports.split(views)["findings"] == "Clear."
    for name in ("CT CHEST W/CONTRAST", "US ABDOMEN", "MR HEAD"):
        assert reports.split(f"EXAMINATION: {name}\n{views}") == {"impression": "Normal."}
    assert reports.split("CT CHEST: Clear.\nIMPRESSION: Normal.") == {"impression": "Normal."}


def test_reports_are_written_by_section(engine, tmp_path) -> None:
    table = documents(
        {"text": REPORT.format(header="IMPRESSION:", body="x"), "hadm_id": None, "category": "RR"},
        {"text": "no headers\n here", "charttime": INTIME, "category": "RR"},
        {"text": "IMPRESSION: late", "charttime": INTIME + 48 * HOUR, "category": "RR"},
    )
    path = tmp_path / "reports.parquet"
    counts = reports.write_reports(engine, stays(), table, path)
    found = pq.read_table(path)
    assert (counts["written"], counts["stays"]) == (3, 1)
    assert found["section"].to_pylist() == ["report", "findings", "impression"]
    assert found["text"].to_pylist()[::2] == ["no headers here", "x"]
    assert found["position"].to_pylist() == sorted(found["position"].to_pylist())
    reports.write_reports(engine, stays(), table, path, sections=("impression",))
    assert pq.read_table(path)["section"].to_pylist() == ["report", "impression"]
    with pytest.raises(ValueError, match="sections are findings, impression"):
        reports.write_reports(engine, stays(), table, path, sections=("history",))


def test_no_documents_at_all_give_an_empty_file(engine, tmp_path) -> None:
    table = documents({}).filter(False)
    counts = notes.write_notes(engine, stays(), table, tmp_path / "notes.parquet")
    assert set(counts.values()) == {0}
    assert pq.read_table(tmp_path / "notes.parquet").schema == notes.schema("category")
