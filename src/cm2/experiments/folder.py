"""The folder of a run: whether it may be begun, what it keeps, and its data read with that."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from cm2.core import persistence
from cm2.core.errors import InputError
from cm2.core.files import to_json, write_text
from cm2.experiments import config
from cm2.experiments.config import Experiment
from cm2.samples.inputs import Reader
from cm2.samples.prepared import Fitted, Prepared

__all__ = ["begin", "check", "data", "environment", "facts", "same_data", "write"]

READER = "reader.cm2"
"""What was learned of each modality from the training stays."""

PACKAGES = ("cm2", "torch", "lightning", "transformers", "numpy", "pandas", "scikit-learn")


def data(
    run: Path,
    experiment: Experiment,
    split: str | None,
    *,
    root: Path | None = None,
    labelled: bool = False,
    learned: Fitted | None = None,
) -> Prepared:
    """Reads the data of a run, or others, with the scales and words that the run was trained with.

    Args:
        run: Folder of the run; one that has not begun has learned nothing yet.
        experiment: What it runs.
        split: Which split; ``None`` for all rows.
        root: Other prepared data, which are read on the scale of the run's.
        labelled: Whether stays whose outcome is not known are left out.
        learned: What is read with, if the run has kept nothing yet.

    Raises:
        InputError: If the run was trained and did not keep what it reads with.
    """
    options = dict(experiment.data)
    learned = learned or _learned(Path(run))
    if root is not None:
        if learned is None:
            options["fitted_on"] = options.get("fitted_on") or options["root"]
        options["root"] = root
    return Prepared(**options, split=split, learned=learned, labelled=labelled)


def _learned(run: Path) -> Fitted | None:
    """What the run's training stays gave; None if it has not begun."""
    if (run / READER).is_file():
        known = facts(run)["data"]
        try:
            reader = persistence.load(run / READER, Reader)
        except ValueError as error:
            raise InputError(str(error)) from error
        return Fitted(reader, tuple(known["labels"]), int(known["classes"]))
    if (run / "best.ckpt").exists():
        writer = facts(run)["packages"]["cm2"]
        raise InputError(
            f"{run}: has no {READER}, so that new data cannot be read as in its training; it was"
            f" trained by cm2 {writer}: use that, or train it anew"
        )
    return None


def facts(run: Path) -> dict[str, Any]:
    """What ``environment.json`` says; under ``data`` what the training data were like."""
    found: dict[str, Any] = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    return found


def check(experiment: Experiment, out: Path, resume: bool) -> None:
    """Checks that a folder is free, or holds the run that is to be resumed."""
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
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty and holds no run; give another --out")


def begin(
    experiment: Experiment,
    out: Path,
    environment: Mapping[str, Any],
    learned: Prepared | None = None,
) -> None:
    """Makes the folder of a run, now that its data and its model are there.

    Args:
        experiment: What it runs.
        out: The folder.
        environment: See :func:`environment`.
        learned: The data whose reader it keeps, if its model does not.
    """
    if (out / "environment.json").exists():
        same_data(out, environment["data"]["checksum"])
    out.mkdir(parents=True, exist_ok=True)
    write(out / "config.yaml", experiment.dump())
    if learned is not None:
        persistence.save(learned.learned.reader, out / READER)
    write(out / "environment.json", environment)


def environment(data: Mapping[str, Any], encoders: Mapping[str, Any]) -> dict[str, Any]:
    """What a result depends on beside its configuration.

    Args:
        data: What the training data were like.
        encoders: What each encoder is built of.
    """
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "encoders": dict(encoders),
        "data": dict(data),
    }


def same_data(out: Path, checksum: str) -> None:
    """Refuses data that have been prepared anew since the run began: tables would mix them."""
    if checksum != facts(out)["data"]["checksum"]:
        raise InputError(
            f"{out}: the data are not those that the run began with; they have been prepared anew"
        )


def write(path: Path, content: Any) -> None:
    """Writes text, or anything else as JSON, in one step."""
    write_text(path, content if isinstance(content, str) else to_json(content))
