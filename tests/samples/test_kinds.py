"""What is learned of series, texts and images, and how they are then read."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cm2 import Samples
from cm2.samples.inputs import Reader
from cm2.samples.kinds import ImageColumn, column

RNG = np.random.default_rng(0)


def read(values: Any, rows: list[int]) -> Any:
    blocks = Reader().fit_blocks({"m": values, "other": np.arange(len(values))[:, None] * 1.0})
    return blocks.inputs["m"].take(np.array(rows))


def test_a_gap_takes_the_last_value_or_the_mean_and_a_flag() -> None:
    full = [RNG.normal(size=(4, 2)) for _ in range(50)]
    gaps = np.array([[np.nan, 1.0], [0.5, 2.0], [np.nan, 3.0], [0.7, 4.0]])
    steps, mask = read([gaps, *full], [0, 1])
    assert steps.shape == (2, 4, 3)  # one variable has gaps, and so a flag
    first, flags = steps[0, :, 0].tolist(), steps[0, :, 2].tolist()
    assert first[0] == 0.0  # the centre of the variable
    assert first[2] == first[1] != 0.0
    assert flags == [1.0, 0.0, 1.0, 0.0]
    assert steps[1, :, 2].sum() == 0
    assert mask.all()


def test_variables_missing_in_the_same_steps_share_one_flag() -> None:
    full = [RNG.normal(size=(4, 3)) for _ in range(20)]
    gaps = RNG.normal(size=(4, 3))
    gaps[1, 1:] = np.nan
    steps, _ = read([gaps, *full], [0, 1])
    assert steps.shape == (2, 4, 4)
    assert steps[0, :, 3].tolist() == [0.0, 1.0, 0.0, 0.0]


def test_what_is_absent_comes_out_as_nothing() -> None:
    lists = [RNG.normal(size=(3, 2)), None, RNG.normal(size=(1, 2)), RNG.normal(size=(2, 2))]
    steps, mask = read(lists, [0, -1, 2])
    assert mask.sum(dim=1).tolist() == [3, 0, 1]
    assert steps[1].abs().sum() == 0


def test_features_of_a_series_are_six_numbers_a_variable() -> None:
    steps = np.array([[1.0, np.nan], [3.0, 5.0], [2.0, np.nan]])
    found = column("m", [steps, None]).summaries()
    expected = [1.0, 5.0, 2.0, 5.0, 1.0, 5.0, 3.0, 5.0, 2.0, 5.0, 3.0, 1.0]
    np.testing.assert_allclose(found[0], expected)
    assert np.isnan(found[1]).all()


def test_scales_are_those_of_training_samples_only() -> None:
    series = [RNG.normal(size=(3, 1)) for _ in range(40)]
    far = [one + 1e3 for one in series[20:]]
    reader = Reader()
    blocks = reader.fit_blocks({"m": [*series[:20], *far]}, rows=np.arange(20))
    alone = Reader().fit_blocks({"m": series[:20]})
    np.testing.assert_array_equal(blocks.values["m"], alone.values["m"])
    steps, _ = blocks.inputs["m"].take(np.arange(20))
    again, _ = alone.inputs["m"].take(np.arange(20))
    assert (steps == again).all()


def test_a_vocabulary_has_words_of_five_patients_only() -> None:
    texts = ["cough and fever"] * 6 + ["zebra zebra zebra"] * 4
    reader = Reader()
    reader.fit_blocks({"m": texts}, patients=np.array([1, 2, 3, 4, 5, 6, 7, 7, 7, 7]))
    words = reader.learned_["m"].vocabulary_
    assert "cough" in words
    assert "zebra" not in words


def test_several_documents_are_read_one_after_the_other() -> None:
    texts = [["cough", "fever"], "cough", None, *["cough and fever"] * 5]
    ids, mask = read(texts, [0, 1, 2])
    assert mask.any(dim=2).sum(dim=1).tolist() == [2, 1, 0]
    assert ids[0, 0].tolist() == ids[1, 0].tolist()


def test_pictures_are_read_when_a_batch_needs_them(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for k, path in enumerate(paths):
        Image.new("L", (300, 280), 50 * k).save(path)
    blocks = Reader().fit_blocks({"m": paths, "other": np.ones((3, 1))})
    paths[0].unlink()
    pixels = blocks.inputs["m"].take(np.array([2, -1]))
    assert pixels.shape == (2, 256, 256)
    assert pixels.float().mean(dim=(1, 2)).tolist() == [100.0, 0.0]
    with pytest.raises(ValueError, match="the image of row 0 cannot be read") as caught:
        blocks.inputs["m"].take(np.array([0]))
    assert str(tmp_path) not in str(caught.value)


def halved(path: Path) -> None:
    """A picture of noise, of which only the first half was copied."""
    grey = RNG.integers(0, 255, (64, 64)).astype(np.uint8)
    Image.fromarray(grey).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif"])
@pytest.mark.parametrize("opened", [False, True])
def test_a_broken_picture_is_found_before_training(
    tmp_path: Path, ending: str, opened: bool
) -> None:
    """The head of a JPEG or BMP that is cut short is sound; only all of it tells."""
    path = tmp_path / f"patient-77.{ending}"
    halved(path)
    given = Image.open(path) if opened else path
    with pytest.raises(ValueError, match="the image of row 1 cannot be read") as caught:
        Reader().fit_blocks({"m": [np.zeros((8, 8), np.uint8), given]})
    assert "77" not in str(caught.value)
    if opened:
        given.close()


def test_pictures_are_tried_before_a_training_and_read_once_for_a_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (30, 28), 50).save(path)
    reader = Reader().fit({"m": [np.zeros((8, 8), np.uint8), path]})
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(ImageColumn, "pixels", lambda self, row, side: asked.append((row, side)))
    reader.blocks({"m": [path, None, path]})
    assert asked == []
    reader.blocks({"m": [path, None, path]}, trained=True)
    assert [row for row, _ in asked] == [0, 2]


def test_a_picture_without_a_file_is_found_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file for row 0") as caught:
        Reader().fit_blocks({"m": [tmp_path / "patient-77.png", np.zeros((8, 8), np.uint8)]})
    assert "77" not in str(caught.value)


def test_messages_name_the_row_that_was_given(tmp_path: Path) -> None:
    """Not its place among those of a fold, or of a weight above zero."""
    path = tmp_path / "a.jpg"
    halved(path)
    good = np.zeros((8, 8), np.uint8)
    fold = np.array([4, 2, 3])
    pictures = Samples({"m": [good, good, good, path, good, good]})
    with pytest.raises(ValueError, match="the image of row 3 cannot be read"):
        Reader().fit_blocks(pictures[fold])
    with pytest.raises(ValueError, match="row 3"):
        pictures[1:][fold - 1].columns["m"].pixels(2, 8)
    steps = [np.ones((2, 1)), np.ones((1, 1)), np.zeros((1, 1)), np.full((1, 1), np.inf)]
    with pytest.raises(ValueError, match="infinite values in 1 series, the first at row 3"):
        Reader().fit_blocks(Samples({"m": steps})[[1, 3]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([np.ones((2, 3))] * 4, "modality 'm' has 3 variables; the fitted model expects 2"),
        (["a"] * 4, "the series of row 0 is not of numbers"),
        ([np.full((2, 2), np.inf)] * 4, "infinite values in 4 series"),
    ],
)
def test_other_series_than_in_training_are_refused(values: Any, message: str) -> None:
    reader = Reader().fit({"m": [RNG.normal(size=(3, 2)) for _ in range(4)]})
    with pytest.raises(ValueError, match=message):
        reader.blocks({"m": values})


HOURS = pd.date_range("2020-01-01", periods=3, freq="h")


@pytest.mark.parametrize(
    "dates",
    [
        np.stack([HOURS.to_numpy()] * 2, axis=1),
        pd.DataFrame({"hr": np.ones(3), "at": HOURS}),
        pd.DataFrame({"at": HOURS}),
        np.array([[1.0, pd.NaT]] * 3, object),
    ],
)
def test_trap_dates_in_series_do_not_become_numbers(dates: Any) -> None:
    with pytest.raises(ValueError, match="modality 'm' has dates or durations in columns"):
        Samples({"m": [dates] * 2})


def test_series_may_be_frames_of_any_numbers() -> None:
    plain = np.array([[1.0, np.nan], [2.0, 3.0]])
    objects = plain.astype(object)
    objects[0, 1] = pd.NA
    names = ["hr", "bp"]
    every = [
        pd.DataFrame(plain, columns=names),
        pd.DataFrame(objects, columns=names),
        pd.DataFrame(objects, columns=names).astype("Float64"),
        plain.tolist(),
        objects,
    ]
    found = Samples({"m": [*every, pd.DataFrame(columns=names)]})
    for steps in found.columns["m"].values[:-1]:
        np.testing.assert_array_equal(steps, plain)
    assert found.present[:, 0].tolist() == [True] * 5 + [False]


def frames(*names: str, rows: int = 4) -> list[pd.DataFrame]:
    return [pd.DataFrame(RNG.normal(size=(3, len(names))), columns=names) for _ in range(rows)]


def test_series_of_other_variables_are_refused() -> None:
    swapped = "variable 'bp' stands where {} 'hr'"
    mixed = [*frames("hr", "bp"), None, *frames("bp", "hr")]
    with pytest.raises(ValueError, match="modality 'm', row 5: " + swapped.format("row 0 has")):
        Samples({"m": mixed})
    reader = Reader().fit({"m": [None, *frames("hr", "bp")], "other": np.ones((5, 1))})
    reader.blocks({"m": [np.ones((2, 2))]})  # arrays have no names
    reader.blocks({"m": frames("hr", "bp")})
    with pytest.raises(ValueError, match=swapped.format("the fitted model expects")):
        reader.blocks({"m": frames("bp", "hr")})
    with pytest.raises(ValueError, match="'spo2' stands where the fitted model expects 'bp'"):
        reader.blocks({"m": frames("hr", "spo2")})
    with pytest.raises(ValueError, match="has 1 variables; the fitted model expects 2"):
        reader.blocks({"m": frames("hr")})
