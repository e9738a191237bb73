"""What `cm2 benchmark` does with its options."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from cm2.benchmark import page, results
from cm2.benchmark.methods import METHODS
from cm2.benchmark.run import Settings, open_studies
from cm2.benchmark.run import run as run_all
from cm2.benchmark.studies import STUDIES
from cm2.benchmark.suites import SUITES
from cm2.core.errors import InputError
from cm2.core.files import named_folders


def run(
    suite: str,
    out: Path,
    *,
    data: Sequence[str] = (),
    only: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: int | None = None,
    epochs: int = 60,
    limit: float | None = None,
    processes: int = 2,
    replicates: int = results.REPLICATES,
) -> Path:
    """Runs a suite, or a part of it, and writes the page; see ``cm2 benchmark --help``.

    Raises:
        InputError: Before any long work, if an option cannot be used.
    """
    if suite not in SUITES:
        raise InputError(f"--suite should be one of {list(SUITES)}, got {suite!r}")
    asked = SUITES[suite]
    numbers = {"seeds": seeds, "epochs": epochs, "limit": limit, "jobs": processes}
    for name, number in numbers.items():
        if number is not None and not number >= 1:
            raise InputError(f"--{name} should be at least 1, got {number}")
    compared = {name: METHODS[name] for name in chosen(asked.methods, methods, "methods")}
    settings = Settings(
        open_studies(chosen(asked.studies, only, "only"), places(data)),
        asked.patterns,
        compared,
        seeds or asked.seeds,
        epochs,
        limit,
        processes,
    )
    results.check_replicates(replicates, settings)
    jobs = run_all(settings, out, {"suite": suite})
    path = page.write(out, settings, jobs, replicates)
    Console().print(f"Report: {path}", soft_wrap=True)
    return path


def chosen(known: Sequence[str], asked: Sequence[str], option: str) -> list[str]:
    """Those that are asked for, all if none is."""
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise InputError(f"--{option} names {unknown[0]!r}; the suite has {list(known)}")
    return [name for name in known if name in asked or not asked]


def places(data: Sequence[str]) -> Mapping[str, Path]:
    """Folders of data sets by name; under ``""`` the one that holds them all, if there is one."""
    found = {}
    home = os.environ.get("CM2_DATA_HOME")
    if home:
        found[""] = Path(home)
    return found | named_folders(data, list(STUDIES))
