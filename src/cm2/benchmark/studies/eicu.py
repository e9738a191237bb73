"""eICU: death in hospital from the first 24 hours of an intensive-care stay."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from cm2.benchmark.studies.base import Split, Study, register
from cm2.core.errors import InputError
from cm2.samples.kinds import TextColumn
from cm2.samples.stays import Stays

READ = ("tabular", "text")
"""Kinds of modalities that become numbers; a series repeats the vital signs."""


@register("eicu")
class Mortality(Study):
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
            stays = Stays.open(root, modalities=names, removable="any")
            scores = pd.read_parquet(root / "scores.parquet").set_index("stay_id")
            self._values = {name: _values(one) for name, one in stays.samples.columns.items()}
        self._present = stays.samples.present
        self.title = "In-hospital mortality after 24 hours of intensive care"
        self.source = f"the eICU tables in {folder.resolve().name}, stays of at least 24 hours"
        self.modalities = tuple(names)
        self.y = stays.stays["label"].to_numpy(np.int64)
        self.labels = ("survived", "died")
        self.groups = pd.factorize(stays.stays["subject_id"])[0].astype(np.int64)
        self.flow = [(str(step), int(count)) for step, count in manifest["flow"]]
        self.flow.append(("deaths in hospital", int(self.y.sum())))
        self.score_name = "APACHE IVa"
        self.score = scores["apache_iva"].loc[stays.stays["stay_id"]].to_numpy()

    def blocks(self, train: Int[ndarray, " train"]) -> dict[str, Float[ndarray, "n feature"]]:
        """Returns numbers; documents are vectorised by what training rows contain."""
        from cm2.clinical.prepare.documents import vectorize

        found = {}
        for name, values in self._values.items():
            if isinstance(values, list):
                documents = pd.Series(values, name=name)
                found[name] = vectorize(documents, pd.Index(train)).to_numpy()
            else:
                found[name] = values
        return found

    def present(self) -> Bool[ndarray, "n modality"]:
        """Returns where a modality has any number or a document."""
        return self._present


def _values(column: Any) -> Float[ndarray, "n feature"] | list[str | None]:
    """What a modality is made of: numbers, or a stay's documents, which a folder reads late."""
    if isinstance(column, TextColumn):
        return ["\n".join(one) if one else None for one in column.values]
    return np.asarray(column.values, np.float64)


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
