"""What a study is: rows with modalities and a target, and how they are split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from sklearn.model_selection import StratifiedShuffleSplit

from cm2.benchmark.studies.numbers import held, numbers
from cm2.core.registry import Registry
from cm2.samples import targets
from cm2.samples.container import Samples
from cm2.samples.inputs import check_any
from cm2.samples.tables import present

TEST = 0.3
"""Share of the rows, or patients, that are tested on."""

TEST_TO_TRAIN = TEST / (1 - TEST)


class Split(NamedTuple):
    """Rows to learn from, and rows to predict."""

    train: Int[ndarray, " train"]
    test: Int[ndarray, " test"]


class Study(ABC):
    """A data set with modalities, a target, and its splits.

    Args:
        folder: Where its files are; None for one that needs none.

    Attributes:
        folder: The name of that folder in a folder of data sets; "" for one that needs none.
        test_to_train: Test rows a training row where each seed splits the data anew; 0 where all
            seeds share their test rows, and differ in what is removed.
        title: What is predicted.
        source: One sentence on where the data come from.
        modalities: Names.
        y: Class codes.
        labels: Names of the classes.
        groups: Rows of one group are never on both sides of a split.
        flow: How the rows came about.
        score_name: Name of the clinical score that is compared with, or "".
        score: Its probability of class 1; NaN where a row has none.
        samples: The rows as encoders read them, in the order of `modalities`, where modalities are
            more than numbers; else None.
    """

    folder: ClassVar[str] = ""
    test_to_train: ClassVar[float] = TEST_TO_TRAIN
    title: str
    source: str
    modalities: tuple[str, ...]
    y: Int[ndarray, " n"]
    labels: tuple[str, ...]
    groups: Int[ndarray, " n"]
    flow: list[tuple[str, int]]
    score_name: str = ""
    score: Float[ndarray, " n"]
    samples: Samples | None = None

    def __init__(self, folder: Path | None = None) -> None:
        return

    def split(self, seed: int) -> Split:
        """Returns training and test rows: by patients, stratified by the target."""
        if len(np.unique(self.groups)) < len(self.groups):
            from cm2.clinical.prepare.splits import split

            parts = (1 - TEST, TEST)
            return Split(*split(pd.Series(self.groups), pd.Series(self.y), parts, seed=seed))
        splitter = StratifiedShuffleSplit(1, test_size=TEST, random_state=seed)
        train, test = next(splitter.split(self.y, self.y))
        return Split(np.sort(train), np.sort(test))

    @abstractmethod
    def blocks(self, train: Int[ndarray, " train"]) -> dict[str, Float[ndarray, "n feature"]]:
        """Returns all rows of every modality; what has to be learned is learned on `train`."""

    def present(self) -> Bool[ndarray, "n modality"]:
        """Returns which modalities each row has."""
        return present(self.blocks(np.arange(len(self.y))))


class Given(Study):
    """Modalities that are there as they are, of any kind that :class:`.Samples` knows.

    Methods that read numbers alone get those of :mod:`cm2.benchmark.studies.numbers`; where some
    modality is no table, methods with encoders read all of them as they are, pictures as squares
    of 32 pixels a side.

    Args:
        X: Rows of every modality, NaN throughout or ``None`` where one is missing; or ``Samples``.
        y: Class labels; those of ``Samples`` if not given. So with groups.
        groups: The patient of each row; None where each row is one.
        title: What is predicted.
        source: Where the data come from.

    Raises:
        ValueError: If a modality cannot be read, a row has none, there are not as many rows as
            labels and groups, or a row has several labels.
    """

    def __init__(
        self,
        X: Mapping[str, Any] | Samples,
        y: Any = None,
        *,
        groups: Any = None,
        title: str = "",
        source: str = "",
    ) -> None:
        samples = X if isinstance(X, Samples) else Samples(X)
        y, groups = (samples.y if y is None else y), (samples.groups if groups is None else groups)
        rows = len(samples)
        self.y, names = targets.encoded(targets.checked_labels(y, rows))
        if self.y.ndim > 1:
            raise ValueError(f"y has {self.y.shape[1]} labels a sample; a study is of one")
        groups = np.arange(rows) if groups is None else targets.checked_groups(groups, rows)
        for column in samples.columns.values():
            column.check(column.present)
        check_any(samples.present, np.arange(rows))
        self._read(samples)
        if set(samples.kinds.values()) != {"table"}:
            self.samples = held(samples)
        self.labels = tuple(str(name) for name in names)
        self.groups = pd.factorize(groups)[0]
        self.title, self.source = title, source
        self.flow = [("rows", rows)]
        self.score = np.full(rows, np.nan)

    def _read(self, samples: Samples) -> None:
        """Takes what makes numbers of the modalities."""
        self._made = {name: numbers(column) for name, column in samples.columns.items()}
        self._present = samples.present
        self.modalities = tuple(self._made)

    def blocks(self, train: Int[ndarray, " train"]) -> dict[str, Float[ndarray, "n feature"]]:
        """Returns numbers; see :func:`.numbers`."""
        return {name: made(train) for name, made in self._made.items()}

    def present(self) -> Bool[ndarray, "n modality"]:
        """Returns which modalities each row has."""
        return self._present


STUDIES: Registry[Study] = Registry("study")
register = STUDIES.register
