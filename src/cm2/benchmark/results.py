"""From predictions to numbers: measures by cell, and whether CM² loses one.

A cell is a data set under a pattern. The rival of a cell is the best of it on its test rows, which
favours the rivals; differences are paired by patient, over the same seeds, and p-values are
corrected for the number of cells by Holm (1979), A simple sequentially rejective multiple test
procedure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

from cm2.benchmark import folder
from cm2.benchmark.folder import Job, Kept
from cm2.benchmark.methods import POOLED
from cm2.benchmark.patterns import Pattern
from cm2.benchmark.run import Settings
from cm2.benchmark.studies import Study
from cm2.core.errors import InputError
from cm2.evaluation import bootstrap, calibrated, summary

COMPARED = ("AUROC", "log loss")
"""Measures by which cells are won and lost."""

SLOPE = "calibration slope"
LEVEL = 0.05
REPLICATES = 10_000
"""Bootstrap draws of patients: enough for 250 cells, see :func:`check_replicates`."""


class Cell(NamedTuple):
    """A data set under a pattern, with the fits that were made in it."""

    study: str
    pattern: Pattern
    fits: dict[str, dict[int, Kept]]


def cells(out: Path, jobs: Sequence[Job]) -> list[Cell]:
    """Every cell, with what the folder holds of it by method and seed."""
    found: dict[tuple[str, Pattern], Cell] = {}
    for job in jobs:
        kept = folder.load(out, job)
        for pattern in job.patterns:
            cell = found.setdefault((job.study, pattern), Cell(job.study, pattern, {}))
            if kept is not None:
                cell.fits.setdefault(job.method, {})[job.seed] = kept
    return list(found.values())


class Measured(NamedTuple):
    """All numbers of a benchmark.

    Attributes:
        table: A row a data set, pattern, method and measure; see :func:`.summary.summarise`.
        single: A row a data set, method, pattern, seed and measure, without intervals; of a fit
            that has no predictions one, with its fault.
    """

    table: pd.DataFrame
    single: pd.DataFrame


def check_replicates(replicates: int, settings: Settings) -> None:
    """Refuses so few draws that no cell could be won or lost, whatever was predicted.

    The least p-value of a bootstrap is two in its draws and one more, and the correction
    multiplies it by the number of cells.

    Raises:
        InputError: If there are as few.
    """
    number = len(settings.studies) * len(settings.patterns)
    least = round(2 * number / LEVEL)
    if replicates < least:
        raise InputError(
            f"{replicates} draws cannot tell a difference from chance at the level {LEVEL:g} after "
            f"correction for {number} cells; --replicates should be at least {least}"
        )


def measured(found: Sequence[Cell], settings: Settings, replicates: int = REPLICATES) -> Measured:
    """Measures all cells.

    Args:
        found: What :func:`cells` returned.
        settings: Of the benchmark.
        replicates: Bootstrap draws of patients.

    Returns:
        The numbers. A cell of which no fit has predictions is not in the table, which is empty
        where that is so of all.
    """
    rivals = [name for name, method in settings.methods.items() if not method.ours]
    parts = joblib.Parallel(n_jobs=settings.processes)(
        joblib.delayed(_measured)(cell, rivals, settings.studies[cell.study], replicates)
        for cell in found
    )
    tables = [table for table, _ in parts if len(table)] or [pd.DataFrame()]
    singles = [single for _, single in parts]
    return Measured(pd.concat(tables, ignore_index=True), pd.concat(singles, ignore_index=True))


def _measured(cell: Cell, rivals: Sequence[str], study: Study, replicates: int) -> Measured:
    single, ended = [], []
    for method, seeds in cell.fits.items():
        for seed, kept in seeds.items():
            if kept.fault:
                fault = {"metric": "", "value": np.nan, "fault": kept.fault}
                single.append(_about(cell, method, seed) | fault)
            else:
                ended.append((method, seed, kept))
    if not ended:
        return Measured(pd.DataFrame(), pd.DataFrame(single))
    rows = np.unique(np.concatenate([kept.rows for _, _, kept in ended]))
    # Patients are numbered among those who are tested in this cell.
    number = np.full(int(study.groups.max()) + 1, -1)
    number[study.groups[rows]] = bootstrap.numbered(study.groups[rows], len(rows))
    counts = bootstrap.draws(int(number.max()) + 1, replicates)
    patients = number[study.groups]
    scored = []
    for method, seed, kept in ended:
        one = _scored(method, seed, kept, cell.pattern, study.y, counts, patients)
        scored.append(one)
        single += [
            _about(cell, method, seed)
            | {"metric": metric, "value": float(value[0]), "seconds": kept.fit}
            for metric, value in one.scores.items()
        ]
    table = summary.summarise(scored, rivals, test_to_train=study.test_to_train)
    table.insert(0, "pattern", cell.pattern.name)
    table.insert(0, "data", cell.study)
    return Measured(table, pd.DataFrame(single))


def _about(cell: Cell, method: str, seed: int) -> dict[str, Any]:
    """Whose a row of the long table is."""
    return {
        "data": cell.study,
        "method": method,
        "pattern": cell.pattern.name,
        "rate": cell.pattern.rate,
        "seed": seed,
    }


def _scored(
    method: str,
    seed: int,
    kept: Kept,
    pattern: Pattern,
    y: ndarray,
    counts: ndarray,
    patients: ndarray,
) -> summary.Cell:
    """All measures of one fit in one cell, and the slope where there are two classes."""
    probability, truth = kept.probability[pattern], y[kept.rows]
    groups = patients[kept.rows]
    scored = summary.score(
        method, seed, pattern.rate, truth, probability, counts, groups, kept.fit + kept.predict
    )
    if probability.shape[1] > 2:
        return scored
    # Without replicates, which would take as long as all else; the table gives no interval of it.
    value = calibrated.slope(truth == 1, probability[:, 1])
    return scored._replace(
        scores={**scored.scores, SLOPE: value}, rarest={**scored.rarest, SLOPE: 10**9}
    )


def holm(p: Float[ndarray, " cell"]) -> Float[ndarray, " cell"]:
    """P-values corrected for their number, step by step; NaN stays.

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    out = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known])]
    scaled = p[order] * (len(order) - np.arange(len(order)))
    out[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return out


def verdicts(table: pd.DataFrame, method: str = POOLED) -> pd.DataFrame:
    """Whether a method is better or worse than the best rival of each cell.

    Args:
        table: The table of :func:`measured`.
        method: Which.

    Returns:
        A row a cell and measure of ``COMPARED``: value, rival, difference with its interval (more
        is better for all), ``p`` by patients, ``p_holm``, and ``verdict``: better, worse or "".
    """
    rows = table[(table["method"] == method) & table["metric"].isin(COMPARED)]
    rows = rows.reset_index(drop=True)
    sign = rows["metric"].map(summary.sign).astype(float)
    low, high = rows["difference_low"] * sign, rows["difference_high"] * sign
    rows["low"], rows["high"] = np.minimum(low, high), np.maximum(low, high)
    rows["difference"] *= sign
    rows["p"] = rows["p_patients"]
    rows["p_holm"] = np.nan
    for _, group in rows.groupby("metric"):
        rows.loc[group.index, "p_holm"] = holm(group["p"].to_numpy())
    clear = rows["p_holm"] < LEVEL
    rows["verdict"] = np.where(~clear, "", np.where(rows["difference"] > 0, "better", "worse"))
    columns = ["data", "pattern", "rate", "metric", "value", "rival", "difference", "low", "high"]
    return rows[[*columns, "p", "p_holm", "verdict"]]


def counted(found: pd.DataFrame, metric: str) -> str:
    """A sentence on how many cells are won and lost by a measure.

    Args:
        found: What :func:`verdicts` returned.
        metric: The measure.
    """
    own = found[found["metric"] == metric]
    hard = own[own["rate"] >= 0.3]
    return (
        f"{metric}: of {len(own)} cells CM² is worse than the best rival of the cell in "
        f"{(own['verdict'] == 'worse').sum()} and better in "
        f"{(own['verdict'] == 'better').sum()} at the level .05 after Holm's correction; of "
        f"the {len(hard)} with at least 30% removed, in {(hard['verdict'] == 'worse').sum()} "
        f"and {(hard['verdict'] == 'better').sum()}."
    )


class Ranks(NamedTuple):
    """Mean ranks of methods over cells, and by how much two must differ.

    Attributes:
        mean: Of each method, the best first.
        critical: The critical difference at .05 (Nemenyi; Demšar 2006, Statistical comparisons of
            classifiers over multiple data sets).
        cells: Number of cells in which all of them have a value for every seed.
    """

    mean: pd.Series
    critical: float
    cells: int


def ranks(table: pd.DataFrame, metric: str) -> Ranks:
    """Ranks methods in each cell by a measure.

    Data sets under several patterns are no independent cells, so that the critical difference is
    too small, and the figure a picture rather than a test.
    """
    rows = table[table["metric"] == metric]
    most = rows.groupby(["data", "pattern"])["splits"].transform("max")
    rows = rows[rows["splits"] == most]  # a method that ended in the easy ones is no better
    wide = rows.pivot_table(index=["data", "pattern"], columns="method", values="value").dropna()
    ranked = wide.rank(axis=1, ascending=metric in summary.LOWER)
    count, number = len(ranked), len(ranked.columns)
    q = float(stats.studentized_range.ppf(1 - LEVEL, number, np.inf)) / np.sqrt(2)
    critical = q * np.sqrt(number * (number + 1) / (6 * max(count, 1)))
    return Ranks(ranked.mean().sort_values(), float(critical), count)


def by_pattern(table: pd.DataFrame, metric: str, study: str) -> pd.DataFrame:
    """Methods by patterns for one data set."""
    rows = table[(table["metric"] == metric) & (table["data"] == study)]
    wide = rows.pivot_table(
        index="method", columns="pattern", values="value", sort=False, aggfunc="first"
    )
    return wide.reset_index()


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """Mean seconds of a fit and its predictions, methods by data sets."""
    rows = table[table["metric"] == COMPARED[0]]
    wide = rows.pivot_table(index="method", columns="data", values="seconds", sort=False)
    return wide.round(1).reset_index()


def faults(found: Sequence[Cell]) -> dict[str, str]:
    """Fits without predictions, and why."""
    return {
        f"{cell.study}, {method}, seed {seed}, {cell.pattern.at('train').learned}": kept.fault
        for cell in found
        for method, seeds in cell.fits.items()
        for seed, kept in seeds.items()
        if kept.fault
    }
