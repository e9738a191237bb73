"""Free text of a stay: which documents it has, and the clinical notes of MIMIC-III.

What is chosen is an Ibis expression on the normalised tables ``stays`` and ``documents``, so that
DuckDB, PySpark and BigQuery choose alike; it is then read in batches and written as Parquet. The
text of a patient never enters a message.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from cm2.clinical.prepare.engine import Engine
from cm2.clinical.prepare.tables import refuse_unreadable, unread

__all__ = ["DEIDENTIFIED", "SELECTIONS", "excluded", "select", "write_notes"]

SELECTIONS = ("window", "reference")

UNREADABLE_TIME = "with an unreadable time"

DEIDENTIFIED = "___"
"""What stands for a removed name or date: MIMIC-IV's own mark, put in place of MIMIC-III's."""

BRACKETS = r"\[\*\*[^\[\]]*\*\*\]"

REFERENCE_NOTES = 5
"""The reference takes stays with more notes than this, and keeps this many, the last ones."""


def select(
    stays: ir.Table,
    documents: ir.Table,
    hours: int | float = 48,
    *,
    selection: str = "window",
    lines: bool = False,
    known_by: str = "charttime",
) -> ir.Table:
    """Chooses the documents of each stay.

    A document belongs to a stay of its patient, and of its admission where it names one. Flagged
    errors, discharge summaries, empty documents and those without a time of their own are left out
    (a chart date alone does not tell on which side of the window's end a note was written).

    Args:
        stays: Normalised stays, one row each.
        documents: Normalised documents.
        hours: Length of the window from ``intime``.
        selection: ``"window"`` takes what was charted in ``[intime, intime + hours)``, of
            identical texts the first. ``"reference"`` does as the code of Wu et al. (2025): what
            was charted in the admission up to ``intime + hours``, that moment included and the
            time before ``intime`` too; documents of one charttime count as one; only stays with
            more than five of them, and of these the last five.
        known_by: ``"storetime"`` takes only what was also stored before the end of the window; a
            document without a storetime goes by its charttime.
        lines: Whether to keep line breaks, by which sections of a report are told apart.

    Returns:
        ``stay_id, position, hour, category, text``; positions count from 0 in order of time.
    """
    if selection not in SELECTIONS:
        raise ValueError(f"selection is one of {', '.join(SELECTIONS)}, not {selection!r}")
    found = _of_stays(stays, _usable(documents), hours, selection)
    if known_by == "storetime":
        found = found.filter(~_late(found, hours))
    text = found.text.re_replace(BRACKETS, DEIDENTIFIED)
    text = (text if lines else text.re_replace(r"\s+", " ")).strip()
    found = found.mutate(text=text, hour=_hours(found.charttime, found.intime))
    found = found.filter(found.text != "")
    order = ["charttime", "note_id"]
    if selection == "reference":
        found = _last(found)
    else:
        window = ibis.window(group_by=["stay_id", "text"], order_by=order)
        found = found.mutate(copy=ibis.row_number().over(window))
        found = found.filter(found.copy == 0)
    window = ibis.window(group_by="stay_id", order_by=order)
    found = found.mutate(position=ibis.row_number().over(window).cast("int64"))
    return found.select("stay_id", "position", "hour", "category", "text")


def excluded(stays: ir.Table, documents: ir.Table) -> ir.Table:
    """Counts the documents of the stays' patients by what becomes of them before the window.

    Returns:
        ``reason, documents``, where the reason of those not left out is ``usable``.
    """
    patients = documents.semi_join(stays, "subject_id")
    marked = patients.select(
        reason=ibis.cases(
            (_flagged(patients), "flagged as an error"),
            (_discharge(patients), "discharge summary"),
            (patients.charttime.isnull() & unread(patients).notnull(), UNREADABLE_TIME),
            (patients.charttime.isnull(), "without a time"),
            (_empty(patients), "empty"),
            else_="usable",
        )
    )
    return marked.group_by("reason").agg(documents=marked.count()).order_by("reason")


def write_notes(
    engine: Engine,
    stays: ir.Table,
    documents: ir.Table,
    path: Path,
    *,
    hours: int | float = 48,
    selection: str = "window",
    known_by: str = "charttime",
) -> dict[str, int]:
    """Writes the notes of each stay, sorted by stay and position.

    Returns:
        Counts: documents left out, by reason, and notes and stays written.
    """
    chosen = select(stays, documents, hours, selection=selection, known_by=known_by)
    counts = exclusions(engine, stays, documents, hours, selection=selection)
    return counts | write(batches(engine, chosen), path, "category")


def exclusions(
    engine: Engine,
    stays: ir.Table,
    documents: ir.Table,
    hours: int | float,
    *,
    selection: str = "window",
) -> dict[str, int]:
    """Counts the documents that are left out, by reason, and those in the window.

    Those that were stored when it was over are counted too, as those without a storetime are. What
    is in the window and is not written is a copy of another text of the stay, or passed over
    by the reference's choice.
    """
    frame = engine.frame(excluded(stays, documents))
    counts = dict(zip(frame["reason"].astype(str), frame["documents"].astype(int), strict=True))
    lost = int(counts.get(UNREADABLE_TIME, 0))
    refuse_unreadable("table of notes or reports: times", lost, sum(counts.values()))
    found = _of_stays(stays, _usable(documents), hours, selection)
    row = engine.frame(
        found.agg(
            inside=found.count(),
            late=_late(found, hours).cast("int64").sum().coalesce(0),
            untold=found.storetime.isnull().cast("int64").sum().coalesce(0),
        )
    ).iloc[0]
    return counts | {
        "in the window": int(row["inside"]),
        "stored after the window": int(row["late"]),
        "without a storetime": int(row["untold"]),
    }


def schema(kind: str) -> pa.Schema:
    """Returns the columns of a text file, of which ``kind`` says what sort of text a row is."""
    return pa.schema(
        {
            "stay_id": pa.int64(),
            "position": pa.int64(),
            "hour": pa.float64(),
            kind: pa.string(),
            "text": pa.string(),
        }
    )


def batches(engine: Engine, chosen: ir.Table) -> Iterator[pa.RecordBatch]:
    """Computes the chosen documents, sorted by stay and position, in pieces."""
    for batch in engine.batches(chosen.order_by("stay_id", "position")):
        yield batch.cast(schema("category"))


def write(batches: Iterator[pa.RecordBatch], path: Path, kind: str) -> dict[str, int]:
    """Writes pieces into one file, and counts rows and stays."""
    written, stays = 0, set[int]()
    with pq.ParquetWriter(path, schema(kind), compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            written += len(batch)
            stays.update(batch["stay_id"].unique().to_pylist())
    return {"written": written, "stays": len(stays)}


def _usable(documents: ir.Table) -> ir.Table:
    return documents.filter(
        ~_flagged(documents),
        ~_discharge(documents),
        documents.charttime.notnull(),
        ~_empty(documents),
    )


def _flagged(documents: ir.Table) -> ir.BooleanValue:
    return documents.error.fill_null(False)


def _discharge(documents: ir.Table) -> ir.BooleanValue:
    return documents.category.fill_null("").strip().lower().startswith("discharge")


def _empty(documents: ir.Table) -> ir.BooleanValue:
    return documents.text.fill_null("").strip() == ""


def _of_stays(stays: ir.Table, documents: ir.Table, hours: int | float, selection: str) -> ir.Table:
    """Documents beside the stay in whose window they were charted."""
    keys = stays.select("stay_id", "subject_id", stay_hadm=stays.hadm_id, intime=stays.intime)
    joined = documents.join(keys, "subject_id")
    end = joined.intime + ibis.interval(seconds=round(hours * 3600))
    if selection == "reference":
        return joined.filter(joined.hadm_id == joined.stay_hadm, joined.charttime <= end)
    return joined.filter(
        joined.hadm_id.isnull() | (joined.hadm_id == joined.stay_hadm),
        joined.charttime >= joined.intime,
        joined.charttime < end,
    )


def _late(found: ir.Table, hours: int | float) -> ir.BooleanValue:
    seconds = found.storetime.epoch_seconds() - found.intime.epoch_seconds()
    return (seconds >= round(hours * 3600)).fill_null(False)


def _hours(time: ir.TimestampValue, start: ir.TimestampValue) -> ir.FloatingValue:
    return (time.epoch_seconds() - start.epoch_seconds()).cast("float64") / 3600


def _last(found: ir.Table) -> ir.Table:
    """What was charted at the last times, where a stay has more times than these."""
    backwards = ibis.window(group_by="stay_id", order_by=ibis.desc("charttime"))
    found = found.mutate(back=ibis.dense_rank().over(backwards))
    found = found.mutate(earliest=found.back.max().over(ibis.window(group_by="stay_id")))
    return found.filter(found.earliest >= REFERENCE_NOTES, found.back < REFERENCE_NOTES)
