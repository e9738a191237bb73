"""Raw tables of a folder or of one DuckDB file, opened as typed Ibis expressions.

Every table and column that is wanted is looked for before any work starts; values that do not
parse become null and are counted. No value of a patient enters a message.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq

from cm2.clinical.prepare import casts
from cm2.clinical.prepare.engine import DATABASES, DuckDB, Engine, check_parts, is_parquet, parts
from cm2.clinical.prepare.errors import MissingError, TableError

__all__ = ["SUFFIXES", "UNREAD", "Tables", "look", "refuse_unreadable", "unread"]

SUFFIXES = (".parquet", ".csv", ".csv.gz")
UNREADABLE = "__unreadable"
UNREAD = "unreadable"
"""Column of a lazy table: which other column of the row could not be read, null where all could."""

SHARE = 0.01
SAMPLE = 10_000
"""Rows of a lazy table that are looked at before any long work."""


class Tables:
    """The wanted tables of a raw data set; ``tables["patient"]`` is a typed Ibis table.

    Tables are found by name without regard to case, as ``.parquet``, ``.csv`` or ``.csv.gz``, as a
    folder of Parquet files, or in one DuckDB file, with the wanted columns only. A small table is
    read when first asked for, once. A table of ``lazy`` is not read: it is a view, read by whatever
    is computed from it.

    Args:
        folder: Where the files are, or a DuckDB file.
        wanted: For each table its columns and their types (``"int64"``, ``"float64"``,
            ``"string"``, ``"timestamp"``, and ``"int8"`` for a flag, which may also be written true
            or false), all lower case. A type that ends in ``?`` is of a column that may be absent
            and then is null.
        optional: Tables that may be absent; ``name in tables`` says whether one is there.
        lazy: Tables too large to be copied.
        subfolders: Further folders to look into, below ``folder``.
        given: Files of tables that were found elsewhere, and take the place of any other.
        engine: Where the work is done; None for a DuckDB of one thread, closed with the tables.

    Attributes:
        unreadable: How many values of ``"table.column"`` were not of their type and became null;
            filled as tables are read, columns without such values left out. A lazy table has a
            column ``unreadable`` instead, by which its reader counts.
    """

    def __init__(
        self,
        folder: Path,
        wanted: Mapping[str, Mapping[str, str]],
        *,
        optional: Collection[str] = (),
        lazy: Collection[str] = (),
        subfolders: Collection[str] = (),
        given: Mapping[str, Path] | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.unreadable: dict[str, int] = {}
        self._wanted = {
            name: {column: kind.removesuffix("?") for column, kind in columns.items()}
            for name, columns in wanted.items()
        }
        self._lazy = frozenset(lazy)
        places = [self.folder, *(self.folder / name for name in subfolders)]
        self._files, self._owned = dict(given or {}), engine is None
        rest = tuple(name for name in wanted if name not in self._files)
        self._database = self.folder.suffix.lower() in DATABASES
        if not self._database:
            self._files |= _find(places, rest, frozenset(optional))
        self.engine = engine or DuckDB()
        self._raw = _tables(self.engine, self.folder, rest, optional) if self._database else {}
        self._spelling = {
            name: _spelling(name, self._place(name), self._header(name), columns)
            for name, columns in wanted.items()
            if name in self
        }
        for name, spelling in self._spelling.items():
            if name in self._files and is_parquet(self._files[name]):
                check_parts(self._files[name], spelling.values())
        self._read: dict[str, ir.Table] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._files or name in self._raw

    def __getitem__(self, name: str) -> ir.Table:
        if name not in self._read:
            self._read[name] = self._view(name) if name in self._lazy else self._load(name)
        return self._read[name]

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the memory of the engine back, unless it was given."""
        if self._owned:
            self.engine.close()

    @property
    def files(self) -> dict[str, Path]:
        """The file of each table, each file of one in parts, and the database."""
        found = {"database": self.folder} if self._database else {}
        for name, path in self._files.items():
            if path.is_dir():
                found |= {f"{name}/{p.relative_to(path).as_posix()}": p for p in parts(path)}
            else:
                found[name] = path
        return found

    def path(self, name: str) -> Path:
        """Returns the file a table is in."""
        return self._files.get(name, self.folder)

    def _place(self, name: str) -> str:
        return str(self.path(name))

    def _open(self, name: str) -> ir.Table:
        if name in self._raw:
            return self._raw[name]
        path = self._files[name]
        return self.engine.read(path, () if is_parquet(path) else _csv_header(path))

    def _header(self, name: str) -> list[str]:
        if name in self._raw or is_parquet(self._files[name]):
            return list(self._open(name).columns)
        return _csv_header(self._files[name])

    def _texts(self, name: str, raw: ir.Table) -> dict[str, ir.Value]:
        spelling = self._spelling[name]
        return {
            column: casts.text(raw[spelling[column]], f"{self._place(name)}: column {column}")
            if column in spelling
            else ibis.null("string")
            for column in self._wanted[name]
        }

    def _view(self, name: str) -> ir.Table:
        raw = self._open(name)
        text = self._texts(name, raw)
        columns = {
            column: casts.typed(text[column], kind) for column, kind in self._wanted[name].items()
        }
        # Times first: a row without a time is of no use, whatever else it lacks.
        ordered = sorted(self._wanted[name].items(), key=lambda pair: pair[1] != "timestamp")
        lost = [
            (text[column].notnull() & columns[column].isnull(), f"{name}.{column}")
            for column, kind in ordered
            if kind != "string"
        ]
        none = ibis.null("string")
        columns[UNREAD] = ibis.cases(*lost, else_=none) if lost else none
        return raw.select(**columns)

    def check(self) -> None:
        """Looks at the first rows of each lazy table.

        Raises:
            TableError: Too many values of a column cannot be read.
        """
        for name in sorted(self._lazy):
            if name in self:
                raw = self._open(name)
                sample = _typed(raw.limit(SAMPLE), self._texts(name, raw), self._wanted[name])
                with self.engine.guard(self.path(name)):
                    self._refuse_unreadable(name, sample)

    @property
    def empty(self) -> list[str]:
        """The tables that are there and have no row."""
        return [name for name in self._wanted if name in self and not self._has_rows(name)]

    def _has_rows(self, name: str) -> bool:
        if name in self._raw:
            return not self.engine.frame(self._raw[name].limit(1)).empty
        path = self._files[name]
        if is_parquet(path):
            return any(pq.ParquetFile(part).metadata.num_rows for part in parts(path))
        return bool(_csv_lines(path, 2)[1])

    def _load(self, name: str) -> ir.Table:
        raw = self._open(name)
        text = self._texts(name, raw)
        with self.engine.guard(self.path(name)):
            table = self.engine.backend.create_table(
                # Spark takes letters, digits and underscores alone; those of X-rays have others.
                "raw_" + re.sub(r"\W", "_", name),
                _typed(raw, text, self._wanted[name]),
            )
            self._count_unreadable(name, table)
        kept: ir.Table = table.select(*self._wanted[name])
        return kept

    def _count_unreadable(self, name: str, table: ir.Table) -> None:
        for column, (lost, _) in self._refuse_unreadable(name, table).items():
            if lost:
                self.unreadable[f"{name}.{column}"] = lost

    def _refuse_unreadable(self, name: str, table: ir.Table) -> dict[str, tuple[int, int]]:
        """Counts values that cannot be read and values that are there, of each column."""
        columns = [c.removesuffix(UNREADABLE) for c in table.columns if c.endswith(UNREADABLE)]
        if not columns:
            return {}
        sums = {f"{c}{UNREADABLE}": table[f"{c}{UNREADABLE}"].sum() for c in columns}
        there = {c: table[c].count() for c in columns}
        counts = self.engine.frame(table.agg(**sums, **there)).fillna(0).iloc[0]
        found = {c: (int(counts[f"{c}{UNREADABLE}"]), int(counts[c])) for c in columns}
        for column, (lost, read) in found.items():
            refuse_unreadable(f"{self._place(name)}: column {column}", lost, lost + read)
        return found


