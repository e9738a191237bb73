"""Where the table work runs: DuckDB inside this process, or Spark.

Both read a file as a table of text columns and keep intermediate results out of memory: DuckDB
spills to a folder, Spark writes Parquet there. The same Ibis expressions run on either.
"""

from __future__ import annotations

import glob
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from cm2.clinical.prepare import java
from cm2.clinical.prepare.errors import TableError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["DATABASES", "DuckDB", "Engine", "Spark", "escape", "is_parquet", "parts", "start"]

DATABASES = (".duckdb", ".db")
ROWS = 1 << 17
# What Spark's file system reads as a pattern.
HADOOP = re.compile(r"[*?\[\]{}\\]")


class Engine(ABC):
    """A backend of Ibis that reads files and keeps intermediate results.

    Attributes:
        files: Every file that was opened; an error is attributed to one of them.
    """

    backend: Any
    failures: tuple[type[Exception], ...]

    def __init__(self) -> None:
        self.files: list[Path] = []

    def read(self, path: Path, header: Sequence[str] = ()) -> ir.Table:
        """Opens a file without reading it; the columns of a CSV file are text.

        Args:
            path: The file, or a folder of Parquet files that are one table.
            header: The names in the first line of a CSV file.
        """
        self.files.append(path)
        with self.guard(path):
            if is_parquet(path):
                return self._parquet(path)
            return self._csv(path, header)

    @abstractmethod
    def database(self, path: Path, names: Collection[str]) -> dict[str, ir.Table]:
        """Opens a database file read-only, and returns tables of these lower-case names.

        Raises:
            TableError: Two schemas have one of them.
        """

    def keep(self, name: str, table: ir.Table) -> ir.Table:
        """Computes a table once and returns the stored result; a name is used once."""
        with self.guard():
            return self.backend.create_table(name, table)

    def batches(self, table: ir.Table) -> Iterator[pa.RecordBatch]:
        """Computes a table and hands it out in pieces, in its order."""
        with self.guard():
            yield from self.backend.to_pyarrow_batches(table, chunk_size=ROWS)

    def frame(self, table: ir.Table) -> Any:
        """Computes a (small) table as a pandas frame."""
        with self.guard():
            return self.backend.execute(table)

    @contextmanager
    def guard(self, path: Path | None = None) -> Iterator[None]:
        """Turns the backend's errors into ones that name the file and quote no data.

        Args:
            path: The file that is read; None where any of the opened ones may be.

        Raises:
            TableError: In the place of the backend's error, whose message may hold data.
        """
        try:
            yield
        except self.failures as error:
            text = str(error)
            named = (file for file in self.files if str(file) in text or escape(file) in text)
            place = path or next(named, "raw tables")
            raise TableError(f"{place}: {reason(error)}") from None

    def close(self) -> None:
        """Gives memory and processes back."""
        self.backend.disconnect()

    @abstractmethod
    def _csv(self, path: Path, header: Sequence[str]) -> ir.Table: ...

    @abstractmethod
    def _parquet(self, path: Path) -> ir.Table: ...


