"""X-rays of a stay: the last one inside the window, upright, and never a crash."""

import csv
from collections.abc import Callable
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cm2.clinical.prepare import images
from cm2.clinical.prepare.engine import start
from cm2.clinical.prepare.errors import TableError
from cm2.core import pictures

INTIME = pd.Timestamp("2100-01-01 10:00:00")
HOUR = pd.Timedelta(hours=1)


@pytest.fixture(scope="module")
def engine():
    engine = start("duckdb")
    yield engine
    engine.close()


def stays(number: int = 2):
    ids = range(1, number + 1)
    frame = pd.DataFrame({"stay_id": ids, "subject_id": [10 * i for i in ids], "intime": INTIME})
    return ibis.memtable(frame)


def taken(*rows: dict):
    """AP images of stay 1, an hour in, unless a row says otherwise."""
    usual = {"subject_id": 10, "time": INTIME + HOUR, "view": "AP"}
    usual |= dict.fromkeys(images.CHEXPERT, 0.0)
    frame = pd.DataFrame(
        [
            usual | {"study_id": i, "dicom_id": f"d{i}", "path": f"files/{i}.jpg"} | row
            for i, row in enumerate(rows)
        ]
    )
    frame["time"] = pd.to_datetime(frame["time"]).astype("datetime64[us]")
    return ibis.memtable(frame)


def paths(engine, table, **options) -> list[str]:
    return engine.frame(images.select(stays(), table, **options).order_by("stay_id"))[
        "path"
    ].tolist()


def test_the_last_frontal_image_inside_the_window_is_taken(engine) -> None:
    table = taken(
        {},
        {"time": INTIME + 5 * HOUR, "view": "PA"},
        {"time": INTIME + 6 * HOUR, "view": "LATERAL"},
        {"time": INTIME + 48 * HOUR},
        {"time": INTIME - HOUR},
        {"time": pd.NaT},
        {"subject_id": 20},
        {"subject_id": 20, "time": INTIME + HOUR},
    )
    assert paths(engine, table) == ["files/1.jpg", "files/7.jpg"]
    assert paths(engine, table, views=("AP",)) == ["files/0.jpg", "files/7.jpg"]
    assert paths(engine, table, selection="reference") == ["files/3.jpg", "files/7.jpg"]
    assert paths(engine, table, hours=1) == []


def test_study_dates_and_times_whose_zeros_are_lost(engine) -> None:
    raw = pd.DataFrame(
        {
            "subject_id": "10000032",
            "study_id": "50414267",
            "dicom_id": "abc",
            "viewposition": ["ap", "PA ", None, "AP", "AP", "AP"],
            "studydate": ["21000101", "21000101", "21000101", "21001301", "21000101", None],
            "studytime": ["213014.531", "80556.875", "5.0", "0", "253000.0", "1"],
        }
    )
    found = engine.frame(images.studies(ibis.memtable(raw)))
    day = pd.Timestamp("2100-01-01")
    assert found["time"].tolist()[:3] == [
        day + pd.Timedelta("21:30:14"),
        day + pd.Timedelta("08:05:56"),
        day + pd.Timedelta("00:00:05"),
    ]
    assert found["time"].isna().tolist() == [False, False, False, True, True, True]
    assert found["view"].tolist()[:2] == ["AP", "PA"]
    assert found["path"].unique().tolist() == ["files/p10/p10000032/s50414267/abc.jpg"]
    assert found[list(images.CHEXPERT)].isna().all(axis=None)


def test_labels_join_by_study_and_may_be_absent(engine) -> None:
    raw = pd.DataFrame(
        {
            "subject_id": "10000032",
            "study_id": ["1", "2"],
            "dicom_id": ["a", "b"],
            "viewposition": "AP",
            "studydate": "21000101",
            "studytime": "0",
        }
    )
    labels = pd.DataFrame(
        {"subject_id": "10000032", "study_id": ["1"], "Pleural Effusion": ["-1.0"]}
    )
    table = images.studies(ibis.memtable(raw), ibis.memtable(labels))
    found = engine.frame(table.order_by("study_id"))
    assert found["pleural_effusion"].tolist()[0] == -1
    assert np.isnan(found["pleural_effusion"].tolist()[1])
    assert found["edema"].isna().all()


