"""A folder of raw tables, opened as Ibis expressions on an embedded DuckDB.

Every table and column that is wanted is looked for before any work starts; values that do not
parse become null and are counted. No value of a patient enters a message.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    import duckdb
    import ibis
    import ibis.expr.types as ir
except ImportError as error:
    raise ImportError(
        "reading raw tables needs Ibis and DuckDB; install them with: pip install 'cm2[tables]'"
    ) from error

from cm2.prepare.errors import TableError

__all__ = ["Tables"]

SUFFIXES = (".parquet", ".csv", ".csv.gz")
NUMBERS = ("int64", "float64")


class Tables:
    """The wanted tables of a folder; ``tables["patient"]`` is a typed Ibis table.

    Files are found by name without regard to case, as ``.parquet``, ``.csv`` or ``.csv.gz``, and
    read when first asked for, once, with the wanted columns only.

    Args:
        folder: Where the files are.
        wanted: For each table its columns and their types (``"int64"``, ``"float64"``,
            ``"string"``), all lower case.
        threads: Threads of DuckDB. With one, a sum of floats does not depend on scheduling, so
            that two runs agree to the last bit.

    Attributes:
        unreadable: How many values of ``"table.column"`` were not numbers and became null;
            filled as tables are read, columns without such values left out.
    """

    def __init__(
        self, folder: Path, wanted: Mapping[str, Mapping[str, str]], *, threads: int = 1
    ) -> None:
        self.folder = Path(folder)
        self.unreadable: dict[str, int] = {}
        self._wanted = wanted
        self._files = _find(self.folder, tuple(wanted))
        self._backend = ibis.duckdb.connect(threads=threads)
        self._spelling = {
            name: _spelling(name, self._files[name], self._header(name), columns)
            for name, columns in wanted.items()
        }
        self._read: dict[str, ir.Table] = {}

    def __getitem__(self, name: str) -> ir.Table:
        if name not in self._read:
            self._read[name] = self._load(name)
        return self._read[name]

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the memory of the embedded database back."""
        self._backend.disconnect()

    def _header(self, name: str) -> list[str]:
        path = self._files[name]
        if path.suffix.lower() == ".parquet":
            try:
                return list(self._backend.read_parquet(path).columns)
            except duckdb.Error:
                raise TableError(f"{path}: not a readable parquet file") from None
        return _csv_header(path)

    def _load(self, name: str) -> ir.Table:
        path = self._files[name]
        try:
            if path.suffix.lower() == ".parquet":
                raw = self._backend.read_parquet(path)
            else:
                raw = self._backend.read_csv(
                    path,
                    all_varchar=True,
                    header=True,
                    delim=",",
                    quote='"',
                    escape='"',
                    compression="gzip" if path.suffix.lower() == ".gz" else "none",
                )
            spelling = self._spelling[name]
            text = {
                column: raw[spelling[column]].cast("string").strip().nullif("")
                for column in self._wanted[name]
            }
            table = self._backend.create_table(name, _typed(raw, text, self._wanted[name]))
        except duckdb.Error as error:
            # The message of DuckDB may quote the line it stopped at: it is not passed on.
            raise TableError(f"{path}: {_reason(error)}") from None
        self._count_unreadable(name, table)
        kept: ir.Table = table.select(*self._wanted[name])
        return kept

    def _count_unreadable(self, name: str, table: ir.Table) -> None:
        marks = [column for column in table.columns if column.endswith(UNREADABLE)]
        if marks:
            counts = table.agg(**{mark: table[mark].sum() for mark in marks}).execute().iloc[0]
            for mark in marks:
                if counts[mark] > 0:
                    column = mark.removesuffix(UNREADABLE)
                    self.unreadable[f"{name}.{column}"] = int(counts[mark])


UNREADABLE = "__unreadable"


def _typed(raw: ir.Table, text: Mapping[str, Any], types: Mapping[str, str]) -> ir.Table:
    """Casts the text of each column; beside a number stands whether it could not be read."""
    columns: dict[str, Any] = {}
    for column, kind in types.items():
        if kind not in NUMBERS:
            columns[column] = text[column].cast(kind)
            continue
        number = text[column].try_cast("float64")
        number = (number.isnan() | number.isinf()).ifelse(ibis.null("float64"), number)
        columns[column] = number.cast(kind) if kind == "float64" else number.try_cast(kind)
        columns[column + UNREADABLE] = (text[column].notnull() & columns[column].isnull()).cast(
            "int64"
        )
    return raw.select(**columns)


def _find(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of raw tables")
    there = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_file()}
    found = {
        name: there[name + suffix]
        for suffix in reversed(SUFFIXES)
        for name in names
        if name + suffix in there
    }
    if missing := [name for name in names if name not in found]:
        raise FileNotFoundError(
            f"{folder}: no file for table(s) {', '.join(missing)}"
            f" (looked for {' / '.join(missing[0] + suffix for suffix in SUFFIXES)}, in any case);"
            f" {len(found)} of {len(names)} wanted tables are there"
        )
    return found


def _csv_header(path: Path) -> list[str]:
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig", newline="")
            if path.suffix.lower() == ".gz"
            else path.open(encoding="utf-8-sig", newline="")
        ) as lines:
            header = next(csv.reader(lines), [])
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise TableError(f"{path}: truncated or not a gzip file") from None
    except UnicodeDecodeError:
        raise TableError(f"{path}: not a text file in UTF-8") from None
    if not header:
        raise TableError(f"{path}: empty file, a header line was expected")
    return header


def _spelling(
    name: str, path: Path, header: list[str], columns: Mapping[str, str]
) -> dict[str, str]:
    """Maps wanted names to the file's own spelling, or says what is missing."""
    found = {column.strip().lower(): column for column in header}
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise TableError(f"{path}: not delimited by commas (the header is a single column)")
    if missing := [column for column in columns if column not in found]:
        raise TableError(
            f"{path}: table {name} lacks column(s) {', '.join(missing)};"
            f" found {', '.join(sorted(found))}"
        )
    return {column: found[column] for column in columns}


def _reason(error: Exception) -> str:
    text = str(error).lower()
    if "gzip" in text:
        return "truncated or damaged gzip file"
    if "invalid unicode" in text or "not utf-8" in text:
        return "not a text file in UTF-8"
    if "parquet" in text:
        return "not a readable parquet file"
    return f"cannot be read as comma-separated values ({type(error).__name__})"
