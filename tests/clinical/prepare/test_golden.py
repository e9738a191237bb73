"""Real stays of the MIMIC-III demo: hourly values against the raw rows, read by plain pandas."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cm2.clinical.prepare import events, grid
from cm2.clinical.prepare.mimic3 import MIMIC3
from cm2.clinical.prepare.tables import Tables

BINS = 48
PARTS = {
    "gcs_eye": ["184", "220739"],
    "gcs_motor": ["454", "223901"],
    "gcs_verbal": ["723", "223900"],
}
OXYGEN = ["189", "190", "727", "3420", "3422", "223835"]


@pytest.fixture(scope="module")
def demo(dataset: Callable[[str], Path]) -> Path:
    return dataset("mimiciii-demo")


@pytest.fixture(scope="module")
def raw(demo):
    """Chart rows as they stand in the file, with hours since admission to the unit."""
    stays = pd.read_csv(demo / "ICUSTAYS.csv.gz", usecols=["ICUSTAY_ID", "INTIME"])
    columns = ["ICUSTAY_ID", "ITEMID", "CHARTTIME", "STORETIME", "VALUE", "VALUENUM", "ERROR"]
    chart = pd.read_csv(
        demo / "CHARTEVENTS.csv.gz", usecols=columns, dtype={"ITEMID": str, "VALUE": str}
    )
    chart = chart[chart["ERROR"] != 1].merge(stays, on="ICUSTAY_ID")
    for column in ("CHARTTIME", "STORETIME", "INTIME"):
        chart[column] = pd.to_datetime(chart[column])
    chart["hour"] = (chart["CHARTTIME"] - chart["INTIME"]).dt.total_seconds() / 3600
    chart["id"] = chart["ITEMID"].astype(int)
    return chart[(chart["hour"] >= 0) & (chart["hour"] < BINS)]


@pytest.fixture(scope="module")
def made(demo):
    """Last values of the bins, and exclusions of whole stays, of all stays of the demo."""
    with Tables(demo, MIMIC3.wanted, optional=MIMIC3.optional, lazy=MIMIC3.lazy) as tables:
        source, engine = MIMIC3(tables), tables.engine
        stays = engine.keep("stays", source.stays())
        matched = engine.keep("matched", events.match(source.measurements(), stays, hours=10_000))
        accepted = events.accept(matched)
        last = events.last_in_bin(accepted.filter(accepted.hour < BINS))
        yield engine.frame(last), engine.frame(events.exclusions(matched))


@pytest.fixture(scope="module")
def chosen(raw):
    """Three stays: those of CareVue and MetaVision with most on oxygen, and the most intubated."""
    oxygen = raw[raw["ITEMID"].isin(OXYGEN)]
    carevue = oxygen.loc[oxygen["ITEMID"] == "190", "ICUSTAY_ID"].mode()[0]
    metavision = oxygen.loc[oxygen["ITEMID"] == "223835", "ICUSTAY_ID"].mode()[0]
    tubed = raw[raw["VALUE"].isin(["No Response-ETT", "1.0 ET/Trach"])]
    tubed = tubed[~tubed["ICUSTAY_ID"].isin([carevue, metavision])]
    return [int(carevue), int(metavision), int(tubed["ICUSTAY_ID"].mode()[0])]


def hourly(rows):
    """The last row of each hour: by charttime, then storetime, then item id."""
    rows = rows.sort_values(["CHARTTIME", "STORETIME", "id"], na_position="first")
    return rows.groupby(np.floor(rows["hour"]).astype(int))["score"].last().to_dict()


def of(last, stay_id, variable):
    rows = last[(last["stay_id"] == stay_id) & (last["variable"] == variable)]
    return dict(zip(rows["bin"], rows["value"], strict=True))


@pytest.mark.parametrize("number", range(3))
def test_hourly_heart_rate(raw, made, chosen, number):
    rows = raw[(raw["ICUSTAY_ID"] == chosen[number]) & raw["ITEMID"].isin(["211", "220045"])]
    rows = rows[rows["VALUENUM"].notna()].assign(score=rows["VALUENUM"])
    expected = hourly(rows)
    assert len(expected) > 10
    assert of(made[0], chosen[number], "heart_rate") == expected


@pytest.mark.parametrize("number", range(3))
def test_hourly_inspired_oxygen(raw, made, chosen, number):
    rows = raw[(raw["ICUSTAY_ID"] == chosen[number]) & raw["ITEMID"].isin(OXYGEN)]
    share = rows["VALUENUM"].where(rows["VALUENUM"] <= 1, rows["VALUENUM"] / 100)
    rows = rows.assign(score=share)[share >= 0.2]
    expected = hourly(rows)
    assert number == 2 or expected
    assert of(made[0], chosen[number], "fraction_inspired_oxygen") == pytest.approx(expected)


@pytest.mark.parametrize("number", range(3))
def test_hourly_coma_scale(raw, made, chosen, number):
    rows = raw[(raw["ICUSTAY_ID"] == chosen[number]) & raw["VALUENUM"].notna()]
    rows = rows.assign(score=rows["VALUENUM"])
    parts = {name: rows[rows["ITEMID"].isin(items)] for name, items in PARTS.items()}
    for name, part in parts.items():
        assert len(part) > 3
        assert of(made[0], chosen[number], name) == hourly(part)
    total = rows[rows["ITEMID"] == "198"]
    if total.empty:
        latest = [
            part.sort_values(["STORETIME", "id"], na_position="first")
            .groupby("CHARTTIME")[["score", "hour"]]
            .last()
            for part in parts.values()
        ]
        common = latest[0].index.intersection(latest[1].index).intersection(latest[2].index)
        summed = sum(part.loc[common, "score"] for part in latest)
        total = pd.DataFrame({"score": summed, "hour": latest[0].loc[common, "hour"]})
        total = total.reset_index().assign(STORETIME=pd.NaT, id=0)
    assert of(made[0], chosen[number], "gcs_total") == hourly(total)


def test_the_impossible_pressure_is_left_out_and_counted(made):
    last, excluded = made
    counts = excluded.set_index(["variable", "reason"])["rows"]
    assert counts["systolic_blood_pressure", "implausible"] > 0
    assert last.loc[last["variable"] == "systolic_blood_pressure", "value"].max() < 375


def test_grid_of_the_demo(made, tmp_path):
    last, _ = made
    stays = np.sort(last["stay_id"].unique()).astype(np.int64)
    batches = pa.Table.from_pandas(last, preserve_index=False).to_batches()
    training = np.arange(len(stays)) % 5 > 0
    written = grid.write_series(batches, stays, training, tmp_path / "series.parquet")
    frame = pd.read_parquet(tmp_path / "series.parquet")
    assert len(frame) == len(written.stay_id) * BINS
    assert np.isfinite(frame[list(grid.COLUMNS)].to_numpy()).all()
    masks = frame[[name for name in grid.COLUMNS if name.startswith("mask_")]]
    assert masks.to_numpy().sum() == len(last)
