"""Cohort and labels on a few stays, against what their definitions say."""

import ibis
import pandas as pd
import pytest

from cm2.clinical.prepare import cohort, labels
from cm2.clinical.prepare.engine import DuckDB, Engine
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.source import STAYS, shaped

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
    found = root(engine, rows, labels.admission("readmission", definition))
    every = found.kept
    dead = labels.keeps_dead("readmission", definition)
    cohort.whole_window(engine, found, 48, dead=dead)
    made = labels.label(engine, found, every, "readmission", definition)
    frame = engine.frame(made.order_by("stay_id"))
    engine.close()
    return (
        dict(zip(frame["stay_id"], frame["label"], strict=True)),
        dict(zip(frame["stay_id"], frame["kind"], strict=True)),
    )


def root(engine: Engine, rows: list[dict], admission: str = "only") -> cohort.Cohort:
    stays = shaped(ibis.memtable(pd.DataFrame(rows)), STAYS)
    return cohort.root(engine, stays, admission=admission)


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


@pytest.mark.parametrize(
    "unknown",
    [
        {"outtime": pd.NaT},
        {"outtime": START},  # before it begins
        {"died": None},
        {"hadm_id": None},
    ],
)
def test_survivors_return_also_to_a_stay_of_which_little_is_known(unknown: dict) -> None:
    rows = [stay(1, 10, 100, 0), stay(1, 11, 101, 20, **unknown), stay(2, 20, 200, 0)]
    label, kind = labelled(rows, "survivors")
    assert label == {100: 1, 200: 0}
    assert kind[100] == "returned in a new admission"


def test_readmission_or_death_leaves_out_of_whom_it_cannot_be_told() -> None:
    rows = [
        stay(1, 10, 100, 0, dischtime=pd.NaT),
        stay(1, 11, 101, 20),
        stay(2, 20, 200, 0, dischtime=pd.NaT, died=1),  # dead, whenever that was
        stay(3, 30, 300, 0),
        stay(3, 31, 301, 20, admittime=pd.NaT),
        stay(4, 40, 400, 0),  # back in time, whenever the later one was
        stay(4, 41, 401, 10),
        stay(4, 42, 402, 20, admittime=pd.NaT),
    ]
    label, _ = labelled(rows, "or-death")
    assert label == {101: 0, 200: 1, 301: 0, 400: 1, 402: 0}


def test_readmission_or_death_looks_at_kept_stays_within_less_than_30_days() -> None:
    label, kind = labelled(SEQUENCE, "or-death")
    positive = {number for number, value in label.items() if value}
    assert positive == {100, 400, 600, 601}
    assert kind[400] == kind[601] == "died in hospital"
    assert kind[600] == "returned in a new admission"


def test_readmission_or_death_counts_from_hospital_to_hospital() -> None:
    day = pd.Timedelta(days=1)
    rows = [
        # Back in the unit 40 days after leaving it, but admitted 29.9 days after discharge.
        stay(1, 10, 100, 0, dischtime=START + 8 * day),
        stay(1, 11, 101, 43, admittime=START + 37.9 * day),
        # Back in the unit after 27 days; the admission began 30 days after discharge, to the day.
        stay(2, 20, 200, 0, dischtime=START + 3 * day),
        stay(2, 21, 201, 34, admittime=START + 33 * day),
        # Dead before the window ends, in a stay that lasts through it.
        stay(3, 30, 300, 0, died=1, deathtime=START + 1 * day),
    ]
    assert labelled(rows, "or-death")[0] == {100: 1, 101: 0, 200: 0, 201: 0, 300: 1}


def test_survivors_who_bounce_back_are_positive_and_their_first_stay_is_the_index() -> None:
    rows = [
        stay(1, 10, 100, 0),
        stay(1, 10, 101, 5),
        stay(1, 10, 102, 10),
        stay(2, 20, 200, 0, transferred=True),  # the first, transferred: no stay of this admission
        stay(2, 20, 201, 5),
        stay(3, 30, 300, 0),
    ]
    label, kind = labelled(rows, "survivors")
    assert label == {100: 1, 300: 0}
    assert kind[100] == "returned in the same admission"
    engine = DuckDB()
    flow = dict(root(engine, rows, "first").flow)
    engine.close()
    assert flow["excluded: not the first stay of its admission"] == 3
    assert flow["excluded: transferred between units or wards"] == 1


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
