"""Runs: what a folder holds, going on after SIGKILL, several processes, prediction, embeddings."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tokenizers
import torch
import yaml

from cm2 import cli
from cm2.core import pace, persistence
from cm2.core.errors import InputError
from cm2.evaluation import metrics
from cm2.experiments import config, heads, run, sweep
from cm2.experiments import folder as kept
from cm2.experiments.predictions import Predictions, notes
from cm2.experiments.trained import Trained
from cm2.networks.encoders import Encoder, Image, Text
from cm2.networks.learner import Learner
from cm2.samples import vocabulary
from cm2.samples.container import Samples
from prepared_folder import WORDS, make_folder, rewrite_manifest

SMALL = {
    "data": {"modalities": ["series", "vitals", "cxr", "report"], "tokens": 16},
    "dim": 4,
    "encoders": {
        "series": {"kind": "series", "width": 8, "layers": 1},
        "vitals": {"kind": "dense", "width": 8},
        "cxr": {"kind": "image", "crop": 16, "depths": [1], "widths": [4]},
        "report": {"kind": "text", "width": 8, "layers": 1, "heads": 2},
    },
    "model": {"kind": "cm2", "components": 1, "width": 8},
    "training": {"batch_size": 8, "max_epochs": 3, "accelerator": "cpu", "lr": 1e-2},
}
TABLE = {"data": {"modalities": ["series", "vitals"]}}


def write(folder: Path, **change: dict) -> Path:
    """An experiment on a small prepared folder beside it."""
    root = folder / "data"
    if not root.exists():
        make_folder(root, 60)
    tree = SMALL | change
    tree["data"] = {"root": str(root), **tree["data"]}
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def train(path: Path, out: Path, *more: str) -> int:
    return cli.main(["train", str(path), "--out", str(out), *more])


def test_a_run_of_four_modalities_is_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = write(tmp_path), tmp_path / "run"
    assert train(path, out) == 0
    assert "auroc" in capsys.readouterr().out
    with monkeypatch.context() as patch:  # as if it lasted longer
        patch.setattr(pace, "EVERY", 0.0)
        patch.setattr(metrics, "_CHUNK", 1)
        assert cli.main(["evaluate", str(out), "--replicates", "9"]) == 0
        assert "pieces of the bootstrap: 8 of 10, about 0 s left" in capsys.readouterr().err
    assert {entry.name for entry in out.iterdir()} == {
        "config.yaml", "environment.json", "metrics.csv", "model.cm2", "test.json", "test.npz",
    }  # fmt: skip
    assert config.load(out / "config.yaml") == config.load(path)
    found = json.loads((out / "test.json").read_text())
    kept = Predictions.load(out / "test.npz")
    assert found["rows"] == len(kept.target) > 0
    assert set(found["present"]) == set(SMALL["data"]["modalities"])
    low, high = found["measures"]["auroc"][1:]
    assert 0 <= low <= found["measures"]["auroc"][0] <= high <= 1
    np.testing.assert_allclose(kept.probability.sum(1), 1.0, rtol=1e-6)
    facts = json.loads((out / "environment.json").read_text())
    assert facts["packages"]["torch"] == version("torch")
    assert persistence.facts(out / "model.cm2")["data"] == facts["data"]
    assert facts["data"]["rows"]["train"] > facts["data"]["rows"]["validation"] > 0


def test_nothing_in_a_run_names_a_patient(tmp_path: Path) -> None:
    """Identifiers of the small folder are 100 to 159 and, with an admission, 1100 to 1159."""
    path, out = write(tmp_path, **TABLE), tmp_path / "run"
    train(path, out)
    kept = np.load(out / "test.npz", allow_pickle=False)
    assert set(kept.files) == set(Predictions._fields)
    subjects = Samples.open(tmp_path / "data", split="test").groups
    patient = kept["patient"]
    assert sorted(set(patient)) == list(range(len(set(subjects))))
    same = subjects[:, None] == subjects
    assert ((patient[:, None] == patient) == same).all(), "one number a patient"
    assert (np.diff(patient[np.argsort(subjects, kind="stable")]) < 0).any(), "given by lot"
    for name in ("environment.json", "config.yaml", "test.json"):
        assert "stay_id" not in (out / name).read_text()
    with zipfile.ZipFile(out / "model.cm2") as archive:
        schema = archive.read("schema.json").decode()
    assert "stay_id" not in schema
    assert str(tmp_path) not in schema


def test_same_seed_same_run(tmp_path: Path) -> None:
    path = write(tmp_path, **TABLE)
    for name in "ab":
        train(path, tmp_path / name)
    train(path, tmp_path / "c", "--set", "seed=1")
    texts = [(tmp_path / name / "test.json").read_text() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]
    assert (tmp_path / "a/metrics.csv").read_text() == (tmp_path / "b/metrics.csv").read_text()


def test_what_cannot_start_leaves_no_folder(tmp_path: Path) -> None:
    path, out = write(tmp_path, **TABLE), tmp_path / "run"
    nowhere = str(tmp_path / "nowhere")
    assert train(path, out, "--set", f"data.root={nowhere}") == 2
    assert train(path, out, "--set", f"encoders.series.weights={nowhere}") == 2
    assert not out.exists()


def test_data_prepared_anew_are_not_mixed_with_a_run(tmp_path: Path) -> None:
    path, out = write(tmp_path, **TABLE), tmp_path / "run"
    assert train(path, out) == 0
    manifest = tmp_path / "data" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert cli.main(["evaluate", str(out)]) == 2
    (out / "test.json").unlink()
    assert train(path, out, "--resume") == 2


def test_killed_and_resumed_ends_as_if_never_killed(tmp_path: Path) -> None:
    """Texts included, though tokens are then made anew: by the words that the run began with."""
    path = write(tmp_path, data={"modalities": ["series", "vitals", "report"], "tokens": 16})
    more = ["--set", "training.max_epochs=10", "--set", "training.patience=10"]
    train(path, tmp_path / "whole", *more)
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "cm2.cli", "train", str(path), "--out", str(out), *more]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = out / "metrics.csv"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and len(log.read_text().splitlines()) > 3:
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "test.json").exists(), "the run must have been cut short"
    assert {"begun.cm2", "best.ckpt", "last.ckpt"} <= {entry.name for entry in out.iterdir()}
    for more_of in ([], ["--split", "train"], ["--data", str(tmp_path / "data")]):
        assert cli.main(["evaluate", str(out), *more_of]) == 0, "which does not make it finished"
    assert (out / "train.json").exists()
    assert any((out / "evaluations").iterdir())
    assert train(path, out, *more) == 2, "a folder with a run is not written over"
    shutil.rmtree(tmp_path / "data" / "tokens")
    assert train(path, out, "--resume", *more) == 0
    for name in ("metrics.csv", "test.json"):
        assert (out / name).read_text() == (tmp_path / "whole" / name).read_text()
    gone = {"begun.cm2", "best.ckpt", "last.ckpt", "train.json", "train.npz", "evaluations"}
    assert not {entry.name for entry in out.iterdir()} & gone
    before = (out / "model.cm2").stat().st_mtime_ns
    assert train(path, out, "--resume", *more) == 0
    assert (out / "model.cm2").stat().st_mtime_ns == before, "a finished run is left as it is"
    (out / "test.json").unlink()
    assert train(path, out, "--resume", *more) == 0
    assert (out / "model.cm2").stat().st_mtime_ns == before, "nor trained again to be tested"


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """The same batches, shared by two: the same losses up to rounding and Adam's first steps.

    Nothing is drawn in training (no dropout, no hiding, all modalities there), and batches are even
    so that both have an equal share.
    """
    keep = {
        "data": {"modalities": ["series", "vitals"], "setting": "paired"},
        "encoders": {
            "series": {"kind": "series", "width": 8, "layers": 1, "dropout": 0.0},
            "vitals": {"kind": "dense", "width": 8, "dropout": 0.0},
        },
        "model": {"kind": "cm2", "components": 1, "width": 8, "hide": 0.0, "dropout": 0.0},
    }
    for seed in range(20):
        folder = tmp_path / str(seed)
        make_folder(folder / "data", 60, seed=seed)
        path = write(folder, **keep)
        if len(Samples.open(folder / "data", split="train", **keep["data"])) % 8 == 0:
            break
    more = ["--set", "training.batch_size=8"]
    train(path, tmp_path / "one", *more)
    command = [sys.executable, "-m", "cm2.cli", "train", str(path), "--out", str(tmp_path / "two")]
    done = subprocess.run(
        [*command, *more, "--set", "training.devices=2"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    for column in ("train_task", "train_joint_nll", "val_loss"):
        np.testing.assert_allclose(one[column], two[column], rtol=1e-3)
    assert (tmp_path / "two" / "test.json").exists()


def test_predictions_and_embeddings_for_later(tmp_path: Path) -> None:
    path, out = write(tmp_path), tmp_path / "run"
    train(path, out)
    root = tmp_path / "data"
    table = tmp_path / "p" / "all.parquet"
    assert cli.main(["predict", str(out), "--data", str(root), "--out", str(table)]) == 0
    frame = pd.read_parquet(table)
    assert len(frame) == 59, "all stays with series"
    np.testing.assert_allclose(frame["probability_0"] + frame["probability_1"], 1, rtol=1e-6)
    assert cli.main(["predict", str(out), "--data", str(root), "--out", str(table), "--meds"]) == 0
    stays = pd.read_parquet(root / "stays.parquet").query("has_series").reset_index(drop=True)
    other = pd.read_parquet(table)
    pd.testing.assert_frame_equal(
        other[["subject_id", "prediction_time"]],
        stays[["subject_id", "prediction_time"]],
        check_dtype=False,
    )
    assert other["boolean_value"].tolist() == (stays["label"] == 1).tolist()
    # The probabilities of MEDS are single precision.
    np.testing.assert_allclose(
        other["predicted_boolean_probability"], frame["probability_1"], rtol=1e-6
    )
    assert cli.main(["embed", str(out), "--data", str(root), "--modality", "cxr"]) == 0
    kept = np.load(root / "embeddings" / "cxr.npy")
    stays = pd.read_parquet(root / "stays.parquet")
    assert (np.isfinite(kept).all(1) == stays["has_cxr"].to_numpy()).all()
    tree = yaml.safe_load(path.read_text())
    tree["data"] |= {"modalities": ["series", "cxr"], "embedded": ["cxr"]}
    tree["encoders"] = {"series": tree["encoders"]["series"], "cxr": {"kind": "precomputed"}}
    (tmp_path / "cheap.yaml").write_text(yaml.safe_dump(tree))
    assert train(tmp_path / "cheap.yaml", tmp_path / "cheap") == 0


def test_a_run_is_read_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is learned again: not to evaluate, predict, embed or go on."""
    words = {
        "data": {"modalities": ["series", "report"], "tokens": 16},
        "encoders": {name: SMALL["encoders"][name] for name in ("series", "report")},
    }
    path, out, root = write(tmp_path, **words), tmp_path / "run", tmp_path / "data"
    train(path, out)
    whole = {name: (out / name).read_text() for name in ("test.json", "metrics.csv")}
    kept = Trained(out).model.reader_.learned_["report"].vocabulary_
    learned = Samples.open(root, words["data"]["modalities"], "train")
    assert kept == learned.columns["report"].vocabulary(learned.groups)
    shutil.rmtree(root / "tokens")

    def refuse(*_: object) -> None:
        raise InputError("a vocabulary is learned again")

    original, stopped = Learner.on_validation_epoch_end, tmp_path / "stopped"

    def stop(self: Learner) -> None:
        if self.current_epoch == 1:
            raise FloatingPointError("stopped")
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "on_validation_epoch_end", stop)
        assert train(path, stopped) == 1
    shutil.copytree(stopped, tmp_path / "older")  # begun when a reader stood in other files
    (tmp_path / "older" / "begun.cm2").unlink()
    capsys.readouterr()
    assert train(path, tmp_path / "older", "--resume") == 2
    assert "has no begun.cm2" in (said := capsys.readouterr().err)
    assert f"it is of cm2 {version('cm2')}" in said
    shutil.rmtree(root / "tokens")
    monkeypatch.setattr(vocabulary, "learn", refuse)
    assert cli.main(["evaluate", str(out)]) == 0
    assert train(path, stopped, "--resume") == 0
    for folder in (out, stopped):
        assert {name: (folder / name).read_text() for name in whole} == whole
    table = tmp_path / "all.parquet"
    assert cli.main(["predict", str(out), "--data", str(root), "--out", str(table)]) == 0
    assert cli.main(["embed", str(out), "--data", str(root), "--modality", "report"]) == 0
    monkeypatch.undo()
    (out / "model.cm2").rename(out / "best.ckpt")  # a run of before there was one file
    capsys.readouterr()
    assert cli.main(["evaluate", str(out)]) == 2
    assert "has no model.cm2" in (said := capsys.readouterr().err)
    assert f"it is of cm2 {version('cm2')}" in said
    assert train(path, out, "--resume") == 0, "it is finished, and stays so"


