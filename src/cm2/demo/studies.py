"""What the demo can be run on: eICU stays, or digits cut into views where no stays are at hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from sklearn.model_selection import StratifiedShuffleSplit

from cm2.core.errors import InputError
from cm2.samples.kinds import TextColumn
from cm2.samples.stays import Stays
from cm2.samples.views import digit_views

TEST = 0.3
"""Share of the patients, or images, that are tested on."""

TEST_TO_TRAIN = TEST / (1 - TEST)

READ = ("tabular", "text")
"""Kinds of modalities that become numbers; a series repeats the vital signs."""

EICU = "eicu-demo"
"""Name of the eICU demo's folder in a folder of data sets."""


class Study(ABC):
    """A data set with modalities, a target, and its splits.

    Attributes:
        title: What is predicted.
        source: One sentence on where the data come from.
        modalities: Names.
        y: Class codes.
        labels: Names of the classes.
        groups: Rows of one group are never on both sides of a split.
        flow: How the rows came about.
        score_name: Name of the clinical score that is compared with, or "".
        score: Its probability of class 1; NaN where a row has none.
    """

    title: str
    source: str
    modalities: tuple[str, ...]
    y: Int[ndarray, " n"]
    labels: tuple[str, ...]
    groups: Int[ndarray, " n"]
    flow: list[tuple[str, int]]
    score_name: str = ""
    score: Float[ndarray, " n"]

    @abstractmethod
    def split(self, seed: int) -> tuple[Int[ndarray, " train"], Int[ndarray, " test"]]:
        """Returns training and test rows."""

    @abstractmethod
    def blocks(self, train: Int[ndarray, " train"]) -> dict[str, Float[ndarray, "n feature"]]:
        """Returns all rows of every modality; what has to be learned is learned on `train`."""

    @abstractmethod
    def present(self) -> Bool[ndarray, "n modality"]:
        """Returns which modalities each row has."""


class Digits(Study):
    """The digits in four quadrants; nothing is missing until it is removed."""

    def __init__(self) -> None:
        self._views, self.y = digit_views()
        self.title = "Handwritten digits from four views"
        self.source = (
            "the real UCI digits that scikit-learn carries, cut into four views of 4 x 4 pixels"
        )
        self.modalities = tuple(self._views)
        self.labels = tuple(str(digit) for digit in range(10))
        self.groups = np.arange(len(self.y))
        self.flow = [("images", len(self.y))]
        self.score = np.full(len(self.y), np.nan)

    def split(self, seed: int) -> tuple[Int[ndarray, " train"], Int[ndarray, " test"]]:
        """Returns a stratified random split."""
        splitter = StratifiedShuffleSplit(1, test_size=TEST, random_state=seed)
        train, test = next(splitter.split(self.y, self.y))
        return np.sort(train), np.sort(test)

    def blocks(self, train: Int[ndarray, " train"]) -> dict[str, Float[ndarray, "n feature"]]:
        """Returns the pixels."""
        return dict(self._views)

    def present(self) -> Bool[ndarray, "n modality"]:
        """Returns ones."""
        return np.ones((len(self.y), len(self.modalities)), dtype=bool)


class Mortality(Study):
    """Death in hospital, predicted from the first 24 hours of an intensive-care stay.

    The stays are those of ``cm2 prepare eicu --hours 24``.

    Args:
        folder: The tables of the eICU demo.
    """

    def __init__(self, folder: Path) -> None:
        from cm2.clinical.prepare.pipeline import Options, prepare

        with TemporaryDirectory() as place:
            root = Path(place) / "prepared"
            manifest = prepare("eicu", folder, root, Options(hours=24.0))
            kinds = {name: one["kind"] for name, one in manifest["modalities"].items()}
            names = ["static", *(n for n, k in kinds.items() if k in READ and n != "static")]
            stays = Stays.open(root, modalities=names, removable="any")
            scores = pd.read_parquet(root / "scores.parquet").set_index("stay_id")
        self._columns = stays.samples.columns
        self._present = stays.samples.present
        self.title = "In-hospital mortality after 24 hours of intensive care"
        self.source = f"the eICU demo in {folder.resolve().name}, stays of at least 24 hours"
        self.modalities = tuple(names)
        self.y = stays.stays["label"].to_numpy(np.int64)
        self.labels = ("survived", "died")
        self.groups = pd.factorize(stays.stays["subject_id"])[0].astype(np.int64)
        self.flow = [(str(step), int(count)) for step, count in manifest["flow"]]
        self.flow.append(("deaths in hospital", int(self.y.sum())))
        self.score_name = "APACHE IVa"
        self.score = scores.loc[stays.samples.ids, "apache_iva"].to_numpy()

    def split(self, seed: int) -> tuple[Int[ndarray, " train"], Int[ndarray, " test"]]:
        """Returns a split by patients, stratified by the outcome."""
        from cm2.clinical.prepare.splits import split

        parts = (1 - TEST, TEST)
        train, test = split(pd.Series(self.groups), pd.Series(self.y), parts, seed=seed)
        return train, test

    def blocks(self, train: Int[ndarray, " train"]) -> dict[str, Float[ndarray, "n feature"]]:
        """Returns numbers; documents are vectorised by what training rows contain."""
        from cm2.clinical.prepare.documents import vectorize

        found = {}
        for name, column in self._columns.items():
            if isinstance(column, TextColumn):
                lines = ["\n".join(one) if one else None for one in column.values]
                documents = pd.Series(lines, name=name)
                found[name] = vectorize(documents, pd.Index(train)).to_numpy()
            else:
                found[name] = np.asarray(column.values, np.float64)
        return found

    def present(self) -> Bool[ndarray, "n modality"]:
        """Returns where a modality has any number or a document."""
        return self._present


def eicu_folder(data: Path | None, home: str | None) -> Path | None:
    """Finds the folder of the eICU demo.

    Args:
        data: A folder that was asked for; it holds the tables, or a folder `eicu-demo` that does.
        home: A folder of data sets in which one may be, such as the value of CM2_DATA_HOME.

    Returns:
        The folder with the tables, or None if none was asked for and there is none.

    Raises:
        InputError: If the folder that was asked for, or `home`, has no eICU tables.
    """
    place = data if data is not None else (Path(home) if home else None)
    if place is None:
        return None
    for folder in (place, place / EICU):
        if any(folder.glob("patient.*")):
            return folder
    asked = "--data" if data is not None else "CM2_DATA_HOME"
    state = (
        "does not exist" if not place.is_dir() else f"has no table 'patient', nor has {EICU} in it"
    )
    raise InputError(
        f"{asked} names {place}, which {state}; give the folder of the eICU demo's tables, or "
        "leave it out for the digits"
    )


def load(folder: Path | None) -> Study:
    """Loads the eICU study of a folder, or the digits.

    Raises:
        InputError: If a table is missing, cannot be read, or has faults that are known.
    """
    if folder is None:
        return Digits()
    from cm2.clinical.prepare.errors import TableError

    try:
        return Mortality(folder)
    except (TableError, OSError) as error:
        raise InputError(str(error)) from error
