"""Finished runs, found in folders, named, and put into one table of measures.

Runs of one experiment on the same test rows, with the same share of modalities removed, stand in
one table: one row a method, over its seeds. Patients are drawn alike for all of them in the
bootstrap, or rows where ``test.npz`` is from before patients were numbered.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int
from numpy import ndarray

from cm2.core.errors import InputError
from cm2.core.files import to_json, write_text
from cm2.evaluation import bootstrap, metrics, summary
from cm2.experiments import config
from cm2.experiments.config import Experiment
from cm2.experiments.folder import facts, is_whole
from cm2.experiments.predictions import Predictions
from cm2.experiments.sweep import Job

__all__ = ["OWN", "Cell", "Run", "cells", "differing", "find", "flat", "tables", "write_labels"]

OWN = "cm2"
"""The kind of model whose rivals all other kinds are."""

RIVAL_HEADS = ("linear", "boosting")
"""Heads that are rivals too: on all features, without a joint law or a network."""

LABELS = "sweep.json"
ASIDE = ("name", "seed", "data.root", "data.missing_rate", "data.seed")
"""Keys that do not tell methods apart, nor do those of the machine."""
MACHINE = ("devices", "workers", "compiled", "progress", "accelerator", "validation_batch_size")


class Run(NamedTuple):
    """A finished run.

    Attributes:
        folder: Where it is.
        label: Of its method: what a sweep calls it, or what tells it apart from the others.
        experiment: What was run.
        facts: What ``environment.json`` says.
        predictions: For the test rows.
    """

    folder: Path
    label: str
    experiment: Experiment
    facts: Mapping[str, Any]
    predictions: Predictions

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names, in the order of the columns of ``present``."""
        return tuple(self.facts["data"]["shape"])

    @property
    def is_own(self) -> bool:
        """Whether it is of CM², and no rival: heads on all features hold nothing of it."""
        named = self.experiment
        return named.model["kind"] == OWN and named.head["kind"] not in RIVAL_HEADS

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of labels that may hold together; empty where a sample is of one class."""
        return tuple(self.facts["data"].get("labels", ()))

    @property
    def rate(self) -> float:
        """Share of the modalities that was removed."""
        return float(self.experiment.data["missing_rate"])


class Cell(NamedTuple):
    """What may stand in one table: one experiment, on the same test rows.

    Attributes:
        title: The experiment's name, and the share of modalities removed if there is one.
        study: Tells the test rows apart; the same for all rates.
        rate: Share of modalities removed.
        runs: In the order of their methods, then seeds.
    """

    title: str
    study: str
    rate: float
    runs: list[Run]

    @property
    def patient(self) -> Int[ndarray, " n"] | None:
        """The number of each test row's patient; None if no run has kept it."""
        known = [run.predictions.patient for run in self.runs]
        return next((one for one in known if one is not None), None)


def find(folders: Sequence[Path]) -> tuple[list[Run], list[Path]]:
    """Reads all finished runs in folders and below.

    Args:
        folders: Of runs, sweeps or anything above them.

    Returns:
        The runs, and the folders of those that are not finished.

    Raises:
        InputError: If a folder holds no finished run, or two runs cannot be told apart.
    """
    runs: list[Run] = []
    unfinished: list[Path] = []
    seen: set[Path] = set()
    for folder in folders:
        done = 0
        for path in _runs(folder):
            files = (path / "test.npz", path / "environment.json")
            if not all(one.is_file() for one in files) or not is_whole(path):
                unfinished.append(path)
                continue
            done += 1
            if path.resolve() not in seen:
                seen.add(path.resolve())
                runs.append(_read(path))
        if not done:
            raise InputError(f"{folder}: no finished run of cm2 train here or below")
    return _labelled(_told_apart(runs)), unfinished


def cells(runs: Sequence[Run]) -> list[Cell]:
    """Sorts runs into those that may be compared with each other, lowest rates first.

    Raises:
        InputError: If two runs of a cell have one label and one seed.
    """
    groups: dict[tuple[str, float, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.experiment.name, run.rate, _study(run)), []).append(run)
    studies: dict[str, list[str]] = {}
    for name, _, study in groups:
        if study not in studies.setdefault(name, []):
            studies[name].append(study)
    found = []
    order = list(studies)
    for (name, rate, study), members in sorted(
        groups.items(),
        key=lambda item: (
            order.index(item[0][0]),
            studies[item[0][0]].index(item[0][2]),
            item[0][1],
        ),
    ):
        places: dict[tuple[str, int], Path] = {}
        for run in members:
            key = (run.label, run.experiment.seed)
            if key in places:
                raise InputError(
                    f"{places[key]} and {run.folder} are the same method and seed; give one"
                )
            places[key] = run.folder
        title = name if len(studies[name]) == 1 else f"{name} (data {study[:8]})"
        if rate > 0:
            title += f", {100 * rate:g}% removed"
        labels = list(dict.fromkeys(run.label for run in members))
        members = sorted(members, key=lambda r: (labels.index(r.label), r.experiment.seed))
        found.append(Cell(title, study, rate, members))
    return found


