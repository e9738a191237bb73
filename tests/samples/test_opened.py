"""A prepared folder as samples: values in units, rows of their stay, and the same predictions."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cm2 import CM2Classifier, Samples
from cm2.clinical.prepare import write
from cm2.core.errors import InputError
from cm2.samples import embeddings
from prepared_batches import Prepared
from prepared_folder import COLUMNS, make_folder, rewrite_manifest

NAMES = ("series", "vitals", "report", "cxr")
MEAN, DEVIATION = {"c2": 0.5, "c5": 80.0}, {"c2": 2.0, "c5": 3.0}


def scale(root: Path) -> None:
    """Says of two columns of the grid that they were scaled."""
    facts: dict[str, Any] = {"kind": "series", "file": "series.parquet", "hours_per_bin": 1.0}
    facts |= {"columns": COLUMNS, "mean": MEAN, "deviation": DEVIATION}
    modalities = {
        "series": facts,
        "report": {"kind": "text", "file": "reports.parquet"},
        "cxr": {"kind": "image", "file": "images.npy", "index": "images.parquet"},
        "vitals": {"kind": "tabular", "file": "vitals.parquet"},
    }
    rewrite_manifest(root, modalities=modalities)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_folder(tmp_path_factory.mktemp("opened") / "data", 60)
    scale(root)
    return root


def arrays(root: Path, split: str) -> Samples:
    """The same stays from the files, by hand."""
    stays = pd.read_parquet(root / "stays.parquet")
    stays = stays[(stays["split"] == split) & stays["has_series"]]
    ids = stays["stay_id"].to_numpy()
    grid = pd.read_parquet(root / "series.parquet").drop(columns="bin").set_index("stay_id")
    for column in MEAN:
        units = grid[column].astype(np.float64) * DEVIATION[column] + MEAN[column]
        grid[column] = units.astype(np.float32)
    notes = pd.read_parquet(root / "reports.parquet").sort_values("position")
    texts = notes.groupby("stay_id")["text"].agg(list)
    pixels = np.load(root / "images.npy")
    row = pd.read_parquet(root / "images.parquet").set_index("stay_id")["row"]
    X = {
        "series": [grid.loc[[stay]].to_numpy(np.float32) for stay in ids],
        "vitals": pd.read_parquet(root / "vitals.parquet").set_index("stay_id").reindex(ids),
        "report": [texts.get(stay) for stay in ids],
        "cxr": [pixels[row[stay]] if stay in row.index else None for stay in ids],
    }
    owners = stays["subject_id"].to_numpy()
    return Samples(X, ids=ids, groups=owners, y=stays["label"].to_numpy())


def test_the_same_values_give_the_same_predictions_to_the_last_bit(folder: Path) -> None:
    """Pixels, tokens and steps that come lazily from disk are those that stand in memory."""
    encoders = {
        "series": {"kind": "series", "width": 4, "layers": 1},
        "report": {"kind": "text", "width": 8, "layers": 1, "heads": 2, "tokens": 16},
        "cxr": {"kind": "image", "crop": 16, "depths": [1], "widths": [4]},
    }
    small = {"head": "fusion", "n_networks": 1, "max_epochs": 1, "embedding_dim": 4}
    found = []
    for place in (
        lambda split: Samples.open(folder, NAMES, split),
        lambda split: arrays(folder, split),
    ):
        model = CM2Classifier(**small, encoders=encoders, device="cpu", random_state=0)
        found.append(model.fit(place("train")).predict_proba(place("test")))
    np.testing.assert_array_equal(found[0], found[1])


def test_rows_are_those_of_their_stay(folder: Path) -> None:
    S, expected = Samples.open(folder, NAMES, "train"), arrays(folder, "train")
    assert S.kinds == dict(zip(NAMES, ("series", "table", "text", "image"), strict=True))
    for name in ("ids", "groups", "y", "present"):
        np.testing.assert_array_equal(getattr(S, name), getattr(expected, name))
    for mine, theirs in zip(
        S.columns["series"].values, expected.columns["series"].values, strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    frame = S.columns["vitals"].values
    assert list(frame) == ["pulse", "constant", "lactate"]
    assert frame.loc[S.present[:, 1], "lactate"].isna().any()  # a gap stays one
    assert S.columns["report"].values == expected.columns["report"].values
    part = S[::-1]
    row = int(np.flatnonzero(part.present[:, 3])[0])
    assert part.columns["cxr"].pixels(row, 256)[0, 0] == part.ids[row]  # the first pixel says whose


def test_images_stay_on_disk(folder: Path) -> None:
    S = Samples.open(folder, ["series", "cxr"])
    assert len(pickle.dumps(S.columns["cxr"])) < 20_000  # an image alone has 65,536 bytes
    again = pickle.loads(pickle.dumps(S.columns["cxr"]))
    row = int(np.flatnonzero(S.present[:, 1])[0])
    np.testing.assert_array_equal(again.pixels(row, 256), S.columns["cxr"].pixels(row, 256))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"setting": "paired"},
        {"missing_rate": 0.5, "seed": 3},
        {"missing_rate": 0.7, "removable": "any"},
    ],
)
def test_stays_and_removal_are_those_of_batches(folder: Path, options: dict[str, Any]) -> None:
    names = ["series", "vitals", "cxr"]
    S = Samples.open(folder, names, "train", **options)
    data = Prepared(folder, modalities=names, split="train", **options)
    np.testing.assert_array_equal(S.ids, data.stays["stay_id"])
    np.testing.assert_array_equal(S.present, data.present)


def test_several_splits_come_in_the_order_of_stays(folder: Path) -> None:
    both = Samples.open(folder, ["series"], ("validation", "train"))
    parts = [Samples.open(folder, ["series"], split).ids for split in ("train", "validation")]
    assert both.ids.tolist() == sorted(np.concatenate(parts).tolist())
    assert len(Samples.open(folder, ["series"])) == 59  # one of 60 has no series


def test_series_come_back_in_the_units_in_which_they_were_given(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ecg = rng.normal(80, 10, (20, 4, 2)).astype(np.float32)
    ecg[3, 0, 1] = np.nan  # filled with the training mean, and a mask beside it
    split = ["train"] * 10 + ["validation"] * 5 + ["test"] * 5
    write(tmp_path / "own", {"ecg": ecg}, y=np.arange(20) % 2, split=split)
    S = Samples.open(tmp_path / "own")
    back = np.stack(S.columns["ecg"].values)
    there = ~np.isnan(ecg)
    # Scaled and back, a float32 may be off by its last digits: 2^-23 of the value.
    np.testing.assert_allclose(back[..., :2][there], ecg[there], rtol=2**-22)
    assert set(np.unique(back[..., 2:])) == {0.0, 1.0}


def test_embeddings_and_labels_that_hold_together(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "several", 20, labels=("shock", "sepsis"))
    stays = pd.read_parquet(root / "stays.parquet")
    there = stays.loc[stays["has_cxr"], "stay_id"].to_numpy()
    embeddings.save(root, "cxr", there, np.tile(there[:, None], 3).astype(np.float32), {})
    S = Samples.open(root, ["series", "cxr"], embedded=["cxr"])
    assert S.kinds["cxr"] == "embedding"
    has = S.present[:, 1]
    np.testing.assert_array_equal(S.columns["cxr"].values[has, 0], S.ids[has])
    assert 0 < has.sum() < len(has)
    expected = stays.loc[stays["has_series"], ["label_shock", "label_sepsis"]]
    np.testing.assert_array_equal(S.y, expected)


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'cxr'"):
        Samples.open(folder, ["series", "cxrr"])
    with pytest.raises(InputError, match="split is one of train, validation, test"):
        Samples.open(folder, split="tset")


def test_stays_without_an_outcome(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "unknown", 20)
    stays = pd.read_parquet(root / "stays.parquet")
    stays["label"] = stays["label"].astype("Int64")
    stays.loc[0, "label"] = pd.NA
    stays.to_parquet(root / "stays.parquet")
    rewrite_manifest(root)
    assert Samples.open(root, ["series"]).y is None
    known = Samples.open(root, ["series"], labelled=True)
    assert len(known) == len(known.y) == 18
    stays["label"] = pd.array([None] * len(stays), dtype="Int64")
    stays.to_parquet(root / "stays.parquet")
    rewrite_manifest(root)
    with pytest.raises(InputError, match="no stay of any split has 'series' and a label"):
        Samples.open(root, ["series"], labelled=True)