class DuckDB(Engine):
    """DuckDB inside this process.

    Args:
        threads: Threads. With one, a sum of floats does not depend on scheduling, so that two runs
            agree to the last bit.
        memory_limit: Such as ``"4GB"``; None for DuckDB's own (80% of the machine's).
        folder: Where results that do not fit into memory go; None keeps all in memory.
        progress: Whether a bar is drawn for what takes longer than two seconds.
    """

    failures = (duckdb.Error,)

    def __init__(
        self,
        threads: int = 1,
        memory_limit: str | None = None,
        folder: Path | None = None,
        *,
        progress: bool = False,
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {"threads": threads, "autoinstall_known_extensions": False}
        if memory_limit is not None:
            options["memory_limit"] = memory_limit
        if folder is not None:
            # An order is asked for wherever one is needed; keeping that of files costs memory.
            options |= {"temp_directory": str(folder), "preserve_insertion_order": False}
        place: str | Path = ":memory:" if folder is None else folder / "work.duckdb"
        try:
            self.backend = ibis.duckdb.connect(place, **options)
        except duckdb.Error:
            raise TableError(
                f"DuckDB refuses {threads} threads with a memory limit of {memory_limit!r};"
                " a limit reads like '4GB'"
            ) from None
        if progress:
            self.backend.con.execute("set enable_progress_bar = true")

    def batches(self, table: ir.Table) -> Iterator[pa.RecordBatch]:
        # Ibis 12 asks for the reader by a name that DuckDB 2 no longer has. No other query may run
        # on this connection until the last piece is taken.
        with self.guard():
            self.backend._run_pre_execute_hooks(table)
            schema = table.schema().to_pyarrow()
            rows = self.backend.con.sql(self.backend.compile(table))
            for batch in rows.to_arrow_reader(ROWS):
                yield batch.cast(schema)

    def database(self, path: Path, names: Collection[str]) -> dict[str, ir.Table]:
        self.files.append(path)
        with self.guard(path):
            self.backend.attach(path, name="raw", read_only=True)
            listed = self.backend.con.execute(
                "select table_schema, table_name from information_schema.tables"
                " where table_catalog = 'raw' order by all"
            ).fetchall()
            found: dict[str, ir.Table] = {}
            for schema, name in listed:
                if name.lower() in found:
                    raise TableError(f"{path}: two tables {name}, one of them in schema {schema}")
                if name.lower() in names:
                    found[name.lower()] = self.backend.table(name, database=("raw", schema))
            return found

    def _csv(self, path: Path, header: Sequence[str]) -> ir.Table:
        # The form is known, so that DuckDB need not guess it from a sample.
        return self.backend.read_csv(
            escape(path),
            columns=dict.fromkeys(_unique(header), "varchar"),
            auto_detect=False,
            header=True,
            delim=",",
            quote='"',
            escape='"',
            compression="gzip" if path.suffix.lower() == ".gz" else "none",
        )

    def _parquet(self, path: Path) -> ir.Table:
        # By name, in a type that all parts can have: the first's would round the others' numbers.
        return self.backend.read_parquet([escape(one) for one in parts(path)], union_by_name=True)


class Spark(Engine):
    """Spark, in this machine unless a session of a cluster is given.

    Args:
        threads: Cores of the local session.
        memory_limit: Memory of the local session, such as ``"4GB"``.
        folder: Where intermediate tables are stored.
        progress: Whether the local session draws a bar.
        session: A running session to use; it stays open.
    """

    def __init__(
        self,
        threads: int = 1,
        memory_limit: str | None = None,
        folder: Path | None = None,
        *,
        progress: bool = False,
        session: SparkSession | None = None,
    ) -> None:
        super().__init__()
        try:
            from py4j.protocol import Py4JError
            from pyspark.errors import PySparkException
        except ImportError as error:
            raise ImportError(
                "the Spark engine needs PySpark; install it with: pip install 'cm2[spark]'"
            ) from error
        self.failures = (PySparkException, Py4JError)
        self._owned = session is None
        self.session = session or _local_session(threads, memory_limit, folder, progress=progress)
        self.backend = ibis.pyspark.connect(self.session)

    def database(self, path: Path, names: Collection[str]) -> dict[str, ir.Table]:
        raise TableError(f"{path}: a DuckDB file is read by the DuckDB engine, not by Spark")

    def close(self) -> None:
        if self._owned:
            self.session.stop()

    def _csv(self, path: Path, header: Sequence[str]) -> ir.Table:
        # With the columns given, since Spark looks for them under the path as a pattern once more.
        names = (name.replace("`", "``") for name in _distinct(header))
        return self.backend.read_csv(
            HADOOP.sub(r"\\\g<0>", str(path)),
            schema=", ".join(f"`{name}` STRING" for name in names),
            header=True,
            sep=",",
            quote='"',
            escape='"',
            multiLine=True,
            mode="FAILFAST",
        )

    def _parquet(self, path: Path) -> ir.Table:
        # As `parts` lists them: Spark alone would look into no folder of a folder.
        inside: dict[str, Any] = {"recursiveFileLookup": True} if path.is_dir() else {}
        return self.backend.read_parquet(HADOOP.sub(r"\\\g<0>", str(path)), **inside)


def _distinct(header: Sequence[str]) -> list[str]:
    """Columns as Spark calls those of one name, or of none."""
    names = [name or f"_c{place}" for place, name in enumerate(header)]
    count = Counter(name.lower() for name in names)
    return [
        f"{name}{place}" if count[name.lower()] > 1 else name for place, name in enumerate(names)
    ]


ENGINES: dict[str, type[DuckDB | Spark]] = {"duckdb": DuckDB, "spark": Spark}


def start(
    name: str,
    *,
    threads: int = 1,
    memory_limit: str | None = None,
    folder: Path | None = None,
    progress: bool = False,
) -> Engine:
    """Starts the engine of this name.

    Args:
        name: ``"duckdb"`` or ``"spark"``.
        threads: Threads.
        memory_limit: Such as ``"4GB"``.
        folder: Where intermediate results go.
        progress: Whether it shows how far it is.
    """
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; there are {', '.join(ENGINES)}")
    return ENGINES[name](threads, memory_limit, folder, progress=progress)


def escape(path: Path) -> str:
    """Writes a path so that no part of it is read as a pattern of file names.

    Args:
        path: Such as one in a folder named ``mimic[12]``.
    """
    return glob.escape(str(path))


def is_parquet(path: Path) -> bool:
    """Tells whether a table is in Parquet: in one file, or in a folder of parts.

    Args:
        path: Of the table.
    """
    return path.is_dir() or path.suffix.lower() == ".parquet"


def check_parts(path: Path, columns: Iterable[str]) -> None:
    """Refuses parts of a table that lack a column which is read of the others."""
    files, found = parts(path), []
    for one in files if len(files) > 1 else []:
        try:
            found.append({name.lower() for name in pq.read_schema(one).names})
        except (OSError, pa.ArrowInvalid):  # the engine says so when it reads
            continue
    # What no part has is in the names of folders.
    wanted = {one.lower() for one in columns} & set().union(*found)
    if lacking := sum(not wanted <= names for names in found):
        raise TableError(
            f"{path}: {lacking} of {len(files)} parts lack a column of {', '.join(sorted(wanted))}"
        )


def parts(path: Path) -> list[Path]:
    """Lists the Parquet files of a table: itself, or all that lie in its folder.

    Args:
        path: Of the table.
    """
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix.lower() == ".parquet")


