"""A user's own files: a description in YAML, from files to batches."""

import io
from pathlib import Path

import pandas as pd
import pytest
import yaml

from cm2.cli import main
from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.pipeline import prepare
from prepared_batches import Prepared

N = 40
START = pd.Timestamp("2020-05-01 06:30")


def about() -> dict:
    return {
        "samples": {
            "file": "stays.csv", "id": "stay", "group": "patient", "label": "died",
            "start": "admitted",
        },
        "events": {
            "file": "events.parquet", "id": "stay", "variable": "name", "time": "charted",
            "value": "number",
        },
        "tables": {"labs": {"file": "labs.csv", "id": "stay"}},
    }  # fmt: skip


def begin(stay: int) -> pd.Timestamp:
    return START + pd.Timedelta(days=stay)


def events(*more: tuple[int, str, float, object]) -> pd.DataFrame:
    rows = [(k, name, h, 60 + k + h) for k in range(N) for name in ("hr", "sbp") for h in (0, 7)]
    rows += list(more)
    frame = pd.DataFrame(rows, columns=["stay", "name", "hour", "number"])
    charted = [begin(k) + pd.Timedelta(hours=h) for k, _, h, _ in rows]
    return frame.assign(charted=charted, number=frame["number"].astype(str)).drop(columns="hour")


def write(folder: Path, happened: pd.DataFrame) -> Path:
    folder.mkdir()
    stays = pd.DataFrame({"stay": range(N), "patient": [k // 2 for k in range(N)]})
    stays = stays.assign(died=stays["stay"] % 3 == 0, admitted=stays["stay"].map(begin))
    stays.astype({"died": int}).to_csv(folder / "stays.csv", index=False)
    happened.to_parquet(folder / "events.parquet")
    labs = pd.DataFrame({"stay": range(0, N, 2), "sodium": 140.0, "lactate": None})
    labs.to_csv(folder / "labs.csv", index=False)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def test_the_command_reads_a_description(tmp_path: Path) -> None:
    raw, out = write(tmp_path / "raw", events((3, "hr", 1.5, "high"))), tmp_path / "out"
    text = yaml.safe_dump({"raw": str(raw), "out": str(out), "hours": 24, "table": about()})
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["prepare", "table", "--config", str(tmp_path / "mine.yaml")]) == 0
    stays = pd.read_parquet(out / "stays.parquet")
    assert stays["label"].tolist() == [int(k % 3 == 0) for k in range(N)]
    assert stays["has_labs"].tolist() == [k % 2 == 0 for k in range(N)]
    assert stays.groupby("subject_id")["split"].nunique().max() == 1
    found = pd.read_parquet(out / "events.parquet")
    assert len(found) == 4 * N
    assert found.query("stay_id == 3 and variable == 'hr'")["hour"].tolist() == [0, 7]
    data = Prepared(out, split=None, modalities=["series", "labs"])
    assert data[[0, 1]].inputs["series"].values.shape == (2, 24, 4)
    manifest = yaml.safe_load((out / "manifest.json").read_text())
    assert manifest["task"] == "own"
    assert manifest["unreadable"] == {"events.number": 1}


def test_order_of_rows_and_hours_in_the_place_of_times_change_nothing(tmp_path: Path) -> None:
    options = Options(hours=24, table=about())
    prepare("table", write(tmp_path / "plain", events()), tmp_path / "plain-out", options)
    mixed = events().sample(frac=1, random_state=0)
    prepare("table", write(tmp_path / "mixed", mixed), tmp_path / "mixed-out", options)
    assert contents(tmp_path / "mixed-out") == contents(tmp_path / "plain-out")
    described = about()
    del described["samples"]["start"]
    hours = events()
    since = hours["charted"] - hours["stay"].map(begin)
    hours["charted"] = since.dt.total_seconds() / 3600
    raw = write(tmp_path / "hours", hours)
    prepare("table", raw, tmp_path / "hours-out", Options(hours=24, table=described))
    plain, found = contents(tmp_path / "plain-out"), contents(tmp_path / "hours-out")
    timed, bare = (pd.read_parquet(io.BytesIO(one.pop("stays.parquet"))) for one in (plain, found))
    assert found == plain
    ends = [begin(stay) + pd.Timedelta(hours=24) for stay in timed["stay_id"]]
    assert timed.pop("prediction_time").tolist() == ends
    assert bare.pop("prediction_time").isna().all(), "hours are of no calendar"
    pd.testing.assert_frame_equal(bare, timed)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda table: table.pop("samples"), "which file holds the samples"),
        (lambda table: table.update(event={}), "unknown part"),
        (lambda table: table["events"].pop("value"), r"missing \['value'\]"),
        (lambda table: table["samples"].update(lable="x"), r"unknown \['lable'\]"),
        (lambda table: table["samples"].update(file="x.csv"), "no such file of samples"),
        (lambda table: table["samples"].update(id="nr"), r"lacks column\(s\) nr"),
        (lambda table: table["tables"].update({"a b": {}}), "name of a modality"),
    ],
)
def test_faults_of_the_description_are_named(tmp_path: Path, spoil, message: str) -> None:
    described = about()
    spoil(described)
    raw = write(tmp_path / "raw", events())
    with pytest.raises((TableError, MissingError), match=message):
        prepare("table", raw, tmp_path / "out", Options(table=described))
    assert not (tmp_path / "out").exists()
