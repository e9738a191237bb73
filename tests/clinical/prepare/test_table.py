"""A user's own files: a description in YAML, from files to batches."""

import gzip
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
        (lambda table: table.update(tables=["labs"]), "given by names and values"),
        (lambda table: table.update(events="events.csv"), "given by names and values"),
        (lambda table: table["tables"].update(labs="labs.csv"), "labs must name file and id"),
    ],
)
def test_faults_of_the_description_are_named(tmp_path: Path, spoil, message: str) -> None:
    described = about()
    spoil(described)
    raw = write(tmp_path / "raw", events())
    with pytest.raises((TableError, MissingError), match=message):
        prepare("table", raw, tmp_path / "out", Options(table=described))
    assert not (tmp_path / "out").exists()


def test_what_samples_are_named_by_is_no_feature(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", events())
    stays = pd.read_csv(raw / "stays.csv").assign(age=range(N))
    stays.to_csv(raw / "stays.csv", index=False)
    labs = pd.read_csv(raw / "labs.csv").assign(patient=1, died=0)
    labs.to_csv(raw / "labs.csv", index=False)
    described = about()
    described["tables"]["static"] = {"file": "stays.csv", "id": "stay"}
    made = prepare("table", raw, tmp_path / "out", Options(hours=24, table=described))
    columns = {name: made["modalities"][name]["columns"] for name in ("static", "labs")}
    assert columns == {"static": ["age"], "labs": ["sodium", "lactate"]}
    assert made["measurements_left_out"] == {
        **{f"static.{name}": {"named by samples": N} for name in ("patient", "died", "admitted")},
        **{f"labs.{name}": {"named by samples": N // 2} for name in ("patient", "died")},
    }


def zoned(raw: Path, starts: str, times: str, every: int = 1) -> None:
    """Writes zones behind the times of samples, and of some events."""
    stays = pd.read_csv(raw / "stays.csv")
    stays.assign(admitted=stays["admitted"] + starts).to_csv(raw / "stays.csv", index=False)
    told = pd.read_parquet(raw / "events.parquet")
    charted = told["charted"].astype(str)
    told["charted"] = charted.where(told.index % every > 0, charted + times)
    told.to_parquet(raw / "events.parquet")


@pytest.mark.parametrize(
    ("starts", "times", "every", "message"),
    [
        ("", "+05:00", 1, "are with a time zone, but the start of samples is without"),
        ("+05", "", 1, "are without a time zone, but the start of samples is with"),
        ("", "Z", 2, "80 of 160 times of column charted have a time zone"),
    ],
)
def test_times_with_a_zone_are_not_compared_with_times_without(
    tmp_path: Path, starts: str, times: str, every: int, message: str
) -> None:
    raw = write(tmp_path / "raw", events())
    zoned(raw, starts, times, every)
    with pytest.raises(TableError, match=message):
        prepare("table", raw, tmp_path / "out", Options(hours=24, table=about()))


def test_times_of_several_zones_are_the_same_hours(tmp_path: Path) -> None:
    plain, told = (write(tmp_path / name, events()) for name in ("plain", "told"))
    # 7:30 in a zone one hour ahead is 6:30.
    zoned(told, "Z", "+01:00")
    frame = pd.read_parquet(told / "events.parquet")
    early = frame["charted"].str.replace("+01:00", "", regex=False)
    later = pd.to_datetime(early) + pd.Timedelta(hours=1)
    mixed = (later.astype(str) + "+01:00").where(frame.index % 2 > 0, early + "Z")
    frame.assign(charted=mixed).to_parquet(told / "events.parquet")
    hours = []
    for raw in (plain, told):
        out = tmp_path / f"{raw.name}-out"
        prepare("table", raw, out, Options(hours=24, table=about()))
        hours.append(pd.read_parquet(out / "events.parquet"))
    pd.testing.assert_frame_equal(*hours)


@pytest.mark.parametrize("form", ["%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S+0000", "%Y-%m-%dT%H:%M+00 "])
def test_a_zone_is_seen_in_every_way_to_write_it(tmp_path: Path, form: str) -> None:
    raw = write(tmp_path / "raw", events())
    told = pd.read_parquet(raw / "events.parquet")
    told["charted"] = told["charted"].dt.strftime(form)
    told.to_parquet(raw / "events.parquet")
    with pytest.raises(TableError, match="are with a time zone, but the start of samples is"):
        prepare("table", raw, tmp_path / "out", Options(hours=24, table=about()))


@pytest.mark.parametrize(
    ("start", "charted", "message"),
    [
        (False, lambda t: t, "times or durations where numbers are expected"),
        (False, lambda t: t - t.min(), "times or durations where numbers are expected"),
        (True, lambda t: t.dt.day, "numbers where times are expected"),
    ],
)
def test_times_are_no_hours_and_hours_no_times(
    tmp_path: Path, start: bool, charted, message: str
) -> None:
    raw = write(tmp_path / "raw", events())
    told = pd.read_parquet(raw / "events.parquet")
    told.assign(charted=charted(told["charted"])).to_parquet(raw / "events.parquet")
    described = about()
    if not start:
        del described["samples"]["start"]
    with pytest.raises(TableError, match=message):
        prepare("table", raw, tmp_path / "out", Options(hours=24, table=described))


def test_identifiers_are_read_to_the_last_digit(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", events())
    large = write(tmp_path / "large", events())
    first = 2**62  # neighbours that one float stands for
    for name in ("stays", "labs"):
        frame = pd.read_csv(large / f"{name}.csv")
        frame.assign(stay=first + frame["stay"]).to_csv(large / f"{name}.csv", index=False)
    frame = pd.read_parquet(large / "events.parquet")
    frame = frame.assign(stay=(first + frame["stay"]).astype("string"))
    nobody = frame.iloc[[0]].assign(stay=None)
    pd.concat([frame, nobody]).to_csv(large / "events.csv", index=False)
    described = about()
    described["events"]["file"] = "events.csv"
    options = Options(hours=24, table=described)
    prepare("table", plain, tmp_path / "plain-out", Options(hours=24, table=about()))
    prepare("table", large, tmp_path / "large-out", options)
    found = pd.read_parquet(tmp_path / "large-out" / "events.parquet")
    wanted = pd.read_parquet(tmp_path / "plain-out" / "events.parquet")
    pd.testing.assert_frame_equal(found.assign(stay_id=found["stay_id"] - first), wanted)


@pytest.mark.parametrize(
    ("file", "column", "values", "message"),
    [
        ("labs", "stay", lambda s: "S" + s.astype(str), "column stay: 20 of 20 values"),
        ("labs", "sodium", lambda s: "high", "has columns that are no numbers: sodium"),
        ("labs", "stay", lambda s: s + 1000, "none of 20 rows has in column stay"),
        ("events", "stay", lambda s: s + 1000, "none of 160 rows has in column stay"),
        ("events", "charted", lambda s: s.dt.strftime("%m/%d/%Y %H:%M"), "column charted: 160"),
        ("events", "number", lambda s: s + ",5", "column number: 160 of 160 values"),
        ("stays", "admitted", lambda s: "05/" + s, "stays.csv: column admitted: 40 of 40"),
        ("stays", "stay", lambda s: s.where(s != 4), "1 of 40 samples have no whole number"),
    ],
)
def test_a_column_that_cannot_be_read_stops_the_run(
    tmp_path: Path, file: str, column: str, values, message: str
) -> None:
    raw = write(tmp_path / "raw", events())
    [path] = raw.glob(f"{file}.*")
    parquet = path.suffix == ".parquet"
    frame = pd.read_parquet(path) if parquet else pd.read_csv(path)
    frame = frame.assign(**{column: values(frame[column])})
    frame.to_parquet(path) if parquet else frame.to_csv(path, index=False)
    with pytest.raises(TableError, match=message):
        prepare("table", raw, tmp_path / "out", Options(hours=24, table=about()))


def test_a_footer_and_events_of_others_are_counted(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", events((N + 3, "hr", 1.0, 80.0), (N + 4, "hr", 1.0, 80.0)))
    with (raw / "labs.csv").open("a") as file:
        file.write("total,140,\n")
    made = prepare("table", raw, tmp_path / "out", Options(hours=24, table=about()))
    assert made["unreadable"] == {"events of no sample": 2}
    assert made["measurements_left_out"] == {"labs.stay": {"of no sample": 1}}
    assert made["modalities"]["labs"]["stays"] == N // 2


def test_sodium_is_no_gap_and_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", events())
    frame = events(
        (0, "", 2.0, 80), (0, " NULL ", 2.0, 80), (0, "  ", 2.0, 80), (0, "NA", 2.0, "inf")
    )
    frame["name"] = frame["name"].replace("hr", "NA")
    frame.to_csv(raw / "events.csv", index=False)
    described = about()
    described["events"]["file"] = "events.csv"
    made = prepare("table", raw, tmp_path / "out", Options(hours=24, table=described))
    assert {"NA", "sbp"} <= set(made["modalities"]["series"]["columns"])
    assert made["unreadable"] == {"events.name": 3, "events.number": 1}


def test_a_number_with_a_sign_before_it_is_counted(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", events())
    labs = pd.DataFrame({"stay": range(N), "sodium": ["140", ">500", *["141"] * (N - 2)]})
    labs.to_csv(raw / "labs.csv", index=False)
    made = prepare("table", raw, tmp_path / "out", Options(hours=24, table=about()))
    assert made["measurements_left_out"] == {"labs.sodium": {"no number": 1}}
    found = pd.read_parquet(tmp_path / "out" / "labs.parquet").set_index("stay_id")["sodium"]
    assert found.dropna().tolist() == [140.0, *[141.0] * (N - 2)]


def test_rows_with_more_fields_than_the_header_are_refused(tmp_path: Path) -> None:
    """But for a comma at the end."""
    raw = write(tmp_path / "raw", events())
    lines = [f"{k},40,7.0," for k in range(N)]
    (raw / "labs.csv").write_text("\n".join(["stay,age,ph", *lines]))
    prepare("table", raw, tmp_path / "out", Options(hours=24, table=about()))
    found = pd.read_parquet(tmp_path / "out" / "labs.parquet")
    assert found["stay_id"].tolist() == list(range(N)), "not that of age 40"
    assert (found["ph"] == 7.0).all()
    lines = [f"{line}1" for line in lines]
    (raw / "labs.csv").write_text("\n".join(["stay,age,ph", *lines]))
    with pytest.raises(TableError, match=r"labs\.csv: rows have more fields than the header"):
        prepare("table", raw, tmp_path / "more", Options(hours=24, table=about()))


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", events())
    whole = gzip.compress((raw / "labs.csv").read_bytes())
    (raw / "labs.csv.gz").write_bytes(whole[: len(whole) // 2])
    described = about()
    described["tables"]["labs"]["file"] = "labs.csv.gz"
    with pytest.raises(TableError, match="cannot be read as Parquet or comma-separated"):
        prepare("table", raw, tmp_path / "out", Options(hours=24, table=described))


def test_events_of_which_none_lies_in_the_window_are_refused(tmp_path: Path) -> None:
    late = events()
    raw = write(tmp_path / "raw", late.assign(charted=late["charted"] + pd.Timedelta(days=365)))
    with pytest.raises(TableError, match="no event of a training sample in the window"):
        prepare("table", raw, tmp_path / "out", Options(hours=24, table=about()))
