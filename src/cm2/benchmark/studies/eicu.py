"""eICU: death in hospital from the first 24 hours of an intensive-care stay."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from cm2.benchmark.studies.base import Split, register
from cm2.benchmark.studies.prepared import Prepared
from cm2.core.errors import InputError

READ = ("tabular", "text")
"""Kinds of modalities that become numbers; a series repeats the vital signs."""


@register("eicu")
class Mortality(Prepared):
    """Death in hospital, predicted from the first 24 hours of an intensive-care stay.

    The stays are those of ``cm2 prepare eicu --hours 24``.

    Args:
        folder: The tables of the eICU demo.
    """

    folder = "eicu-demo"

    def __init__(self, folder: Path | None = None) -> None:
        from cm2.clinical.prepare.pipeline import Options, prepare

        if folder is None:
            raise InputError("eicu needs a folder of the tables of eICU, or of its demo")
        with TemporaryDirectory() as place:
            root = Path(place) / "prepared"
            manifest = prepare("eicu", folder, root, Options(hours=24.0))
            kinds = {name: one["kind"] for name, one in manifest["modalities"].items()}
            names = ["static", *(n for n, k in kinds.items() if k in READ and n != "static")]
            found = self.read(root, manifest["flow"], modalities=names, removable="any")
            self._stays = found.stays
            scores = pd.read_parquet(root / "scores.parquet").set_index("stay_id")
        self.title = "In-hospital mortality after 24 hours of intensive care"
        self.source = f"the eICU tables in {folder.resolve().name}, stays of at least 24 hours"
        self.score_name = "APACHE IVa"
        self.score = scores["apache_iva"].loc[self._stays["stay_id"]].to_numpy()


FOLDS = 5


@register("eicu-hourly")
class Hourly(Mortality):
    """The same with laboratory and monitor, from the demo's folder that has these tables."""

    folder = "eicu-demo-hourly"
    test_to_train = 1 / (FOLDS - 1)

    def split(self, seed: int) -> Split:
        """Returns one of five folds of patients to predict, and the others."""
        from cm2.clinical.prepare.splits import split

        shares = (1 / FOLDS,) * FOLDS
        parts = split(pd.Series(self.groups), pd.Series(self.y), shares, seed=seed // FOLDS)
        test = parts[seed % FOLDS]
        return Split(np.setdiff1d(np.arange(len(self.y)), test), test)


@register("eicu-regions")
class Regions(Mortality):
    """The same, each region of the United States predicted by what the others taught.

    Hospitals of unknown region are learned from, never predicted, and so are not those patients
    whose stays are of two regions. There are four regions: a fifth seed predicts the first again,
    with other modalities removed.
    """

    folder = "eicu-demo-hourly"
    test_to_train = 1 / 3

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        if "region" not in self._stays:
            raise InputError(f"{folder}: has no table hospital, which says regions")
        self.regions = tuple(sorted(self._stays["region"].dropna().unique()))
        self.title += ", in another region"

    def split(self, seed: int) -> Split:
        """Returns the stays of a region to predict, and those of other patients elsewhere."""
        chosen = self.regions[seed % len(self.regions)]
        test = np.flatnonzero(self._stays["region"] == chosen)
        theirs = np.isin(self.groups, self.groups[test])
        return Split(np.flatnonzero(~theirs), test)
