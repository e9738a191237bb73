"""Laboratory and monitor of eICU: by hand, at the window's end, and on the real demo."""

from collections.abc import Callable
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest

from cm2.clinical.prepare.eicu_columns import STAY
from cm2.clinical.prepare.eicu_measured import LABORATORY, MONITOR, measured
from cm2.clinical.prepare.eicu_source import EICU
from cm2.clinical.prepare.eicu_window import Window
from cm2.clinical.prepare.pipeline import prepare
from cm2.clinical.prepare.tables import Tables

END = 1440.0
STAYS = [1, 2, 3]


def laboratory() -> pd.DataFrame:
    rows = [
        (1, 60, 60.0, "lactate", 4.0),
        (1, 300, 320.0, "lactate", 2.0),
        (1, -100, None, "Hgb", 9.5),
        (2, 60, 60.0, "lactate", 900.0),
        (2, 60, 60.0, "urinary sodium", 30.0),
        (3, -500, -500.0, "sodium", 140.0),
    ]
    names = [STAY, "labresultoffset", "labresultrevisedoffset", "labname", "labresult"]
    return pd.DataFrame(rows, columns=names).assign(labmeasurenamesystem="unit")


def monitor() -> pd.DataFrame:
    frame = pd.DataFrame({STAY: [1, 1, 2], "observationoffset": [0, 60, 30]})
    frame = frame.assign(**dict.fromkeys(MONITOR, np.nan))
    return frame.assign(heartrate=[80.0, 90.0, 5000.0], systemicmean=[70.0, np.nan, np.nan])


def modalities(lab: pd.DataFrame, periodic: pd.DataFrame) -> dict[str, pd.DataFrame]:
    tables = {"lab": ibis.memtable(lab), "vitalperiodic": ibis.memtable(periodic)}
    kept = ibis.memtable(pd.DataFrame({STAY: STAYS}))
    return measured(Window(tables, kept, END))


def test_values_by_hand() -> None:
    found = modalities(laboratory(), monitor())
    # Stay 2 has no plausible result, stay 3 none of the six hours before admission or later.
    assert found["lab"].index.tolist() == [1]
    row = found["lab"].loc[1]
    wanted = {"count": 2, "mean": 3, "min": 2, "max": 4, "first": 4, "last": 2}
    assert row.filter(like="lactate_").to_dict() == {f"lactate_{k}": v for k, v in wanted.items()}
    assert row["hemoglobin_last"] == 9.5
    assert row["sodium_count"] == 0
    assert len(found["lab"].columns) == 6 * len(LABORATORY)
    assert found["monitor"].index.tolist() == [1]
    assert found["monitor"].loc[1, "heart_rate_slope"] == pytest.approx(10)
    assert found["monitor"].loc[1, "mean_blood_pressure_count"] == 1


def test_summaries_do_not_depend_on_the_order_of_rows() -> None:
    """Sums of floating numbers do, by their last digit, unless the order of adding is fixed."""
    rng = np.random.default_rng(0)
    events = pd.DataFrame({STAY: 1, "observationoffset": rng.permutation(1000)})
    events = events.assign(**dict.fromkeys(MONITOR, np.nan))
    events["heartrate"] = rng.uniform(60, 100, len(events))
    found = modalities(laboratory(), events)["monitor"]
    for seed in range(3):
        again = modalities(laboratory(), events.sample(frac=1, random_state=seed))["monitor"]
        pd.testing.assert_frame_equal(again, found, check_exact=True)


def test_without_the_tables_there_is_neither_modality() -> None:
    assert measured(Window({}, ibis.memtable(pd.DataFrame({STAY: STAYS})), END)) == {}


def test_counts_of_the_real_demo_and_a_plain_count(
    dataset: Callable[[str], Path], tmp_path: Path
) -> None:
    demo = dataset("eicu-demo-hourly")
    about = prepare("eicu", demo, tmp_path / "out")
    assert about["flow"][-1] == ["stays kept", 717]
    assert about["positives"] == {"died in hospital": 77}
    assert about["counts"]["events"] == 411_710
    assert about["modalities"]["lab"]["stays"] == 698
    assert about["modalities"]["monitor"]["stays"] == 704
    stays = pd.read_parquet(tmp_path / "out" / "stays.parquet").set_index("stay_id")
    patient = pd.read_csv(demo / "patient.csv.gz").set_index(STAY)
    places = pd.read_csv(demo / "hospital.csv.gz").set_index("hospitalid")
    hospital = patient["hospitalid"].reindex(stays.index)
    assert (stays["hospital"] == hospital.astype(str)).all()
    assert stays["region"].equals(hospital.map(places["region"]).rename("region"))
    rows = pd.read_csv(demo / "lab.csv.gz")
    rows = rows[rows["labname"].eq("creatinine") & rows["labresult"].between(0.1, 40)]
    rows = rows[rows["labresultoffset"].between(-360, 48 * 60, inclusive="left")]
    expected = rows.groupby(STAY)["labresult"].max().reindex(stays.index).dropna()
    lab = pd.read_parquet(tmp_path / "out" / "lab.parquet").set_index("stay_id")
    found = lab["creatinine_max"].dropna()
    assert found.index.tolist() == expected.index.tolist()
    assert (found.to_numpy() == expected.to_numpy()).all()


def test_first_and_last_of_one_minute_are_its_least_and_greatest() -> None:
    events = pd.DataFrame({STAY: 1, "observationoffset": [5, 5, 9, 9, 7]})
    events = events.assign(**dict.fromkeys(MONITOR, np.nan))
    events["heartrate"] = [80.0, 70.0, 90.0, 95.0, 200.0]
    found = modalities(laboratory(), events)["monitor"].loc[1].filter(like="heart_rate_")
    wanted = {"count": 5, "first": 70, "last": 95, "min": 70, "max": 200, "mean": 107}
    assert {name: found[f"heart_rate_{name}"] for name in wanted} == wanted
    hours = np.array([5, 5, 9, 9, 7]) / 60
    slope = np.polyfit(hours, [80.0, 70.0, 90.0, 95.0, 200.0], 1)[0]
    assert found["heart_rate_slope"] == pytest.approx(slope, rel=1e-9)


def test_what_cannot_be_read_of_the_monitor_is_told(tmp_path: Path) -> None:
    """Once, of the column that it is in; what else the row has is read."""
    rows = "1,5,80,97\n1,10,eighty,98\n1,15,,96\n"
    text = "patientunitstayid,observationoffset,heartrate,sao2\n" + rows
    (tmp_path / "vitalPeriodic.csv").write_text(text)
    wanted = {STAY: "int64", "observationoffset": "int64"}
    wanted |= {"heartrate": "float64", "sao2": "float64"}
    with Tables(tmp_path, {"vitalperiodic": wanted}, lazy={"vitalperiodic"}) as tables:
        source = EICU(tables)
        long = source._columns("vitalperiodic", "observationoffset", ("heartrate", "sao2"))
        frame = long.order_by("charttime", "item").execute()
    assert frame["number"].fillna(-1).tolist() == [80, 97, -1, 98, 96]
    lost = frame.loc[frame["unreadable"].notna(), ["item", "unreadable"]].to_numpy().tolist()
    assert lost == [["heartrate", "vitalperiodic.heartrate"]]
