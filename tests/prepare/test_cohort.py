"""Cohort and labels on a few stays, against what their definitions say."""

import ibis
import pandas as pd
import pytest

from cm2.prepare import cohort, labels
from cm2.prepare.engine import DuckDB, Engine
from cm2.prepare.errors import TableError
from cm2.prepare.source import STAYS, shaped

START = pd.Timestamp("2150-01-01")


def stay(subject: int, hadm: int, number: int, day: float, days: float = 3.0, **other: object):
    begin = START + pd.Timedelta(days=day)
    end = begin + pd.Timedelta(days=days)
    return {
        "subject_id": subject,
        "hadm_id": hadm,
        "stay_id": number,
        "intime": begin,
        "outtime": end,
        "admittime": begin,
        "dischtime": end,
        "deathtime": pd.NaT,
        "died": 0,
        "age": 50.0,
        "gender": "F",
        "transferred": False,
        **other,
    }


def labelled(rows: list[dict], definition: str) -> tuple[dict[int, int], dict[int, str]]:
    engine = DuckDB()
    found = root(engine, rows)
    every = found.kept
    cohort.whole_window(engine, found, 48)
    made = labels.label(engine, found, every, "readmission", definition)
    frame = engine.frame(made.order_by("stay_id"))
    engine.close()
    return (
        dict(zip(frame["stay_id"], frame["label"], strict=True)),
        dict(zip(frame["stay_id"], frame["kind"], strict=True)),
    )


def root(engine: Engine, rows: list[dict]) -> cohort.Cohort:
    return cohort.root(engine, shaped(ibis.memtable(pd.DataFrame(rows)), STAYS))


SEQUENCE = [
    stay(1, 10, 100, 0),  # back in a new admission after 27 days
    stay(1, 11, 101, 30),
    stay(2, 20, 200, 0),  # back after exactly 30 days
    stay(2, 21, 201, 33),
    stay(3, 30, 300, 0),  # back after 31 days
    stay(3, 31, 301, 34),
    stay(4, 40, 400, 0, died=1),
    stay(5, 50, 500, 0),  # back to a stay that is no part of the cohort: transferred
    stay(5, 51, 501, 10, transferred=True),
    stay(6, 60, 600, 0),  # dies in the next admission
    stay(6, 61, 601, 10, died=1),
]


def test_readmission_of_survivors() -> None:
    label, kind = labelled(SEQUENCE, "survivors")
    assert label == {100: 1, 101: 0, 200: 1, 201: 0, 300: 0, 301: 0, 500: 1, 600: 1}
    assert kind[100] == "returned in a new admission"


def test_readmission_or_death_looks_at_kept_stays_within_less_than_30_days() -> None:
    label, kind = labelled(SEQUENCE, "or-death")
    positive = {number for number, value in label.items() if value}
    assert positive == {100, 400, 600, 601}
    assert kind[400] == kind[601] == "died in hospital"
    assert kind[600] == "returned in a new admission"


def test_a_return_within_the_admission_is_told_apart() -> None:
    rows = [
        stay(1, 10, 100, 0, died=0),
        stay(1, 10, 101, 5, transferred=True),
    ]
    _, kind = labelled(rows, "survivors")
    assert kind == {100: "returned in the same admission"}


def test_mortality_is_that_of_the_admission() -> None:
    engine = DuckDB()
    found = root(engine, SEQUENCE)
    made = labels.label(engine, found, found.kept, "in-hospital-mortality", "survivors")
    frame = engine.frame(made)
    assert set(frame.loc[frame["label"] == 1, "stay_id"]) == {400, 601}
    assert set(frame["kind"]) == {"died in hospital"}


def test_the_dead_within_the_window_are_left_out() -> None:
    engine = DuckDB()
    rows = [
        stay(1, 10, 100, 0, died=1, deathtime=START + pd.Timedelta(hours=47)),
        stay(2, 20, 200, 0, died=1, deathtime=START + pd.Timedelta(hours=48)),
    ]
    found = root(engine, rows)
    cohort.whole_window(engine, found, 48)
    assert dict(found.flow)["excluded: died before 48 h"] == 1
    assert found.size == 1


def test_the_benchmark_counts_stays_after_dropping_transfers() -> None:
    rows = [
        stay(1, 10, 100, 0, transferred=True),
        stay(1, 10, 101, 5),
        stay(2, 20, 200, 0),
        stay(2, 20, 201, 5),
        stay(3, 30, 300, 0, age=17.0),
        stay(4, 40, 400, 0, age=None),
        stay(5, 50, 500, 0, outtime=pd.NaT),
        stay(6, 60, 600, 0, died=None),
        stay(7, None, 700, 0),
    ]
    engine = DuckDB()
    found = root(engine, rows)
    assert engine.frame(found.kept)["stay_id"].tolist() == [101]
    assert {step.removeprefix("excluded: "): n for step, n in found.flow if n} == {
        "rows of stays found": 9,
        "no identifier of stay, admission or patient": 1,
        "no time of admission to the unit or of discharge": 1,
        "outcome of the hospital admission unknown": 1,
        "transferred between units or wards": 1,
        "another stay in the same admission": 2,
        "age unknown": 1,
        "younger than 18": 1,
    }


def test_no_stay_left_says_which_step_took_them() -> None:
    engine = DuckDB()
    with pytest.raises(TableError, match=r"no stay is left .*younger than 18: 1"):
        root(engine, [stay(1, 10, 100, 0, age=3.0)])


def test_unknown_tasks_and_definitions_are_named() -> None:
    engine = DuckDB()
    found = root(engine, SEQUENCE)
    with pytest.raises(ValueError, match="unknown task 'sepsis'"):
        labels.label(engine, found, found.kept, "sepsis", "survivors")
    with pytest.raises(ValueError, match="survivors or or-death, not 'both'"):
        labels.label(engine, found, found.kept, "readmission", "both")
