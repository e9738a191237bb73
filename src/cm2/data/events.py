"""Measurements as they were made, in batches, for models of irregular times."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from cm2 import records
from cm2.data.folder import Folder
from cm2.data.readers import Ragged, Reader
from cm2.errors import InputError

__all__ = ["UNSEEN", "Events"]

UNSEEN = 1
"""Number of every variable that training has not seen; 0 is padding."""

COLUMNS = ("stay_id", "variable", "hour", "value")
STEP = np.dtype([("hour", np.float32), ("variable", np.int32), ("value", np.float32)])


class Scales(NamedTuple):
    """The variables of the training split, sorted, with the mean and deviation of each."""

    names: pd.Index
    mean: Float[ndarray, " variable"]
    deviation: Float[ndarray, " variable"]


class Events(Reader):
    """Events in the order of their hours: ``stay_id, variable, hour, value`` in any order of stays.

    Those of one hour keep the order of the file, in which the one that counts for the grid is the
    last of its variable. An event takes twelve bytes.

    Args:
        folder: The prepared data.
        name: Of the events.
        stays: The stays that are answered for, sorted.
        fit: The data whose training split gives variables and scales.
    """

    def __init__(
        self, folder: Folder, name: str, stays: Int[ndarray, " stay"], fit: Folder
    ) -> None:
        file = folder.facts(name)["file"]
        frame = folder.table(file, COLUMNS, repeated=["variable"])
        frame = frame[frame["stay_id"].isin(stays)]
        _check(frame, folder, file)
        known = _scales(fit.root, fit.facts(name)["file"], fit.checksum)
        ids, hours = frame["stay_id"].to_numpy(), frame["hour"].to_numpy()
        order = np.lexsort((hours, ids))  # stable: the file's order stays within an hour
        number = frame["variable"].cat.codes.to_numpy()
        place = known.names.get_indexer(frame["variable"].cat.categories)[number]
        seen = place >= 0
        # Those not seen, place -1, are scaled like the last one and then set to zero.
        value = (frame["value"].to_numpy() - known.mean[place]) / known.deviation[place]
        flat = np.empty(len(frame), STEP)
        flat["hour"] = hours[order]
        flat["variable"] = np.where(seen, place + UNSEEN + 1, UNSEEN)[order]
        flat["value"] = np.where(seen, value, 0.0)[order]
        ids = ids[order]
        lengths = np.searchsorted(ids, stays, "right") - np.searchsorted(ids, stays, "left")
        self.has = lengths > 0
        self.shape = {"vocabulary": len(known.names) + UNSEEN + 1}
        self._ragged = Ragged(flat, lengths)

    def take(self, rows: Int[ndarray, " batch"]) -> records.Events:
        steps, mask = self._ragged.take(rows)
        return records.Events(
            hour=torch.from_numpy(steps["hour"].copy()),
            variable=torch.from_numpy(steps["variable"].astype(np.int64)),
            value=torch.from_numpy(steps["value"].copy()),
            mask=torch.from_numpy(mask),
        )


def _check(frame: pd.DataFrame, folder: Folder, file: str) -> None:
    """Refuses numbers that are none, and what was measured after the prediction."""
    numbers = frame[["hour", "value"]].to_numpy(np.float64)
    if not np.isfinite(numbers).all():
        raise InputError(f"{folder.root / file}: has missing or infinite values")
    hours = folder.manifest.get("options", {}).get("hours")
    late = 0 if hours is None else int((numbers[:, 0] > hours).sum())
    if late:
        raise InputError(
            f"{folder.root / file}: {late} events are from after the prediction, at hour {hours:g}"
        )


@lru_cache(maxsize=8)
def _scales(root: Path, file: str, checksum: str) -> Scales:
    """Of the training split's events; kept, since each split needs them."""
    folder = Folder(root, verify=False)
    frame = folder.table(file, COLUMNS, repeated=["variable"])
    train = folder.stays.loc[folder.stays["split"] == "train", "stay_id"]
    groups = frame[frame["stay_id"].isin(train)].groupby("variable", observed=True)["value"]
    mean, deviation = groups.mean(), groups.std(ddof=0)
    return Scales(
        pd.Index(mean.index.astype(str)),
        mean.to_numpy(np.float64),
        deviation.where(deviation > 0, 1.0).to_numpy(np.float64),
    )
