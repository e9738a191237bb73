"""Splits along groups of stays: other hospitals, other regions, or later years than in training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import pandas as pd

from cm2.clinical.prepare import splits
from cm2.clinical.prepare.errors import TableError

__all__ = ["GROUPS", "assign"]

GROUPS = ("hospital", "region", "year", "anchor_year_group")
ORDERED = ("year", "anchor_year_group")
"""Groups that follow each other in time; their names sort in that order."""


def assign(stays: pd.DataFrame, by: str, fractions: Sequence[float], *, seed: int = 0) -> pd.Series:
    """Deals whole groups out to the parts, and each patient to one part.

    Groups of place are dealt in an order that the seed decides, to the test, then to validation,
    until a part has about its fraction; those of time so that the test is the latest, and
    validation some patients of the others. Stays of an unknown group are for training.

    Args:
        stays: Has ``subject_id`` and a column of the group's name.
        by: That name.
        fractions: Wanted shares of training, validation and test.
        seed: Another seed gives another split.

    Returns:
        The part of each stay; null where the patient has stays of two parts.

    Raises:
        TableError: There is but one group.
    """
    splits.check_fractions(fractions)
    groups, total = stays[by], len(stays)
    sizes = groups.value_counts()
    if len(sizes) < 2:
        raise TableError(f"the stays are of {len(sizes)} {by}: there is nothing to split by")
    if by in ORDERED:
        order = sorted(sizes.index, reverse=True)
    else:
        order = sorted(sizes.index, key=lambda name: _luck(name, seed))
    spare = len(order) - 1
    test = _filled(order[:spare], sizes, fractions[2] * total, in_turn=by in ORDERED)
    part = groups.isin(test).map({True: "test", False: "train"})
    rest = [name for name in order[:spare] if name not in test]
    if by not in ORDERED and rest:
        chosen = _filled(rest, sizes, fractions[1] * total)
        part = part.mask(groups.isin(chosen), "validation")
    else:
        share = fractions[1] / max(1 - fractions[2], 1e-9)
        dealt = splits.assign(
            stays["subject_id"].unique().tolist(), (1 - share, share, 0.0), seed=seed
        )
        inner = stays["subject_id"].map(dealt)
        part = part.where((part == "test") | groups.isna(), inner)
    parts = part.groupby(stays["subject_id"]).transform("nunique")
    return part.where(parts == 1)


def _filled(
    order: Iterable[str], sizes: pd.Series, wanted: float, *, in_turn: bool = False
) -> set[str]:
    """Takes groups, in this order, that each bring the number of stays nearer to the wanted.

    ``in_turn`` ends with the first that does not.
    """
    taken, number = set[str](), 0
    for name in order:
        size = int(sizes[name])
        if not taken or abs(number + size - wanted) < abs(number - wanted):
            taken.add(name)
            number += size
        elif in_turn:
            break
    return taken


def _luck(name: str, seed: int) -> str:
    return hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).hexdigest()