@pytest.mark.parametrize("dialect", ["bigquery"])
def test_the_choice_compiles_elsewhere(dialect: str) -> None:
    names = ["subject_id", "study_id", "dicom_id", "viewposition", "studydate", "studytime"]
    raw = ibis.memtable(pd.DataFrame({name: ["1"] for name in names}))
    chosen = images.select(stays(), images.studies(raw, raw.select("subject_id", "study_id")))
    assert "SELECT" in ibis.to_sql(chosen, dialect=dialect)


def gradient(width: int = 300, height: int = 400) -> np.ndarray:
    """Dark at the top left, bright at the bottom right."""
    return (np.add.outer(np.arange(height), np.arange(width)) * 255 / (width + height)).astype(
        np.uint8
    )


def test_every_mode_gives_the_same_picture(tmp_path: Path) -> None:
    grey = Image.fromarray(gradient())
    grey.save(tmp_path / "L.png")
    wanted = pictures.decode(tmp_path / "L.png").astype(int)
    assert wanted.shape == (pictures.SIDE, pictures.SIDE)
    assert wanted[0, 0] < 60 < 190 < wanted[-1, -1]
    sixteen = Image.fromarray(gradient().astype(np.uint16) * 257)
    modes = {mode: grey.convert(mode) for mode in ("RGB", "RGBA", "LA", "P")} | {"I16": sixteen}
    for mode, picture in modes.items():
        picture.save(tmp_path / f"{mode}.png")
        assert np.abs(pictures.decode(tmp_path / f"{mode}.png") - wanted).max() <= 1, mode
    for mode in ("L", "RGB", "CMYK"):
        grey.convert(mode).save(tmp_path / f"{mode}.jpg", quality=95)
        assert np.abs(pictures.decode(tmp_path / f"{mode}.jpg") - wanted).max() <= 8, mode


@pytest.mark.parametrize("white", [1.0, 255, 1023, 4095, 16383, 65535])
def test_greys_of_every_depth_give_the_same_picture(white: float, tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "L.png")
    wanted = pictures.decode(tmp_path / "L.png").astype(int)
    scaled = gradient() * (white / 255)
    kind = np.float32 if white in (1.0, 255) else np.uint16
    Image.fromarray(scaled.astype(kind)).save(tmp_path / "deep.tiff")
    found = pictures.decode(tmp_path / "deep.tiff").astype(int)
    # Rounding to the depth and to 256 greys, before and after the picture is scaled.
    assert np.abs(found - wanted).max() <= 2


def test_values_that_are_no_greys_are_refused(tmp_path: Path) -> None:
    for name, value in (("deep", 1e6), ("nan", np.nan)):
        Image.fromarray((gradient() + np.float32(value)).astype(np.float32)).save(
            tmp_path / f"{name}.tiff"
        )
        with pytest.raises(ValueError, match="grey values beyond 16 bits"):
            pictures.decode(tmp_path / f"{name}.tiff")


def test_times_in_another_form_are_not_called_absent(engine, tmp_path: Path) -> None:
    raw = pd.DataFrame(
        {
            "subject_id": "10",
            "study_id": [str(k) for k in range(9)],
            "dicom_id": "abc",
            "viewposition": "AP",
            "studydate": ["2100-01-01"] * 2 + ["21000101"] * 6 + [None],
            "studytime": "110000",
        }
    )
    with pytest.raises(TableError, match="times of studies: 2 of 9 values cannot be read"):
        images.write_images(engine, stays(), images.studies(ibis.memtable(raw)), tmp_path, tmp_path)
    table = images.studies(ibis.memtable(raw.iloc[1:]))
    counts = images.write_images(engine, stays(), table, tmp_path, tmp_path)
    assert counts["with an unreadable study time"] == counts["without a study time"] == 1


