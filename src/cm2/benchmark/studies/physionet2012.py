"""PhysioNet 2012: death in hospital from the first 48 hours, eleven modalities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cm2.benchmark.studies.base import Given, Split, register
from cm2.core.errors import InputError


def read(folder: Path, sets: str = "") -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Reads sets as ``cm2 prepare physionet2012`` does.

    Args:
        folder: Where archives and outcomes are.
        sets: Letters, such as "ab"; all that are there if "".

    Returns:
        The modalities, rows of NaN where one was never measured; and ``set`` and ``label``; both by
        the stay.

    Raises:
        InputError: If a set is not there.
    """
    from cm2.clinical.prepare.options import Options
    from cm2.clinical.prepare.physionet2012 import PhysioNet2012

    found = PhysioNet2012(folder).collect(Options(), None)
    kept = found.stays["set"].isin(list(sets or found.stays["set"].unique()))
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


@register("p12")
class P12(Given):
    """The protocol "P12" of Raindrop: 80% of all sets to train, 10% to validate, 10% to predict.

    Zhang, Zeman, Tsiligkaridis, Zitnik (2022), Graph-guided network for irregularly sampled
    multivariate time series, ICLR, https://arxiv.org/abs/2110.05357. Each of the 36 sensors is a
    modality, after what is known at the door, so that sensors may be left out; stays without any
    measurement are. A seed draws a split, as theirs were drawn. Methods here make their own
    validation rows of the 90%. A sensor is six numbers, where networks of the literature read its
    series.
    """

    folder = "physionet2012"
    test_to_train = 1 / 9

    def __init__(self, folder: Path | None = None) -> None:
        if folder is None:
            raise InputError("p12 needs a folder of the challenge's sets")
        frames, stays = read(folder)
        X = {"static": frames.pop("static")}
        for frame in frames.values():
            columns = frame.columns.to_series()
            for sensor, names in columns.groupby(columns.str.rsplit("_", n=1).str[0], sort=False):
                # Beside sensors that were read, one that was not has a count of zero.
                X[str(sensor)] = frame[names.tolist()].where(frame[f"{sensor}_count"] > 0)
        some = np.any([X[name].notna().any(axis=1) for name in X if name != "static"], axis=0)
        sets = sorted(stays["set"].unique())
        super().__init__(
            {name: frame[some].to_numpy() for name, frame in X.items()},
            stays.loc[some, "label"].to_numpy(np.int64),
            title="In-hospital mortality after 48 hours of intensive care, by 36 sensors",
            source=f"PhysioNet 2012, sets {', '.join(sets)}, split as P12",
        )
        self.flow.insert(0, ("stays", len(stays)))
        self.labels = ("survived", "died")

    def split(self, seed: int) -> Split:
        """Returns nine tenths of the stays, drawn by the seed, and the others."""
        order = np.random.default_rng(seed).permutation(len(self.y))
        test = round(0.1 * len(order))
        return Split(np.sort(order[test:]), np.sort(order[:test]))
