"""From what the user has to blocks.

What training learns of each modality (:mod:`cm2.samples.kinds`) turns samples into one finite,
standardised array a modality, or into what encoders read, and says who has it. A modality is
missing for a sample where its entry is, where a mask says so, or where it is not given at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from sklearn.base import BaseEstimator

from cm2.core.given import check_index, plain
from cm2.samples import tables
from cm2.samples.container import Groups, Samples, samples, unknown
from cm2.samples.kinds import REGISTRY, Column, Inputs, Learned

__all__ = ["Blocks", "Groups", "Reader", "check_any"]


class Blocks(NamedTuple):
    """What heads see.

    Attributes:
        values: By modality, rows of finite numbers; zeros where the modality is absent. They are in
            the order of ``names``, without a modality that only an encoder can read.
        present: Which modalities each row has, in the order of ``names``.
        inputs: What encoders read of the modalities for which it is not ``values``.
        order: The modalities, if not all of them are among the values.
        encoders: The encoder of each modality that is not a table, where none is named.
        draws: How often networks draw what a row lacks, to average what they say of it; if
            ``None``, they fill it in as they do.
    """

    values: dict[str, Float[ndarray, "n feature"]]
    present: Bool[ndarray, "n modality"]
    inputs: dict[str, Inputs] = {}
    order: tuple[str, ...] = ()
    encoders: dict[str, dict[str, Any]] = {}
    draws: int | None = None

    def take(self, rows: Int[ndarray, " row"]) -> Blocks:
        """Some of the rows."""
        return Blocks(
            {name: values[rows] for name, values in self.values.items()},
            self.present[rows],
            {name: inputs.select(rows) for name, inputs in self.inputs.items()},
            self.order,
            self.encoders,
            self.draws,
        )

    def hidden(self, present: Bool[ndarray, "n modality"]) -> Blocks:
        """The rows with some of their modalities only."""
        values = {
            name: np.where(present[:, [column]], self.values[name], np.float32(0))
            for column, name in enumerate(self.names)
            if name in self.values
        }
        return self._replace(values=values, present=present)

    @property
    def names(self) -> list[str]:
        """The modalities."""
        return list(self.order or self.values)

    @property
    def defaults(self) -> dict[str, dict[str, Any]]:
        """The encoder of each modality where none is named."""
        return {name: self.encoders.get(name, {"kind": "dense"}) for name in self.names}

    @property
    def raw(self) -> dict[str, Any]:
        """What encoders read of each modality."""
        return {n: self.inputs[n] if n in self.inputs else self.values[n] for n in self.names}

    @property
    def shapes(self) -> dict[str, dict[str, Any]]:
        """Arguments of each modality's encoder that follow from the data."""
        return {
            name: read.shape if isinstance(read, Inputs) else {"features": read.shape[1]}
            for name, read in self.raw.items()
        }

    @property
    def unread(self) -> list[str]:
        """The modalities that only an encoder can read."""
        return [name for name in self.names if name not in self.values]