def _unique(header: Sequence[str]) -> list[str]:
    """Gives names to columns that have none or that of another column."""
    names: dict[str, str] = {}
    for k, name in enumerate(header):
        again = not name or name.lower() in names
        names[f"unnamed {k}" if again else name.lower()] = f"unnamed {k}" if again else name
    return list(names.values())


def reason(error: Exception) -> str:
    """Says what is wrong with a file in words that hold nothing of its content."""
    text = str(error).lower()
    if "maximum line size" in text or "unterminated quote" in text:
        return (
            "a line of more than 2 MB, or a quotation mark that is never closed; cannot be read as"
            " comma-separated values"
        )
    if "not a gzip stream" in text:
        return "gzip file with something after its end, such as zeros; unpack and pack it again"
    if any(mark in text for mark in ("gzip", "end of input stream", "incorrect header check")):
        return "truncated or damaged gzip file"
    if "invalid unicode" in text or "not utf-8" in text:
        return "not a text file in UTF-8"
    if "out of memory" in text or "outofmemory" in text:
        return "not enough memory; raise the memory limit"
    if "parquet" in text:
        return "not a readable parquet file"
    return f"cannot be read as comma-separated values ({type(error).__name__})"


def _local_session(
    threads: int, memory_limit: str | None, folder: Path | None, *, progress: bool
) -> SparkSession:
    from pyspark.sql import SparkSession

    if folder is not None and HADOOP.search(str(folder)):
        # It writes a table there by name, and reads it by pattern.
        raise TableError(
            f"{folder}: Spark keeps no tables in a folder with one of * ? [ ] {{ }} in its name;"
            " give another output folder or --scratch"
        )
    settings: Sequence[tuple[str, str]] = (
        ("spark.sql.session.timeZone", "UTC"),
        ("spark.sql.ansi.enabled", "false"),
        ("spark.sql.shuffle.partitions", str(max(2, threads))),
        ("spark.ui.enabled", "false"),
        ("spark.ui.showConsoleProgress", str(progress).lower()),
        *([("spark.driver.memory", memory_limit.lower().rstrip("b"))] if memory_limit else []),
        *([("spark.sql.warehouse.dir", str(folder / "warehouse"))] if folder else []),
        *([("spark.local.dir", str(folder))] if folder else []),
    )
    builder = SparkSession.builder.master(f"local[{threads}]").appName("cm2")
    for key, value in settings:
        builder = builder.config(key, value)
    with java.found():
        return builder.getOrCreate()
