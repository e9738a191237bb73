"""`cm2 demo`: CM² and its rivals on real data, over several splits and missing rates.

A job is one fit on one split, with one thread; jobs run side by side. All methods see the same
rows with the same modalities removed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray
from rich.console import Console

from cm2.benchmark import jobs
from cm2.benchmark.methods import LATE_FUSION, METHODS, POOLED, Budget
from cm2.benchmark.patterns import Pattern
from cm2.benchmark.studies import Study
from cm2.core.errors import InputError
from cm2.core.files import to_json, write_text
from cm2.demo import page, studies
from cm2.demo.folder import open_folder, write_config
from cm2.evaluation import bootstrap, report, summary

__all__ = ["InputError", "Settings", "run"]


FITS = (
    POOLED,
    "CM², network",
    "CM², marginal",
    "late fusion, forests",
    "imputed LR",
    "concat. boosting",
    "boosting + dropout",
    "LR + dropout",
    "concat. LR",
    "stacking",
    LATE_FUSION,
    "late fusion, log",
)
"""Methods of the table, the slowest first."""

REMOVALS: dict[str, Callable[[Settings], list[tuple[Pattern, ...]]]] = {
    "test": lambda settings: [tuple(Pattern("random", rate) for rate in sorted(settings.rates))],
    "both": lambda settings: [
        (Pattern("random", rate, "both"),) for rate in sorted(settings.rates)
    ],
}
"""Patterns of each job, by where modalities are removed: one fit for all rates, or one for each."""


@dataclass(frozen=True)
class Settings:
    """What `cm2 demo` takes; see `cm2 demo --help`."""

    data: Path | None = None
    out: Path = Path("runs/demo")
    seeds: int = 3
    rates: tuple[float, ...] = (0.0, 0.3, 0.6)
    removal: str = "test"
    epochs: int = 30
    replicates: int = 1000
    processes: int = 2

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be run."""
        for name in ("seeds", "epochs", "replicates", "processes"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} should be at least 1, got {getattr(self, name)}")
        if not self.rates or not all(0 <= rate < 1 for rate in self.rates):
            raise InputError(f"--rates should be one or more shares in [0, 1), got {self.rates}")
        if self.removal not in REMOVALS:
            raise InputError(f"--removal should be one of {list(REMOVALS)}, got {self.removal!r}")

    def plain(self) -> dict[str, Any]:
        """As YAML takes them."""
        data = None if self.data is None else str(self.data)
        return asdict(self) | {"data": data, "out": str(self.out), "rates": list(self.rates)}


class Result(NamedTuple):
    """What one job returns.

    Attributes:
        cells: Scores at each rate.
        seed: Of the split.
        rows: The test rows.
        probability: Predictions for them by method, if they are needed for the calibration.
    """

    cells: list[summary.Cell]
    seed: int
    rows: Int[ndarray, " test"]
    probability: dict[str, Float[ndarray, "test label"]]


def run(settings: Settings) -> Path:
    """Runs the demo and returns the path of its report.

    Raises:
        InputError: Before any long work, if the data or the output folder cannot be used.
    """
    begin = time.perf_counter()
    console = Console()
    source = studies.eicu_folder(settings.data, os.environ.get("CM2_DATA_HOME"))
    folder = open_folder(settings.out)
    if source is None:
        console.print(
            "Data: the real UCI digits that scikit-learn carries, cut into four views, since no "
            "eICU folder was given (--data, CM2_DATA_HOME).",
            soft_wrap=True,
        )
    else:
        console.print(
            f"Data: the eICU demo in {source}, in-hospital mortality after 24 hours.",
            soft_wrap=True,
        )
    with console.status("reading tables"):
        study = studies.load(source)
    write_config(folder, settings.plain() | {"data": None if source is None else str(source)})
    positives = f", {int(study.y.sum())} {study.labels[1]}" if len(study.labels) == 2 else ""
    console.print(
        f"{len(study.y)} rows{positives}; modalities: {', '.join(study.modalities)}.",
        soft_wrap=True,
    )

    results = _run_jobs(study, settings, folder, console)
    cells = [cell for result in results for cell in result.cells]
    table = summary.summarise(cells, [LATE_FUSION], test_to_train=study.test_to_train)
    score = _score(study, results, settings.replicates, min(settings.rates))
    seconds = time.perf_counter() - begin
    _write_results(folder, table, score)
    path = page.write(folder, study, settings.plain(), table, score, results, seconds)
    for block in page.tables(table):
        console.print(report.rich_table(block))
    if score is not None:
        console.print(report.rich_table(page.score_table(study, score)))
    console.print(f"{time.perf_counter() - begin:.0f} s. Report: {path}", soft_wrap=True)
    return path


