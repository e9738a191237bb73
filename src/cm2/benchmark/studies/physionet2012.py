"""PhysioNet 2012: death in hospital from the first 48 hours, eleven modalities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cm2.benchmark.studies.base import Given, Split, register
from cm2.core.errors import InputError


def read(folder: Path, sets: str) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Reads sets as ``cm2 prepare physionet2012`` does.

    Args:
        folder: Where archives and outcomes are.
        sets: Letters, such as "ab".

    Returns:
        The modalities, rows of NaN where one was never measured; and ``set`` and ``label``; both by
        the stay.

    Raises:
        InputError: If a set is not there.
    """
    from cm2.clinical.prepare.options import Options
    from cm2.clinical.prepare.physionet2012 import PhysioNet2012

    found = PhysioNet2012(folder).collect(Options(), None)
    kept = found.stays["set"].isin(list(sets))
    stays = found.stays[kept].set_index("stay_id").sort_index()
    if lacking := set(sets) - set(stays["set"]):
        raise InputError(f"{folder}: has no set {', '.join(sorted(lacking))}")
    return {name: frame.loc[stays.index] for name, frame in found.numbers.items()}, stays


class Challenge(Given):
    """Stays of the challenge's sets, as ``cm2 prepare physionet2012`` reads them."""

    folder = "physionet2012"
    sets: str

    def __init__(self, folder: Path | None = None) -> None:
        if folder is None:
            raise InputError("physionet2012 needs a folder of the challenge's sets")
        X, stays = read(folder, self.sets)
        super().__init__(
            X,
            stays["label"].to_numpy(np.int64),
            title="In-hospital mortality after 48 hours of intensive care",
            source=f"PhysioNet 2012, set {' and '.join(self.sets)}",
        )
        self._set = stays["set"].to_numpy()
        self.labels = ("survived", "died")


@register("physionet2012")
class Inside(Challenge):
    """Splits of set a, for whatever has to be developed."""

    sets = "a"


@register("physionet2012-ab")
class Published(Challenge):
    """Set a to learn from, set b to predict; for final figures alone."""

    sets = "ab"
    test_to_train = 0.0

    def split(self, seed: int) -> Split:
        """Returns the sets, whatever the seed."""
        return Split(*(np.flatnonzero(self._set == letter) for letter in self.sets))
