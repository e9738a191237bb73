"""Sources: shapes, SQL for BigQuery, and the traps of each data set's stays."""

from pathlib import Path

import ibis
import pandas as pd
import pytest

import raw_mimic3
from cm2.clinical.prepare import eicu_source, events, meds_source, mimic3, mimic4
from cm2.clinical.prepare.engine import DuckDB
from cm2.clinical.prepare.source import DOCUMENTS, IMAGES, MEASUREMENTS, SOURCES, STAYS, whole_years
from cm2.clinical.prepare.tables import Tables

SHAPES = {"stays": STAYS, "measurements": MEASUREMENTS, "documents": DOCUMENTS, "images": IMAGES}
CASES = [mimic3.MIMIC3, mimic4.MIMIC4, eicu_source.EICU]


def unbound(kind: type) -> dict[str, ibis.Table]:
    return {name: ibis.table(columns, name=name) for name, columns in kind.wanted.items()}


def test_every_source_has_a_case() -> None:
    # MEDS brings its samples and has one table of codes; test_meds_source.py is about it.
    assert {SOURCES[name] for name in SOURCES} == {*CASES, meds_source.MEDS}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("shape", list(SHAPES))
def test_tables_have_the_common_shape_and_compile(kind: type, shape: str) -> None:
    table = getattr(kind(unbound(kind)), shape)()
    if table is None:
        assert (kind.name, shape) in {
            ("mimic3", "images"),
            ("eicu", "documents"),
            ("eicu", "images"),
        }
        return
    expected = {name: ibis.dtype(kind_) for name, kind_ in SHAPES[shape].items()}
    assert dict(table.schema().items()) == expected
    for dialect in ("bigquery", "duckdb"):
        assert "SELECT" in ibis.to_sql(table, dialect=dialect)


@pytest.mark.parametrize("kind", CASES)
def test_the_whole_extraction_compiles_for_bigquery(kind: type) -> None:
    source = kind(unbound(kind))
    found = events.match(source.measurements(), source.stays(), hours=48)
    sql = ibis.to_sql(events.long_form(events.accept(found)), dialect="bigquery")
    assert "SAFE_CAST" in sql


def test_birth_dates_of_the_oldest_are_read_as_their_median_age(tmp_path: Path) -> None:
    folder = raw_mimic3.write(tmp_path, raw_mimic3.tables())
    kind = mimic3.MIMIC3
    with Tables(folder, kind.wanted, optional=kind.optional, lazy=kind.lazy) as tables:
        stays = tables.engine.frame(kind(tables).stays()).set_index("stay_id")
    assert stays.loc[122, "age"] == 91.4
    assert stays.loc[107, "age"] == 17
    assert stays.loc[108, "transferred"]
    assert not stays.loc[101, "transferred"]


def test_ages_are_completed_years() -> None:
    times = pd.DataFrame(
        {
            "start": pd.to_datetime(["2100-06-15", "2100-06-15", "2096-02-29"]),
            "end": pd.to_datetime(["2118-06-14", "2118-06-15", "2115-02-28"]),
        }
    )
    table = ibis.memtable(times)
    engine = DuckDB()
    ages = engine.frame(table.mutate(age=whole_years(table.start, table.end)))["age"]
    assert ages.tolist() == [17, 18, 18]
    engine.close()


def mimic4_stay(**change: dict[str, object]) -> pd.Series:
    """One stay of MIMIC-IV, with columns of some tables changed."""
    tables = {
        "patients": {"subject_id": 1, "gender": "F", "anchor_age": 50, "anchor_year": 2150},
        "admissions": {
            "subject_id": 1,
            "hadm_id": 2,
            "admittime": pd.Timestamp("2153-01-01"),
            "dischtime": pd.Timestamp("2153-02-01"),
            "deathtime": pd.NaT,
            "hospital_expire_flag": 0,
        },
        "icustays": {
            "subject_id": 1,
            "hadm_id": 2,
            "stay_id": 3,
            "first_careunit": "MICU",
            "last_careunit": "SICU",
            "intime": pd.Timestamp("2153-01-01"),
            "outtime": pd.Timestamp("2153-01-04"),
        },
    }
    raw = {
        name: ibis.memtable(pd.DataFrame([row | change.get(name, {})]))
        for name, row in tables.items()
    }
    engine = DuckDB()
    found = engine.frame(mimic4.MIMIC4(raw).stays())
    engine.close()
    assert len(found) == 1
    return found.iloc[0]


def test_mimic4_counts_age_from_the_anchor_year() -> None:
    stay = mimic4_stay()
    assert stay["age"] == 53
    assert stay["transferred"]


DIED = {"deathtime": pd.Timestamp("2153-01-20")}


@pytest.mark.parametrize(
    ("change", "died"),
    [
        ({}, 0),
        ({"hospital_expire_flag": 1, **DIED}, 1),
        ({"hospital_expire_flag": 1}, 1),
        (DIED, None),
        ({"subject_id": 9}, None),
    ],
)
def test_an_outcome_that_contradicts_itself_is_unknown(change: dict, died: int | None) -> None:
    stay = mimic4_stay(admissions=change)
    assert pd.isna(stay["died"]) if died is None else stay["died"] == died
    assert stay["hadm_id"] == 2
    assert stay["subject_id"] == 1


def test_eicu_puts_stays_at_one_moment_and_keeps_patients_apart() -> None:
    patient = pd.DataFrame(
        {
            "patientunitstayid": [1, 2, 3],
            "uniquepid": ["002-1039", "0021-039", None],
            "patienthealthsystemstayid": [5, 6, 7],
            "age": ["> 89", "18", ""],
            "gender": "Female",
            "hospitaldischargestatus": ["Expired", "Alive", None],
            "unitdischargeoffset": [60.0, 120.0, None],
            "hospitaladmitoffset": [-60.0, 0.0, 0.0],
            "hospitaldischargeoffset": [90.0, 0.0, 0.0],
        }
    )
    engine = DuckDB()
    stays = engine.frame(eicu_source.EICU({"patient": ibis.memtable(patient)}).stays())
    engine.close()
    assert stays["subject_id"].tolist()[:2] == [2_000_001_039, 21_000_000_039]
    assert stays["age"].tolist()[:2] == [90, 18]
    assert stays["died"].tolist()[:2] == [1, 0]
    assert stays.loc[2, ["subject_id", "outtime", "died", "age"]].isna().all()
    assert (stays["intime"] == pd.Timestamp("2000-01-01")).all()
    assert stays.loc[1, "outtime"] == pd.Timestamp("2000-01-01 02:00")


@pytest.mark.parametrize(("anchor", "expected"), [(50, 53), (86, 89), (88, 91), (91, 91)])
def test_ages_above_89_are_all_one(anchor: int, expected: int) -> None:
    """Also of those who became as old after the anchor year, three years before the stay."""
    assert mimic4_stay(patients={"anchor_age": anchor})["age"] == expected
