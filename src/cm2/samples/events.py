"""Measurements as they were made, in batches, for models of irregular times."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from numpy import ndarray

from cm2.core import records
from cm2.core.errors import InputError
from cm2.samples.folder import Folder
from cm2.samples.readers import Ragged, Reader, finite

__all__ = ["UNSEEN", "Events"]

UNSEEN = 1
"""Number of every variable that training has not seen; 0 is padding."""

COLUMNS = ("stay_id", "variable", "hour", "value")
STEP = np.dtype([("hour", np.float32), ("variable", np.int32), ("value", np.float32)])


class Events(Reader):
    """Events in the order of their hours: ``stay_id, variable, hour, value`` in any order of stays.

    Those of one hour keep the order of the file, in which the one that counts for the grid is the
    last of its variable. An event takes twelve bytes.

    Attributes:
        variables: What each number of ``variable`` stands for: ``name``, and the ``mean`` and
            ``deviation`` by which values were scaled.

    Args:
        folder: The prepared data.
        name: Of the events.
        stays: The stays that are answered for, sorted.
        learned: Variables and scales that ``learn`` gave.
    """

    @classmethod
    def learn(cls, folder: Folder, name: str) -> dict[str, Any]:
        """Names of variables in the order of their numbers, with means and deviations."""
        found = _variables(folder.root, folder.facts(name)["file"], folder.checksum)
        return {key: found[key].tolist() for key in ("name", "mean", "deviation")}

    def __init__(
        self,
        folder: Folder,
        name: str,
        stays: Int[ndarray, " stay"],
        learned: Mapping[str, Any],
    ) -> None:
        file = folder.facts(name)["file"]
        frame = folder.table(file, COLUMNS, repeated=["variable"])
        frame = frame[frame["stay_id"].isin(stays)]
        _check(frame, folder, file)
        names = pd.Series(learned["name"], dtype=object)
        self.variables = pd.DataFrame(
            {"name": names, "mean": learned["mean"], "deviation": learned["deviation"]}
        )
        ids, hours = frame["stay_id"].to_numpy(), frame["hour"].to_numpy()
        order = np.lexsort((hours, ids))  # stable: the file's order stays within an hour
        known = pd.Index(self.variables["name"][UNSEEN + 1 :])
        # The indexer says -1 of a name that is not known, which makes it UNSEEN.
        number = known.get_indexer(frame["variable"].cat.categories) + UNSEEN + 1
        number = number[frame["variable"].cat.codes]
        mean, deviation = self.variables[["mean", "deviation"]].to_numpy()[number].T
        value = np.where(number == UNSEEN, 0.0, (frame["value"] - mean) / deviation)
        flat = np.empty(len(frame), STEP)
        flat["hour"] = hours[order]
        flat["variable"] = number[order]
        flat["value"] = value[order]
        ids = ids[order]
        lengths = np.searchsorted(ids, stays, "right") - np.searchsorted(ids, stays, "left")
        self.has = lengths > 0
        self.shape = {"vocabulary": len(self.variables)}
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
    """Refuses what is missing or no number, and what was measured after the prediction."""
    if frame["variable"].isna().any():
        raise InputError(f"{folder.root / file}: has events without a variable")
    numbers = finite(frame[["hour", "value"]].to_numpy(np.float64), folder.root / file)
    hours = folder.manifest.get("options", {}).get("hours")
    late = 0 if hours is None else int((numbers[:, 0] > hours).sum())
    if late:
        raise InputError(
            f"{folder.root / file}: {late} events are from after the prediction, at hour {hours:g}"
        )


@lru_cache(maxsize=8)
def _variables(root: Path, file: str, checksum: str) -> pd.DataFrame:
    """Those of the training split's events, in the order of names; kept, since each split needs it.

    The first two rows, of padding and of variables not seen, have no name.
    """
    folder = Folder(root, verify=False)
    frame = folder.table(file, COLUMNS, repeated=["variable"])
    train = folder.stays.loc[folder.stays["split"] == "train", "stay_id"]
    groups = frame[frame["stay_id"].isin(train)].groupby("variable", observed=True)["value"]
    found = pd.DataFrame({"mean": groups.mean(), "deviation": groups.std(ddof=0)})
    found["deviation"] = found["deviation"].where(found["deviation"] > 0, 1.0)
    found.index = found.index.astype(object)  # to be sorted as texts, not as the file has them
    first = pd.DataFrame({"name": None, "mean": 0.0, "deviation": 1.0}, index=range(UNSEEN + 1))
    return pd.concat(
        [first, found.sort_index().rename_axis("name").reset_index()], ignore_index=True
    )
