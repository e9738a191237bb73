"""What a raw data set must give: four tables of one shape, from which everything else is common.

A source turns raw tables into Ibis expressions and reads nothing itself, so that the same
definitions run on DuckDB and Spark and compile for BigQuery.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import ibis
import ibis.expr.types as ir
import pandas as pd

from cm2.clinical.prepare.cohort import Cohort
from cm2.clinical.prepare.engine import Engine
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.images import CHEXPERT
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.tables import UNREAD, unread
from cm2.clinical.prepare.variables import VARIABLES, Item, Variable, items
from cm2.core.registry import Registry

__all__ = ["DOCUMENTS", "IMAGES", "MEASUREMENTS", "STAYS", "Measured", "Raw", "Source", "register"]

STAYS = {
    "subject_id": "int64",
    "hadm_id": "int64",
    "stay_id": "int64",
    "intime": "timestamp",
    "outtime": "timestamp",
    "admittime": "timestamp",
    "dischtime": "timestamp",
    "deathtime": "timestamp",
    "died": "int64",
    "age": "float64",
    "gender": "string",
    "transferred": "boolean",
}
"""One row a stay in an intensive care unit; `died` in hospital, `age` in years at admission to the
unit, `transferred` from one unit or ward to another within the stay."""

MEASUREMENTS = {
    "subject_id": "int64",
    "hadm_id": "int64",
    "stay_id": "int64",
    "item": "string",
    "origin": "string",
    "charttime": "timestamp",
    "storetime": "timestamp",
    "text": "string",
    "number": "float64",
    "unit": "string",
    "error": "boolean",
    "unreadable": "string",
}
"""One row a measurement; `item` is the identifier in the raw table `origin`, and `error` marks rows
that were taken back. `unreadable` names a column of the raw row (`chartevents.charttime`) that
could not be read. `stay_id`, `hadm_id`, both times, `text`, `number` and `unit` may be null."""

DOCUMENTS = {
    "subject_id": "int64",
    "hadm_id": "int64",
    "note_id": "string",
    "charttime": "timestamp",
    "storetime": "timestamp",
    "category": "string",
    "text": "string",
    "error": "boolean",
    "unreadable": "string",
}
"""One row a note or report; a note known by its day alone has no `charttime`."""

IMAGES = {
    "subject_id": "int64",
    "study_id": "int64",
    "dicom_id": "string",
    "time": "timestamp",
    "view": "string",
    "path": "string",
    "unreadable": "string",
    **dict.fromkeys(CHEXPERT, "float64"),
}
"""One row a picture; `path` is relative to the folder of the pictures, and a CheXpert label is 1,
0, -1 (uncertain) or null (not mentioned)."""


@runtime_checkable
class Raw(Protocol):
    """Raw tables by name: those of `tables.Tables`, or any mapping of typed Ibis tables."""

    def __contains__(self, name: str) -> bool:
        """Says whether an optional table is there."""

    def __getitem__(self, name: str) -> ir.Table:
        """Returns a table with typed columns."""


class Measured(NamedTuple):
    """What is measured over time.

    Attributes:
        rows: Measurements, with the columns of `MEASUREMENTS`.
        items: Those that are wanted.
        variables: What becomes the grid, in its order.
        counts: What the manifest says of this source alone.
    """

    rows: ir.Table
    items: tuple[Item, ...]
    variables: tuple[Variable, ...]
    counts: dict[str, Any]


class Source(ABC):
    """One raw data set: where its tables and columns are.

    Args:
        raw: Its tables, with the columns of `wanted`.
        options: What decides the result, for a source that is read by it.

    Attributes:
        name: The name it is registered under.
        wanted: For each table its columns and their types.
        optional: Tables that may be absent.
        lazy: Tables too large to be copied.
        filled: Tables without which, if they have no row, nothing can be made.
        subfolders: Where tables lie beside the folder itself.
        note_tables: Tables that may lie in a folder of notes that is named.
        image_tables: Tables that may lie in a folder of images that is named.
        modalities: What can be made of it.
        tasks: What its tables tell the outcome of.
        outcome: What the manifest calls an outcome that is none of the tasks.
        untold: Why they do not tell that of another task.
        outcomes: Tables that tell the outcome of one task, by task; no other reads them.
        grouping: Columns of `groups`.
        ungrouped: Why there is no other such column.
        text: The modality that `documents` are.
        calendar: Whether its times are of a calendar, in which stays of a patient have an order.
    """

    name: ClassVar[str]
    wanted: ClassVar[Mapping[str, Mapping[str, str]]]
    optional: ClassVar[frozenset[str]] = frozenset()
    lazy: ClassVar[frozenset[str]] = frozenset()
    filled: ClassVar[frozenset[str]] = frozenset()
    subfolders: ClassVar[tuple[str, ...]] = ()
    note_tables: ClassVar[tuple[str, ...]] = ()
    image_tables: ClassVar[tuple[str, ...]] = ()
    modalities: ClassVar[tuple[str, ...]]
    tasks: ClassVar[tuple[str, ...]] = (
        "in-hospital-mortality",
        "readmission",
        "length-of-stay",
        "none",
    )
    outcome: ClassVar[str | None] = None
    untold: ClassVar[Mapping[str, str]] = {}
    outcomes: ClassVar[Mapping[str, Mapping[str, Mapping[str, str]]]] = {}
    grouping: ClassVar[tuple[str, ...]] = ()
    ungrouped: ClassVar[Mapping[str, str]] = {"year": "its dates are shifted by patient"}
    text: ClassVar[str] = "notes"
    calendar: ClassVar[bool] = True

    def __init__(self, raw: Raw, options: Options | None = None) -> None:
        self.raw = raw
        self.options = options or Options()

    @classmethod
    def named(cls, raw: Path, **files: Path | None) -> dict[str, Path]:
        """Finds tables that are named one by one, each by an option.

        Args:
            raw: Folder of the raw tables.
            **files: What was named; None where nothing was.

        Raises:
            TableError: This source has no use for one, or cannot do without.
        """
        for option, path in files.items():
            if path is not None:
                raise TableError(f"{cls.name} has no use for --{option}")
        return {}

    def samples(self, engine: Engine) -> tuple[Cohort, ir.Table] | None:
        """Returns stays and outcomes, as `labels.label` does; None where a cohort is to be made.

        Args:
            engine: Where the work is done.
        """
        return None

    def parts(self, engine: Engine) -> dict[int, str] | None:
        """Returns the part of each patient; None where the source does not split them.

        Args:
            engine: Where the work is done.
        """
        return None

    def measured(self, engine: Engine, stays: ir.Table) -> Measured | None:
        """Returns measurements and which of them are wanted; None without their tables.

        Args:
            engine: Where the work is done.
            stays: Normalised stays that are kept.
        """
        rows = self.measurements()
        return None if rows is None else Measured(rows, items(), VARIABLES, {})

    @abstractmethod
    def stays(self) -> ir.Table:
        """Returns stays in intensive care, with the columns of `STAYS`."""

    def groups(self) -> ir.Table | None:
        """Returns ``stay_id`` and what stays can be told apart by: texts, null where unknown."""
        return None

    def diagnoses(self) -> ir.Table:
        """Returns ``hadm_id``, ``code`` and ``version`` of ICD, 9 or 10, of coded admissions."""
        raise TableError(f"{self.name} has no codes of diagnoses")

    @abstractmethod
    def measurements(self) -> ir.Table | None:
        """Returns measurements, with the columns of `MEASUREMENTS`; None without their tables."""

    def documents(self) -> ir.Table | None:
        """Returns notes and reports, with the columns of `DOCUMENTS`; None without them."""
        return None

    def images(self) -> ir.Table | None:
        """Returns pictures, with the columns of `IMAGES`; None without them."""
        return None

    def numbers(self, stays: ir.Table, hours: float) -> dict[str, pd.DataFrame]:
        """Returns modalities of this source alone that are one row of numbers a stay.

        Args:
            stays: Normalised stays that are kept.
            hours: Length of the window.
        """
        return {}

    def lines(self, stays: ir.Table, hours: float) -> dict[str, ir.Table]:
        """Returns modalities of this source alone that are lines of text.

        Args:
            stays: Normalised stays that are kept.
            hours: Length of the window.

        Returns:
            Tables of ``stay_id``, ``position``, ``hour``, ``category`` and ``text``.
        """
        return {}

    def scores(self, stays: ir.Table, hours: float) -> pd.DataFrame | None:
        """Returns clinical scores to compare a model with, which are no modality; None without.

        Args:
            stays: Normalised stays that are kept.
            hours: Length of the window, after which a score may be known.

        Returns:
            A column a score, by ``stay_id``; NaN where a stay has none.
        """
        return None


SOURCES: Registry[Source] = Registry("source")
register = SOURCES.register


def shaped(table: ir.Table, columns: Mapping[str, str]) -> ir.Table:
    """Selects the columns of a shape, in its order and with its types.

    Args:
        table: Has columns of these names.
        columns: `STAYS`, `MEASUREMENTS`, `DOCUMENTS` or `IMAGES`.
    """
    types = {name: ibis.dtype(kind) for name, kind in columns.items()}
    if UNREAD in types:
        # A source that reads no text has nothing that could not be read.
        table = table.mutate(**{UNREAD: unread(table)})
    return table.select(
        **{
            name: table[name] if table[name].type() == kind else table[name].cast(kind)
            for name, kind in types.items()
        }
    )


def whole_years(start: ir.Value, end: ir.Value) -> ir.Value:
    """Counts completed years between two times, as ages are counted.

    Args:
        start: The birth.
        end: When the age is wanted.
    """
    before = (end.month() * 100 + end.day()) < (start.month() * 100 + start.day())
    return end.year() - start.year() - before.cast("int64")
