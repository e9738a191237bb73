"""What a benchmark is asked, checked before its hours begin."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cm2.benchmark import folder
from cm2.benchmark.studies import Study
from cm2.core.errors import InputError


def names(methods: Iterable[str]) -> None:
    """Refuses methods whose fits would have one file.

    Raises:
        InputError: If there are such, or one whose name has no letter and no digit.
    """
    places: dict[str, str] = {}
    for name in methods:
        other = places.setdefault(folder.named(name), name)
        if not folder.named(name) or other != name:
            raise InputError(
                f"methods {other!r} and {name!r} are told apart by letters and digits alone"
                if other != name
                else f"a method's name needs a letter or a digit, {name!r} has none"
            )


def study(name: str, given: Study, seeds: int) -> None:
    """Refuses a study that some seed cannot split, or whose name cannot be that of a folder.

    Raises:
        InputError: If it is so.
    """
    if not name or name != name.strip(". ") or set(name) & set('/\\:*?"<>|'):
        raise InputError(f"a data set is kept under its name, and no file can be named {name!r}")
    for seed in range(seeds):
        try:
            train, _ = given.split(seed)
        except ValueError as error:
            raise InputError(f"{name} has no split of seed {seed}: {error}") from error
        lacking = np.setdiff1d(np.arange(len(given.labels)), given.y[train])
        if len(lacking):
            raise InputError(
                f"{name} has no training row of class {given.labels[lacking[0]]!r} in the split of "
                f"seed {seed}; its rows belong to too few patients"
            )
