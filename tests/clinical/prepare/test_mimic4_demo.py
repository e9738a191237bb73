"""The real MIMIC-IV demo: its counts, and every stay's hourly values against the raw rows."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cm2.clinical.prepare import events
from cm2.clinical.prepare.mimic4 import MIMIC4
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.pipeline import prepare
from cm2.clinical.prepare.tables import Tables

BINS = 48
PARTS = {"gcs_eye": 220739, "gcs_motor": 223901, "gcs_verbal": 223900}


@pytest.fixture(scope="module")
def demo(dataset: Callable[[str], Path]) -> Path:
    return dataset("mimiciv-demo")


@pytest.fixture(scope="module")
def stays(demo: Path) -> pd.DataFrame:
    times = ["intime", "outtime"]
    return pd.read_csv(demo / "icu" / "icustays.csv.gz", parse_dates=times)


def inside(rows: pd.DataFrame) -> pd.DataFrame:
    rows["hour"] = (rows["charttime"] - rows["intime"]).dt.total_seconds() / 3600
    rows = rows[(rows["hour"] >= 0) & (rows["hour"] < BINS)]
    return rows[["stay_id", "itemid", "hour", "storetime", "valuenum"]]


@pytest.fixture(scope="module")
def chart(demo: Path, stays: pd.DataFrame) -> pd.DataFrame:
    columns = ["stay_id", "itemid", "charttime", "storetime", "valuenum"]
    rows = pd.read_csv(demo / "icu" / "chartevents.csv.gz", usecols=columns)
    for name in ("charttime", "storetime"):
        rows[name] = pd.to_datetime(rows[name])
    return inside(rows.merge(stays[["stay_id", "intime"]], on="stay_id"))


@pytest.fixture(scope="module")
def laboratory(demo: Path, stays: pd.DataFrame) -> pd.DataFrame:
    """Results of the admission, charted within the stay."""
    columns = ["hadm_id", "itemid", "charttime", "storetime", "valuenum"]
    rows = pd.read_csv(demo / "hosp" / "labevents.csv.gz", usecols=columns)
    for name in ("charttime", "storetime"):
        rows[name] = pd.to_datetime(rows[name])
    rows = rows.dropna(subset="hadm_id").merge(stays, on="hadm_id")
    return inside(rows[rows["charttime"] < rows["outtime"]])


@pytest.fixture(scope="module")
def last(demo: Path) -> pd.DataFrame:
    """Last values of the bins of all stays, from the package."""
    places = {"optional": MIMIC4.optional, "lazy": MIMIC4.lazy, "subfolders": MIMIC4.subfolders}
    with Tables(demo, MIMIC4.wanted, **places) as tables:
        source, engine = MIMIC4(tables), tables.engine
        kept = engine.keep("stays", source.stays())
        found = engine.keep("matched", events.match(source.measurements(), kept, hours=BINS))
        accepted = events.accept(found)
        return engine.frame(events.last_in_bin(accepted.filter(accepted.hour >= 0)))


def hourly(rows: pd.DataFrame) -> dict[tuple[int, int], float]:
    """The last row of each stay and hour: by charttime, then storetime, item, value."""
    rows = rows.dropna(subset="valuenum")
    rows = rows.sort_values(["hour", "storetime", "itemid", "valuenum"], na_position="first")
    keys = [rows["stay_id"], np.floor(rows["hour"]).astype(int)]
    return rows.groupby(keys)["valuenum"].last().to_dict()


def of(last: pd.DataFrame, variable: str) -> dict[tuple[int, int], float]:
    rows = last[last["variable"] == variable]
    return dict(zip(zip(rows["stay_id"], rows["bin"], strict=True), rows["value"], strict=True))


def test_hourly_heart_rate(chart: pd.DataFrame, last: pd.DataFrame) -> None:
    rows = chart[(chart["itemid"] == 220045) & chart["valuenum"].between(0, 350)]
    expected = hourly(rows)
    assert len(expected) > 4_000
    assert of(last, "heart_rate") == expected


def test_hourly_inspired_oxygen(chart: pd.DataFrame, last: pd.DataFrame) -> None:
    rows = chart[chart["itemid"] == 223835]
    share = rows["valuenum"].where(rows["valuenum"] < 20, rows["valuenum"] / 100)
    expected = hourly(rows.assign(valuenum=share)[share.between(0.2, 1)])
    assert len(expected) > 500
    assert of(last, "fraction_inspired_oxygen") == pytest.approx(expected, rel=1e-12)


def test_hourly_temperature(chart: pd.DataFrame, last: pd.DataFrame) -> None:
    rows = chart[chart["itemid"].isin([223761, 223762])]
    fahrenheit = rows["valuenum"] >= 79
    celsius = rows["valuenum"].where(~fahrenheit, (rows["valuenum"] - 32) * 5 / 9)
    expected = hourly(rows.assign(valuenum=celsius)[celsius.between(26, 45)])
    assert len(expected) > 1_000
    assert of(last, "temperature") == pytest.approx(expected, rel=1e-12)


def test_hourly_coma_scale(chart: pd.DataFrame, last: pd.DataFrame) -> None:
    parts = {name: chart[chart["itemid"] == item] for name, item in PARTS.items()}
    at = []
    for name, rows in parts.items():
        expected = hourly(rows)
        assert len(expected) > 1_000
        assert of(last, name) == expected
        order = rows.dropna(subset="valuenum").sort_values(["storetime"], na_position="first")
        at.append(order.groupby(["stay_id", "hour"])["valuenum"].last())
    total = pd.concat(at, axis=1, join="inner").sum(axis=1).rename("valuenum").reset_index()
    assert of(last, "gcs_total") == hourly(total.assign(storetime=pd.NaT, itemid=0))


def test_hourly_ph_and_glucose_of_bedside_and_laboratory(
    chart: pd.DataFrame, laboratory: pd.DataFrame, last: pd.DataFrame
) -> None:
    for variable, bedside, tests, low, high in (
        ("ph", [220274, 223830], [50820], 6.3, 8.4),
        ("glucose", [220621, 225664, 226537], [50809, 50931], 10, 2000),
    ):
        rows = pd.concat(
            [
                chart[chart["itemid"].isin(bedside)],
                laboratory[laboratory["itemid"].isin(tests)],
            ]
        )
        expected = hourly(rows[rows["valuenum"].between(low, high)])
        assert len(expected) > 300
        assert of(last, variable) == expected


WITHOUT = {"capillary_refill_rate": 54, "fraction_inspired_oxygen": 15, "ph": 7}


def test_counts(mimic4_demo: Path) -> None:
    about = json.loads((mimic4_demo / "manifest.json").read_text())
    assert about["synthetic"] is False
    flow = dict(about["flow"])
    assert {step: number for step, number in flow.items() if number} == {
        "rows of stays found": 140,
        "excluded: transferred between units or wards": 11,
        "excluded: another stay in the same admission": 17,
        "excluded: left the unit before 48 h": 58,
        "stays kept": 54,
    }
    assert about["positives"] == {"died in hospital": 9}
    # Height and weight are charted before the stay begins; how far back they are sought is an
    # option.
    found = pd.read_parquet(mimic4_demo / "events.parquet")["variable"].value_counts()
    assert found.drop(["height", "weight"], errors="ignore").sum() == 25_375
    without = about["counts"]["series"]["stays without"]
    assert {n: k for n, k in without.items() if k and n not in ("height", "weight")} == WITHOUT
    assert set(about["absent"]) == {"cxr", "report"}


def test_height_and_weight_are_charted_before_the_stay(mimic4_demo: Path) -> None:
    about = json.loads((mimic4_demo / "manifest.json").read_text())
    without = about["counts"]["series"]["stays without"]
    assert (without["height"], without["weight"]) == (15, 0)


def test_survivors_who_come_back_are_in_the_cohort(demo: Path, tmp_path: Path) -> None:
    about = prepare("mimic4", demo, tmp_path / "out", Options(task="readmission"))
    assert about["flow"][-1] == ["stays kept", 48]
    assert about["positives"] == {
        "returned in a new admission": 7,
        "returned in the same admission": 2,
    }


def test_readmission_or_death_counts_deaths_and_no_look_back_leaves_few_weights(
    demo: Path, tmp_path: Path
) -> None:
    options = Options(task="readmission", readmission="or-death", look_back=0)
    about = prepare("mimic4", demo, tmp_path / "out", options)
    assert about["flow"][-1] == ["stays kept", 54]
    assert about["positives"] == {"died in hospital": 9, "returned in a new admission": 5}
    without = about["counts"]["series"]["stays without"]
    assert (without["height"], without["weight"]) == (54, 5)


def test_the_same_bytes_again_by_one_thread(demo: Path, mimic4_demo: Path, tmp_path: Path) -> None:
    prepare("mimic4", demo, tmp_path / "one", threads=1)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (mimic4_demo / path.name).read_bytes(), path.name