def test_a_run_needs_neither_its_data_nor_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very probabilities, once the training folder and the encoders' weights are gone."""
    weights = {name: tmp_path / f"weights-{name}" for name in ("cxr", "report")}
    Image(4, crop=16, depths=(1,), widths=(4,)).body.save_pretrained(weights["cxr"])
    Text(4, width=8, layers=1, heads=2).body.save_pretrained(weights["report"])
    report = {"kind": "text", "weights": str(weights["report"])}
    modalities = ["series", "events", "vitals", "cxr", "report"]
    own = {
        "data": SMALL["data"] | {"modalities": modalities, "tokenizer": str(tokenizer(tmp_path))},
        "encoders": SMALL["encoders"]
        | {
            "events": {"kind": f"{__name__}.Counts"},
            "cxr": {"kind": "image", "crop": 16, "weights": str(weights["cxr"])},
            "report": report,
        },
    }
    path, out = write(tmp_path, **own), tmp_path / "run"
    assert train(path, out, "--set", "training.max_epochs=1") == 0
    other = make_folder(tmp_path / "other", 30, seed=5, first=1000)
    stays = pd.read_parquet(other / "stays.parquet").astype({"label": "Int64"})
    stays.loc[:4, "label"] = pd.NA
    stays.to_parquet(other / "stays.parquet")
    rewrite_manifest(other)

    def predicted(name: str) -> pd.DataFrame:
        table = tmp_path / f"{name}.parquet"
        assert cli.main(["predict", str(out), "--data", str(other), "--out", str(table)]) == 0
        return pd.read_parquet(table)

    before = predicted("before")
    reader = Trained(out).model.reader_
    for gone in (tmp_path / "data", tmp_path / "tokenizer.json", *weights.values()):
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    monkeypatch.setattr("socket.socket.connect", None)
    pd.testing.assert_frame_equal(predicted("after"), before, check_exact=True)
    vitals = reader.learned_["vitals"]
    assert [vitals.columns_[i] for i in vitals.scaler_.gaps_.columns_] == ["lactate"]
    kept = (out / "test.json").read_text()
    assert cli.main(["evaluate", str(out), "--data", str(other)]) == 0
    [found] = (out / "evaluations").glob("other-*-all.json")
    assert json.loads(found.read_text())["rows"] == len(before) - 5
    # Other rows share a batch now, and matrix products round by its size: single precision.
    np.testing.assert_allclose(
        Predictions.load(found.with_suffix(".npz")).probability,
        before[["probability_0", "probability_1"]][5:],
        atol=1e-6,
    )
    assert cli.main(["evaluate", str(out), "--data", str(other), "--split", "test"]) == 0
    assert (out / "test.json").read_text() == kept
    assert cli.main(["embed", str(out), "--data", str(other), "--modality", "report"]) == 0


