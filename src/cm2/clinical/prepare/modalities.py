"""The files of each modality, written from the tables of a source, and what the manifest says.

Each function writes its files for the stays that are kept and returns a `Written`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cm2.clinical.prepare import events, grid, notes, reports
from cm2.clinical.prepare import images as pictures
from cm2.clinical.prepare.engine import Engine
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.variables import VARIABLES, Variable
from cm2.core.pictures import SIDE

__all__ = ["Written", "write_documents", "write_events", "write_images", "write_tabular"]

GROUP = 1 << 20
EVENTS = pa.schema(
    {
        "stay_id": pa.int64(),
        "variable": pa.string(),
        "hour": pa.float64(),
        "value": pa.float64(),
    }
)


class Written(NamedTuple):
    """What became of one modality.

    Attributes:
        facts: Its entry in the manifest: kind, files and shape.
        stays: The stays that have it.
        counts: What was found, left out and written.
    """

    facts: dict[str, Any]
    stays: set[int]
    counts: dict[str, Any]


def write_table(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Writes batches as Parquet, the same bytes for the same batches.

    Args:
        path: The file.
        schema: Batches are cast to it.
        batches: In their final order.

    Returns:
        The number of rows.
    """
    rows, held = 0, schema.empty_table()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        # Groups of a fixed size: the bytes do not depend on how an engine cuts its batches.
        for batch in batches:
            rows += batch.num_rows
            piece = pa.Table.from_batches([batch.select(schema.names).cast(schema)])
            held = pa.concat_tables([held, piece])
            while held.num_rows >= GROUP:
                writer.write_table(held.slice(0, GROUP).combine_chunks(), GROUP)
                held = held.slice(GROUP)
        writer.write_table(held.combine_chunks(), GROUP)
    return rows


def write_events(engine: Engine, accepted: ir.Table, out: Path) -> int:
    """Writes `events.parquet`, the long form of the measurements.

    Args:
        engine: Where the work is done.
        accepted: The result of `events.accept`.
        out: The folder.

    Returns:
        The number of events.
    """
    ordered = engine.batches(events.long_form(accepted))
    return write_table(out / "events.parquet", EVENTS, ordered)


def write_series(
    engine: Engine,
    accepted: ir.Table,
    cohort: pd.DataFrame,
    out: Path,
    *,
    hours: float,
    hours_per_bin: float,
    variables: tuple[Variable, ...] = VARIABLES,
) -> Written:
    """Writes `series.parquet`, the dense grid.

    Args:
        engine: Where the work is done.
        accepted: The result of `events.accept`.
        cohort: Has `stay_id` and `split`.
        out: The folder.
        hours: Length of the window.
        hours_per_bin: Length of a bin.
        variables: What is measured.
    """
    last = events.last_in_bin(accepted, hours_per_bin=hours_per_bin)
    # Sums run over stays in their order, so that the batches may come in any.
    written = grid.write_series(
        engine.batches(last),
        cohort["stay_id"].to_numpy(np.int64),
        (cohort["split"] == "train").to_numpy(bool),
        out / "series.parquet",
        hours=hours,
        hours_per_bin=hours_per_bin,
        variables=variables,
    )
    return of_series(written, "series.parquet", hours_per_bin)


def of_series(written: grid.Series, file: str, hours_per_bin: float) -> Written:
    """Returns what the manifest says of a grid.

    Args:
        written: The grid.
        file: Its name.
        hours_per_bin: Length of a bin.
    """
    facts = {
        "kind": "series",
        "file": file,
        "bins": written.bins,
        "hours_per_bin": hours_per_bin,
        "columns": list(written.columns),
    }
    counts = {"observed bins": written.cells, "stays without": written.missing}
    return Written(facts, {int(stay) for stay in written.stay_id}, counts)


