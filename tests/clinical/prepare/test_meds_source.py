"""MEDS in: the same cohort and grid as from the raw tables, no look ahead, and clear errors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import meds_demo
from cm2.cli import main
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.pipeline import prepare
from cm2.clinical.prepare.places import Named

MADE = ("stays.parquet", "events.parquet", "series.parquet")


def test_the_same_cohort_and_grid_as_from_the_raw_tables(
    dataset: Callable[[str], Path], mimic4_demo: Path, tmp_path: Path
) -> None:
    demo = dataset("mimiciv-demo")
    raw = meds_demo.write(meds_demo.events(demo), tmp_path / "raw")
    meds_demo.labels(demo).to_parquet(tmp_path / "labels.parquet")
    files = {"labels": tmp_path / "labels.parquet", "codes": Path("mimic4")}
    about = prepare("meds", raw, tmp_path / "meds", named=Named(**files))
    found, known = ({name: pd.read_parquet(place / name) for name in MADE}
                    for place in (tmp_path / "meds", mimic4_demo))  # fmt: skip
    key = ["subject_id", "prediction_time"]
    pairs = found["stays.parquet"].merge(known["stays.parquet"], on=key, validate="one_to_one")
    assert len(pairs) == len(found["stays.parquet"]) == len(known["stays.parquet"]) == 54
    # MIMIC masks ages over 89, of which a MEDS table does not tell.
    pairs["age_x"] = pairs["age_x"].where(pairs["age_x"] <= 89, 91)
    for column in ("label", "split", "age"):
        assert (pairs[f"{column}_x"] == pairs[f"{column}_y"]).all(), column
    names = dict(zip(pairs["stay_id_x"], pairs["stay_id_y"], strict=True))
    for name, keys in (
        ("events.parquet", ["stay_id", "variable", "hour", "value"]),
        ("series.parquet", ["stay_id", "bin"]),
    ):
        ours = found[name].assign(stay_id=found[name]["stay_id"].map(names))
        ours, theirs = (one.sort_values(keys, ignore_index=True) for one in (ours, known[name]))
        # The numbers are float32 in MEDS, and read as the decimals that they were; the moments are
        # sums over stays in another order.
        pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=1e-6)
    codes = about["counts"]["codes"]
    assert codes["events with a map"] == 25_640
    assert codes["codes without a map"] == 1_316
    assert about["positives"] == {"boolean_value true": 9}


N = 24
CODES = "code,variable,unit\nHR//*,heart_rate,/min\nTEMP,temperature,F\nCRP,crp,mg/L\n"
CODES += "GLU//mmol,glucose,mmol/L\nHEIGHT,height,cm\nHR//bad,crp_of_urine,mg/L\n"


def at(subject: int, hour: float) -> pd.Timestamp:
    """Hours before the prediction time are below 0."""
    return pd.Timestamp("2150-03-01") + pd.Timedelta(days=subject, seconds=round(hour * 3600))


def rows(*more: tuple[int, float, str, float]) -> pd.DataFrame:
    """Four subjects of every six have a birth; values differ by subject."""
    made = [(k, -3.5, "HR//bpm", 60.0 + k) for k in range(N)]
    made += [(k, -1.0, "TEMP", 98.6) for k in range(N)]
    made += [(k, -2.0, "CRP", float(k)) for k in range(0, N, 2)]
    made += [(k, -2.5, "GLU//mmol", 5.0) for k in range(N)]
    made += [(k, -8.0, "HEIGHT", 150.0 + k) for k in range(N)]
    made += [(k, -0.5, "UNKNOWN", 1.0) for k in range(N)]
    made += [(k, 0.0, "MEDS_BIRTH", np.nan) for k in range(N) if k % 6 < 4]
    frame = pd.DataFrame([*made, *more], columns=["subject_id", "hour", "code", "numeric_value"])
    times = [at(k, hour) for k, hour in zip(frame["subject_id"], frame["hour"], strict=True)]
    frame = frame.assign(time=times)
    frame.loc[frame["code"] == "MEDS_BIRTH", "time"] = pd.Timestamp("2120-06-01")
    return frame.sort_values(["subject_id", "time"], kind="stable")


def labels(subjects: range = range(N)) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "subject_id": subjects,
            "prediction_time": [at(k, 0) for k in subjects],
            "boolean_value": [k % 3 == 0 for k in subjects],
        }
    )


def world(root: Path, events: pd.DataFrame, told: pd.DataFrame | None = None) -> dict[str, Path]:
    """Writes a MEDS folder, labels and a map; returns the arguments of `prepare`."""
    meds_demo.write(events, root / "raw", shards=2)
    (labels() if told is None else told).to_parquet(root / "labels.parquet")
    (root / "codes.csv").write_text(CODES)
    return {"labels": root / "labels.parquet", "codes": root / "codes.csv"}


OPTIONS = Options(hours=4)


def made(root: Path, out: Path, files: dict[str, Path], options: Options = OPTIONS) -> dict:
    about = prepare("meds", root / "raw", out, options, named=Named(**files))
    return about | {"bytes": {name: (out / name).read_bytes() for name in MADE}}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("meds")
    files = world(root, rows())
    options = [f"--{name}={path}" for name, path in files.items()]
    command = ["prepare", "meds", "--raw", str(root / "raw"), "--out", str(root / "out")]
    assert main([*command, *options, "--hours", "4"]) == 0
    return root


def test_what_enters_the_window(plain: Path) -> None:
    events = pd.read_parquet(plain / "out" / "events.parquet")
    stays = pd.read_parquet(plain / "out" / "stays.parquet")
    assert stays["prediction_time"].tolist() == [at(k, 0) for k in range(N)]
    assert stays["label"].tolist() == [int(k % 3 == 0) for k in range(N)]
    assert stays["age"].fillna(0).tolist() == [29 if k % 6 < 4 else 0 for k in range(N)]
    one = events[events["stay_id"] == stays["stay_id"].iloc[3]].set_index("variable")
    assert set(one.index) == {"heart_rate", "temperature", "glucose", "height"}
    assert one.loc["temperature", "value"] == pytest.approx(37.0, rel=1e-12)
    assert one.loc["glucose", "value"] == pytest.approx(5 * 18.0156, rel=1e-12)
    assert one.loc["height", "hour"] == -4, "height is sought before the window too"
    assert one.loc["heart_rate", "hour"] == 0.5
    series = pd.read_parquet(plain / "out" / "series.parquet")
    assert [name for name in series if name.startswith("mask_")] == [
        "mask_glucose", "mask_heart_rate", "mask_height", "mask_temperature", "mask_crp",
        "mask_crp_of_urine",
    ]  # fmt: skip


def test_the_manifest_says_what_was_used(plain: Path) -> None:
    about = prepare(
        "meds", plain / "raw", plain / "out", OPTIONS,
        named=Named(labels=plain / "labels.parquet", codes=plain / "codes.csv"),
    )  # fmt: skip
    assert about["task"] == "own"
    assert about["counts"]["codes"] == {
        "events in the windows": 4 * N + N // 2,
        "events with a map": 3 * N + N // 2,
        "share with a map": round(3.5 / 4.5, 6),
        "codes in the windows": 5,
        "codes without a map": 1,
        "lines of the map": 6,
    }
    assert about["counts"]["codes without a map"] == {"UNKNOWN": N}
    assert about["measurements_left_out"] == {}


def test_the_same_bytes_again_in_any_order_of_shards(plain: Path, tmp_path: Path) -> None:
    files = world(tmp_path, rows())
    data = tmp_path / "raw" / "data" / "all"
    (data / "0.parquet").rename(data / "z.parquet")
    told = labels().sample(frac=1, random_state=0)
    (tmp_path / "labels").mkdir()
    for number in range(2):
        told.iloc[number::2].to_parquet(tmp_path / "labels" / f"{number}.parquet")
    files["labels"] = tmp_path / "labels"
    found = made(tmp_path, tmp_path / "out", files)
    for name, content in found["bytes"].items():
        assert content == (plain / "out" / name).read_bytes(), name


def test_splits_of_the_data_set_are_taken(tmp_path: Path) -> None:
    files = world(tmp_path, rows())
    parts = ["train", "tuning", "held_out"]
    given = pd.DataFrame({"subject_id": range(N - 1)})
    given["split"] = [parts[k % 3] for k in given["subject_id"]]
    (tmp_path / "raw" / "metadata").mkdir()
    given.to_parquet(tmp_path / "raw" / "metadata" / "subject_splits.parquet")
    about = made(tmp_path, tmp_path / "out", files)
    stays = pd.read_parquet(tmp_path / "out" / "stays.parquet")
    ours = ["train", "validation", "test"]
    assert stays["split"].tolist() == [ours[k % 3] for k in range(N - 1)]
    assert ["excluded: patient not in the file of splits", 1] in about["flow"]


def test_labels_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    told = labels(range(N + 3))
    told = pd.concat([told, told.head(2), told.head(1).assign(prediction_time=pd.NaT)])
    far = labels(range(1)).assign(prediction_time=at(0, 900))
    tall = labels(range(1)).assign(prediction_time=at(0, 15))  # its height is looked back for
    told = pd.concat([told, far, tall])
    options = Options(hours=4, look_back=24)
    about = made(tmp_path, tmp_path / "out", world(tmp_path, rows(), told), options)
    assert about["flow"] == [
        ["labels found", N + 3 + 2 + 1 + 2],
        ["excluded: the same label again", 2],
        ["excluded: no subject or prediction time", 1],
        ["excluded: no boolean_value", 0],
        ["excluded: subject without an event in the data", 3],
        ["excluded: no measurement in the window", 2],
        ["stays kept", N],
    ]


def test_a_subject_may_have_several_samples(tmp_path: Path) -> None:
    more = labels().assign(prediction_time=[at(k, -1.5) for k in range(N)], boolean_value=True)
    made(tmp_path, tmp_path / "out", world(tmp_path, rows(), pd.concat([labels(), more])))
    stays = pd.read_parquet(tmp_path / "out" / "stays.parquet")
    assert len(stays) == 2 * N
    events = pd.read_parquet(tmp_path / "out" / "events.parquet").merge(stays, on="stay_id")
    early = events["prediction_time"].isin(more["prediction_time"])
    assert set(events.loc[early, "variable"]) == {"heart_rate", "glucose", "crp", "height"}
    assert events.loc[early & (events["variable"] == "heart_rate"), "hour"].eq(2).all()


def test_without_outcomes_there_are_no_labels(tmp_path: Path) -> None:
    files = world(tmp_path, rows(), labels().drop(columns="boolean_value"))
    about = made(tmp_path, tmp_path / "out", files, Options(hours=4, task="none"))
    assert about["task"] == "none"
    assert pd.read_parquet(tmp_path / "out" / "stays.parquet")["label"].isna().all()


def wrong_time(root: Path) -> None:
    path = root / "raw" / "data" / "all" / "1.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("time")
    pq.write_table(table.set_column(place, "time", table["time"].cast(pa.string())), path)


def no_code(root: Path) -> None:
    path = root / "raw" / "data" / "all" / "0.parquet"
    pq.write_table(pq.read_table(path).drop_columns("code"), path)


def other_columns(root: Path) -> None:
    path = root / "raw" / "data" / "all" / "1.parquet"
    pq.write_table(pq.read_table(path).drop_columns("text_value"), path)


def two_outcomes(root: Path) -> None:
    told = labels()
    other = told.head(3).assign(boolean_value=~told["boolean_value"].head(3))
    pd.concat([told, other]).to_parquet(root / "labels.parquet")


def no_outcome(root: Path) -> None:
    labels().drop(columns="boolean_value").to_parquet(root / "labels.parquet")


def a_map(text: str):
    return lambda root: (root / "codes.csv").write_text("code,variable,unit\n" + text)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "raw" / "data").rename(root / "raw" / "events"), "no folder data"),
        (wrong_time, r"1.parquet: is not as MEDS says \(DataSchema\): time is string"),
        (no_code, r"0.parquet: .*there is no code"),
        (other_columns, r"1.parquet: has other columns than the files before it"),
        (lambda root: (root / "labels.parquet").unlink(), "no such file or folder of labels"),
        (lambda root: (root / "labels.parquet").write_text("x"), "not a readable parquet file"),
        (two_outcomes, "3 subjects and prediction times have two outcomes"),
        (no_outcome, "no stay is left .*no boolean_value: 24"),
        (lambda root: (root / "codes.csv").unlink(), "no such file of codes; .*mimic4, cm2"),
        (lambda root: (root / "codes.csv").write_text("code,unit\nA,x\n"), "column.s. variable"),
        (a_map("HR,heart_rate,Hz\n"), "line 2: the unit of heart_rate may be '/min', not 'Hz'"),
        (a_map("HR,heart_rate,/min\nHR,crp,g\n"), "line 3: the code is empty or there already"),
        (a_map("A,crp,g\nB,crp,mg\n"), "line 3: crp is in 'mg' here and in 'g' before"),
        (a_map("A,C-reactive protein,g\n"), "line 2: 'C-reactive protein' is no name"),
        (a_map("OTHER,heart_rate,/min\n"), "none of the 5 codes in the windows is among the 1"),
    ],
)  # fmt: skip
def test_faults_are_named(tmp_path: Path, spoil, message: str) -> None:
    files = world(tmp_path, rows())
    spoil(tmp_path)
    with pytest.raises(TableError, match=message):
        made(tmp_path, tmp_path / "out", files)
    assert not (tmp_path / "out").exists()


def test_options_of_other_sources_are_refused(tmp_path: Path) -> None:
    files = world(tmp_path, rows())
    for options, message in (
        (Options(hours=4, task="readmission"), "the file of labels tells the outcome"),
        (Options(hours=4, known_by="storetime"), "an event of meds has one time"),
        (Options(hours=4, split_by="hospital"), "cannot be split by hospital"),
    ):
        with pytest.raises(TableError, match=message):
            made(tmp_path, tmp_path / "out", files, options)
    with pytest.raises(TableError, match="meds needs --labels FILE and --codes FILE"):
        prepare("meds", tmp_path / "raw", tmp_path / "out")
    for source in ("mimic4", "physionet2012"):
        with pytest.raises(TableError, match=f"{source} has no use for --labels"):
            prepare(source, tmp_path / "raw", tmp_path / "out", named=Named(**files))


def test_out_again_and_in_again(plain: Path, tmp_path: Path) -> None:
    """What `--meds` writes is read again, and is the same."""
    files = {"labels": plain / "labels.parquet", "codes": plain / "codes.csv"}
    options = Options(hours=4, meds=True)
    made(plain, tmp_path / "first", files, options)
    raw = tmp_path / "first" / "meds"
    names = "".join(f"{name},{name},{unit}\n" for name, unit in [
        ("heart_rate", "/min"), ("temperature", "C"), ("glucose", "mg/dL"), ("height", "cm"),
        ("crp", "mg/L"), ("crp_of_urine", "mg/L"),
    ])  # fmt: skip
    (tmp_path / "codes.csv").write_text("code,variable,unit\n" + names)
    told = raw / "labels" / "own.parquet"
    prepare(
        "meds",
        raw,
        tmp_path / "second",
        options,
        named=Named(labels=told, codes=tmp_path / "codes.csv"),
    )
    for name in MADE:
        ours, theirs = (pd.read_parquet(tmp_path / place / name) for place in ("first", "second"))
        # Values are float32 in MEDS; births are not written, so that ages are unknown.
        same = [column for column in ours if column != "age"]
        pd.testing.assert_frame_equal(ours[same], theirs[same], rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PySpark 4 warns of pandas 3 at every turn.
def test_spark_makes_the_same_files(plain: Path, tmp_path: Path) -> None:
    files = {"labels": plain / "labels.parquet", "codes": plain / "codes.csv"}
    prepare("meds", plain / "raw", tmp_path / "out", OPTIONS, engine="spark", named=Named(**files))
    for name in MADE:
        assert (tmp_path / "out" / name).read_bytes() == (plain / "out" / name).read_bytes(), name