def tokenizer(folder: Path) -> Path:
    """A tokenizer of a language model as large as BERT's, whose words are not its own."""
    words = {"[UNK]": 0} | {f"w{i}": i for i in range(1, 30_522)}
    words |= {word: words.pop(f"w{i + 1}") for i, word in enumerate(WORDS)}
    one = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    one.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    one.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


class Counts(Encoder):
    """How many events there are of each variable, and the sum of their values."""

    def __init__(self, dim: int, *, vocabulary: int) -> None:
        super().__init__(dim)
        self.bag = torch.nn.Embedding(vocabulary, dim)

    def forward(self, x: Any) -> torch.Tensor:
        weight = (1 + x.value) * x.mask
        return torch.tanh(torch.einsum("rt,rtd->rd", weight, self.bag(x.variable)) / 8)


def relabel(root: Path, split: str) -> None:
    """Leaves a split without positives."""
    stays = pd.read_parquet(root / "stays.parquet")
    stays.loc[stays["split"] == split, "label"] = 0
    stays.to_parquet(root / "stays.parquet")
    rewrite_manifest(root)


def test_a_split_without_positives_has_null_and_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(tmp_path, **TABLE), tmp_path / "run"
    relabel(tmp_path / "data", "test")
    assert train(path, out, "--set", "training.max_epochs=1") == 0
    assert "auroc, aupr: not defined, since no row is positive" in capsys.readouterr().out
    text = (out / "test.json").read_text()
    assert "NaN" not in text
    found = json.loads(text)
    assert found["measures"]["auroc"] == [None, None, None]
    assert found["measures"]["brier"][0] > 0
    assert "note" not in found
    assert found["notes"][0] == "auroc, aupr: not defined, since no row is positive"
    older = {"notes": {"auroc": ["few"], "aupr": ["few"]}, "note": "Not defined: aupr."}
    assert notes(older) == ["auroc, aupr: few", "Not defined: aupr."]
    assert train(path, out, "--set", "training.max_epochs=1", "--resume") == 0
    relabel(tmp_path / "data", "train")
    assert train(path, tmp_path / "other") == 2
    assert "the training stays have one class only" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = write(tmp_path, **TABLE), tmp_path / "my run"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "on_train_batch_end", interrupt)
        assert train(path, out) == 130
    said = capsys.readouterr().err.strip().splitlines()[-1]
    told = "cm2 train: interrupted; to go on: "
    assert said.startswith(told)
    words = shlex.split(said.removeprefix(told))
    assert words == ["cm2", "train", str(path), "--out", str(out), "--resume"]
    assert cli.main(words[1:]) == 0
    assert "epoch 3 of 3: training loss" in capsys.readouterr().err