class Reader(BaseEstimator):  # type: ignore[misc]
    """Turns the user's samples into :class:`Blocks`.

    It learns of each modality its kind, and then what its kind learns, such as scales.

    Args:
        modalities: Columns of each modality, if samples come as one two-dimensional array.
        options: Of the encoder of each modality, as far as they say how it is to be read.

    Attributes:
        names_: Names of the modalities.
        kinds_: Their kinds.
        learned_: What was learned of each.
    """

    def __init__(
        self,
        modalities: Groups | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.modalities = modalities
        self.options = options

    def samples(self, X: Any) -> Samples:
        """What the user gave as samples.

        Raises:
            ValueError: If modalities differ in their samples, or one cannot be read.
        """
        return samples(X, modalities=self.modalities)

    def fit(self, X: Any, present: Any = None) -> Self:
        """Learns from the training samples.

        Raises:
            ValueError: If a modality cannot be read, or is missing everywhere.
        """
        self.fit_blocks(X, present)
        return self

    def fit_blocks(
        self,
        X: Any,
        present: Any = None,
        rows: Int[ndarray, " row"] | None = None,
        weight: Float[ndarray, " row"] | None = None,
        patients: ndarray | None = None,
    ) -> Blocks:
        """Learns from the training samples and returns their blocks.

        Args:
            X: The samples.
            present: Which modalities each sample has, beyond what their entries say: by name, or
                an array with a column for each modality of ``X``, in that order.
            rows: Samples to learn from and return; all if ``None``. The others are only checked.
            weight: Of each of these samples in centres and scales.
            patients: Whose each of these samples is.

        Raises:
            ValueError: If a modality cannot be read, or a sample or modality has nothing.
        """
        given = self.samples(X)
        self.names_ = list(given.columns)
        self.kinds_ = given.kinds
        for name in self.options or {}:
            if name not in self.names_:
                raise ValueError(unknown(name, self.names_, "X has"))
        mask = self._mask(present, given)
        chosen = np.arange(len(given)) if rows is None else rows
        self.learned_: dict[str, Learned] = {}
        parts = {}
        for m, (name, column) in enumerate(given.columns.items()):
            column.check(mask[:, m])
            column.try_all(mask[:, m])
            here = mask[chosen, m]
            if not here.any():
                raise ValueError(f"modality {name!r} is missing for every training sample")
            share = None if weight is None else weight[here]
            owners = None if patients is None else patients[here]
            learned = column.learned((self.options or {}).get(name))
            self.learned_[name] = learned.fit(column.take(chosen[here]), share, owners)
            parts[name] = column if rows is None else column.take(rows)
        check_any(mask, chosen)
        return self._blocks(parts, mask[chosen])

    def blocks(self, X: Any, present: Any = None, *, trained: bool = False) -> Blocks:
        """The blocks of further samples, of which some may have no modality at all.

        Args:
            X: The samples.
            present: As in :meth:`fit_blocks`.
            trained: Whether a training will read them, so that pictures are tried before.

        Raises:
            ValueError: If a modality is unknown or has other columns than in training.
        """
        given = self.check(X)
        parts = {
            name: given.columns[name]
            if name in given.columns
            else self.learned_[name].empty(len(given))
            for name in self.names_
        }
        mask = self._mask(present, given)
        for m, column in enumerate(parts.values()):
            column.check(mask[:, m])
            if trained:
                column.try_all(mask[:, m])
        return self._blocks(parts, mask)

    def check(self, X: Any) -> Samples:
        """Further samples, if all of their modalities are as in training.

        Raises:
            ValueError: If one is unknown, or has other columns than in training.
        """
        kinds = self.kinds_ if tables.is_dict(X) else {}
        given = samples(X, {k: v for k, v in kinds.items() if k in X}, self.modalities)
        for name, column in given.columns.items():
            if name not in self.names_:
                raise ValueError(unknown(name, self.names_, "The model knows"))
            if given.kinds[name] != self.kinds_[name]:
                raise ValueError(
                    f"modality {name!r} is of kind {given.kinds[name]!r}; "
                    f"the fitted model expects {self.kinds_[name]!r}"
                )
            self.learned_[name].check(column)
        return given

    def _blocks(self, parts: Mapping[str, Column], mask: Bool[ndarray, "n modality"]) -> Blocks:
        values, inputs = {}, {}
        for m, (name, column) in enumerate(parts.items()):
            features = self.learned_[name].features(column, mask[:, m])
            if features is not None:
                values[name] = features
            read = self.learned_[name].inputs(column, mask[:, m])
            if read is not None:
                inputs[name] = read
        encoders = {name: REGISTRY[kind].encoder for name, kind in self.kinds_.items()}
        return Blocks(values, mask, inputs, tuple(parts), encoders)

    def _mask(self, mask: Any, given: Samples) -> Bool[ndarray, "n modality"]:
        """Which modalities each sample has: its entries, and what a mask says."""
        rows = len(given)
        shape = (rows, len(self.names_))
        nothing = np.zeros(rows, bool)
        there = [
            given.columns[name].present if name in given.columns else nothing
            for name in self.names_
        ]
        own = np.stack(there, axis=1)
        if mask is None:
            return own
        mask = plain(mask)
        if isinstance(mask, Mapping | pd.DataFrame):
            for name in mask:
                if name not in self.names_:
                    raise ValueError(unknown(name, self.names_, "The model knows"))
            full = {name: mask.get(name, np.ones(rows, bool)) for name in self.names_}
            flags = []
            for name, part in full.items():
                what = f"present of modality {name!r}"
                check_index(what, part, given.index, "X")
                flags.append(_flags(what, part, (rows,)))
            mask = np.stack(flags, axis=1)
        elif list(given.columns) != self.names_:
            raise ValueError(
                f"X has the modalities {', '.join(given.columns)}, but the fitted model "
                f"{', '.join(self.names_)}: so that no column of present is taken for another, "
                "give it as a dict by modality"
            )
        return _flags("present", mask, shape) & own


def _flags(name: str, mask: Any, shape: tuple[int, ...]) -> Bool[ndarray, "n ..."]:
    """A mask as an array of this shape."""
    found = np.asarray(mask)
    if found.shape != shape or found.dtype != bool:
        raise ValueError(
            f"{name} must be boolean of shape {shape}, got {found.dtype} of shape {found.shape}"
        )
    return found


def check_any(present: Bool[ndarray, "n modality"], rows: Int[ndarray, " row"]) -> None:
    """Refuses samples without any modality among some rows."""
    none = rows[~present[rows].any(axis=1)]
    if len(none):
        raise ValueError(
            f"{len(none)} samples have no modality at all (rows {tables.few(none.tolist())}); "
            "remove them first"
        )
