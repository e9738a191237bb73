"""Splits in which no patient stands on two sides, stratified by the outcome.

Folds are those of scikit-learn's StratifiedGroupKFold, dealt out to the parts by their fractions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

__all__ = ["split"]

FOLDS = 20


def split(
    patients: pd.Series,
    target: pd.Series | None = None,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    *,
    seed: int = 0,
) -> tuple[NDArray[np.int64], ...]:
    """Deals rows out to parts such that each patient is in one part.

    Args:
        patients: The patient of each row.
        target: Classes to be spread evenly over the parts; None for no stratification.
        fractions: Share of each part, to a twentieth; they sum to one.
        seed: Of the shuffle.

    Returns:
        For each fraction the sorted positions of its rows.
    """
    if abs(sum(fractions) - 1) > 1e-6 or min(fractions) <= 0:
        raise ValueError(f"fractions must be positive and sum to 1, got {tuple(fractions)}")
    labels = np.zeros(len(patients), dtype=int) if target is None else np.asarray(target)
    rarest = int(np.unique(labels, return_counts=True)[1].min()) if len(labels) else 0
    folds = min(FOLDS, patients.nunique(), rarest)
    if folds < len(fractions):
        raise ValueError(
            f"{len(fractions)} parts need as many patients and rows of each class, got"
            f" {patients.nunique()} patients and {rarest} rows of the rarest class"
        )
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = [rows for _, rows in dealer.split(labels, labels, np.asarray(patients))]
    ends = _ends(fractions, folds)
    return tuple(
        np.sort(np.concatenate(parts[start:end]))
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    )


def _ends(fractions: Sequence[float], folds: int) -> list[int]:
    """The fold after each part's last, with at least one fold a part."""
    ends: list[int] = []
    for part, share in enumerate(np.cumsum(fractions)):
        least = (ends[-1] if ends else 0) + 1
        most = folds - (len(fractions) - 1 - part)
        ends.append(min(max(round(float(share) * folds), least), most))
    return ends