def test_folders_that_are_not_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, **TABLE)
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    assert train(path, full) == 2
    assert "holds no run" in capsys.readouterr().err
    assert cli.main(["evaluate", str(full)]) == 2
    assert "no config.yaml" in capsys.readouterr().err
    experiment = config.load(path)
    train(path, tmp_path / "run")
    with pytest.raises(InputError, match="of another experiment"):
        run.train(config.load(path, ["seed=5"]), tmp_path / "run", resume=True)
    with pytest.raises(InputError, match="encoders names only"):
        heads.build(experiment, {"labs": {"features": 3}}, 2)
    with pytest.raises(InputError, match=r"encoders\.vitals: 'dense' does not read .*'features'"):
        heads.build(experiment, {"vitals": {"vocabulary": 5}}, 2)


def test_a_run_of_an_earlier_version_lacks_new_keys_and_is_the_same(tmp_path: Path) -> None:
    path, out = write(tmp_path), tmp_path / "run"
    tree = yaml.safe_load(config.load(path).dump())
    for name in ("cxr", "report"):
        del tree["encoders"][name]["architecture"]
    out.mkdir()
    (out / "config.yaml").write_text(yaml.safe_dump(tree))
    kept.check(config.load(path), out, resume=True)
    with pytest.raises(InputError, match="of another experiment"):
        kept.check(config.load(path, ["encoders.cxr.crop=17"]), out, resume=True)


