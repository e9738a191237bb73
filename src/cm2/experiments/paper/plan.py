"""Which runs the chosen tables and figures need: each once, however many of them it stands in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cm2.core.errors import InputError
from cm2.experiments import config, folder, sweep
from cm2.experiments.config import Experiment
from cm2.experiments.paper.tables import PARTS, Entry, entries
from cm2.experiments.sweep import Job

__all__ = ["Plan", "Sweep", "check", "finished", "make", "small"]

RUNS = "runs"


class Sweep(NamedTuple):
    """The runs of one experiment.

    Attributes:
        experiment: Its file.
        folder: Of its runs.
        jobs: Each variant times seeds.
    """

    experiment: Path
    folder: Path
    jobs: list[Job]


class Plan(NamedTuple):
    """What is to be run, and where each row of a table finds it.

    Attributes:
        sweeps: One an experiment.
        variants: For each row of a table or figure the folder of its sweep, and the variant there.
    """

    sweeps: list[Sweep]
    variants: dict[Entry, tuple[Path, str]]

    @property
    def jobs(self) -> list[Job]:
        """All runs."""
        return [job for one in self.sweeps for job in one.jobs]


def make(
    parts: Sequence[str],
    roots: Mapping[str, Path],
    configs: Path,
    out: Path,
    *,
    seeds: int = 1,
    overrides: Sequence[str] = (),
    last: Callable[[Experiment], Sequence[str]] = lambda experiment: (),
) -> Plan:
    """Plans the runs of tables and figures; every one is checked.

    Args:
        parts: Names of tables and figures.
        roots: Prepared folders by name; rows that need another are left out.
        configs: The folder ``configs``.
        out: Where runs go.
        seeds: Runs of each variant.
        overrides: Another value for a key in all runs, unless a row sets it.
        last: What else a run sets, after its row.

    Raises:
        InputError: If an experiment or a row is not accepted, or ``configs`` is another folder.
    """
    known: dict[str, dict[str, list[str]]] = {}
    loaded: dict[tuple[Path, tuple[str, ...]], Experiment] = {}
    called: dict[tuple[Path, str], str] = {}
    chosen: dict[Path, dict[str, list[str]]] = {}
    variants: dict[Entry, tuple[Path, str]] = {}
    rows = [one for part in PARTS for one in entries(part) if one.prepared in roots]
    wanted = {one.experiment for one in rows if one.part in parts}
    # A run is told by what it is: several tables have it, some under another name. It has that of
    # the first of all tables, chosen or not, so that whoever takes one after the other trains once.
    for row in (one for one in rows if one.experiment in wanted):
        path = configs / "reference" / f"{row.experiment}.yaml"
        if row.variants not in known:
            file = configs / "ablations" / f"{row.variants}.yaml"
            known[row.variants] = sweep.read_variants(file)
        if row.label not in known[row.variants]:
            raise InputError(f"{row.part} has a row {row.label!r}, which {row.variants}.yaml lacks")
        changes = [f"data.root={roots[row.prepared]}", *known[row.variants][row.label]]
        key = (path, tuple(changes))
        if key not in loaded:
            loaded[key] = config.load(path, [*overrides, *changes])
        label = called.setdefault((path, loaded[key].dump()), row.label)
        if row.part in parts:
            own = chosen.setdefault(path, {})
            own.setdefault(label, [*changes, *last(loaded[key])])
            variants[row] = (_folder(out, path), label)
    sweeps = []
    for path, each in chosen.items():
        place = _folder(out, path)
        # What a row of the paper sets stands above what is asked of all.
        jobs = sweep.plan(path, each, place, seeds=seeds, overrides=overrides, all_reach=False)
        sweeps.append(Sweep(path, place, jobs))
    if len({(path, label) for (path, _), label in called.items()}) != len(called):
        raise InputError(
            "rows of one experiment differ, but have one name in two files of variants"
        )
    return Plan(sweeps, variants)


def _folder(out: Path, experiment: Path) -> Path:
    return out / RUNS / f"{experiment.parent.name}-{experiment.stem}"


def finished(job: Job) -> bool:
    """Whether a run has been trained to its end and tested."""
    return (job.folder / "test.json").is_file() and folder.is_whole(job.folder)


def check(plan: Plan) -> None:
    """Refuses a folder that holds other runs, such as those of a rehearsal.

    Raises:
        InputError: Naming the run.
    """
    for one in plan.sweeps:
        for job in one.jobs:
            if job.folder.exists():
                folder.check(config.load(one.experiment, job.overrides), job.folder, resume=True)


BODY = ("width=8", "layers=1")
SMALL: Mapping[str, Sequence[str]] = {
    "series": BODY,
    "transformer": (*BODY, "heads=2"),
    "text": ("weights=null", "heads=2", *BODY),
    "image": ("weights=null", "crop=32", "depths=[1]", "widths=[4]"),
    "vit": ("weights=null", "crop=32", "patch=16", "heads=2", *BODY),
}
"""Arguments of small encoders by kind, which start at random."""


def small(experiment: Experiment) -> list[str]:
    """Overrides that cut the networks of an experiment down and train them for one epoch.

    To try what a run does, not how well; nothing is downloaded.
    """
    changes = ["dim=8", "training.max_epochs=1", "data.tokenizer=null", "data.tokens=16"]
    for name, section in experiment.encoders.items():
        changes += [f"encoders.{name}.{change}" for change in SMALL[section["kind"]]]
    return changes
