"""Of which stays clinical notes are read: all, those of a list, or a third of each part.

The third is that of the code of Wu et al. (2025), who read notes of a third of the stays of
MIMIC-III: the list of the stays of a part, sorted by their names in the MIMIC-III benchmark, and of
these pandas' ``sample`` of the state 42. Where cohort and parts are theirs, so is the third.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pandas as pd

from cm2.clinical.prepare.engine import Engine
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.identifiers import whole_numbers
from cm2.clinical.prepare.splits import texts
from cm2.core.layout import SPLITS

__all__ = ["NOTES_OF", "episodes", "read", "third"]

NOTES_OF = ("all", "third", "list")

SHARE, STATE = 1 / 3, 42

NAMES = ("stay_id", "icustay_id")


def read(path: Path) -> list[int]:
    """Reads stays from a CSV file with the column ``stay_id`` (or ``icustay_id``).

    Args:
        path: The file.

    Returns:
        The stays, sorted.

    Raises:
        MissingError: There is no such file.
        TableError: It has no such column, or what stands there are not whole numbers.
    """
    frame = texts(path, "stays for --notes-of")
    column = next((name for name in NAMES if name in frame), None)
    if column is None:
        raise TableError(f"{path}: a file of stays lacks a column {' or '.join(NAMES)}")
    stays = whole_numbers(frame[column])
    if stays.isna().any():
        raise TableError(f"{path}: {column} must be a whole number in every row")
    return sorted(set(stays.astype("int64").tolist()))


def episodes(engine: Engine, root: ir.Table) -> pd.Series:
    """Numbers the stays of each patient from 1, as the benchmark's names of stays do.

    Args:
        engine: Where the work is done.
        root: The stays that do not depend on the length of the window.

    Returns:
        The number, by ``stay_id``.
    """
    order = ibis.window(group_by="subject_id", order_by=["intime", "outtime", "stay_id"])
    numbered = root.select("stay_id", episode=ibis.row_number().over(order) + 1)
    return engine.frame(numbered).set_index("stay_id")["episode"]


def third(stays: pd.DataFrame, episode: pd.Series) -> list[int]:
    """Draws a third of the stays of each part.

    Args:
        stays: Has ``stay_id``, ``subject_id`` and ``split``.
        episode: See `episodes`.

    Returns:
        The stays, sorted.
    """
    number = stays["stay_id"].map(episode).astype(str)
    name = stays["subject_id"].astype(str) + "_episode" + number + "_timeseries.csv"
    ordered = stays.assign(name=name).sort_values("name")
    drawn = (
        ordered.loc[ordered["split"] == part, "stay_id"].sample(frac=SHARE, random_state=STATE)
        for part in SPLITS
    )
    return sorted(pd.concat(drawn).tolist())


def count(stays: pd.DataFrame, chosen: Sequence[int]) -> dict[str, int]:
    """Counts the stays of each part whose notes are read.

    Args:
        stays: Has ``stay_id`` and ``split``.
        chosen: Stays whose notes are read, others among them.

    Raises:
        TableError: There is none.
    """
    there = stays.loc[stays["stay_id"].isin(chosen), "split"]
    if there.empty:
        raise TableError(
            f"none of the {len(stays)} stays that are left is in the list of --notes-of"
        )
    return {part: int((there == part).sum()) for part in SPLITS}