def here(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
    """Stands in for `subprocess.run`: the command of a job in this process, which is quicker."""
    assert command[1:3] == ["-m", "cm2.cli"]
    return subprocess.CompletedProcess(command, cli.main(command[3:]))


def test_a_sweep_runs_all_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With processes of its own, a sweep is run in `test_report.py`."""
    monkeypatch.setattr(sweep.subprocess, "run", here)
    path = write(tmp_path, **TABLE)
    variants = sweep.grid(["model.kind=late,unified"])
    jobs = sweep.plan(path, variants, tmp_path / "s", seeds=2, overrides=["training.max_epochs=1"])
    assert [job.variant for job in jobs] == ["kind=late"] * 2 + ["kind=unified"] * 2
    seen: list[tuple[str, int, bool]] = []
    failed = sweep.run(path, jobs, report=lambda job, good: seen.append((*job[:2], good)))
    assert failed == []
    assert seen == [(job.variant, job.seed, True) for job in jobs]
    assert all((job.folder / "test.json").exists() for job in jobs)
    times = [(job.folder / "model.cm2").stat().st_mtime_ns for job in jobs]
    assert sweep.run(path, jobs) == []
    assert times == [(job.folder / "model.cm2").stat().st_mtime_ns for job in jobs]


def test_only_the_point_that_is_best_on_validation_data_is_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same sweep without a selection tests the others, and trains none again."""
    monkeypatch.setattr(sweep.subprocess, "run", here)
    path, out = write(tmp_path, **TABLE), tmp_path / "s"
    grid = tmp_path / "points.yaml"
    grid.write_text("grid:\n  model.kind: [late, unified, mmtm]\n")
    command = ["sweep", str(path), "--variants", str(grid), "--seeds", "2", "--out", str(out)]
    command += ["--grid", "training.lr=0.001", "--set", "training.max_epochs=1"]
    assert cli.main([*command, "--select", "validation:auroc", "--points", "2"]) == 0
    points = pd.read_csv(out / "points.csv")
    runs = {run: json.loads((run / "validation.json").read_text()) for run in out.glob("*/seed_?")}
    found: dict[str, list[float]] = {}
    for folder, result in runs.items():
        found.setdefault(folder.parent.name, []).append(result["measures"]["auroc"][0])
    means = {name.replace("_", " ", 1): np.mean(values) for name, values in found.items()}
    assert dict(zip(points["variant"], points["value"], strict=True)) == pytest.approx(means)
    assert points["value"].is_monotonic_decreasing
    assert len(points) == 2
    tested = {path.parent.parent.name for path in out.glob("*/seed_?/test.json")}
    assert tested == {points["variant"][0].replace(" ", "_")}
    table = pd.read_csv(out / "table.csv")
    assert set(table["method"]) == {points["variant"][0]}

    weights = {run: (run / "model.cm2").stat().st_mtime_ns for run in runs}
    assert cli.main(command) == 0
    assert len(list(out.glob("*/seed_?/test.json"))) == 6
    assert weights == {run: (run / "model.cm2").stat().st_mtime_ns for run in runs}


def test_mistakes_in_a_sweep_come_before_any_run(tmp_path: Path) -> None:
    path = write(tmp_path, **TABLE)
    with pytest.raises(InputError, match=r"unknown key model\.copla"):
        sweep.plan(path, sweep.grid(["model.copla=frank"]), tmp_path / "s", seeds=1)
    with pytest.raises(InputError, match="KEY=VALUE,VALUE"):
        sweep.grid(["model.copula"])
    with pytest.raises(InputError, match=r"model\.copula is the key of two axes"):
        sweep.grid(["model.copula=frank", "model.copula=gumbel"])
    kinds = sweep.grid(["model.kind=cm2,late"])
    with pytest.raises(InputError, match=r"'model\.copula=frank' does not reach the variant"):
        sweep.plan(path, kinds, tmp_path / "s", seeds=1, overrides=["model.copula=frank"])
    for reaches in ("training.lr=1e-3", "model.kind=cm2", "seed=3"):
        sweep.plan(path, kinds, tmp_path / "s", seeds=1, overrides=[reaches])
    turned = sweep.grid(["model.components=1,3", "model.kind=cm2,late"])
    with pytest.raises(InputError, match=r"'model\.components=1' of the variant .* is taken back"):
        sweep.plan(path, turned, tmp_path / "s", seeds=1)
    with pytest.raises(InputError, match=r"--set model\.width=64 is taken back by a later one"):
        cli.train(path, overrides=["model.width=64", "model.kind=medfuse"], out=tmp_path / "s")
    sizes = sweep.grid(["training.batch_size=8,16"])  # these refine what is asked of all
    sweep.plan(path, sizes, tmp_path / "s", seeds=1, overrides=["training={lr: 0.1}"])
    kept = ["training.patience=3", "training.patience=4"]
    sweep.plan(path, sizes, tmp_path / "s", seeds=1, overrides=kept)
    whole = {"a": ["encoders.labs={kind: dense, width: 4}"]}
    with pytest.raises(InputError, match=r"labs\.dropout=0\.5' does not reach the variant 'a'"):
        sweep.plan(path, whole, tmp_path / "s", seeds=1, overrides=["encoders.labs.dropout=0.5"])
    (job,) = sweep.plan(
        path, {"a": ["model.kind=late"]}, tmp_path / "s", seeds=1,
        overrides=["model.copula=frank"], all_reach=False,
    )  # fmt: skip
    assert "copula" not in config.load(path, job.overrides).model
    with pytest.raises(InputError, match="do not give different folders"):
        sweep.plan(path, {"a b": [], "a_b": []}, tmp_path / "s", seeds=1)
    bad = tmp_path / "variants.yaml"
    bad.write_text("- 1")
    with pytest.raises(InputError, match="labels with keys"):
        sweep.read_variants(bad)
    bad.write_text("A: {model.width: 9, data.modalities: [series]}\nB:\n")
    assert sweep.read_variants(bad) == {
        "A": ["model.width=9", "data.modalities=[series]"], "B": []
    }  # fmt: skip
    assert not (tmp_path / "s").exists()


def test_grids_take_lists_and_sweeps_need_a_process(tmp_path: Path) -> None:
    points = sweep.grid(["data.modalities=[a,b],[a]", "model.components=1,2"])
    assert list(points.values())[1:3] == [
        ["data.modalities=[a,b]", "model.components=2"],
        ["data.modalities=[a]", "model.components=1"],
    ]
    path = write(tmp_path, **TABLE)
    out = tmp_path / "sweep"
    assert cli.main(["sweep", str(path), "--processes", "0", "--out", str(out)]) == 2
    assert not out.exists()
