"""A search over many points: some of a grid, of which the best on validation data is tested alone.

The test split tells of one point only, so that it cannot flatter the best of many.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cm2.core.errors import InputError
from cm2.core.files import write_text
from cm2.evaluation import metrics
from cm2.experiments import folder, run
from cm2.experiments.sweep import Job

__all__ = ["SPLIT", "best", "measured", "parse", "some", "test"]

SPLIT = "validation"
"""The split by which a point is chosen."""


def parse(select: str) -> str:
    """Returns the measure of ``"validation:auroc"``.

    Raises:
        InputError: If it names another split, or an unknown measure.
    """
    split, _, measure = select.partition(":")
    if split != SPLIT or measure not in metrics.MEASURES:
        raise InputError(
            f"a point is selected by {SPLIT}: and one of {', '.join(metrics.MEASURES)}, such as "
            f"{SPLIT}:auroc, not by {select!r}"
        )
    return measure


def some(variants: Mapping[str, list[str]], points: int, seed: int = 0) -> dict[str, list[str]]:
    """Draws so many variants, in their order; a larger number keeps those of a smaller one.

    Raises:
        InputError: If there are not as many.
    """
    if not 1 <= points <= len(variants):
        raise InputError(f"points is from 1 to the {len(variants)} that there are, not {points}")
    order = list(variants)
    random.Random(seed).shuffle(order)
    drawn = set(order[:points])
    return {label: changes for label, changes in variants.items() if label in drawn}


def measured(jobs: Sequence[Job], measure: str) -> pd.DataFrame:
    """Reads the validation figure of every point, best first.

    Args:
        jobs: Those of a sweep that were run on ``SPLIT``, finished or not.
        measure: As :func:`parse` returns it.

    Returns:
        A row a variant: ``value``, the mean over seeds, which is missing where a run is or where
        the measure is not defined; ``sd`` over seeds; how many ``seeds`` have a figure.
    """
    values: dict[str, list[float]] = {}
    for job in jobs:
        path = job.folder / f"{SPLIT}.json"
        found = None
        if path.is_file() and folder.is_whole(job.folder):
            found = json.loads(path.read_text(encoding="utf-8"))["measures"][measure][0]
        values.setdefault(job.variant, []).append(float("nan") if found is None else found)
    each = pd.DataFrame.from_dict(values, orient="index")
    table = pd.DataFrame(
        {"value": each.mean(axis=1, skipna=False), "sd": each.std(axis=1, skipna=False)}
    )
    table["seeds"] = each.notna().sum(axis=1)
    table.insert(0, "metric", f"{SPLIT}:{measure}")
    table = table.rename_axis("variant").reset_index()
    return table.sort_values(
        "value", ascending=measure in metrics.LOWER, kind="stable", ignore_index=True
    )


def best(table: pd.DataFrame) -> str | None:
    """Returns the variant with the best figure; None if no variant has one for every seed."""
    return None if table["value"].isna().all() else str(table["variant"].iloc[0])


def test(jobs: Sequence[Job]) -> list[Path]:
    """Tests runs, but for those that were tested before, and returns their folders."""
    for job in jobs:
        if not (job.folder / "test.json").is_file():
            run.evaluate(job.folder)
    return [job.folder for job in jobs]


def write(table: pd.DataFrame, path: Path) -> None:
    """Writes what :func:`measured` returns as CSV."""
    write_text(path, table.to_csv(index=False))
