"""MIMIC-CXR's own reports: a stay has its X-ray and the report of that X-ray's study, or neither.

They come as texts, ``files/p10/p10000032/s50414267.txt``, or as the table of their sections that
MIMIC-CXR's programs make of them, ``mimic_cxr_sectioned.csv``. A report belongs to a stay by the
study of its X-ray alone, so that it is never of a study after the window. Johnson et al. (2019),
MIMIC-CXR, a de-identified publicly available database of chest radiographs with free-text reports,
Scientific Data 6:317.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cm2.clinical.prepare import images as pictures
from cm2.clinical.prepare import manifest, modalities, notes, places, reports
from cm2.clinical.prepare.engine import Engine
from cm2.clinical.prepare.errors import MissingError
from cm2.clinical.prepare.modalities import Written
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.tables import Tables

__all__ = ["SECTIONED", "Reports"]

SECTIONED = "mimic_cxr_sectioned"

FILE = "reports.parquet"
LEFT = "reports-missing.csv"
MISSING, EMPTY, UNREADABLE = "no report", "an empty report", "not in UTF-8"

Sections = Mapping[str, str]


class Reports:
    """Reports of one table of sections, or of a folder of texts.

    Args:
        place: The file of the table, or the folder.

    Raises:
        TableError: The table lacks columns.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        if self.files:
            self._table(None).close()

    @property
    def files(self) -> dict[str, Path]:
        """The file of the table, if it is one."""
        return {SECTIONED: self.place} if self.place.is_file() else {}

    def write(
        self,
        engine: Engine,
        stays: ir.Table,
        images: ir.Table,
        root: Path,
        out: Path,
        options: Options,
        *,
        threads: int,
    ) -> Iterator[tuple[str, Written]]:
        """Writes the X-rays whose studies have a report, and these reports.

        Studies in the window without one are listed in ``reports-missing.csv``; their X-rays are
        not chosen.

        Args:
            engine: Where the work is done.
            stays: Normalised stays that are kept.
            images: Normalised images.
            root: The folder of the pictures.
            out: The folder.
            options: Say which images, and which sections.
            threads: Images decoded at once.

        Raises:
            MissingError: There are X-rays in the window, and not one has a report.
        """
        choice: dict[str, Any] = {"selection": options.selection, "views": options.views}
        inside = pictures.inside(stays, images, options.hours, **choice)
        studies = sorted(engine.frame(inside.select(study=_study(inside)).distinct())["study"])
        texts, left = self._texts(engine, studies, options)
        if studies and not texts:
            raise MissingError(
                f"{self.place}: none of the {len(studies)} studies with an X-ray in the window has"
                f" a report; the first one tried was {self._first()}"
            )
        told = engine.keep("studies_told", _column(texts))
        # Images without a time are never chosen, only counted.
        kept = images.filter(images.time.isnull() | _study(images).isin(told.study))
        cxr = modalities.write_images(
            engine, stays, kept, root, out, hours=options.hours, threads=threads, **choice
        )
        yield "cxr", cxr
        with (out / LEFT).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("study", "reason"), *left.items()])
        written = notes.write(_rows(out, texts), out / FILE, "section")
        reasons = Counter(left.values())
        counts = {
            "studies in the window": len(studies),
            **{reason: reasons[reason] for reason in (MISSING, EMPTY, UNREADABLE)},
            "without a storetime": written["stays"],
            **written,
        }
        facts = {"kind": "text", "file": FILE, "column": "section", "texts": self.fingerprint(out)}
        yield "report", Written(facts, cxr.stays, counts)

    def fingerprint(self, out: Path) -> str | None:
        """Describes the texts that were taken or not there, as they are now; None for a table.

        Args:
            out: What ``write`` wrote.
        """
        if self.files:
            return None
        taken = pq.read_table(out / "images.parquet", columns=["path"])["path"].to_pylist()
        with (out / LEFT).open(newline="") as file:
            left = [study for study, _ in list(csv.reader(file))[1:]]
        studies = {path.rpartition("/")[0] for path in taken} | set(left)
        return manifest.fingerprint_of_many(
            self.place, [f"{study}.txt" for study in places.below(self.place, sorted(studies))]
        )

    def _texts(
        self, engine: Engine, studies: Sequence[str], options: Options
    ) -> tuple[dict[str, Sections], dict[str, str]]:
        """The wanted sections of each study's report, and why others have none."""
        texts: dict[str, Sections] = {}
        left = dict.fromkeys(studies, MISSING)
        kept = options.sections_kept or "first"
        for study, found in (
            self._sectioned(engine, studies) if self.files else self._split(studies)
        ):
            if found is None:
                left[study] = UNREADABLE
                continue
            # A text without any section is taken whole.
            whole = {name: found[name] for name in ("report",) if found.get(name)}
            if sections := reports.taken(found, options.sections, kept) or whole:
                texts[study] = sections
                del left[study]
            else:
                left[study] = EMPTY
        return texts, left

    def _split(self, studies: Sequence[str]) -> Iterator[tuple[str, Sections | None]]:
        for study, path in zip(studies, places.below(self.place, studies), strict=True):
            try:
                text = (self.place / f"{path}.txt").read_text(encoding="utf-8")
            except FileNotFoundError:
                continue
            except UnicodeDecodeError:
                yield study, None
                continue
            yield study, reports.split(text, reports.SECTIONS) | {"report": reports.whole(text)}

    def _sectioned(
        self, engine: Engine, studies: Sequence[str]
    ) -> Iterator[tuple[str, Sections | None]]:
        of = {study.rpartition("/")[2]: study for study in studies}
        wanted = engine.keep("studies_inside", _column(of))
        table = self._table(engine)[SECTIONED]
        found = engine.frame(table.semi_join(wanted, "study").distinct(on="study", keep="first"))
        for row in found.to_dict("records"):
            yield (
                of[row["study"]],
                {
                    name: reports.whole(row[name])
                    for name in reports.SECTIONS
                    if pd.notna(row[name])
                },
            )

    def _table(self, engine: Engine | None) -> Tables:
        columns = dict.fromkeys(("study", *reports.SECTIONS), "string")
        return Tables(
            self.place.parent,
            {SECTIONED: columns},
            lazy=(SECTIONED,),
            given={SECTIONED: self.place},
            engine=engine,
        )

    def _first(self) -> str:
        if self.files:
            return "a row whose study is like sSTUDY"
        return f"like {self.place / places.level(self.place)}/pNN/pSUBJECT/sSTUDY.txt"


def _study(images: ir.Table) -> ir.StringValue:
    """The place of an image's study: that of the image, but for its own name."""
    return images.path.re_extract("^(.*)/[^/]*$", 1)


def _column(studies: Iterable[str]) -> ir.Table:
    return ibis.memtable({"study": list(studies)}, schema={"study": "string"})


def _rows(out: Path, texts: Mapping[str, Sections]) -> Iterator[pa.RecordBatch]:
    """One row a section of the report of each picture that was written."""
    index = pq.read_table(out / "images.parquet", columns=["stay_id", "hour", "path"])
    rows: list[dict[str, Any]] = [
        {
            "stay_id": image["stay_id"],
            "position": place,
            "hour": image["hour"],
            "section": name,
            "text": text,
        }
        for image in index.to_pylist()
        for place, (name, text) in enumerate(texts[image["path"].rpartition("/")[0]].items())
    ]
    yield pa.RecordBatch.from_pylist(rows, schema=notes.schema("section"))
