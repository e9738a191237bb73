"""Many runs of one experiment: variants (or a grid) times seeds, in processes side by side.

A variant is a label with overrides. Every run is checked before the first one starts; each is a
process of its own, with a folder of its own, so that one that fails stops no other and a sweep that
was interrupted goes on where it stopped.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cm2.core.errors import InputError
from cm2.core.yaml import read
from cm2.experiments import config

__all__ = ["Job", "plan", "read_variants", "run"]


class Job(NamedTuple):
    """One run of a sweep.

    Attributes:
        variant: Its label.
        seed: Its seed.
        overrides: What differs from the experiment.
        folder: Where it goes.
    """

    variant: str
    seed: int
    overrides: tuple[str, ...]
    folder: Path


def read_variants(path: Path) -> dict[str, list[str]]:
    """Reads a YAML file of variants: labels, and below each the keys it sets.

    A file of the one key ``grid`` has below it keys and a list of values for each, and gives all
    combinations.

    Raises:
        InputError: If the file is not of that form.
    """
    try:
        tree = read(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        why = getattr(error, "problem", None) or type(error).__name__
        raise InputError(f"{path}: no readable YAML file ({why})") from None
    if not isinstance(tree, dict) or not all(
        isinstance(keys, dict) or keys is None for keys in tree.values()
    ):
        raise InputError(f"{path}: labels with keys and values below them were expected")
    if list(tree) == ["grid"]:
        axes = tree["grid"] or {}
        if not axes or not all(isinstance(values, list) and values for values in axes.values()):
            raise InputError(f"{path}: a grid has keys and a list of values for each")
        return _product({key: [_text(value) for value in values] for key, values in axes.items()})
    return {str(label): _overrides(keys or {}) for label, keys in tree.items()}


def grid(axes: Sequence[str]) -> dict[str, list[str]]:
    """Turns ``"model.components=1,2,3"`` (several of them: their product) into variants.

    Example:
        >>> list(grid(["model.components=1,2", "model.fusion=lstm"]))
        ['components=1 fusion=lstm', 'components=2 fusion=lstm']
    """
    parts: dict[str, list[str]] = {}
    for axis in axes:
        key, separator, values = axis.partition("=")
        if not separator or not values:
            raise InputError(
                f"an axis is KEY=VALUE,VALUE, such as model.components=1,2, not {axis!r}"
            )
        if key in parts:
            raise InputError(f"{key} is the key of two axes; give all its values in one")
        # A comma inside brackets belongs to a value that is a list.
        parts[key] = re.split(r",(?![^\[]*\])", values)
    return _product(parts)


def _product(axes: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """All combinations of values, each named by the last part of its keys."""
    points = (dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values()))
    return {
        " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in point.items()): [
            f"{key}={value}" for key, value in point.items()
        ]
        for point in points
    }


def plan(
    experiment: Path,
    variants: Mapping[str, Sequence[str]],
    out: Path,
    *,
    seeds: int,
    overrides: Sequence[str] = (),
    all_reach: bool = True,
) -> list[Job]:
    """Lists the runs of a sweep, after a check of each of them.

    Args:
        experiment: The YAML file.
        variants: Overrides by label.
        out: The folder.
        seeds: Number of seeds.
        overrides: Of all variants, before their own.
        all_reach: Whether an override is refused that a variant takes back.

    Raises:
        InputError: If two labels share a folder, an experiment is not accepted, or an override does
            not reach a variant.
    """
    if seeds < 1:
        raise InputError(f"a sweep needs at least one seed, but seeds is {seeds}")
    names = {label: re.sub(r"[^\w.=+-]+", "_", label) for label in variants}
    if len(set(names.values())) != len(names):
        raise InputError(f"the labels {list(names)} do not give different folders")
    jobs = []
    for label, changes in variants.items():
        given = (*overrides, *changes)
        first = config.load(experiment, given).seed
        lost = config.dropped(experiment, given)
        for one in lost:
            if all_reach and one in overrides:
                raise InputError(
                    f"{one!r} does not reach the variant {label!r}, which replaces that part by "
                    "one of its own; put it into the variants that it is for"
                )
            if one in changes:
                raise InputError(
                    f"{one!r} of the variant {label!r} is taken back by what it sets later; name "
                    "a kind before its arguments, and arguments beside the kind that has them"
                )
        given = tuple(one for one in given if one not in lost)
        jobs += [
            Job(label, seed, (*given, f"seed={seed}"), Path(out) / names[label] / f"seed_{seed}")
            for seed in range(first, first + seeds)
        ]
    return jobs


def run(
    experiment: Path,
    jobs: Sequence[Job],
    *,
    processes: int = 1,
    split: str = "test",
    report: Callable[[Job, bool], None] = lambda job, good: None,
) -> list[Job]:
    """Runs all jobs that are not finished, and returns those that failed.

    Args:
        experiment: The YAML file.
        jobs: What to run.
        processes: Runs side by side; they share the cores.
        split: What each is measured on: ``"test"`` or ``"validation"``.
        report: Called as each run ends.
    """
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}

    def work(job: Job) -> bool:
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "cm2.cli", "train", str(experiment), "--resume"]
        command += [] if split == "test" else ["--split", split]
        command += ["--out", str(job.folder)]
        command += [part for override in job.overrides for part in ("--set", override)]
        with job.folder.with_suffix(".log").open("w", encoding="utf-8") as log:
            done = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False)
        good = done.returncode == 0
        report(job, good)
        return good

    with ThreadPoolExecutor(max_workers=processes) as pool:
        good = list(pool.map(work, jobs))
    return [job for job, fine in zip(jobs, good, strict=True) if not fine]


def _overrides(keys: Mapping[str, Any]) -> list[str]:
    return [f"{key}={_text(value)}" for key, value in keys.items()]


def _text(value: Any) -> str:
    """A value in YAML, on one line."""
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
