"""Running a benchmark: what is to be fitted, side by side, and going on after an interruption."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
from rich.console import Console

from cm2.benchmark import checks, folder, jobs
from cm2.benchmark.folder import Job
from cm2.benchmark.methods import METHODS, Budget, Method
from cm2.benchmark.patterns import Pattern
from cm2.benchmark.studies import STUDIES, Study
from cm2.core.errors import InputError
from cm2.core.pace import clock
from cm2.evaluation import report

ENCODERS = 35.0
"""Seconds in which three networks train encoders of series, pictures and texts on 1,000 rows."""

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What decides a benchmark.

    Attributes:
        studies: Data sets by name.
        methods: Methods by name.
        patterns: What is removed.
        seeds: Number of splits, and of removals.
        epochs: Largest number of passes of a network over the training rows.
        limit: Seconds that a fit may take; None for as many as it likes.
        processes: Fits side by side, one thread each.
    """

    studies: Mapping[str, Study]
    patterns: Sequence[Pattern]
    methods: Mapping[str, Method] = field(default_factory=lambda: METHODS)
    seeds: int = 3
    epochs: int = 60
    limit: float | None = None
    processes: int = 1

    def jobs(self) -> list[Job]:
        """Every fit; patterns that leave the training rows alike share one."""
        alike: dict[Pattern, list[Pattern]] = {}
        for pattern in self.patterns:
            alike.setdefault(pattern.at("train"), []).append(pattern)
        return [
            Job(study, method, seed, tuple(together))
            for seed in range(self.seeds)
            for study in self.studies
            for together in alike.values()
            for method in self.methods
        ]


def open_studies(names: Sequence[str], places: Mapping[str, Path]) -> dict[str, Study]:
    """Reads data sets.

    Args:
        names: Which.
        places: Folder of each by its name, and under ``""`` one that holds folders of data sets.

    Raises:
        InputError: If the files of one are not there; the error names all that are lacking.
    """
    found, lacking = {}, {}
    for name in names:
        kind = STUDIES[name]
        if not kind.folder:
            found[name] = kind()
            continue
        near = places.get(name) or (places[""] / kind.folder if "" in places else None)
        if near is None or not near.is_dir():
            lacking[name] = kind.folder
            continue
        found[name] = kind(near)
    if lacking:
        wanted = ", ".join(f"{name} (folder {place})" for name, place in lacking.items())
        raise InputError(
            f"no data for {wanted}; give --data NAME=DIR, or CM2_DATA_HOME, or leave them out "
            "with --only"
        )
    return found


def run(settings: Settings, out: Path, asked: Mapping[str, Any] | None = None) -> list[Job]:
    """Fits what the folder lacks, and returns all jobs.

    Args:
        settings: What is asked for.
        out: The folder.
        asked: What else the folder should say of it.

    Raises:
        InputError: If the folder holds another benchmark, names of methods are too much alike, the
            name of a data set cannot be that of a folder, or rows of a class are all tested.
    """
    whole = {
        "epochs": settings.epochs,
        "limit": settings.limit,
        "studies": list(settings.studies),
        "methods": list(settings.methods),
        "patterns": [list(pattern) for pattern in settings.patterns],
        "seeds": settings.seeds,
        "versions": report.versions(),
        **(asked or {}),
    }
    checks.names(settings.methods)
    for name, study in settings.studies.items():
        checks.study(name, study, settings.seeds)
        folder.check_outcome(out, name, study)
    folder.begin(out, whole, ("epochs",))
    for name, study in settings.studies.items():
        folder.write_outcome(out, name, study)
    every = settings.jobs()
    open_jobs = [job for job in every if _lacks(folder.load(out, job), settings.limit)]
    # The slowest of a seed first, so that no process waits at the end for one that began late.
    lasting = seconds(settings)
    open_jobs.sort(key=lambda job: (job.seed, -lasting[job.study, job.method]))
    console = Console(stderr=True)
    each = sum(lasting[job.study, job.method] for job in open_jobs)
    lasts = 60.0 * max(1, round(each / settings.processes / 60))
    console.print(
        f"{len(open_jobs)} of {len(every)} fits are to be made, in about {clock(lasts)} with "
        f"{settings.processes} side by side, by times of another machine."
    )
    calls = (
        joblib.delayed(_fitted)(settings.studies[job.study], settings, job, out)
        for job in open_jobs
    )
    done, begin = 0.0, time.monotonic()
    every_said = jobs.side_by_side(calls, len(open_jobs), settings.processes, console)
    for number, (job, said) in enumerate(zip(open_jobs, every_said, strict=True), 1):
        if said:
            console.print(said, soft_wrap=True)
        done += lasting[job.study, job.method]
        if number < len(open_jobs) and open_jobs[number].seed != job.seed:
            left = (time.monotonic() - begin) * (each / done - 1)
            console.print(f"{number} of {len(open_jobs)} are made, about {clock(left)} left.")
    return every


def seconds(settings: Settings) -> dict[tuple[str, str], float]:
    """About how long a fit takes, by data set and method: by rows and modalities of the first."""
    found = {}
    for name, study in settings.studies.items():
        rows = len(study.split(0).train) / 1000
        size = rows * len(study.modalities) / 7
        for method, about in settings.methods.items():
            found[name, method] = about.seconds * max(size, 0.2)
            if about.encodes and study.samples is not None:
                found[name, method] += ENCODERS * rows
    return found


def _lacks(kept: folder.Kept | None, limit: float | None) -> bool:
    """Whether a fit is to be made: it was not, or had less time than it would have now."""
    if kept is None:
        return True
    return bool(kept.fault) and (limit is None or kept.limit is None or kept.limit < limit)


def _fitted(study: Study, settings: Settings, job: Job, out: Path) -> str:
    """Makes one fit and keeps what comes of it; returns what is to be said of it."""
    start = time.perf_counter()
    budget = Budget(job.seed, settings.epochs)
    try:
        done = jobs.run(study, settings.methods[job.method], budget, job.patterns, settings.limit)
    except jobs.TimeUpError as fault:
        folder.save(out, job, None, str(fault), settings.limit)
        return f"{job.study}, {job.method}, seed {job.seed}: {fault}"
    folder.save(out, job, done)
    LOG.info("%s, %s, seed %d: %.0f s", *job[:3], time.perf_counter() - start)
    return ""
