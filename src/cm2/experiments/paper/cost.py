"""How long runs take, measured on a few batches of each before any of them starts."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cm2.core.files import to_json, write_text
from cm2.core.pace import clock
from cm2.core.records import Batch
from cm2.estimators.heads.fusion import Course, Fusion
from cm2.experiments import config, heads, run
from cm2.experiments.config import Experiment
from cm2.experiments.paper.plan import Plan, finished
from cm2.samples.batches import Rows

__all__ = ["Cost", "measure", "of_plan", "told"]

BATCHES = 8
"""Batches of training and of validation that are timed."""


class Cost(NamedTuple):
    """Seconds of a run.

    Attributes:
        reading: Until its process, its data and its model are there.
        epoch: Of one epoch, its validation included.
        least: Epochs after which it may stop first.
        most: Epochs after which it stops.
    """

    reading: float
    epoch: float
    least: int
    most: int


class Watched:
    """Some rows, drawn at random, that note when each batch of them is asked for.

    Args:
        rows: All.
        number: How many of them there are to be.
    """

    def __init__(self, rows: Rows, number: int) -> None:
        generator = torch.Generator("cpu").manual_seed(0)
        order = torch.randperm(len(rows), generator=generator, device="cpu")
        self.rows = rows
        self.chosen = order[:number]
        self.target = None if rows.target is None else rows.target[self.chosen]
        self.times: list[float] = []

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.chosen)

    def __getitem__(self, rows: Tensor, /) -> Batch:
        """Returns the batch of the given rows."""
        self.times.append(time.perf_counter())
        return self.rows[self.chosen[rows]]

    def gap(self) -> float:
        """Seconds between batches, in the median, so that a slow start does not count."""
        return statistics.median(b - a for a, b in zip(self.times, self.times[1:], strict=False))


def measure(experiment: Experiment) -> Cost:
    """Trains on a few batches, and says how long the whole would take."""
    start = time.perf_counter()
    changed = {"max_epochs": 1, "workers": 0, "monitor": "val_loss", "progress": False}
    timed = replace(experiment, training=experiment.training | changed)
    sizes = experiment.training["batch_size"], experiment.training["validation_batch_size"]
    parts: list[Watched] = []
    began: list[float] = []

    def watched(rows: Rows) -> Rows:
        # One batch more than are timed, as the first gap has the start of everything in it.
        parts.append(Watched(rows, (BATCHES + 1) * sizes[len(parts)]))
        return parts[-1]

    known = run.learned(timed)
    model = heads.classifier(timed, known.stays.modalities)
    with tempfile.TemporaryDirectory() as there:
        course = Course(Path(there), False, lambda: began.append(time.perf_counter()), watched)
        if isinstance(model.head, Fusion):
            model.head.course = course
        run.fit(model, timed, known)
    reading, whole = began[0] - start, time.perf_counter() - began[0]
    batches = [math.ceil(len(part.rows) / size) for part, size in zip(parts, sizes, strict=True)]
    # Where there is one batch only there is no gap; then the whole is an upper bound.
    gaps = [part.gap() if len(part.times) > 1 else whole for part in parts]
    epoch = sum(number * gap for number, gap in zip(batches, gaps, strict=True))
    own = experiment.training
    return Cost(reading, epoch, min(own["patience"] + 1, own["max_epochs"]), own["max_epochs"])


def of_plan(plan: Plan, cache: Path, say: Callable[[str], None]) -> list[Cost]:
    """Measures the runs that are not finished, those that differ in task and seed only once.

    Args:
        plan: The runs.
        cache: File of what was measured before on this device.
        say: Is told what is measured.
    """
    kept: dict[str, list[float]] = {}
    if cache.is_file():
        kept = json.loads(cache.read_text(encoding="utf-8"))
    found = []
    start: float | None = None
    for one in plan.sweeps:
        for job in one.jobs:
            if finished(job):
                continue
            experiment = config.load(one.experiment, job.overrides)
            key = _key(experiment)
            if key not in kept:
                say(f"timing {one.folder.name}, {job.variant}")
                start = starting() if start is None else start
                cost = measure(experiment)
                kept[key] = list(cost._replace(reading=start + cost.reading))
                write_text(cache, to_json(kept))
            reading, epoch, least, most = kept[key]
            found.append(Cost(reading, epoch, int(least), int(most)))
    return found


def starting() -> float:
    """Seconds in which a process of its own is there, as each run has one."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import cm2.experiments.run"], check=True)
    return time.perf_counter() - start


def _key(experiment: Experiment) -> str:
    """The same for experiments that cost the same, on this device."""
    same = replace(experiment, name="", seed=0, data=experiment.data | {"root": ""})
    return hashlib.sha256((same.dump() + device()).encode()).hexdigest()[:16]


def device() -> str:
    """What networks are trained on, unless an experiment says otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} threads of the processor"


def told(costs: Sequence[Cost]) -> str:
    """A sentence on how long runs take, one after the other.

    Example:
        >>> told([Cost(60.0, 30.0, 16, 100)] * 4).partition("may, ")[2]
        '3 h 24 min if none stops early.'
    """
    reading = sum(one.reading for one in costs)
    shortest = sum(one.epoch * one.least for one in costs) + reading
    longest = sum(one.epoch * one.most for one in costs) + reading
    return (
        f"Measured on {device()}: an epoch of every run takes "
        f"{clock(sum(one.epoch for one in costs))}, starting {clock(reading)}; one after the "
        f"other {clock(shortest)} if they stop as early as they may, {clock(longest)} if none "
        "stops early."
    )
