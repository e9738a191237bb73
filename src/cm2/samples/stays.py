"""Stays of a prepared folder: their modalities as samples, and what the folder says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd
from jaxtyping import Int
from numpy import ndarray

from cm2.core.errors import InputError
from cm2.samples import selection
from cm2.samples.container import Samples
from cm2.samples.folder import Folder

__all__ = ["Stays"]


@dataclass(frozen=True)
class Stays:
    """Stays of a prepared folder as samples.

    Attributes:
        samples: Their modalities.
        stays: Their rows of ``stays.parquet``.
        labels: Names of labels that may hold together; empty where a stay is of one class.
        classes: Number of classes.
        checksum: Of the folder's manifest.
        hours: Length of the window before the prediction, if the folder says it.
        synthetic: Whether the data were generated.
        source: Where they are from.
    """

    samples: Samples
    stays: pd.DataFrame
    labels: tuple[str, ...]
    classes: int
    checksum: str
    hours: float | int | None
    synthetic: bool
    source: str

    @classmethod
    def open(
        cls,
        root: str | Path | Folder,
        *,
        labels: Sequence[str] | None = None,
        classes: int = 0,
        labelled: bool = False,
        **options: Any,
    ) -> Self:
        """Opens prepared data.

        Args:
            root: The folder, by its path or opened.
            labels: Those that a model was trained on; ``None`` for the folder's own.
            classes: How many it was trained on.
            labelled: Whether stays whose outcome is not known are left out.
            options: Further arguments of :meth:`.Samples.open`.

        Raises:
            InputError: If the folder is not whole, or no stay is left.
        """
        verify = options.pop("verify", True)
        read = root if isinstance(root, Folder) else Folder(root, verify=verify)
        samples = Samples.of(read, **options)
        stays = read.stays.set_index("stay_id").loc[samples.ids].reset_index()
        named = read.labels if labels is None else tuple(labels)
        if labelled:
            known = selection.known(stays, named)
            if not known.any():
                raise InputError(f"{read.root}: has no stay with a label, to measure against")
            samples, stays = samples[known], stays.loc[known].reset_index(drop=True)
        return cls(
            samples,
            stays,
            named,
            max(selection.classes(read), classes),
            read.checksum,
            read.hours,
            read.synthetic,
            str(read.manifest.get("source", "")),
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names, in the order of ``present``."""
        return tuple(self.samples.columns)

    @property
    def target(self) -> Int[ndarray, "stay ..."] | None:
        """Outcomes; None where one is not known."""
        return selection.outcomes(self.stays, self.labels)

    def __len__(self) -> int:
        """Returns the number of stays."""
        return len(self.stays)