def write_documents(
    engine: Engine,
    stays: ir.Table,
    documents: ir.Table,
    out: Path,
    *,
    sections: Sequence[str],
    kept: str,
    hours: float,
    selection: str,
    known_by: str,
) -> Written:
    """Writes `notes.parquet`, or `reports.parquet` if sections are asked for.

    Args:
        engine: Where the work is done.
        stays: Normalised stays that are kept.
        documents: Normalised documents.
        out: The folder.
        sections: Sections of reports; empty for notes.
        kept: Which of them.
        hours: Length of the window.
        selection: Which documents.
        known_by: By which of their times.
    """
    if sections:
        name, column = "reports.parquet", "section"
        counts = reports.write_reports(
            engine,
            stays,
            documents,
            out / name,
            hours=hours,
            sections=sections,
            kept=kept,
            known_by=known_by,
        )
    else:
        name, column = "notes.parquet", "category"
        counts = notes.write_notes(
            engine,
            stays,
            documents,
            out / name,
            hours=hours,
            selection=selection,
            known_by=known_by,
        )
    return Written({"kind": "text", "file": name, "column": column}, _stays(out / name), counts)


def write_images(
    engine: Engine,
    stays: ir.Table,
    images: ir.Table,
    root: Path,
    out: Path,
    *,
    hours: float,
    selection: str,
    views: Sequence[str],
    threads: int,
) -> Written:
    """Writes `images.npy` and `images.parquet`.

    Args:
        engine: Where the work is done.
        stays: Normalised stays that are kept.
        images: Normalised images.
        root: The folder that their paths are relative to.
        out: The folder.
        hours: Length of the window.
        selection: Which images.
        views: Which views.
        threads: Images decoded at once.
    """
    counts = pictures.write_images(
        engine,
        stays,
        images,
        root,
        out,
        hours=hours,
        selection=selection,
        views=views,
        threads=threads,
    )
    facts = {
        "kind": "image",
        "file": "images.npy",
        "index": "images.parquet",
        "shape": [SIDE, SIDE],
        "pictures": pictures.fingerprint(root, out),
    }
    return Written(facts, _stays(out / "images.parquet"), counts)


def write_tabular(frame: pd.DataFrame, name: str, out: Path) -> Written:
    """Writes one row a stay, standardised by nobody: numbers as they are, missing ones null.

    Args:
        frame: Indexed by stay; a row of nulls where the stay lacks the modality.
        name: Of the modality and of its file.
        out: The folder.

    Raises:
        TableError: If two columns have one name, or one is called as the stays' own.
    """
    names = ["stay_id", *map(str, frame.columns)]
    if twice := sorted({one for one in names if names.count(one) > 1}):
        raise TableError(
            f"modality {name!r} has column(s) {', '.join(twice)} twice, or as stays are called;"
            " rename or drop them"
        )
    there = frame[frame.notna().any(axis=1)].sort_index().astype("float64")
    file = f"{name}.parquet"
    arrays = [pa.array(there.index.to_numpy(np.int64))]
    arrays += [pa.array(there[column].to_numpy(), from_pandas=True) for column in there]
    table = pa.table(arrays, names=names)
    pq.write_table(table, out / file, compression="zstd")
    facts = {"kind": "tabular", "file": file, "columns": [str(column) for column in there]}
    return Written(facts, {int(stay) for stay in there.index}, {"stays": len(there)})


def write_beside(table: pd.DataFrame, name: str, out: Path) -> None:
    """Writes a table that is no modality.

    Args:
        table: With ``stay_id``, in its final order.
        name: Of its file.
        out: The folder.
    """
    plain = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(plain, out / f"{name}.parquet", compression="zstd")


def write_lines(engine: Engine, lines: ir.Table, name: str, out: Path) -> Written:
    """Writes coded paths of eICU as text, one row a line.

    Args:
        engine: Where the work is done.
        lines: `stay_id`, `position`, `hour`, `category`, `text`.
        name: Of the modality and of its file.
        out: The folder.
    """
    file = f"{name}.parquet"
    ordered = engine.batches(lines.order_by("stay_id", "position"))
    rows = write_table(out / file, notes.schema("category"), ordered)
    # Lines are too short to be read alone: together they are the document of a stay.
    facts = {"kind": "text", "file": file, "column": "category", "lines": True}
    return Written(facts, _stays(out / file), {"written": rows})


def _stays(path: Path) -> set[int]:
    return set(pq.read_table(path, columns=["stay_id"])["stay_id"].unique().to_pylist())