def tables(found: Sequence[Cell], *, replicates: int = 1000) -> pd.DataFrame:
    """Measures all methods of all cells.

    Args:
        found: What :func:`cells` returned.
        replicates: Bootstrap samples of the test patients, the same for all methods of a study.

    Returns:
        As of :func:`~cm2.evaluation.summary.summarise`, after a column ``experiment``; where
        several labels may hold together, ``label`` names the one that a row is about, and is empty
        where it is about all. Methods of the kind ``cm2`` and rivals alike are compared with the
        best rival; where there is none, with the best of the others. No row of no cell.
    """
    parts = []
    for cell in found:
        target = cell.runs[0].predictions.target
        patient = bootstrap.numbered(cell.patient, len(target))
        counts = bootstrap.draws(int(patient.max()) + 1, replicates)
        scored = [
            summary.score(
                run.label,
                run.experiment.seed,
                cell.rate,
                target,
                run.predictions.probability,
                counts,
                patient,
            )
            for run in cell.runs
        ]
        others = {run.label for run in cell.runs if not run.is_own}
        table = summary.summarise(scored, others or {run.label for run in cell.runs})
        table[["metric", "label"]] = [_parted(m, cell.runs[0].labels) for m in table["metric"]]
        parts.append(table.drop(columns="seconds").assign(experiment=cell.title))
    first = ["experiment", "method", "rate", "metric", "label"]
    if not parts:
        return pd.DataFrame(columns=[*first, "value", "sd", "low", "high"])
    table = pd.concat(parts, ignore_index=True)
    return table[[*first, *table.columns.drop(first)]]


def _parted(metric: str, labels: Sequence[str]) -> tuple[str, str]:
    """A metric, and the label that it is of, from its name with the label's column at its end."""
    name, column = metrics.of_label(metric)
    return name, "" if column is None else labels[column]


def write_labels(out: Path, jobs: Sequence[Job]) -> None:
    """Keeps the labels of a sweep's variants beside its folders, for tables made later."""
    labels = {job.folder.parent.name: job.variant for job in jobs}
    path = Path(out) / LABELS
    if path.exists():
        labels = json.loads(path.read_text(encoding="utf-8")) | labels
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, to_json(labels, ensure_ascii=False))


def flat(experiment: Experiment) -> dict[str, Any]:
    """An experiment as one level of dotted keys."""

    def walk(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping) and value:
            for key, below in value.items():
                yield from walk(below, f"{prefix}.{key}" if prefix else str(key))
        else:
            yield prefix, value

    return dict(walk(asdict(experiment), ""))


def differing(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    """For each experiment the values of the keys in which any two of them differ as methods."""
    trees = [
        {
            key: value
            for key, value in flat(experiment).items()
            if key not in ASIDE and key.removeprefix("training.") not in MACHINE
        }
        for experiment in experiments
    ]
    keys = dict.fromkeys(key for tree in trees for key in tree)
    varied = [key for key in keys if len({repr(tree.get(key)) for tree in trees}) > 1]
    return [{key: tree[key] for key in varied if key in tree} for tree in trees]


def _runs(folder: Path) -> list[Path]:
    """Folders of runs, finished or not: in the order of a sweep's variants, then by name."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths = [path.parent for path in folder.rglob("config.yaml")]

    def place(path: Path) -> tuple[str, int, str, int]:
        sweep = _sweep(path)
        order = list(_labels(sweep)) if sweep else []
        name = path.parent.name
        number = path.name.rpartition("_")[2]
        return (
            str(sweep or path.parent),
            order.index(name) if name in order else len(order),
            str(path.parent) if number.isdigit() else str(path),
            int(number) if number.isdigit() else 0,
        )

    return sorted(paths, key=place)


def _sweep(run: Path) -> Path | None:
    """The sweep that a run belongs to."""
    above = run.resolve().parent.parent
    return above if (above / LABELS).is_file() else None


def _labels(sweep: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((sweep / LABELS).read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{sweep / LABELS}: not a JSON file") from None
    return found


def _read(folder: Path) -> Run:
    experiment = config.load(folder / "config.yaml")
    sweep, label = _sweep(folder), ""
    if sweep is not None:
        label = _labels(sweep).get(folder.resolve().parent.name, "")
        # The rate stands in the title of a table; methods keep their name over rates.
        label = re.sub(r"\bmissing_rate=\S+", "", label).strip()
    return Run(folder, label, experiment, facts(folder), Predictions.load(folder / "test.npz"))


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """Puts the sweep before the label where several sweeps have runs of one experiment."""
    sweeps: dict[str, set[Path]] = {}
    for run in runs:
        if sweep := _sweep(run.folder):
            sweeps.setdefault(run.experiment.name, set()).add(sweep)
    named = []
    for run in runs:
        sweep = _sweep(run.folder)
        if sweep and run.label and len(sweeps[run.experiment.name]) > 1:
            run = run._replace(label=f"{sweep.name}: {run.label}")
        named.append(run)
    return named


def _labelled(runs: Sequence[Run]) -> list[Run]:
    """Names runs that no sweep has named by their model and what tells them apart."""
    groups: dict[tuple[str, str], list[int]] = {}
    for place, run in enumerate(runs):
        if not run.label:
            kind = run.experiment.method
            groups.setdefault((run.experiment.name, kind), []).append(place)
    named = list(runs)
    for (_, kind), places in groups.items():
        found = differing([runs[place].experiment for place in places])
        for place, values in zip(places, found, strict=True):
            parts = [f"{key.rpartition('.')[2]}={value}" for key, value in values.items()]
            named[place] = runs[place]._replace(label=" ".join([kind, *parts]))
    return named


def _study(run: Run) -> str:
    """A digest of the data and of the test rows' targets, in their order."""
    digest = hashlib.sha256(str(run.facts["data"]["checksum"]).encode())
    digest.update(str(run.experiment.data["setting"]).encode())
    digest.update(np.ascontiguousarray(run.predictions.target, dtype=np.int64).tobytes())
    return digest.hexdigest()
