"""The folder of a benchmark: a file a fit, so that an interrupted run goes on where it stopped.

``config.json`` (what was asked, versions), ``predictions/STUDY/METHOD/SEED.WHERE.npz`` (test rows,
probabilities under each pattern, seconds; or why there are none), ``outcomes/STUDY.npz`` (target
and an anonymous number for each patient), and what is made of them: ``table.csv``, ``tables/``,
``figures/`` and ``report.html``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray

from cm2.benchmark.jobs import Done
from cm2.benchmark.patterns import Pattern
from cm2.benchmark.studies import Study
from cm2.core.errors import InputError
from cm2.core.files import (
    DAMAGED,
    open_arrays,
    open_folder,
    slug,
    to_json,
    write_arrays,
    write_text,
)
from cm2.experiments.predictions import anonymous

CONFIG = "config.json"
ALIKE = 1e-4
"""Relative difference up to which figures are those of the same data, read on another machine."""


class Job(NamedTuple):
    """One fit.

    Attributes:
        study: Name of the data.
        method: Name of the method.
        seed: Of split, removal and method.
        patterns: What is removed; they agree for the training rows.
    """

    study: str
    method: str
    seed: int
    patterns: tuple[Pattern, ...]


class Kept(NamedTuple):
    """What the folder holds of a fit.

    Attributes:
        rows: The test rows; none if the fit failed.
        probability: Of the classes, for each pattern.
        missing: How many modalities each row lacks, for each pattern.
        fit: Seconds.
        predict: Seconds.
        fault: Why there are no predictions; "" where there are.
        limit: Seconds that a fit without predictions was allowed.
    """

    rows: Int[ndarray, " test"]
    probability: dict[Pattern, Float[ndarray, "test label"]]
    missing: dict[Pattern, Int[ndarray, " test"]]
    fit: float
    predict: float
    fault: str
    limit: float | None = None


def place(out: Path, job: Job) -> Path:
    """The file of a fit."""
    name = f"{job.seed}.{job.patterns[0].learned}.npz"
    return out / "predictions" / job.study / named(job.method) / name


def named(method: str) -> str:
    """The folder of a method's fits."""
    return slug(method.replace("²", "2"))


def save(
    out: Path, job: Job, done: Done | None, fault: str = "", limit: float | None = None
) -> None:
    """Writes what came of a fit, in one step."""
    path = place(out, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {
        "patterns": [list(one) for one in job.patterns],
        "fault": fault,
        "limit": limit,
    }
    arrays: dict[str, Any] = {}
    if done is not None:
        about |= {"fit": done.fit, "predict": done.predict}
        for k, one in enumerate(job.patterns):
            arrays |= {f"p{k}": done.probability[one], f"m{k}": done.missing[one]}
        arrays["rows"] = done.rows
    write_arrays(path, about=json.dumps(about), **arrays)


def load(out: Path, job: Job) -> Kept | None:
    """Reads what came of a fit; None if it was not done, or not for all patterns.

    Raises:
        InputError: If the file is damaged.
    """
    path = place(out, job)
    if not path.is_file():
        return None
    with _reading(path) as file:
        about = json.loads(str(file["about"]))
        known = [Pattern(*one) for one in about["patterns"]]
        if not set(job.patterns) <= set(known):
            return None
        if about["fault"]:
            nothing, said = np.zeros(0, np.int64), re.search(r"\d[\d.e+]*", about["fault"])
            limit = about.get("limit") or (float(said[0]) if said else None)
            return Kept(nothing, {}, {}, np.nan, np.nan, about["fault"], limit)
        probability, missing = (
            {one: file[f"{letter}{known.index(one)}"] for one in job.patterns}
            for letter in ("p", "m")
        )
        return Kept(file["rows"], probability, missing, about["fit"], about["predict"], "")


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """Opens a file of the folder, by name.

    Raises:
        InputError: If it is damaged, also as what is read inside shows.
    """
    try:
        with open_arrays(path) as file:
            yield file
    except (OSError, *DAMAGED) as error:
        raise InputError(f"{path} is damaged; delete it, and it is made again") from error


def write_outcome(out: Path, name: str, study: Study) -> None:
    """Keeps the target, who each row is of, by lot, and figures of the data, unless there."""
    path = _outcome(out, name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        groups = anonymous(study.groups)
        write_arrays(path, y=study.y, groups=groups, names=study.modalities, seen=figures(study))


def figures(study: Study) -> Float[ndarray, "modality 4"]:
    """By which data are told from others: of each modality columns, rows, and the length of rows.

    Of the length the mean and the mean of the square, which components that are turned or have
    another sign leave as they are.
    """
    found = []
    for block in study.blocks(np.arange(len(study.y))).values():
        there = ~np.isnan(block).all(axis=1)
        length = np.sqrt(np.nansum(block[there] ** 2, axis=1))
        means = (length.mean(), (length**2).mean()) if there.any() else (0.0, 0.0)
        found.append((block.shape[1], int(there.sum()), *means))
    return np.array(found, dtype=float)


def check_outcome(out: Path, name: str, study: Study) -> None:
    """Refuses a folder that has fits on other data of that name.

    Raises:
        InputError: If it has, or the file that tells is damaged.
    """
    path = _outcome(out, name)
    if not path.is_file():
        return
    with _reading(path) as file:
        y, groups = file["y"], file["groups"]
        names, seen = (file.get(key) for key in ("names", "seen"))
    # Numbers of patients are given by lot: alike are those that part the rows alike.
    before, now = (pd.factorize(one)[0] for one in (groups, study.groups))
    same = np.array_equal(y, study.y) and np.array_equal(before, now)
    if same and seen is not None:
        same = list(names) == list(study.modalities)
        same = same and np.allclose(seen, figures(study), rtol=ALIKE, atol=0)
    if not same:
        raise InputError(f"{out} holds fits on other data called {name!r}; give a new folder")


def _outcome(out: Path, name: str) -> Path:
    return out / "outcomes" / f"{name}.npz"


def begin(out: Path, asked: dict[str, Any], names: Sequence[str]) -> None:
    """Makes the folder, or finds that it is one of the same question.

    Args:
        out: Where.
        asked: What the folder says of it.
        names: Entries in which an earlier benchmark must agree.

    Raises:
        InputError: If it holds something else.
    """
    open_folder(out, lambda folder: (folder / CONFIG).is_file(), "benchmark")
    if (out / CONFIG).is_file():
        found = json.loads((out / CONFIG).read_text(encoding="utf-8"))
        differ = sorted(key for key in names if found.get(key) != asked[key])
        if differ:
            raise InputError(
                f"--out names {out}, which holds a benchmark of another {', '.join(differ)}; "
                "give a new folder"
            )
    write_text(out / CONFIG, to_json(asked))
