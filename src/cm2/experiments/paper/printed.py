"""The values that the paper printed, as ``printed.csv`` of this folder has them."""

from __future__ import annotations

from importlib import resources
from typing import Any, NamedTuple

import pandas as pd

from cm2.experiments.paper.tables import Entry

__all__ = ["Printed", "counts", "read", "value"]


class Printed(NamedTuple):
    """A printed value with its interval, of which there is none for p-values."""

    value: float
    low: float
    high: float


def read() -> pd.DataFrame:
    """All printed values, one a row; texts are empty where a column does not apply."""
    file = resources.files("cm2.experiments.paper").joinpath("printed.csv")
    with file.open(encoding="utf-8") as lines:
        frame = pd.read_csv(lines, comment="#")
    texts = frame.columns.drop(["value", "low", "high"])
    frame[texts] = frame[texts].fillna("")
    return frame


def value(frame: pd.DataFrame, entry: Entry, metric: str) -> Printed | None:
    """What was printed for a row and task; None if nothing was.

    Args:
        frame: What :func:`read` returned.
        entry: The row.
        metric: ``"auroc"``, ``"aupr"``, or with ``"-p"`` behind it the p-value.
    """
    series, other = entry.encoders
    wanted = {
        "table": entry.part,
        "data": entry.data,
        "setting": entry.setting,
        "method": entry.method,
        "series_encoder": series,
        "other_encoder": other,
        "task": entry.task,
        "metric": metric,
    }
    found = _where(frame, wanted)
    return None if found.empty else Printed(*found[["value", "low", "high"]].iloc[0])


def counts(frame: pd.DataFrame, data: str, setting: str, task: str) -> dict[str, int]:
    """Printed numbers of stays: of each split, and of those that are positive."""
    found = _where(frame[frame["task"].isin(["", task])], {"table": "T1", "data": data})
    found = _where(found, {"setting": setting})
    return {str(k): int(v) for k, v in zip(found["metric"], found["value"], strict=True)}


def _where(frame: pd.DataFrame, wanted: dict[str, Any]) -> pd.DataFrame:
    for column, wish in wanted.items():
        frame = frame[frame[column] == wish]
    return frame
