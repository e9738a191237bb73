"""Raw files, equal byte for byte whenever the tables are, and marked as synthetic."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd

try:
    import pyarrow as pa
    import pyarrow.csv
except ImportError as error:
    raise ImportError(
        "writing raw tables needs pyarrow; install it with: pip install 'cm2[tables]'"
    ) from error

__all__ = ["MARKER", "mark", "to_arrow", "write_csv"]

MARKER = "SYNTHETIC_NOT_PATIENT_DATA.txt"
NOTICE = (
    "Everything in this folder was made by `cm2 synthesize`. It describes no person, and nothing\n"
    "clinical follows from it. Never mix it with real data.\n"
)


def mark(folder: Path) -> None:
    """Makes a folder and puts a notice into it that its contents are synthetic."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text(NOTICE, encoding="utf-8")


def write_csv(table: pd.DataFrame | pa.Table, path: Path, *, quote: bool) -> None:
    """Writes a table as compressed CSV whose gzip header names it synthetic and has no date.

    Args:
        table: Columns in the order of the file. Times are written to the second.
        path: A name that ends in ``.csv.gz``.
        quote: Whether every text and every name of a column is quoted, as in MIMIC-III, or only
            what needs it, as in MIMIC-IV.
    """
    name = f"SYNTHETIC_{path.name.removesuffix('.gz')}"
    with (
        path.open("wb") as file,
        gzip.GzipFile(name, "wb", compresslevel=1, fileobj=file, mtime=0) as stream,
    ):
        if isinstance(table, pd.DataFrame) and not quote:
            text = table.to_csv(index=False, lineterminator="\n", date_format="%Y-%m-%d %H:%M:%S")
            stream.write(text.encode())
            return
        arrow = to_arrow(table)
        if not quote:
            stream.write((",".join(arrow.column_names) + "\n").encode())
        options = pa.csv.WriteOptions(
            include_header=quote, quoting_style="needed" if quote else "none"
        )
        pa.csv.write_csv(arrow, stream, options)


def to_arrow(table: pd.DataFrame | pa.Table) -> pa.Table:
    """Returns a table as Arrow's, with times to the second."""
    if isinstance(table, pa.Table):
        return table
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    seconds = [
        field.with_type(pa.timestamp("s")) if pa.types.is_timestamp(field.type) else field
        for field in arrow.schema
    ]
    return arrow.cast(pa.schema(seconds)).replace_schema_metadata(None)
