"""What a kind of modality is: a column of samples, what training learns of it, and what comes out.

A *column* holds one modality of some samples as the user gave it. Something *learned* is fitted on
the training rows of a column and then reads any column of its kind: as inputs of an encoder, and,
where the kind can say it in numbers without an encoder, as features.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from sklearn.base import BaseEstimator
from torch import Tensor

from cm2.core.given import plain
from cm2.core.registry import Registry


class Column(ABC):
    """A modality of some samples.

    Args:
        name: Of the modality, for messages.
        values: What the user gave.

    Attributes:
        name: Of the modality.
        present: Which samples have it.

    Raises:
        ValueError: If the values are not of this kind.
    """

    learned: ClassVar[type[Learned]]
    """What learns of it."""
    encoder: ClassVar[dict[str, Any]]
    """The encoder that it gets where none is named."""

    name: str
    present: Bool[ndarray, " n"]

    @abstractmethod
    def __init__(self, name: str, values: Any) -> None: ...

    @classmethod
    @abstractmethod
    def fits(cls, values: Any) -> bool:
        """Whether values look as if they were of this kind.

        Raises:
            ValueError: If that cannot be seen, and to guess would be dangerous.
        """

    @abstractmethod
    def take(self, rows: Int[ndarray, " row"]) -> Self:
        """Some of the samples."""

    def check(self, here: Bool[ndarray, " n"]) -> None:
        """Refuses what cannot be read in the samples that have the modality."""
        return

    def try_all(self, here: Bool[ndarray, " n"]) -> None:
        """Refuses it where else a batch would, so that no training stops there."""
        return

    def __len__(self) -> int:
        """Returns the number of samples."""
        return len(self.present)


class Listed(Column):
    """A modality that comes as a list, an entry a sample.

    Attributes:
        values: The entries, as the kind keeps them.
        rows: Which of the samples that the user gave these are, for messages.
    """

    values: list[Any]
    rows: Int[ndarray, " n"]

    def keep(self, name: str, values: list[Any], present: Sequence[bool]) -> None:
        """Takes the entries of all samples."""
        self.name = name
        self.values = values
        self.present = np.array(present, bool)
        self.rows = np.arange(len(values))

    def take(self, rows: Int[ndarray, " row"]) -> Self:
        part = copy.copy(self)
        part.values = [self.values[row] for row in rows]
        part.present = self.present[rows]
        part.rows = self.rows[rows]
        return part


class Inputs(ABC):
    """What an encoder reads of one modality, in whole batches.

    Attributes:
        shape: Arguments of an encoder that follow from the data, such as ``features``.
    """

    shape: dict[str, Any]

    @abstractmethod
    def take(self, rows: Int[ndarray, " batch"]) -> Any:
        """Returns the batch of these rows; ``-1`` for nothing, which comes out as zeros."""

    def hours(self, rows: Int[ndarray, " batch"]) -> Float[Tensor, "batch ..."] | None:
        """When what ``take`` returns is from, zeros for nothing; None if that is not known."""
        return None

    @abstractmethod
    def select(self, rows: Int[ndarray, " row"]) -> Inputs:
        """Some of the rows, without reading them."""


class Learned(BaseEstimator, ABC):  # type: ignore[misc]
    """What was learned of a modality from training samples.

    Args:
        options: Of the modality's encoder, as far as they say how it is to be read.
    """

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options = options

    @abstractmethod
    def fit(
        self,
        column: Any,
        weight: Float[ndarray, " n"] | None = None,
        patients: ndarray | None = None,
    ) -> Self:
        """Learns from samples that all have the modality.

        Args:
            column: The samples.
            weight: Of each of them.
            patients: Whose each of them is.
        """

    @abstractmethod
    def check(self, column: Any) -> None:
        """Refuses a column of another shape than in training."""

    @abstractmethod
    def empty(self, rows: int) -> Column:
        """A column in which no sample has the modality."""

    def features(
        self, column: Any, here: Bool[ndarray, " n"]
    ) -> Float[ndarray, "n feature"] | None:
        """Standardised numbers of the samples, zeros where ``here`` is false.

        ``None`` if the kind needs an encoder for that.
        """
        return None

    def inputs(self, column: Any, here: Bool[ndarray, " n"]) -> Inputs | None:
        """What encoders read; ``None`` if it is the features."""
        return None


REGISTRY: Registry[Column] = Registry("kind of modality")
register = REGISTRY.register


def column(name: str, values: Any, kind: str | None = None) -> Column:
    """A modality as a column of the kind that is named, or else of the first that it fits.

    Raises:
        ValueError: If it fits none, or not the one that is named.
    """
    if isinstance(values, Column):
        return values
    values = plain(values)
    if kind is not None:
        return REGISTRY[kind](name, values)
    said = f"say what kind it is, as in Samples(X, kinds={{{name!r}: 'text'}})"
    if entries(values) is not None and not some(values):
        raise ValueError(
            f"modality {name!r} is missing for every sample, which shows no kind: {said}"
        )
    for known in REGISTRY:
        try:
            fits = REGISTRY[known].fits(values)
        except ValueError as error:
            raise ValueError(f"modality {name!r}: {error}; or {said}") from None
        if fits:
            return REGISTRY[known](name, values)
    return REGISTRY["table"](name, values)  # which says what is wrong with it


def kind_of(given: Column) -> str:
    """The name of a column's kind."""
    return next(name for name in REGISTRY if REGISTRY[name] is type(given))


def entries(values: Any) -> list[Any] | None:
    """The entries of a one-dimensional collection, missing ones as ``None``.

    ``None`` for anything else, such as a table.
    """
    if isinstance(values, pd.Series) or (isinstance(values, ndarray) and values.ndim == 1):
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        return None
    return [None if _missing(one) else plain(one) for one in values]


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def some(values: Any) -> list[Any]:
    """The entries of a one-dimensional collection that are not missing; none of anything else."""
    return [one for one in entries(values) or () if one is not None]