def refuse_unreadable(place: str, lost: int, there: int) -> None:
    """Refuses a column of which more than one value in a hundred cannot be read.

    Args:
        place: Where it is.
        lost: How many values cannot be read; a single one is no reason to stop.
        there: How many values are not empty.

    Raises:
        TableError: It is refused.
    """
    if lost > 1 and lost > SHARE * there:
        raise TableError(
            f"{place}: {lost} of {there} values cannot be read; times must be written as"
            " 2150-12-31 23:59:00, numbers with a point, and flags as 0 and 1 or true and false"
        )


def unread(table: ir.Table) -> ir.StringValue:
    """Returns which column of a row could not be read, also of a table that does not say.

    Args:
        table: Of measurements or documents.
    """
    return table[UNREAD] if UNREAD in table.columns else ibis.null("string")


def _typed(raw: ir.Table, text: Mapping[str, Any], types: Mapping[str, str]) -> ir.Table:
    """Casts the text of each column; beside it stands whether it could not be read."""
    columns: dict[str, Any] = {}
    for column, kind in types.items():
        columns[column] = casts.typed(text[column], kind)
        if kind != "string":
            lost = text[column].notnull() & columns[column].isnull()
            columns[column + UNREADABLE] = lost.cast("int64")
    return raw.select(**columns)


