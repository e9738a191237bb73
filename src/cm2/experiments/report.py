"""The report of finished runs: tables, figures, cohort, configuration and versions on one page."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cm2.core.files import write_text
from cm2.core.layout import MANIFEST
from cm2.evaluation import report
from cm2.evaluation.report import Picture, Section, Table
from cm2.experiments import figures as drawings
from cm2.experiments import results, significance
from cm2.experiments.results import Cell, Run

__all__ = ["METHOD", "bind", "differences", "labels", "main", "measures", "notes", "write"]

PLACES = ("root", "fitted_on", "tokenizer", "weights")
"""Options that may be a place on a machine; the report names the last part of it only."""
METHOD = [
    "A value is the mean over seeds, ± its standard deviation over seeds, with the 95% interval of "
    "a bootstrap over test patients, who are drawn with all their rows and alike for all methods. "
    "Draws that lack an outcome say nothing of AUROC, and of AUPR without a positive one, and are "
    "left out of their intervals.",
    "Each method is compared with the best rival in the mean of the same measure, chosen on the "
    "test rows, which favours the rivals. Rivals are all methods of a kind other than cm2, and the "
    "heads linear and boosting; without one, all other methods. p (patients) is from the "
    "bootstrap: would other patients change the sign? p (seeds) is from a paired t-test over "
    "seeds: would another start of training? Neither is corrected for the number of comparisons.",
]


def measures(table: pd.DataFrame, cell: Cell) -> Table:
    """Methods by measures: mean, deviation over seeds and interval.

    Args:
        table: What :func:`~cm2.experiments.results.tables` returned.
        cell: Which experiment.
    """
    rows: dict[str, dict[str, Any]] = {}
    for row in _rows(table, cell):
        shown = rows.setdefault(row["method"], {"method": row["method"], "seeds": row["splits"]})
        shown[row["metric"]] = _with_interval(row)
    first = _rows(table, cell)[0]
    whose = f" of {first['patients']} patients" if cell.patient is not None else ""
    caption = (
        f"{cell.title}: measures on {first['rows']} test rows{whose}, {first['positives']} positive"
    )
    if several := len(cell.runs[0].labels):
        caption += f"; means over {several} labels, and all labels together (micro)"
    return Table(caption, pd.DataFrame(list(rows.values())), _own(cell))


def labels(table: pd.DataFrame, cell: Cell) -> Table:
    """Each label by itself: how many rows have it, and AUROC and AUPR of each method.

    Args:
        table: What :func:`~cm2.experiments.results.tables` returned.
        cell: Which experiment.
    """
    names = cell.runs[0].labels
    positive = (cell.runs[0].predictions.target > 0).sum(axis=0) if names else ()
    number = dict(zip(names, positive, strict=True))
    chosen = table[(table["experiment"] == cell.title) & (table["label"] != "")]
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in chosen.to_dict("records"):
        name, method = row["label"], row["method"]
        first = {"label": name.replace("_", " "), "positive": int(number[name]), "method": method}
        rows.setdefault((name, method), first)[row["metric"]] = _with_interval(row)
    order = sorted(rows, key=lambda key: names.index(key[0]))
    frame = pd.DataFrame([rows[key] for key in order])
    return Table(f"{cell.title}: each label on the test rows", frame)


def notes(cells: Sequence[Cell], table: pd.DataFrame) -> list[str]:
    """A sentence on each thing that makes intervals less sure than they say.

    Args:
        cells: All experiments.
        table: What :func:`~cm2.experiments.results.tables` returned.
    """
    made = [
        f"{cell.title}: the runs are from before patients were numbered, so that rows are drawn; "
        "where a patient has several, intervals are too narrow."
        for cell in cells
        if cell.patient is None
    ]
    for cell in cells:
        made += [f"{cell.title}, {note}." for note in report.noted(_rows(table, cell), "metric")]
    return made


def _with_interval(row: Mapping[Any, Any]) -> str:
    spread = "" if pd.isna(row["sd"]) else f" ± {row['sd']:.3f}"
    return f"{row['value']:.3f}{spread} [{row['low']:.3f}, {row['high']:.3f}]"


def differences(table: pd.DataFrame, cell: Cell) -> Table:
    """Differences to the best rival, with intervals and p-values.

    Args:
        table: What :func:`~cm2.experiments.results.tables` returned.
        cell: Which experiment.
    """
    rows = [
        {
            "method": row["method"],
            "measure": row["metric"],
            "best rival": row["rival"],
            "difference": f"{row['difference']:+.3f}",
            "95% interval": f"{row['difference_low']:+.3f} to {row['difference_high']:+.3f}",
            "p (patients)": _p(row["p_patients"]),
            "p (seeds)": _p(row["p_runs"]),
        }
        for row in _rows(table, cell)
        if row["rival"]
    ]
    return Table(f"{cell.title}: difference to the best rival", pd.DataFrame(rows), _own(cell))


def main(cells: Sequence[Cell], table: pd.DataFrame) -> list[Table]:
    """The tables of results of all experiments, in order."""
    made = []
    for cell in cells:
        made += [measures(table, cell), labels(table, cell), differences(table, cell)]
    return [one for one in made if len(one.frame)]


def write(
    path: Path, runs: Sequence[Run], *, unfinished: int = 0, replicates: int = 1000
) -> dict[str, str]:
    """Writes the page, and beside it a folder with each table as CSV and LaTeX.

    Args:
        path: The HTML file; the folder takes its name with ``-tables`` added.
        runs: Finished runs.
        unfinished: Number of runs that were found but are not finished.
        replicates: Bootstrap samples.

    Returns:
        The figures that the runs do not give, with the reason.
    """
    cells = results.cells(runs)
    table = results.tables(cells, replicates=replicates)
    figures, left_out = drawings.draw(cells, table)
    pictures = [Picture(one.caption, one.figure) for one in figures]
    shown = main(cells, table)
    tests = [significance.table(cell, replicates=replicates) for cell in cells]
    tested = [one for one in tests if one is not None]
    remarks = [f"{unfinished} unfinished runs are left out."] if unfinished else []
    remarks += notes(cells, table)
    sections = [
        Section("Results", [*METHOD, *remarks], shown),
        *([Section("Significance", significance.TEXT, tested)] if tested else []),
        Section(
            "Figures",
            [f"Not drawn: {name}, {reason}." for name, reason in left_out.items()],
            pictures=pictures,
        ),
    ]
    experiments = len({cell.title for cell in cells})
    lead = f"{len(runs)} runs of {experiments} experiment{'' if experiments == 1 else 's'}."
    bind(path, "Experiments", lead, sections, cells, table)
    return left_out


def bind(
    path: Path,
    title: str,
    lead: str,
    sections: Sequence[Section],
    cells: Sequence[Cell],
    table: pd.DataFrame,
) -> None:
    """Writes a page that ends with how runs came about, and beside it a folder of its tables.

    Args:
        path: The HTML file; the folder takes its name with ``-tables`` added.
        title: Its heading.
        lead: A sentence on what was done; made-up data are said after it.
        sections: What it shows first.
        cells: All experiments.
        table: What :func:`~cm2.experiments.results.tables` returned.
    """
    runs = [run for cell in cells for run in cell.runs]
    behind = [
        Section(
            "Cohort",
            _without_manifest(cells),
            [part for cell in _studies(cells) for part in _cohort(cell)],
        ),
        Section(
            "Configuration",
            ["Values in which the methods of an experiment differ stand below the common ones."],
            [_settings(cell) for cell in cells],
        ),
    ]
    last = Section("Versions", ["As they were when the runs were made."], [_versions(runs)])
    folder = path.with_name(f"{path.stem}-tables")
    path.parent.mkdir(parents=True, exist_ok=True)
    pages = [*sections, *behind]
    report.write_tables(folder, [one for section in pages for one in section.tables])
    write_text(folder / "results.csv", table.to_csv(index=False))
    if any(_manifest(cell).get("synthetic") for cell in cells):
        lead += " Some or all of the data are made up: these are not results on patients."
    report.write(path, title, lead, [*pages, last])


def _rows(table: pd.DataFrame, cell: Cell) -> list[dict[str, Any]]:
    chosen = table[(table["experiment"] == cell.title) & (table["label"] == "")]
    return [{str(key): value for key, value in row.items()} for row in chosen.to_dict("records")]


def _own(cell: Cell) -> list[str]:
    """Methods to emphasise: those of CM2 where there are others."""
    own = {run.label for run in cell.runs if run.is_own}
    return sorted(own) if len(own) < len({run.label for run in cell.runs}) else []


def _p(value: float) -> str:
    if pd.isna(value):
        return ""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _studies(cells: Sequence[Cell]) -> list[Cell]:
    """One experiment for each prepared folder."""
    return list({cell.runs[0].facts["data"]["checksum"]: cell for cell in cells}.values())


def _manifest(cell: Cell) -> dict[str, Any]:
    """What the prepared folder says, if it is there and the one that the runs have read."""
    run = cell.runs[0]
    try:
        text = (Path(run.experiment.data["root"]) / MANIFEST).read_bytes()
    except OSError:
        return {}
    if hashlib.sha256(text).hexdigest() != run.facts["data"]["checksum"]:
        return {}
    found: dict[str, Any] = json.loads(text)
    return found


def _without_manifest(cells: Sequence[Cell]) -> list[str]:
    return [
        f"{cell.title}: the folder of the configuration does not hold the data of the runs."
        for cell in _studies(cells)
        if not _manifest(cell)
    ]


def _cohort(cell: Cell) -> list[Table]:
    """How the cohort came about, and what each split holds, from the manifest."""
    manifest = _manifest(cell)
    name = str(manifest.get("source", "")) or cell.title
    made = []
    if manifest.get("flow"):
        flow = pd.DataFrame(manifest["flow"], columns=["step", "stays"])
        made.append(Table(f"{name} {manifest.get('task', '')}: cohort".strip(), flow))
    if counts := manifest.get("counts", {}).get("stays"):
        frame = pd.DataFrame(counts).T.rename_axis("split").reset_index()
        made.append(Table(f"{name} {manifest.get('task', '')}: splits", frame))
    if has := {k: v["stays"] for k, v in manifest.get("modalities", {}).items() if "stays" in v}:
        frame = report.pairs(has, ("modality", "stays"))
        made.append(Table(f"{name} {manifest.get('task', '')}: modalities", frame))
    return made


def _settings(cell: Cell) -> Table:
    """The options of the experiment, then for each method those that are its own."""
    experiments = [run.experiment for run in cell.runs]
    varied = results.differing(experiments)
    keys = {key for values in varied for key in values}
    rows = [
        {"method": "all", "option": key, "value": _shown(key, value)}
        for key, value in results.flat(experiments[0]).items()
        if key not in keys and key not in ("name", "seed")
    ]
    seen = set()
    for run, values in zip(cell.runs, varied, strict=True):
        if run.label not in seen:
            seen.add(run.label)
            rows += [
                {"method": run.label, "option": key, "value": _shown(key, value)}
                for key, value in values.items()
            ]
    seeds = sorted({run.experiment.seed for run in cell.runs})
    rows.append({"method": "all", "option": "seed", "value": ", ".join(map(str, seeds))})
    return Table(f"{cell.title}: configuration", pd.DataFrame(rows))


def _shown(key: str, value: Any) -> str:
    if key.rpartition(".")[2] in PLACES and value is not None:
        return re.split(r"[/\\]", str(value).rstrip("/\\"))[-1]
    return str(value)


def _versions(runs: Sequence[Run]) -> Table:
    """Versions of packages and devices, all that occur."""
    found: dict[str, set[str]] = {}
    for run in runs:
        facts = run.facts
        for name, value in {"python": facts["python"], **facts["packages"]}.items():
            found.setdefault(name, set()).add(str(value))
        found.setdefault("device", set()).add(str(facts["device"]))
    listed = {name: ", ".join(sorted(values)) for name, values in found.items()}
    return Table("", report.pairs(listed, ("package", "version")))
