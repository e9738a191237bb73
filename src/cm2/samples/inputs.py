"""From what the user has to blocks.

Blocks are one finite, standardised array for each modality, and who has it. A modality is missing
for a sample where its whole row is NaN, where a mask says so, or where it is not given at all.
Columns are read robustly (:mod:`cm2.samples.scaling`); those that are partly missing are filled
with their centre and flagged.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from sklearn.base import BaseEstimator
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union

from cm2.samples import tables
from cm2.samples.scaling import RobustScaler

Groups = Mapping[str, Any]
"""Columns of each modality in one two-dimensional array: slices, positions or column names."""


class Blocks(NamedTuple):
    """What heads see.

    Attributes:
        values: By modality, rows of finite numbers; zeros where the modality is absent.
        present: Which modalities each row has, in the order of ``values``.
    """

    values: dict[str, Float[ndarray, "n feature"]]
    present: Bool[ndarray, "n modality"]

    def take(self, rows: Int[ndarray, " row"]) -> Blocks:
        """Some of the rows."""
        return Blocks({k: v[rows] for k, v in self.values.items()}, self.present[rows])


class Reader(BaseEstimator):  # type: ignore[misc]
    """Turns the user's tables into :class:`Blocks`.

    It learns columns, centres and robust scales from the first.

    Args:
        modalities: Columns of each modality, if samples come as one two-dimensional array.

    Attributes:
        names_: Names of the modalities.
        columns_: Names or number of the columns of each modality.
        scalers_: What standardises, fills and flags each modality.
    """

    def __init__(self, modalities: Groups | None = None) -> None:
        self.modalities = modalities

    def count(self, X: Any) -> int:
        """Number of samples.

        Raises:
            ValueError: If modalities differ in it, or a modality is no table.
        """
        return int(next(iter(self._tables(X).values())).shape[0])

    def fit(self, X: Any, present: Any = None) -> Self:
        """Learns from the training samples.

        Raises:
            ValueError: If a modality is empty, not numeric, infinite or missing everywhere.
        """
        self.fit_blocks(X, present)
        return self

    def fit_blocks(
        self,
        X: Any,
        present: Any = None,
        rows: Int[ndarray, " row"] | None = None,
        weight: Float[ndarray, " row"] | None = None,
    ) -> Blocks:
        """Learns from the training samples and returns their blocks.

        Args:
            X: The samples.
            present: Which modalities each sample has, beyond what NaN rows say.
            rows: Samples to learn from and return; all if ``None``. The others are only checked.
            weight: Of each of these samples in centres and scales.

        Raises:
            ValueError: If a modality is no table of numbers, or a sample or modality has nothing.
        """
        parts = self._tables(X)
        self.names_ = list(parts)
        self.columns_ = {name: tables.columns(table) for name, table in parts.items()}
        mask = self._mask(present, self.count(X))
        self.scalers_: dict[str, FeatureUnion] = {}
        values = {}
        for m, (name, table) in enumerate(parts.items()):
            array = _read(name, table, mask[:, m])
            chosen = slice(None) if rows is None else rows
            here = mask[chosen, m]
            if not here.any():
                raise ValueError(f"modality {name!r} is missing for every training sample")
            share = None if weight is None else weight[here]
            self.scalers_[name] = _scaler().fit(
                array[chosen][here], robustscaler__sample_weight=share
            )
            values[name] = self._block(name, array[chosen], here)
        _check_any(mask)
        return Blocks(values, mask if rows is None else mask[rows])

    def blocks(self, X: Any, present: Any = None) -> Blocks:
        """The blocks of further samples, of which some may have no modality at all.

        Raises:
            ValueError: If a modality is unknown or has other columns than in training.
        """
        parts = self._tables(X)
        for name, table in parts.items():
            if name not in self.names_:
                raise ValueError(_unknown(name, self.names_))
            tables.check_columns(name, tables.columns(table), self.columns_[name])
        mask = self._mask(present, self.count(X))
        values = {}
        for m, name in enumerate(self.names_):
            if name in parts:
                array = _read(name, parts[name], mask[:, m])
            else:
                array = np.full((len(mask), tables.width(self.columns_[name])), np.nan)
                mask[:, m] = False
            values[name] = self._block(name, array, mask[:, m])
        return Blocks(values, mask)

    def _tables(self, X: Any) -> dict[str, Any]:
        """Splits ``X`` into one table a modality and checks that their rows agree."""
        if tables.is_dict(X):
            if self.modalities is not None:
                raise ValueError(
                    "`modalities` names the columns of one two-dimensional X, but X is a dict"
                )
            if not X:
                raise ValueError("X has no modality")
            parts = {name: tables.as_table(table) for name, table in X.items()}
        else:
            tables.check_dimensions(X, "X")
            X = tables.as_table(X)
            groups = self.modalities
            parts = {"features": X} if groups is None else tables.parted(X, groups)
        for name, table in parts.items():
            tables.check_dimensions(table, f"modality {name!r}")
        lengths = {name: table.shape[0] for name, table in parts.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"modalities have different numbers of rows: {lengths}")
        frames = {k: t for k, t in parts.items() if isinstance(t, pd.DataFrame)}
        first = next(iter(frames), "")
        for name, frame in frames.items():
            if not frame.index.equals(frames[first].index):
                raise ValueError(f"the index of modality {name!r} differs from that of {first!r}")
        return parts

    def _mask(self, mask: Any, rows: int) -> Bool[ndarray, "n modality"]:
        """Which modalities each sample has, as far as a mask says."""
        shape = (rows, len(self.names_))
        if mask is None:
            return np.ones(shape, dtype=bool)
        if isinstance(mask, Mapping):
            for name in mask:
                if name not in self.names_:
                    raise ValueError(_unknown(name, self.names_))
            full = {name: mask.get(name, np.ones(rows, bool)) for name in self.names_}
            mask = np.stack([np.asarray(part) for part in full.values()], axis=1)
        mask = np.asarray(mask)
        if mask.shape != shape or mask.dtype != bool:
            raise ValueError(
                f"present must be boolean of shape {shape}, got {mask.dtype} of shape {mask.shape}"
            )
        return mask.copy()

    def _block(
        self, name: str, array: Float[ndarray, "n feature"], here: Bool[ndarray, " n"]
    ) -> Float[ndarray, "n column"]:
        """A modality standardised where it is present, zeros elsewhere."""
        scaler = self.scalers_[name]
        block = np.zeros((len(array), len(scaler.get_feature_names_out())), dtype=np.float32)
        if here.any():
            block[here] = scaler.transform(array[here])
        return block


def _read(name: str, table: Any, mask: Bool[ndarray, " n"]) -> Float[ndarray, "n feature"]:
    """A modality as numbers; the mask becomes false where a whole row is NaN.

    Raises:
        ValueError: If it is not numeric, or infinite where it is present.
    """
    array = tables.numbers(name, table)
    mask &= ~np.isnan(array).all(axis=1)
    infinite = np.flatnonzero(np.isinf(array[mask]).any(axis=0))
    if len(infinite):
        shown = tables.names(table, infinite.tolist())
        raise ValueError(f"modality {name!r} has infinite values in columns {shown}")
    return array


def _check_any(present: Bool[ndarray, "n modality"]) -> None:
    """Refuses samples without any modality."""
    none = np.flatnonzero(~present.any(axis=1))
    if len(none):
        raise ValueError(
            f"{len(none)} samples have no modality at all (rows {tables.few(none.tolist())}); "
            "remove them first"
        )


def _scaler() -> FeatureUnion:
    """Scales are learned from what was seen: filled gaps would make every column look narrower."""
    filled = SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True)
    return make_union(
        make_pipeline(RobustScaler(), filled),
        make_pipeline(MissingIndicator(error_on_new=False), RobustScaler()),
    )


def _unknown(name: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"unknown modality {name!r}{hint} The model knows: {', '.join(known)}"
