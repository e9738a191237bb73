"""The folder of a run: whether it may be begun, and what it keeps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from cm2.core.errors import InputError
from cm2.core.files import check_writable, to_json, write_text
from cm2.core.layout import SPLITS
from cm2.core.versions import versions
from cm2.estimators.classifier import CM2Classifier
from cm2.experiments import config
from cm2.experiments.config import Experiment

__all__ = [
    *("BEGUN", "BEST", "EVALUATIONS", "LAST", "MODEL"),
    *("begin", "check", "facts", "finish", "is_whole", "of_before", "same_data", "write"),
]

MODEL = "model.cm2"
"""The fitted model: all that a finished run is read from."""

BEGUN = "begun.cm2"
"""The model before the first step of its training, while that lasts."""

BEST, LAST = "best.ckpt", "last.ckpt"
"""Of a network whose training lasts: its weights at the best epoch, and the whole last state."""

EVALUATIONS = "evaluations"
"""Where measures on other data lie."""

STATES = (LAST, BEST, BEGUN)
"""What a run goes on from, in the order in which it goes once the model is kept."""


def facts(run: Path) -> dict[str, Any]:
    """What ``environment.json`` says; under ``data`` what the training data were like."""
    path = run / "environment.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path}: damaged; it cannot be read as JSON, so train the run anew")
    return found


def of_before(run: Path, lacking: str) -> InputError:
    """What is said of a run that an earlier version has left, in other files."""
    writer = facts(run)["packages"]["cm2"]
    return InputError(
        f"{run}: has no {lacking}, of which a run is read; it is of cm2 {writer}: use that version,"
        " or train it anew"
    )


def check(experiment: Experiment, out: Path, resume: bool) -> None:
    """Checks that a folder is free, or holds the run that is to be resumed."""
    check_writable(out)
    written = out / "config.yaml"
    if written.exists():
        # Read and written again, so that a key of a later version has its default.
        trees = [yaml.safe_load(one.dump()) for one in (config.load(written), experiment)]
        for tree in trees:  # a bar changes nothing, and earlier versions had none by default
            tree["training"].pop("progress", None)
        same = trees[0] == trees[1]
        if not resume:
            raise InputError(f"{out} holds a run already; give --resume, or another --out")
        if not same:
            raise InputError(f"{out} holds a run of another experiment; give another --out")
        if (out / LAST).is_file() and not any((out / one).is_file() for one in (BEGUN, MODEL)):
            raise of_before(out, BEGUN)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty and holds no run; give another --out")


def begin(experiment: Experiment, out: Path, data: Mapping[str, Any]) -> None:
    """Makes the folder of a run, now that its data and its model are there.

    Args:
        experiment: What it runs.
        out: The folder.
        data: What the training data were like.
    """
    if (out / "environment.json").exists():
        same_data(out, data["checksum"])
    out.mkdir(parents=True, exist_ok=True)
    write(out / "config.yaml", experiment.dump())
    packages = versions()
    environment = {
        "python": packages.pop("python"),
        "packages": packages,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "data": dict(data),
    }
    write(out / "environment.json", environment)


def finish(model: CM2Classifier, out: Path) -> None:
    """Keeps the fitted model, which also says of what data it is, and no state to go on from.

    What was measured of it on the way goes.
    """
    for split in SPLITS:
        for path in (out / f"{split}.json", out / f"{split}.npz"):
            path.unlink(missing_ok=True)
    shutil.rmtree(out / EVALUATIONS, ignore_errors=True)
    model.save(out / MODEL, facts={"data": facts(out)["data"]})
    for name in STATES:
        (out / name).unlink(missing_ok=True)


def is_whole(run: Path) -> bool:
    """Whether no training is left to be gone on with; an unfinished run can be measured too."""
    return (run / MODEL).is_file() or not (run / BEGUN).is_file()


def same_data(out: Path, checksum: str) -> None:
    """Refuses data that have been prepared anew since the run began: tables would mix them."""
    if checksum != facts(out)["data"]["checksum"]:
        raise InputError(
            f"{out}: the data are not those that the run began with; they have been prepared anew"
        )


def write(path: Path, content: Any) -> None:
    """Writes text, or anything else as JSON, in one step."""
    write_text(path, content if isinstance(content, str) else to_json(content))
