"""The page of a benchmark: where CM² loses comes first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cm2.benchmark import results
from cm2.benchmark.folder import Job
from cm2.benchmark.methods import ALIKE, POOLED
from cm2.benchmark.results import COMPARED, REPLICATES, SLOPE, Cell
from cm2.benchmark.run import Settings
from cm2.core.files import write_text
from cm2.evaluation import bootstrap, calibrated, report
from cm2.evaluation.figures import comparison, ranks, style

SHOWN = ("AUROC", "AUPR", "log loss", "Brier", SLOPE)
OF_SLOPES = 200
"""Bootstrap draws behind the intervals of slopes, each of which is a regression."""
SMALLEST = 10
"""Patients of a stratum that is shown."""


def write(out: Path, settings: Settings, jobs: Sequence[Job], replicates: int = REPLICATES) -> Path:
    """Writes tables, figures and the page; returns the path of the page.

    Args:
        out: The folder, with all predictions.
        settings: Of the benchmark.
        jobs: Its fits.
        replicates: Bootstrap draws of patients.

    Raises:
        InputError: If there are too few draws to tell anything.
    """
    results.check_replicates(replicates, settings)
    cells = results.cells(out, jobs)
    table, single = results.measured(cells, settings, replicates)
    write_text(out / "table.csv", single.to_csv(index=False, float_format="%.6g"))
    write_text(out / "summary.csv", table.to_csv(index=False, float_format="%.6g"))
    sections = [_how(table, settings, cells)]
    if len(table):
        sections = [
            *_verdicts(table),
            *_ranked(out, table),
            *(_study(out, table, name, settings) for name in settings.studies),
            *_reliable(settings, cells),
            *sections,
        ]
    every = [one for section in sections for one in section.tables]
    report.write_tables(out / "tables", every)
    lead = (
        f"{len(settings.methods)} methods on {len(settings.studies)} data sets, "
        f"{settings.seeds} seeds. All methods see the same rows with the same modalities removed, "
        "and no patient is on both sides of a split."
    )
    return report.write(out / "report.html", "CM² and its rivals", lead, sections)


def _verdicts(table: pd.DataFrame) -> list[report.Section]:
    """Cells that CM² loses, then all of them."""
    if POOLED not in set(table["method"]) or (table["rival"] == "").all():
        return []
    found = results.verdicts(table)
    lost = found[found["verdict"] == "worse"]
    lines = [results.counted(found, metric) for metric in COMPARED]
    text = [*lines, "The rival is picked on the test rows of each cell, which favours the rivals."]
    tables = [report.Table("All cells", _rounded(found))]
    if len(lost):
        tables.insert(0, report.Table("Cells that CM² loses", _rounded(lost)))
    return [report.Section("Where CM² loses and wins", text, tables)]


def _ranked(out: Path, table: pd.DataFrame) -> list[report.Section]:
    pictures = []
    for metric in COMPARED:
        ranked = results.ranks(table, metric)
        if ranked.cells and len(ranked.mean) > 1:
            figure = ranks.ranks(dict(ranked.mean), ranked.critical)
            style.save(figure, out / "figures", f"ranks-{metric.replace(' ', '-')}")
            caption = (
                f"{metric}: mean ranks over {ranked.cells} cells. Cells of one data set are not "
                "independent, so that the bars are too short."
            )
            pictures.append(report.Picture(caption, figure))
    return [report.Section("Ranks", pictures=pictures)] if pictures else []


def _study(out: Path, table: pd.DataFrame, name: str, settings: Settings) -> report.Section:
    study = settings.studies[name]
    rows = table[table["data"] == name]
    if rows.empty:
        return report.Section(name, [f"{study.title}: none of the fits has predictions."])
    size = rows.iloc[0]
    prevalence = np.bincount(study.y).max() / len(study.y)
    text = [
        f"{study.title}: {study.source}. {size['rows']} test rows a seed; the most frequent of "
        f"{len(study.labels)} classes has {prevalence:.1%}."
    ]
    known = [metric for metric in SHOWN if metric in set(rows["metric"])]
    tables = [
        report.Table(f"{name}: {metric}", results.by_pattern(table, metric, name))
        for metric in known
    ]
    random = rows[rows["pattern"].str.contains("test only|as observed")]
    random = random[~random["pattern"].str.contains("whole|MAR|MNAR")]
    pictures = []
    if random["rate"].nunique() > 1:
        figure = comparison.comparison(random, COMPARED)
        style.save(figure, out / "figures", name)
        pictures.append(report.Picture("Removed at random from test rows only.", figure))
    return report.Section(name, text, tables, pictures)


def _reliable(settings: Settings, cells: Sequence[Cell]) -> list[report.Section]:
    """Calibration slopes of CM² by the number of modalities that a row lacks."""
    tables = []
    for cell in cells:
        study = settings.studies[cell.study]
        kept = [one for one in cell.fits.get(POOLED, {}).values() if not one.fault]
        if len(study.labels) != 2 or not kept:
            continue
        rows = np.concatenate([one.rows for one in kept])
        said = np.concatenate([one.probability[cell.pattern][:, 1] for one in kept])
        missing = np.concatenate([one.missing[cell.pattern] for one in kept])
        groups = bootstrap.numbered(study.groups[rows], len(rows))
        counts = bootstrap.draws(int(groups.max()) + 1, OF_SLOPES)
        found = calibrated.by_missing(study.y[rows] == 1, said, missing, counts, groups)
        large = [one for one in found if one.patients >= SMALLEST]
        caption = f"{cell.study}, {cell.pattern.name}: slope by modalities missing"
        if large:
            tables.append(report.Table(caption, pd.DataFrame(large)))
    text = [
        "By what CM²'s log odds have to be multiplied to be right, with 95% intervals over "
        "patients; rows are those of all seeds together. Strata of fewer than "
        f"{SMALLEST} patients are left out."
    ]
    return [report.Section("Calibration by what is missing", text, tables)] if tables else []


def _how(table: pd.DataFrame, settings: Settings, cells: Sequence[Cell]) -> report.Section:
    about = {name: method.about for name, method in settings.methods.items()}
    tables = [report.Table("Methods", report.pairs(about, ("method", "what")))]
    if len(table):
        costs = results.costs(table)
        tables.append(report.Table("Seconds of a fit and its predictions, one thread", costs))
    versions = report.pairs(report.versions(), ("package", "version"))
    tables.append(report.Table("Versions", versions))
    faults = results.faults(cells)
    if faults:
        tables.append(report.Table("Without predictions", report.pairs(faults, ("fit", "why"))))
    limit = "none" if settings.limit is None else f"{settings.limit:g} s a fit"
    text = [f"Time limit: {limit}. Passes of a network: at most {settings.epochs}.", ALIKE]
    return report.Section("How it was run", text, tables)


def _rounded(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="rate").round(4)