def _run_jobs(study: Study, settings: Settings, folder: Path, console: Console) -> list[Result]:
    """Runs all jobs side by side and shows how many are done."""
    every = [
        (name, seed, patterns)
        for name in FITS
        for seed in range(settings.seeds)
        for patterns in REMOVALS[settings.removal](settings)
    ]
    calls = (
        joblib.delayed(job)(study, *one, settings, folder if k == 0 else None)
        for k, one in enumerate(every)
    )
    return list(jobs.side_by_side(calls, len(every), settings.processes, console))


def job(
    study: Study,
    name: str,
    seed: int,
    patterns: tuple[Pattern, ...],
    settings: Settings,
    folder: Path | None,
) -> Result:
    """Fits a method once and scores it under each pattern.

    Args:
        study: The data.
        name: Of the method.
        seed: Of the split and of all that is random.
        patterns: What is removed.
        settings: Those of the run.
        folder: Where to leave a classifier and a training log, if anywhere.
    """
    log = None if folder is None else str(folder / "training")
    counts = bootstrap.draws(int(study.groups.max()) + 1, settings.replicates)
    done = jobs.run(study, METHODS[name], Budget(seed, settings.epochs, log), patterns)
    if folder is not None:
        done.method.save(folder / "classifier.skops")
    cells, kept = [], {}
    y, groups = study.y[done.rows], study.groups[done.rows]
    for pattern, probability in done.probability.items():
        drawn = (y, probability, counts, groups)
        cells.append(summary.score(name, seed, pattern.rate, *drawn, done.fit))
        if pattern.rate == min(settings.rates):
            kept[name] = probability
    return Result(cells, seed, done.rows, kept)


def _score(
    study: Study, results: list[Result], replicates: int, rate: float
) -> pd.DataFrame | None:
    """Compares the clinical score with every method on the test rows that have one.

    The predictions are those that were kept, at the lowest rate of the run; the score itself is
    that of the full data.
    """
    there = np.isfinite(study.score)
    if not there.any():
        return None
    counts = bootstrap.draws(int(study.groups.max()) + 1, replicates)
    known = {
        (name, result.seed): (result.rows, probability)
        for result in results
        for name, probability in result.probability.items()
    }
    clinical = np.stack([1 - study.score, study.score], axis=1)
    for result in results:
        known[study.score_name, result.seed] = (result.rows, clinical[result.rows])
    cells = []
    for (name, seed), (rows, probability) in known.items():
        with_score = there[rows]
        if not with_score.any():
            continue
        rows = rows[with_score]
        drawn = (study.y[rows], probability[with_score], counts, study.groups[rows])
        cells.append(summary.score(name, seed, rate, *drawn))
    if not cells:
        return None
    return summary.summarise(cells, [study.score_name], test_to_train=study.test_to_train)


def _write_results(folder: Path, table: pd.DataFrame, score: pd.DataFrame | None) -> None:
    """Writes versions and all numbers."""
    write_text(folder / "versions.json", to_json(report.versions()))
    parts = [table.assign(rows_with="any modality")]
    if score is not None:
        parts.append(score.assign(rows_with="a clinical score"))
    results = pd.concat(parts, ignore_index=True)
    write_text(folder / "metrics.csv", results.to_csv(index=False, float_format="%.6g"))
    write_text(folder / "metrics.json", results.to_json(orient="records", indent=1))