def look(places: Sequence[Path], names: Collection[str]) -> dict[str, Path]:
    """Finds the files of tables; an earlier place wins, then Parquet, then plain CSV.

    Args:
        places: Folders, which may be absent.
        names: The tables, lower case.
    """
    there: dict[str, Path] = {}
    for place in reversed(places):
        for path in sorted(place.iterdir()) if place.is_dir() else []:
            name = path.name.lower()
            if path.is_file():
                there[name] = path
            elif name.removesuffix(".parquet") in names and parts(path):
                there[name.removesuffix(".parquet") + ".parquet"] = path
    return {
        name: there[name + suffix]
        for suffix in reversed(SUFFIXES)
        for name in names
        if name + suffix in there
    }


def _find(places: list[Path], names: tuple[str, ...], optional: Collection[str]) -> dict[str, Path]:
    folder = places[0]
    if not folder.is_dir():
        raise MissingError(f"{folder}: no such folder of raw tables")
    found = look(places, names)
    if missing := [name for name in names if name not in found and name not in optional]:
        raise MissingError(
            f"{folder}: no file for table(s) {', '.join(missing)}"
            f" (looked for {' / '.join(missing[0] + suffix for suffix in SUFFIXES)}, in any case);"
            f" {len(found)} of {len(names)} wanted tables are there"
        )
    return found


def _tables(
    engine: Engine, path: Path, names: tuple[str, ...], optional: Collection[str]
) -> dict[str, ir.Table]:
    if not path.is_file():
        raise MissingError(f"{path}: no such database file")
    there = engine.database(path, names)
    if missing := [name for name in names if name not in there and name not in optional]:
        raise TableError(f"{path}: no table(s) {', '.join(missing)} in this database")
    return there


def _csv_header(path: Path) -> list[str]:
    header = _csv_lines(path, 1)[0]
    if not header:
        raise TableError(f"{path}: empty file, a header line was expected")
    return header


def _csv_lines(path: Path, number: int) -> list[list[str]]:
    """The first lines of a file, as fields; empty ones where there are no more."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if path.suffix.lower() == ".gz"
            else path.open(encoding="utf-8-sig", newline="")
        ) as lines:
            reader = csv.reader(lines)
            return [next(reader, []) for _ in range(number)]
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise TableError(f"{path}: truncated or not a gzip file") from None
    except UnicodeDecodeError:
        raise TableError(f"{path}: not a text file in UTF-8") from None
    except csv.Error:
        # A field longer than this reader's limit: the engine says what is wrong with it, or reads.
        return [["?"]] * number


def _spelling(
    name: str, path: str, header: list[str], columns: Mapping[str, str]
) -> dict[str, str]:
    """Maps wanted names to the file's own spelling, or says what is missing."""
    found = {column.strip().lower(): column for column in reversed(header)}
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise TableError(f"{path}: not delimited by commas (the header is a single column)")
    if missing := [c for c, kind in columns.items() if c not in found and not kind.endswith("?")]:
        # Of a file without a header, the names that were found are values of a patient.
        known = ", ".join(column for column in columns if column in found) or "none of the others"
        raise TableError(
            f"{path}: table {name} lacks column(s) {', '.join(missing)};"
            f" its first line has {len(header)} names, of the wanted ones {known}"
        )
    return {column: found[column] for column in columns if column in found}
