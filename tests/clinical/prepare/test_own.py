"""A user's own arrays as a prepared folder, read back as batches and by an experiment."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cm2.clinical.prepare import manifest, write
from cm2.clinical.prepare.errors import TableError
from cm2.experiments import config, run
from prepared_batches import Prepared

N = 60


def samples(seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    ecg = rng.normal(3, 2, (N, 20, 3)).astype(np.float32)
    ecg[4] = np.nan
    gaps = rng.normal(size=(N, 5, 2))
    gaps[:, 2, 1] = np.nan
    image = rng.integers(1, 255, (N, 8, 6), np.uint8)
    image[5] = 0
    table = pd.DataFrame(rng.normal(size=(N, 3)), columns=["a", "b", "c"])
    table.loc[6] = np.nan
    table.loc[7, "b"] = np.nan
    text = [f"word {k % 5} is here" for k in range(N)]
    text[8], text[9] = None, "  "
    embedding = rng.normal(size=(N, 4))
    return {
        "ecg": ecg, "gaps": gaps, "image": image, "table": table, "text": text,
        "embedding": embedding,
    }  # fmt: skip


def labels() -> np.ndarray:
    return np.arange(N) % 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("own") / "out"
    write(out, samples(), y=labels(), groups=np.arange(N) // 2)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_kinds_and_who_has_what(made: Path) -> None:
    about = manifest.read(made)
    assert {name: facts["kind"] for name, facts in about["modalities"].items()} == {
        "ecg": "series", "gaps": "series", "image": "image", "table": "tabular", "text": "text",
        "embedding": "tabular",
    }  # fmt: skip
    stays = pd.read_parquet(made / "stays.parquet")
    missing = {
        name: stays.loc[~stays[f"has_{name}"], "stay_id"].tolist() for name in about["modalities"]
    }
    assert missing == {
        "ecg": [4], "gaps": [], "image": [5], "table": [6], "text": [8, 9], "embedding": [],
    }  # fmt: skip
    assert stays["label"].tolist() == labels().tolist()
    assert stays.groupby("subject_id")["split"].nunique().max() == 1
    assert about["classes"] == 3


def test_texts_may_be_a_column_of_pandas_strings(tmp_path: Path) -> None:
    text = pd.Series(samples()["text"], dtype="string")
    assert text.isna().sum() == 1
    write(tmp_path / "out", {"text": text, "table": samples()["table"]}, y=labels())
    stays = pd.read_parquet(tmp_path / "out" / "stays.parquet")
    assert stays.loc[~stays["has_text"], "stay_id"].tolist() == [8, 9]


def test_values_come_back_as_they_were(made: Path) -> None:
    given = samples()
    data = Prepared(
        made, split=None, modalities=["ecg", "image", "table", "gaps"], scaling="standard"
    )
    batch = data[list(range(len(data)))]
    rows = data.stays["stay_id"].to_numpy()
    train = pd.read_parquet(made / "stays.parquet").query("split == 'train'")["stay_id"]
    train = train[train != 4].to_numpy()
    seen = given["ecg"][train].astype(np.float64).reshape(-1, 3)
    wanted = (given["ecg"][rows] - seen.mean(0)) / seen.std(0)
    found = batch.inputs["ecg"].values.numpy()
    # Numbers of float32, scaled in float64.
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    there = batch.present[:, 1].numpy()
    middle = given["image"][rows[there], 1:-1]  # of eight rows of six pixels
    assert (batch.inputs["image"].numpy()[there] == middle).all()
    gaps = batch.inputs["gaps"].values
    # Two channels, and a mark for the one with gaps; a gap takes the value before it.
    assert gaps.shape == (len(rows), 5, 3)
    assert (gaps[:, 2, 2] == 0).all()
    assert (gaps[:, [0, 1, 3, 4], 2] == 1).all()
    torch.testing.assert_close(gaps[:, 2, 1], gaps[:, 1, 1])


def test_the_same_input_gives_the_same_bytes_in_any_order(made: Path, tmp_path: Path) -> None:
    write(tmp_path / "again", samples(), y=labels(), groups=np.arange(N) // 2)
    assert contents(tmp_path / "again") == contents(made)
    order = np.random.default_rng(1).permutation(N)
    given = samples()
    mixed = {
        name: values.iloc[order] if isinstance(values, pd.DataFrame)
        else [values[k] for k in order] if isinstance(values, list) else values[order]
        for name, values in given.items()
    }  # fmt: skip
    write(tmp_path / "mixed", mixed, y=labels()[order], ids=order, groups=order // 2)
    assert contents(tmp_path / "mixed") == contents(made)


def test_what_test_samples_hold_changes_nothing_of_the_others(tmp_path: Path) -> None:
    split = ["train"] * 30 + ["validation"] * 15 + ["test"] * 15
    first, other = samples(), samples()
    for name, values in other.items():
        if name == "table":
            values.loc[45:] *= 100
        elif name == "text":
            values[45:] = ["something else entirely"] * 15
        else:
            values[45:] = values[45:] // 2 if values.dtype == np.uint8 else values[45:] * 100
    for name, given in (("first", first), ("other", other)):
        write(tmp_path / name, given, y=labels(), split=split)
    rows = list(range(30))
    batches = [
        Prepared(tmp_path / name, split="train", modalities=list(first), tokens=16)[rows[:25]]
        for name in ("first", "other")
    ]
    leaves = [torch.utils._pytree.tree_leaves(batch) for batch in batches]
    for one, two in zip(*leaves, strict=True):
        assert one is two is None or torch.equal(one, two)


def test_splits_may_be_positions_and_labels_may_be_unknown(tmp_path: Path) -> None:
    parts = {"train": range(40), "validation": range(40, 50), "test": range(50, 60)}
    write(tmp_path / "out", {"a": np.ones((N, 2))}, split=parts)
    stays = pd.read_parquet(tmp_path / "out" / "stays.parquet")
    assert stays["split"].value_counts().to_dict() == {"train": 40, "validation": 10, "test": 10}
    assert stays["label"].isna().all()
    assert Prepared(tmp_path / "out").target is None


def test_an_experiment_learns_from_it(made: Path, tmp_path: Path) -> None:
    tree = {
        "data": {"root": str(made), "modalities": ["table", "ecg", "text"], "tokens": 8},
        "dim": 4,
        "encoders": {
            "table": {"kind": "dense", "width": 8},
            "ecg": {"kind": "series", "width": 8, "layers": 1},
            "text": {"kind": "text", "weights": None, "width": 8, "layers": 1, "heads": 2},
        },
        "model": {"kind": "cm2", "copula": "gaussian", "components": 1},
        "training": {"max_epochs": 1, "accelerator": "cpu", "batch_size": 16},
    }
    result = run.train(config.parse(tree), tmp_path / "run")
    assert result["rows"] > 0
    assert np.isfinite(result["measures"]["log_loss"]).all()


@pytest.mark.parametrize(
    ("X", "options", "message"),
    [
        ({}, {}, "no modality"),
        ({"a": np.ones((3, 2)), "b": np.ones((4, 2))}, {}, "different numbers"),
        ({"a": np.ones((3, 2, 2, 2))}, {}, "'a' is float64 of shape"),
        ({"a b": np.ones((3, 2))}, {}, "cannot be the name"),
        ({"a": pd.DataFrame({"x": ["71345", "u", "v"]})}, {}, "no numbers: ..x"),
        ({"a": np.ones((3, 2))}, {"ids": [1, 1, 71345]}, "there more than once"),
        ({"a": np.ones((3, 2))}, {"y": [0.5, 1, 71345]}, "whole numbers"),
        ({"a": np.ones((3, 2))}, {"y": [0, 1]}, "one for each of 3"),
        ({"a": np.ones((3, 2))}, {"split": ["train", "test", "other"]}, "split must say"),
        (
            {"a": np.ones((3, 2))},
            {"split": ["train", "test", "test"], "groups": [1, 1, 2]},
            "more than one part",
        ),
        ({"a": np.ones((3, 2))}, {"split": ["test"] * 3}, "training split"),
    ],
)
def test_faults_are_named_and_quote_no_value(X, options, message: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=message) as stop:
        write(tmp_path / "out", X, **options)
    assert "71345" not in str(stop.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_replaced_on_request_alone(tmp_path: Path) -> None:
    write(tmp_path / "out", {"a": np.ones((N, 2))})
    with pytest.raises(TableError, match="overwrite=True"):
        write(tmp_path / "out", {"b": np.ones((N, 2))})
    about = write(tmp_path / "out", {"b": np.ones((N, 2))}, overwrite=True)
    assert list(about["modalities"]) == ["b"]


@pytest.mark.parametrize(
    ("columns", "message"), [(["a", "a"], "column.s. a twice"), (["a", "stay_id"], "stay_id twice")]
)
def test_columns_that_could_not_be_read_again_are_refused(
    columns: list[str], message: str, tmp_path: Path
) -> None:
    table = pd.DataFrame(np.ones((N, 2)), columns=columns)
    with pytest.raises(TableError, match=message):
        write(tmp_path / "out", {"labs": table}, y=labels())
    assert not (tmp_path / "out").exists()
