"""What decides the result of a preparation, checked as soon as it is given."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from cm2.clinical.prepare import grouped, labels, lists, splits
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.events import KNOWN_BY
from cm2.clinical.prepare.noted import NOTES_OF
from cm2.clinical.prepare.notes import SELECTIONS
from cm2.clinical.prepare.reports import KEPT, SECTIONS

__all__ = ["Options"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides the result; the manifest holds them.

    Attributes:
        task: ``"in-hospital-mortality"``, ``"readmission"``, ``"length-of-stay"``,
            ``"phenotyping"``, or ``"none"`` for patients without an outcome yet.
        hours: Length of the window from admission to the unit.
        hours_per_bin: Length of a bin of the grid.
        readmission: ``"survivors"`` or ``"or-death"``, see `labels.label`.
        look_back: Hours before admission to the unit from which height and weight are taken.
        known_by: ``"charttime"``, or ``"storetime"`` for what was also entered before the window's
            end.
        selection: ``"window"``, or ``"reference"`` for the notes and images that the code of
            Wu et al. (2025) selects.
        notes_of: Whether notes are read of ``"all"`` stays, of a ``"list"``, or of the ``"third"``
            that the code of Wu et al. (2025) drew, see `noted`.
        sections: Sections of radiology reports that are kept.
        sections_kept: ``"every"`` one of them that a report has, or the ``"first"``; None for every
            one of MIMIC-IV-Note, and the first of MIMIC-CXR's own reports.
        views: Views of X-rays to choose from.
        fractions: Expected shares of training, validation and test patients.
        missing_rate: Share of the modalities after the first that is removed.
        seed: Of the split, and of the removal.
        splits_from: Whose published lists say who is in which part, see `lists`; None: nobody's.
        split_by: A group of stays that is whole in one part, see `grouped`; None: patients.
        table: Files and columns of the source ``"table"``, see `table`.
        meds: Whether to write events and labels in the Medical Event Data Standard too.
    """

    task: str = "in-hospital-mortality"
    hours: float | int = 48.0
    hours_per_bin: float | int = 1.0
    readmission: str = "survivors"
    look_back: float | int = 24.0
    known_by: str = "charttime"
    selection: str = "window"
    notes_of: str = "all"
    sections: tuple[str, ...] = ("findings", "impression")
    sections_kept: str | None = None
    views: tuple[str, ...] = ("AP", "PA")
    fractions: tuple[float, ...] = (0.7, 0.15, 0.15)
    missing_rate: float | int = 0.0
    seed: int = 0
    splits_from: str | None = None
    split_by: str | None = None
    table: Mapping[str, Any] | None = None
    meds: bool = False

    def __post_init__(self) -> None:
        for name in ("hours", "hours_per_bin"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise TableError(f"{name} must be a positive number, got {value}")
            # 24 and 24.0 are the same option, also in the manifest.
            object.__setattr__(self, name, float(value))
        if not (math.isfinite(self.look_back) and self.look_back >= 0):
            raise TableError(f"look_back must be 0 or a number of hours, got {self.look_back}")
        object.__setattr__(self, "look_back", float(self.look_back))
        if not 0 <= self.missing_rate < 1:
            raise TableError(f"missing_rate must be in [0, 1), got {self.missing_rate}")
        object.__setattr__(self, "missing_rate", float(self.missing_rate))
        if self.hours_per_bin > self.hours:
            raise TableError(
                f"a bin of {self.hours_per_bin:g} h is longer than the window of {self.hours:g} h"
            )
        for name, allowed in (
            ("task", labels.TASKS),
            ("readmission", labels.READMISSIONS),
            ("known_by", KNOWN_BY),
            ("selection", SELECTIONS),
            ("notes_of", NOTES_OF),
            ("sections_kept", (None, *KEPT)),
            ("splits_from", (None, *lists.PUBLISHED)),
            ("split_by", (None, *grouped.GROUPS)),
        ):
            if getattr(self, name) not in allowed:
                raise TableError(
                    f"{name} must be {' or '.join(map(str, allowed))}, got {getattr(self, name)!r}"
                )
        if not self.views:
            raise TableError("views must name at least one, such as AP or PA")
        if not self.sections or set(self.sections) - set(SECTIONS):
            raise TableError(
                f"sections must be some of {', '.join(SECTIONS)}, got {list(self.sections)}"
            )
        if self.meds and self.task == "phenotyping":
            raise TableError(
                "a file of labels in MEDS has one outcome a row, phenotyping 25; leave --meds"
            )
        if self.split_by and self.splits_from:
            raise TableError("--split-by and --splits-from are two ways to split; give one")
        splits.check_fractions(self.fractions)

    @property
    def seconds(self) -> int:
        """Length of the window."""
        return round(self.hours * 3600)
