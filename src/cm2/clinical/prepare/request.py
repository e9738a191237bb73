"""What a run is asked for, checked before any long work: options, files and folders that fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from cm2.clinical.prepare import folder, lists, noted, phenotypes, places, splits
from cm2.clinical.prepare.cxr_reports import SECTIONED, Reports
from cm2.clinical.prepare.engine import Engine
from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.places import Named
from cm2.clinical.prepare.source import Source
from cm2.clinical.prepare.tables import Tables

__all__ = ["Request"]


@dataclasses.dataclass(frozen=True)
class Request:
    """One preparation of a source's raw tables.

    Attributes:
        kind: The source.
        raw: Folder of the raw tables, or one DuckDB file.
        options: What decides the result.
        images: The folder of images that was named.
        parts: Who is in which part, where that is given.
        listed: The stays whose notes are read, where they are given.
        groups: The groups of diagnoses by version of ICD, for the task that needs them.
        elsewhere: Files of tables that are not with the others.
        reports: The X-rays' own reports.
    """

    kind: type[Source]
    raw: Path
    options: Options
    images: Path | None
    parts: splits.Given | None
    listed: list[int] | None
    groups: Mapping[int, phenotypes.CCS]
    elsewhere: Mapping[str, Path]
    reports: Reports | None

    @classmethod
    def checked(
        cls, kind: type[Source], raw: Path, out: Path, options: Options, named: Named
    ) -> Request:
        """Reads what was named, and refuses what does not fit together.

        Args:
            kind: The source.
            raw: Of the raw tables.
            out: Folder to make.
            options: What decides the result.
            named: Files and folders beside the raw tables.

        Raises:
            TableError: Options, tables or folders are not usable.
        """
        if options.task not in kind.tasks:
            reason = kind.untold.get(options.task, "its tables do not tell")
            raise TableError(
                f"{kind.name} does not allow the task {options.task}, only"
                f" {', '.join(kind.tasks)}: {reason}"
            )
        if options.meds and not kind.calendar:
            raise TableError(
                f"{kind.name} has no calendar, so that stays of a patient would lie on one another;"
                " leave --meds"
            )
        parts = _parts(kind.name, options, named)
        listed = _listed(kind, options, named.notes_list)
        groups = _groups(named.ccs, options)
        folder.refuse(out, raw)
        elsewhere = kind.named(raw, labels=named.labels, codes=named.codes)
        if named.notes is not None:
            elsewhere |= places.notes(named.notes, kind.note_tables, kind.name)
        if named.images is not None:
            elsewhere |= places.tables_of_images(named.images, kind.image_tables, kind.name)
        reports: Reports | None = None
        if named.reports is not None:
            pictured = bool(kind.image_tables)
            found = places.reports(named.reports, SECTIONED, kind.name, pictured=pictured)
            reports = Reports(found)
        return cls(kind, raw, options, named.images, parts, listed, groups, elsewhere, reports)

    @property
    def pictures(self) -> Path:
        """The folder of the X-rays."""
        return places.pictures(self.images, self.raw / "cxr")

    def open(self, engine: Engine | None = None) -> Tables:
        """Opens the tables.

        Args:
            engine: Where the work is done; None only to look at them.
        """
        kind = self.kind
        return Tables(
            self.raw,
            {**kind.wanted, **kind.outcomes.get(self.options.task, {})},
            optional=kind.optional,
            lazy=kind.lazy,
            subfolders=kind.subfolders,
            given=self.elsewhere,
            engine=engine,
        )

    def look(self) -> tuple[dict[str, Path], list[str]]:
        """Finds the input files, and the tables without a row.

        Raises:
            MissingError: Tables are not there.
            TableError: One that must have rows has none.
        """
        kind = self.kind
        with self.open() as tables:
            files = tables.files | {f"ccs_icd{n}": one.path for n, one in self.groups.items()}
            empty = tables.empty
            if (self.images or self.reports) and kind.image_tables[0] not in tables:
                raise MissingError(
                    f"{self.images or self.raw}: the table {kind.image_tables[0]} is not in it"
                    + (", and --reports join the images" if self.reports else "")
                )
        hollow = [str(files[name]) for name in empty if name in kind.filled and name in files]
        if hollow:
            raise TableError(f"{', '.join(hollow)}: a header and no row")
        return files | (self.reports.files if self.reports else {}), empty


def _parts(source: str, options: Options, named: Named) -> splits.Given | None:
    """Reads who is in which part, where that is given."""
    if bool(options.splits_from) != bool(named.split_lists):
        raise TableError("--splits-from needs --lists, the folder of the lists, and the reverse")
    if named.split_file and options.split_by:
        raise TableError("--splits and --split-by are two ways to split; give one")
    if named.split_file and named.split_lists:
        raise TableError("--splits and --splits-from are two ways to split; give one")
    if named.split_lists:
        return lists.read(str(options.splits_from), named.split_lists, source)
    return splits.Given(splits.read(named.split_file)) if named.split_file else None


def _listed(kind: type[Source], options: Options, notes_list: Path | None) -> list[int] | None:
    """Reads the stays whose notes are read, where they are given."""
    if options.notes_of != "all" and (not kind.note_tables or kind.text != "notes"):
        raise TableError(f"{kind.name} has no clinical notes; leave --notes-of")
    if (options.notes_of == "list") != (notes_list is not None):
        raise TableError("notes of a list of stays need its file")
    return None if notes_list is None else noted.read(notes_list)


def _groups(ccs: Sequence[Path], options: Options) -> dict[int, phenotypes.CCS]:
    """Reads the groups of diagnoses for the task that needs them."""
    if bool(ccs) != (options.task == phenotypes.TASK):
        raise TableError(
            f"the task {options.task} has no use for --ccs"
            if ccs
            else f"the task {options.task} needs the groups of diagnoses, which are not shipped:"
            " give --ccs FILE, HCUP's single-level CCS (for MIMIC-IV the files of ICD-9 and ICD-10,"
            " with a comma between them)"
        )
    return phenotypes.read(ccs)
