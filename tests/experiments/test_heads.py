"""Experiments whose head is one of the classifier: one file of a run, which needs nothing else."""

import io
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from cm2 import CM2Classifier, Samples, cli
from cm2.core.errors import InputError
from cm2.experiments import config, heads, results, run
from cm2.experiments.config import ConfigError
from cm2.experiments.predictions import Predictions
from prepared_folder import drop, make_folder, rewrite_manifest
from small_models import shrink

FIRST = 7_340_000
STAYS = 90
NAMES = ["series", "report"]  # four take three times as long, in the experts
TREE: dict[str, Any] = {
    "name": "heads",
    "head": {"kind": "pooled", "n_networks": 2},
    "data": {"modalities": NAMES},
    "dim": 4,
    "encoders": {
        "series": {"kind": "series", "width": 4, "layers": 1},
        "report": {"kind": "text", "width": 8, "layers": 1, "heads": 2, "tokens": 16},
    },
    "training": {"max_epochs": 1, "batch_size": 32, "accelerator": "cpu"},
}


def write(folder: Path, root: Path, **change: Any) -> Path:
    tree = TREE | change
    tree["data"] = {"root": str(root), **tree["data"]}
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the pool, ``pooled``, its data, and a copy of them as another folder."""
    place = tmp_path_factory.mktemp("heads")
    root = make_folder(place / "data", STAYS, first=FIRST)
    grid = pd.read_parquet(root / "series.parquet").iloc[:, :5]  # 76 variables would take longer
    grid.to_parquet(root / "series.parquet")
    rewrite_manifest(root)
    shutil.copytree(root, place / "copy")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        command = ["train", str(write(place, root)), "--out", str(place / "pooled")]
        assert cli.main(command) == 0
    return place


def test_a_run_is_one_model_and_its_test(place: Path) -> None:
    out = place / "pooled"
    assert {entry.name for entry in out.iterdir()} >= {
        "config.yaml", "environment.json", "model.cm2", "test.json", "test.npz",
    }  # fmt: skip
    assert config.load(out / "config.yaml") == config.load(place / "experiment.yaml")
    found = json.loads((out / "test.json").read_text())
    kept = Predictions.load(out / "test.npz")
    test = Samples.open(place / "data", NAMES, "test")
    assert found["rows"] == len(test) == len(kept.target)
    np.testing.assert_array_equal(kept.target, test.y)
    np.testing.assert_array_equal(kept.present, test.present)
    assert set(found["present"]) == set(NAMES)
    model = CM2Classifier.load(out / "model.cm2")
    assert (model.head, model.n_networks, model.embedding_dim) == ("pooled", 2, 4)
    # The same stays in the same order and batches: nothing but the way through a file differs.
    np.testing.assert_array_equal(kept.probability, model.predict_proba(test))
    facts = json.loads((out / "environment.json").read_text())["data"]
    learned = Samples.open(place / "data", NAMES, ("train", "validation"))
    assert facts["rows"]["train"] + facts["rows"]["validation"] == len(learned)


def test_the_training_stays_are_learned_from_and_no_others(place: Path) -> None:
    learned = Samples.open(place / "data", NAMES, "train")
    model = CM2Classifier.load(place / "pooled" / "model.cm2")
    np.testing.assert_allclose(model.prior_, np.bincount(learned.y) / len(learned), atol=0.02)
    flat = np.concatenate(learned.columns["series"].values)
    again = type(model.reader_.learned_["series"].scaler_)().fit(flat)
    np.testing.assert_array_equal(model.reader_.learned_["series"].scaler_.center_, again.center_)


def test_it_predicts_when_the_folder_of_training_is_gone(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "moved"
    shutil.copytree(place / "pooled", out)
    tree = yaml.safe_load((out / "config.yaml").read_text())
    tree["data"]["root"] = str(tmp_path / "gone")
    (out / "config.yaml").write_text(yaml.safe_dump(tree))
    command = ["predict", str(out), "--data", str(place / "copy"), "--out", str(tmp_path / "p")]
    assert cli.main([*command, "--split", "test"]) == 0
    frame = pd.read_parquet(tmp_path / "p")
    kept = Predictions.load(place / "pooled" / "test.npz")
    assert list(frame) == ["stay_id", "probability_0", "spread_0", "probability_1", "spread_1"]
    np.testing.assert_array_equal(frame["probability_1"], kept.probability[:, 1])
    np.testing.assert_array_equal(frame["spread_1"], kept.spread[:, 1])
    assert (kept.spread > 0).any()
    assert cli.main(["evaluate", str(out), "--data", str(place / "copy"), "--replicates", "9"]) == 0
    (found,) = (out / "evaluations").glob("*.json")
    assert json.loads(found.read_text())["rows"] == STAYS - 1  # one stay has no series


def test_another_window_is_refused(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "pooled", tmp_path / "run")
    path = tmp_path / "run" / "environment.json"
    facts = json.loads(path.read_text())
    assert facts["data"]["hours"] is None  # what is not known is not compared
    facts["data"]["hours"] = 24
    path.write_text(json.dumps(facts))
    shutil.copytree(place / "copy", tmp_path / "later")
    told = tmp_path / "later" / "manifest.json"
    manifest = json.loads(told.read_text())
    for hours, code in ((24.0, 0), (48.0, 2)):
        told.write_text(json.dumps({**manifest, "options": {"hours": hours}}))
        command = ["predict", str(tmp_path / "run"), "--data", str(tmp_path / "later")]
        assert cli.main([*command, "--out", str(tmp_path / "p")]) == code
    with pytest.raises(InputError, match=r"the first 48\.0 hours .* expects 24"):
        run.evaluate(tmp_path / "run", root=tmp_path / "later")


def test_evaluating_again_gives_the_same(place: Path) -> None:
    before = (place / "pooled" / "test.json").read_text()
    assert json.loads(before) == run.evaluate(place / "pooled")
    assert (place / "pooled" / "test.json").read_text() == before


def test_embeddings_are_those_of_the_first_network(place: Path) -> None:
    command = [
        "embed",
        str(place / "pooled"),
        "--data",
        str(place / "copy"),
        "--modality",
        "report",
    ]
    assert cli.main(command) == 0
    values = np.load(place / "copy" / "embeddings" / "report.npy")
    stays = pd.read_parquet(place / "copy" / "stays.parquet")
    assert values.shape == (STAYS, 4)
    np.testing.assert_array_equal(np.isfinite(values).all(axis=1), stays["has_report"])
    assert (
        len(Samples.open(place / "copy", ["report"], embedded=["report"]))
        == stays["has_report"].sum()
    )
    assert cli.main([*command[:-1], "mri"]) == 2


def test_nothing_in_the_file_names_a_patient_or_holds_a_row(place: Path) -> None:
    stays = pd.read_parquet(place / "data" / "stays.parquet")
    names = pd.concat([stays["stay_id"], stays["subject_id"], stays["hadm_id"]]).unique()
    learned = (stays["split"] != "test") & stays["has_series"]
    sizes = {STAYS, int(learned.sum()), int(stays.loc[learned, "subject_id"].nunique())}
    with zipfile.ZipFile(place / "pooled" / "model.cm2") as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    for file, content in held.items():
        if file.endswith(".npy"):
            assert not any(np.int64(name).tobytes() in content for name in names)
        else:  # whole numbers: those by which skops tells objects apart have fifteen digits
            assert not set(map(int, re.findall(rb"\d+", content))) & set(names.tolist())
    arrays = [np.load(io.BytesIO(one)) for name, one in held.items() if name.endswith(".npy")]
    assert len(arrays) > 100
    assert not any(one.ndim and one.shape[0] in sizes for one in arrays)


def test_report_and_table_have_the_head_as_a_method(place: Path, tmp_path: Path) -> None:
    root = place / "data"
    network = tmp_path / "network"
    tree = {**TREE, "data": {"root": str(root), "modalities": ["series"]}, "model": {"kind": "cm2"}}
    tree["encoders"] = {"series": TREE["encoders"]["series"]}
    run.train(config.parse({**tree, "head": "fusion"}), network)
    run.train(config.parse({**tree, "head": "joint"}), tmp_path / "joint")
    command = ["report", str(network), str(tmp_path / "joint"), "--out", str(tmp_path / "p.html")]
    assert cli.main([*command, "--replicates", "9"]) == 0
    table = pd.read_csv(tmp_path / "p-tables" / "results.csv")
    assert set(table["method"]) == {"cm2", "joint"}
    (one,) = results.find([place / "pooled"])[0]
    assert one.label == "pooled"


def test_a_finished_run_is_left_and_an_unfinished_one_is_tested(
    place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    shutil.copytree(place / "pooled", out)
    experiment = config.load(place / "experiment.yaml")
    before = json.loads((out / "test.json").read_text())
    assert run.train(experiment, out, resume=True) == before
    (out / "test.json").unlink()
    made = (out / "model.cm2").stat().st_mtime_ns
    assert run.train(experiment, out, resume=True) == before
    assert (out / "model.cm2").stat().st_mtime_ns == made
    assert cli.main(["train", str(place / "experiment.yaml"), "--out", str(out)]) == 2


def test_several_labels(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "data", 60, labels=("shock", "sepsis"))
    change = {"head": "joint", "data": {"modalities": ["series", "vitals"]}, "encoders": {}}
    run.train(config.load(write(tmp_path, root, **change)), tmp_path / "run")
    run.write_predictions(tmp_path / "run", root, tmp_path / "p.parquet")
    frame = pd.read_parquet(tmp_path / "p.parquet")
    assert "probability_sepsis" in frame
    assert frame["probability_shock"].between(0, 1).all()
    other = make_folder(tmp_path / "other", 12)  # of one class a stay, and without these labels
    run.write_predictions(tmp_path / "run", other, tmp_path / "q.parquet")
    assert len(pd.read_parquet(tmp_path / "q.parquet")) == 11
    with pytest.raises(InputError, match="has no stay with a label"):
        run.evaluate(tmp_path / "run", root=other)


def test_another_site_may_lack_modalities_and_none_is_removed_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The experiment removes half of its own; new patients are predicted by all that is known."""
    out, names = tmp_path / "run", ["series", "vitals", "cxr"]
    root = make_folder(tmp_path / "data", 60)
    data = {"modalities": names[:2], "missing_rate": 0.5}
    run.train(config.load(write(tmp_path, root, head="joint", data=data, encoders={})), out)
    model = CM2Classifier.load(out / "model.cm2")
    other = make_folder(tmp_path / "other", 30, seed=5, first=1000)

    def predicted(known: list[str]) -> None:
        asked, found = run.predict(out, other)
        there = Samples.open(other, known)
        np.testing.assert_array_equal(asked.samples.present, there.present)
        np.testing.assert_array_equal(found.probability, model.predict_proba(there))
        assert run.evaluate(out, root=other, replicates=9)["rows"] == len(there)

    predicted(names[:2])
    whole = Samples.open(root, names[:2])
    assert run.predict(out, root)[0].samples.present.sum() < whole.present.sum()
    drop(other, "cxr")
    assert not caplog.messages
    drop(other, "vitals")
    predicted(names[:1])
    assert "has no modality 'vitals': it is missing for all stays" in caplog.text
    drop(other, "series")
    with pytest.raises(InputError, match="no modality 'series'"):
        run.predict(out, other)
    paired = tmp_path / "paired"
    data = {"modalities": names[:2], "setting": "paired"}
    run.train(config.load(write(tmp_path, root, head="joint", data=data, encoders={})), paired)
    bare = make_folder(tmp_path / "bare", 30, seed=5, first=1000)
    drop(bare, "vitals")
    with pytest.raises(InputError, match="no modality 'vitals'"):
        run.predict(paired, bare)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"head": "poled"},
            "head must be one of fusion, pooled, joint, experts, linear, boosting, but is 'poled'",
        ),
        ({"head": {"kind": "joint", "n_netwroks": 2}}, "did you mean head.n_networks?"),
        ({"head": {"kind": "fusion", "n_networks": 2}}, "unknown key head.n_networks"),
        ({"training": {"weight_decay": 0.0}}, "unknown key training.weight_decay.*head pooled"),
        ({"training": {"devices": 2}}, "unknown key training.devices.*head pooled knows"),
        ({"training": {"lr": "fast"}}, "training: .*learning_rate"),
        ({"model": {"kind": "cm2", "shared": True}}, "unknown key model.shared.*head pooled"),
        ({"model": {"kind": "cm3"}}, "head pooled: unknown model 'cm3'; did you mean 'cm2'?"),
        ({"model": {"copula": "franck"}}, "unknown copula 'franck'; did you mean 'frank'"),
        ({"data": {"tokens": 128}}, "unknown key data.tokens.*head pooled knows"),
        ({"data": {"split": "test"}}, "unknown key data.split"),
        ({"dim": 0}, "embedding_dim must be at least 1"),
    ],
)
def test_keys_that_a_head_does_not_know_are_refused_by_name(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load(write(tmp_path, tmp_path, **change))


def test_what_is_not_given_is_as_in_the_classifier(tmp_path: Path) -> None:
    tree = {"head": "experts", "data": {"root": "x"}}
    found = config.parse(tree)
    assert config.parse(yaml.safe_load(found.dump())) == found
    plain = CM2Classifier()
    assert found.dim == plain.embedding_dim
    assert found.model["copula"] == plain.copula
    assert found.training["lr"] == plain.learning_rate
    assert not heads.classifier(found).presence
    told = config.parse({**tree, "head": {"kind": "experts", "presence": True}})
    assert heads.classifier(told).presence
    assert config.parse({**tree, "training": {"accelerator": "gpu"}}).training["accelerator"] == (
        "gpu"
    )


def test_data_that_cannot_be_learned_leave_no_folder(place: Path, tmp_path: Path) -> None:
    encoders = {**TREE["encoders"], "report": {"kind": "series"}}
    path = write(tmp_path, place / "data", encoders=encoders)
    assert cli.main(["train", str(path), "--out", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()
