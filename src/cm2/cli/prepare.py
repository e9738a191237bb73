"""The command that turns raw tables into samples."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal


@contextmanager
def _ending() -> Iterator[None]:
    """Lets SIGTERM, by which a batch system ends a job, clear away what was written on the way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@_ending()
def prepare(
    source: Literal["mimic3", "mimic4", "eicu", "meds", "physionet2012", "table"],
    *,
    raw: Path,
    out: Path,
    task: Literal[
        "in-hospital-mortality", "readmission", "length-of-stay", "phenotyping", "none"
    ] = "in-hospital-mortality",
    hours: float = 48.0,
    hours_per_bin: float = 1.0,
    readmission: Literal["survivors", "or-death"] = "survivors",
    look_back: float = 24.0,
    known_by: Literal["charttime", "storetime"] = "charttime",
    selection: Literal["window", "reference"] = "window",
    notes_of: str = "all",
    sections: tuple[str, ...] = ("findings", "impression"),
    sections_kept: Literal["every", "first"] | None = None,
    views: tuple[str, ...] = ("AP", "PA"),
    missing_rate: float = 0.0,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    splits: Path | None = None,
    splits_from: Literal["mimic3-benchmarks", "medfuse", "carebench"] | None = None,
    lists: Path | None = None,
    split_by: Literal["hospital", "region", "year", "anchor_year_group"] | None = None,
    notes: Path | None = None,
    images: Path | None = None,
    labels: Path | None = None,
    codes: Path | None = None,
    reports: Path | None = None,
    ccs: tuple[Path, ...] = (),
    table: dict[str, Any] | None = None,
    meds: bool = False,
    engine: Literal["duckdb", "spark"] = "duckdb",
    threads: int = 2,
    memory_limit: str | None = None,
    scratch: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Turns raw MIMIC-III, MIMIC-IV, eICU, PhysioNet 2012 or MEDS tables into samples for training.

    Raw tables are CSV, CSV.GZ or Parquet files in any case of letters, or one DuckDB file. The
    output folder appears when it is complete; a run that finds the same result there does nothing.

    Args:
        source: Which data set the tables are.
        raw: Folder of the raw tables, or a DuckDB file.
        out: Folder to make.
        task: What is predicted; none for patients whose outcome is not known yet.
        hours: Length of the window from admission to the intensive care unit.
        hours_per_bin: Length of a bin of the time series.
        readmission: Within 30 days, of patients discharged alive; or-death counts deaths in
            hospital as readmissions.
        look_back: Hours before admission to the unit from which height and weight are taken.
        known_by: Whether a value or document counts from when it was charted, or only if it was
            also entered before the window's end.
        selection: Notes and images of the window, or as the code of Wu et al. (2025) selects them.
        notes_of: Whether clinical notes are read of all stays, of the third that the code of
            Wu et al. (2025) drew, or of those of a CSV file with the column stay_id.
        sections: Sections of radiology reports to keep, of findings, impression, last_paragraph
            and comparison.
        sections_kept: Every one of them that a report has, or the first; by default every one of
            MIMIC-IV-Note's, and the first of MIMIC-CXR's own.
        views: Views of chest X-rays to choose from.
        missing_rate: Share of the modalities that is removed at random; the first is kept.
        seed: Of the split by patients, and of the removal.
        fractions: Expected shares of training, validation and test patients.
        splits: CSV file with the columns subject_id and split, in the place of a seed.
        splits_from: Whose published lists say who is in which part.
        lists: Folder of these lists, or a checkout of their repository.
        split_by: Test on other hospitals or regions (eICU), or on later years (eICU, MIMIC-IV's
            anchor_year_group), than in training.
        notes: Folder of the notes, where they are not in RAW/note.
        images: Folder of MIMIC-CXR-JPG, where it is not RAW/cxr.
        labels: Of the source meds: samples and outcomes as ACES writes them, a file or a folder;
            the window ends at prediction_time.
        codes: Of the source meds: CSV file of code, variable and unit, or mimic4 for what the
            public converter of MIMIC-IV writes, cm2 for what --meds writes.
        reports: MIMIC-CXR's own reports, a folder of texts or mimic_cxr_sectioned.csv, each with
            its X-ray, in the place of the reports in RAW/note.
        ccs: HCUP's single-level CCS, from which phenotyping has its groups of diagnoses, such as
            '$dxref 2015.csv'; one file for each version of ICD.
        table: Files and columns of the source table, best given by --config.
        meds: Write events and labels in the Medical Event Data Standard too.
        engine: Where the tables are worked on.
        threads: Threads of the engine.
        memory_limit: Memory of the engine, such as 4GB.
        scratch: Folder on a disk with room, for what does not fit into memory; by default beside
            the output folder.
        overwrite: Replace another result in the output folder.
    """
    from cm2.clinical.prepare.noted import NOTES_OF
    from cm2.clinical.prepare.options import Options
    from cm2.clinical.prepare.pipeline import prepare as run
    from cm2.clinical.prepare.places import Named

    start = time.monotonic()

    def say(line: str) -> None:
        if "\n" in line:
            print(line)  # noqa: T201
        else:
            print(f"{time.monotonic() - start:7.1f} s  {line}", file=sys.stderr)  # noqa: T201

    run(
        source,
        raw,
        out,
        Options(
            task=task,
            hours=hours,
            hours_per_bin=hours_per_bin,
            readmission=readmission,
            look_back=look_back,
            known_by=known_by,
            selection=selection,
            notes_of=notes_of if notes_of in NOTES_OF else "list",
            sections=tuple(sections),
            sections_kept=sections_kept,
            views=tuple(views),
            fractions=tuple(fractions),
            missing_rate=missing_rate,
            seed=seed,
            splits_from=splits_from,
            split_by=split_by,
            table=table,
            meds=meds,
        ),
        Named(
            split_file=splits,
            split_lists=lists,
            notes=notes,
            notes_list=None if notes_of in NOTES_OF else Path(notes_of),
            images=images,
            labels=labels,
            codes=codes,
            reports=reports,
            ccs=ccs,
        ),
        engine=engine,
        threads=threads,
        memory_limit=memory_limit,
        scratch=scratch,
        progress=sys.stdout.isatty(),
        overwrite=overwrite,
        say=say,
    )
