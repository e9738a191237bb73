"""`stays.parquet`: one row a stay, with its split, its outcome and which modalities it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool

from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.grouped import GROUPS
from cm2.clinical.prepare.modalities import Written
from cm2.clinical.prepare.options import Options
from cm2.core import layout, removal
from cm2.core.layout import SPLITS

__all__ = ["LABEL", "by_split", "check_training", "label_names", "write_stays"]

COLUMNS = {
    "stay_id": pa.int64(),
    "subject_id": pa.int64(),
    "hadm_id": pa.int64(),
    "split": pa.string(),
    "label": pa.int64(),
    "age": pa.float64(),
}
"""What every table of stays has; a label or age that is not known is null."""

TIME = "prediction_time"
"""The end of the window, in the calendar of the source; null where that has none."""

LABEL = "label_"
"""What the columns of labels that may hold together begin with; ``label`` is null beside them."""

REMAINING = "remaining_hours"
"""How long the stay lasts beyond the window, where that is the outcome."""


class Kept(NamedTuple):
    """What is left of the modalities.

    Attributes:
        removed: Of how many stays each was removed.
        sets: Stays and patients of each set of modalities, the largest first.
    """

    removed: dict[str, int]
    sets: list[dict[str, Any]]


def write_stays(
    frame: pd.DataFrame, written: Mapping[str, Written], out: Path, options: Options
) -> Kept:
    """Writes `stays.parquet`, and returns what is left.

    Args:
        frame: The stays, sorted by ``stay_id``, with what `COLUMNS` names, and with
            ``prediction_time`` where the source has a calendar.
        written: The modalities.
        out: The folder.
        options: Say how many modalities are removed at random.
    """
    columns = {
        name: pa.array(frame[name], kind, from_pandas=True) for name, kind in COLUMNS.items()
    }
    times = frame[TIME] if TIME in frame else pd.Series(pd.NaT, frame.index)
    columns[TIME] = pa.array(times.astype("datetime64[us]"), pa.timestamp("us"), from_pandas=True)
    columns |= {
        name: pa.array(frame[name], pa.string(), from_pandas=True)
        for name in GROUPS
        if name in frame
    }
    columns |= {
        LABEL + name: pa.array(frame[LABEL + name], pa.int64()) for name in label_names(frame)
    }
    if REMAINING in frame:
        columns[REMAINING] = pa.array(frame[REMAINING], pa.float64(), from_pandas=True)
    # In the order of those who read the folder, so that the same removal can be made there.
    names = layout.ordered({name: one.facts for name, one in written.items()})
    has = np.stack([frame["stay_id"].isin(written[name].stays) for name in names], axis=1)
    left = removal.kept(
        has,
        frame["stay_id"].to_numpy(np.int64),
        names,
        options.missing_rate,
        "others",
        options.seed,
    )
    columns |= {f"has_{name}": pa.array(left[:, k]) for k, name in enumerate(names)}
    pq.write_table(pa.table(columns), out / "stays.parquet", compression="zstd")
    gone = (has & ~left).sum(axis=0).tolist()
    return Kept(dict(zip(names, gone, strict=True)), _sets(frame, names, left))


def _sets(
    frame: pd.DataFrame, names: Sequence[str], left: Bool[np.ndarray, "stay modality"]
) -> list[dict[str, Any]]:
    patterns, which = np.unique(left, axis=0, return_inverse=True)
    found = [
        {
            "modalities": [name for name, there in zip(names, pattern, strict=True) if there],
            "stays": int((which.ravel() == k).sum()),
            "patients": int(frame["subject_id"][which.ravel() == k].nunique()),
        }
        for k, pattern in enumerate(patterns)
    ]
    return sorted(found, key=lambda one: (-one["patients"], -one["stays"], one["modalities"]))


def check_training(frame: pd.DataFrame) -> None:
    """Refuses stays of which none is of the training split.

    Args:
        frame: Has ``split``.
    """
    if not (frame["split"] == "train").any():
        raise TableError(
            f"none of the {len(frame)} stays that are left is of the training split, on which"
            " the normalisation is fitted; choose another seed, or give a file of splits"
        )


def label_names(frame: pd.DataFrame) -> list[str]:
    """Names the labels that may hold together; none where an outcome is one class.

    Args:
        frame: The stays.
    """
    return [str(name).removeprefix(LABEL) for name in frame if str(name).startswith(LABEL)]


def by_split(frame: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Counts stays, patients and positives of each split; of several labels, those with any.

    Args:
        frame: Has ``split``, ``subject_id`` and ``label``.
    """
    outcome = [LABEL + name for name in label_names(frame)] or ["label"]
    return {
        part: {
            "stays": len(rows),
            "patients": int(rows["subject_id"].nunique()),
            "positive": int((rows[outcome] > 0).any(axis=1).sum()),
        }
        for part in SPLITS
        for rows in [frame[frame["split"] == part]]
    }