def test_exif_orientation_is_undone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to see it upright
    upright = Image.fromarray(gradient())
    upright.save(tmp_path / "plain.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    plain, turned = (pictures.decode(tmp_path / f"{n}.png") for n in ("plain", "turned"))
    np.testing.assert_array_equal(plain, turned)


def test_large_images_are_as_if_decoded_whole(tmp_path: Path) -> None:
    picture = Image.fromarray(gradient(2000, 2500))
    picture.save(tmp_path / "a.jpg", quality=95)
    picture.save(tmp_path / "a.png")
    drafted, whole = (pictures.decode(tmp_path / f"a.{s}").astype(int) for s in ("jpg", "png"))
    assert np.abs(drafted - whole).max() <= 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images, of which one is cut short, one is no image and one is not there."""
    root = tmp_path / "cxr"
    (root / "files").mkdir(parents=True)
    for i in (0, 1):
        Image.fromarray(gradient() // (i + 1)).save(root / f"files/{i}.jpg")
    data = (root / "files/0.jpg").read_bytes()
    (root / "files/2.jpg").write_bytes(data[: len(data) // 2])
    (root / "files/3.jpg").write_text("not an image")
    return root


def test_broken_images_are_listed_and_absent(engine, folder: Path, tmp_path: Path) -> None:
    table = taken(*({"subject_id": 10 * (i + 1)} for i in (4, 3, 2, 1, 0)))
    table = table.mutate(path=ibis.literal("files/") + (table.subject_id // 10 - 1).cast("string"))
    table = table.mutate(path=table.path + ".jpg")
    counts = images.write_images(engine, stays(5), table, folder, tmp_path)
    assert counts == {
        "without a study time": 0,
        "with an unreadable study time": 0,
        "chosen": 5,
        "missing": 1,
        "unreadable": 2,
        "written": 2,
    }
    pixels = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert (pixels.shape, pixels.dtype) == ((2, pictures.SIDE, pictures.SIDE), np.uint8)
    rows = pq.read_table(tmp_path / "images.parquet")
    assert rows["stay_id"].to_pylist() == [1, 2]
    assert rows["row"].to_pylist() == [0, 1]
    for row in (0, 1):
        np.testing.assert_array_equal(pixels[row], pictures.decode(folder / f"files/{row}.jpg"))
    with (tmp_path / "images-unreadable.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert [entry["path"] for entry in listed] == [f"files/{i}.jpg" for i in (2, 3, 4)]
    assert listed[2]["reason"] == "no such file"


def test_two_runs_agree_to_the_byte(engine, folder: Path, tmp_path: Path) -> None:
    table = taken({}, {"subject_id": 20})
    contents = []
    for threads in (1, 3):
        out = tmp_path / str(threads)
        out.mkdir()
        images.write_images(engine, stays(), table, folder, out, threads=threads)
        contents.append([path.read_bytes() for path in sorted(out.iterdir())])
    assert contents[0] == contents[1]


def test_no_images_at_all(engine, tmp_path: Path) -> None:
    counts = images.write_images(engine, stays(), taken({}).filter(False), tmp_path, tmp_path)
    assert counts["written"] == 0
    assert np.load(tmp_path / "images.npy").shape == (0, pictures.SIDE, pictures.SIDE)
    assert len(pq.read_table(tmp_path / "images.parquet")) == 0


def test_real_images_of_all_sorts_are_read(
    engine, dataset: Callable[[str], Path], tmp_path: Path
) -> None:
    place = dataset("figure1-cxr") / "images"
    files = sorted(place.iterdir())
    table = taken(
        *({"subject_id": 10 * (i + 1), "path": path.name} for i, path in enumerate(files))
    )
    counts = images.write_images(engine, stays(len(files)), table, place, tmp_path)
    assert counts["written"] == len(files) > 50
    pixels = np.load(tmp_path / "images.npy")
    assert (pixels.reshape(len(files), -1).std(axis=1) > 10).all()
