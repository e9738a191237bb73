"""One preparation, step by step: cohort, labels, measurements, modalities, stays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pandas as pd

from cm2.clinical.prepare import cohort as cohorts
from cm2.clinical.prepare import (
    events,
    grouped,
    labels,
    meds,
    modalities,
    noted,
    phenotypes,
    splits,
)
from cm2.clinical.prepare.cxr_reports import Reports
from cm2.clinical.prepare.engine import Engine
from cm2.clinical.prepare.errors import TableError, none_left
from cm2.clinical.prepare.modalities import Written
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.source import Measured, Source
from cm2.clinical.prepare.stays import LABEL, by_split, check_training, label_names, write_stays
from cm2.clinical.prepare.tables import refuse_unreadable
from cm2.clinical.prepare.variables import VARIABLES, Variable

__all__ = ["Run", "Say"]

Say = Callable[[str], None]


@dataclasses.dataclass
class Run:
    """One preparation, from a source to files in a folder.

    Attributes:
        source: The raw data set.
        options: What decides the result.
        engine: Where the work is done.
        out: The folder, empty but for the work of the engine.
        threads: Images decoded at once.
        say: Is told what is done.
        reports: The X-rays' own reports, in the place of the source's.
        notes_list: Stays whose notes are read, where the options say that there is a list.
        ccs: The groups of diagnoses by version of ICD, for phenotyping.
        unreadable: Values of large tables that could not be read, by column; filled by `write`.
    """

    source: Source
    options: Options
    engine: Engine
    out: Path
    threads: int
    say: Say
    reports: Reports | None = None
    notes_list: Sequence[int] | None = None
    ccs: Mapping[int, phenotypes.CCS] = dataclasses.field(default_factory=dict)
    unreadable: dict[str, int] = dataclasses.field(default_factory=dict)

    def write(
        self, given: splits.Given | None, pictures: Path, *, synthetic: bool
    ) -> dict[str, Any]:
        """Writes all files but the manifest, and returns what that says of them.

        Args:
            given: The part of each patient, if not by hash.
            pictures: The folder of the X-rays.
            synthetic: Whether the tables are made up.
        """
        self.say("cohort")
        counts: dict[str, Any] = {}
        made = self.source.samples(self.engine)
        cohort, labelled, root = self._cohort(counts) if made is None else (*made, made[0].kept)
        if given is None and (parts := self.source.parts(self.engine)) is not None:
            given = splits.Given(parts)
        if given is not None and given.rest is None:
            self._pick(cohort, list(given.parts))
        dealt = self._deal(cohort) if self.options.split_by else None
        self._refuse_early(cohort, given, dealt)
        left_out: dict[str, dict[str, int]] = {}
        measured = self.source.measured(self.engine, cohort.kept)
        accepted = None
        if measured is not None:
            self.say("measurements")
            accepted, left_out = self._measure(measured, cohort, counts)
            counts["events"] = modalities.write_events(self.engine, accepted, self.out)
        cohort.kept = self.engine.keep("stays_final", cohort.kept)
        frame = self._frame(cohort, labelled, given, dealt)
        if given is not None and given.rest is not None:
            unlisted = frame[~frame["subject_id"].isin(given.parts.keys())]
            counts["in no list"] = {
                "patients": int(unlisted["subject_id"].nunique()),
                "stays": len(unlisted),
            }
        read = self._read(root, frame, counts)
        if self.options.meds and accepted is not None:
            self.say("meds")
            long = pd.read_parquet(self.out / "events.parquet")
            dataset, task = self.source.name, self.source.outcome or self.options.task
            meds.write_meds(
                long, frame, self.out / "meds", dataset=dataset, task=task, synthetic=synthetic
            )
        variables = VARIABLES if measured is None else measured.variables
        written = dict(self._modalities(cohort.kept, read, frame, accepted, variables, pictures))
        counts |= {name: one.counts for name, one in written.items()}
        with self.engine.guard():
            scores = self.source.scores(cohort.kept, self.options.hours)
        if scores is not None:
            modalities.write_beside(scores.reset_index(), "scores", self.out)
        counts["stays"] = by_split(frame)
        removed, sets = write_stays(frame, written, self.out, self.options)
        return {
            "flow": [[step, number] for step, number in cohort.flow] + [["stays kept", len(frame)]],
            "classes": labels.CLASSES.get(self.options.task),
            **self._positives(frame),
            "counts": counts,
            "measurements_left_out": left_out,
            "modalities": {
                name: {**one.facts, "stays": len(one.stays) - removed[name]}
                for name, one in written.items()
            },
            "sets": sets,
            "removed": removed if self.options.missing_rate else {},
            "absent": {
                name: "its tables are not there"
                for name in self.source.modalities
                if name not in written
            },
        }

    def _cohort(self, counts: dict[str, Any]) -> tuple[cohorts.Cohort, ir.Table, ir.Table]:
        """Makes a cohort of the source's stays and labels it; all stays that it began with."""
        options = self.options
        admission = labels.admission(options.task, options.readmission)
        told = options.task != "none"
        cohort = cohorts.root(self.engine, self.source.stays(), admission=admission, told=told)
        root = cohort.kept
        dead = labels.keeps_dead(options.task, options.readmission)
        cohorts.whole_window(self.engine, cohort, options.hours, dead=dead)
        return cohort, self._label(cohort, root, counts), root

    def _label(self, cohort: cohorts.Cohort, root: ir.Table, counts: dict[str, Any]) -> ir.Table:
        options = self.options
        if options.task != phenotypes.TASK:
            return labels.label(
                self.engine, cohort, root, options.task, options.readmission, options.hours
            )
        labelled, counts["diagnoses"] = phenotypes.label(
            self.engine, cohort, self.source.diagnoses(), self.ccs
        )
        return labelled

    def _positives(self, frame: pd.DataFrame) -> dict[str, Any]:
        """What positive labels are owed to; of labels that may hold together, each one's number."""
        if names := label_names(frame):
            positives = {name: int(frame[LABEL + name].sum()) for name in names}
            return {"labels": names, "positives": positives}
        known = frame["label"].notna() & (self.options.task == "length-of-stay")
        kinds = frame.loc[(frame["label"] > 0) | known, "kind"]
        return {"positives": {kind: int((kinds == kind).sum()) for kind in sorted(set(kinds))}}

    def _pick(self, cohort: cohorts.Cohort, subjects: Sequence[int]) -> None:
        listed = self.engine.keep("subjects", ibis.memtable({"subject_id": list(subjects)}))
        cohort.exclude(
            self.engine,
            "patient not in the file of splits",
            cohort.kept.semi_join(listed, "subject_id"),
        )

    def _read(self, root: ir.Table, frame: pd.DataFrame, counts: dict[str, Any]) -> ir.Table | None:
        """The stays whose notes are read; None for all."""
        chosen = self.notes_list
        if self.options.notes_of == "third":
            chosen = noted.third(frame, noted.episodes(self.engine, root))
        if chosen is None:
            return None
        counts["notes read"] = noted.count(frame, chosen)
        return self.engine.keep("noted", ibis.memtable({"stay_id": list(chosen)}))

    def _refuse_early(
        self,
        cohort: cohorts.Cohort,
        given: splits.Given | None,
        dealt: Mapping[int, str] | None,
    ) -> None:
        """Refuses lists of other data and nothing to train on before large tables are read."""
        if not cohort.size:
            raise none_left(cohort.flow)
        parts = list((dealt or {}).values())
        if given is not None and dealt is None:
            subjects = self.engine.frame(cohort.kept.select("subject_id"))["subject_id"]
            parts = given.of(subjects.tolist())
        if parts:
            check_training(pd.DataFrame({"split": parts}))

    def _deal(self, cohort: cohorts.Cohort) -> dict[int, str]:
        """Splits along a group of stays; patients of two parts are excluded and counted."""
        by, groups = str(self.options.split_by), self.source.groups()
        if groups is None or by not in self.source.grouping:
            reason = self.source.ungrouped.get(by, "its tables do not have it")
            raise TableError(f"{self.source.name} cannot be split by {by}: {reason}")
        kept = cohort.kept.select("stay_id", "subject_id").inner_join(groups, "stay_id")
        frame = self.engine.frame(kept.order_by("stay_id"))
        frame["part"] = grouped.assign(frame, by, self.options.fractions, seed=self.options.seed)
        frame = frame.dropna(subset="part")
        listed = self.engine.keep("dealt", ibis.memtable(frame[["stay_id"]]))
        cohort.exclude(
            self.engine,
            f"patient with stays of two parts by {by}",
            cohort.kept.semi_join(listed, "stay_id"),
        )
        return dict(zip(frame["stay_id"].tolist(), frame["part"].tolist(), strict=True))

    def _measure(
        self, measured: Measured, cohort: cohorts.Cohort, counts: dict[str, Any]
    ) -> tuple[ir.Table, dict[str, dict[str, int]]]:
        """Reads the large tables, once, and leaves out stays without a measurement."""
        found = events.match(
            measured.rows,
            cohort.kept,
            wanted=measured.items,
            hours=self.options.hours,
            look_back=self.options.look_back,
            known_by=self.options.known_by,
        )
        matched = self.engine.keep("matched", found)
        for row in self.engine.frame(events.unreadable(matched)).itertuples():
            refuse_unreadable(str(row.unreadable), int(row.rows), int(row.every))
            self.unreadable[str(row.unreadable)] = int(row.rows)
        counts["entered"] = self._entered(matched)
        counts |= measured.counts
        accepted = self.engine.keep("accepted", events.accept(matched))
        inside = accepted.filter(accepted.hour >= 0)
        there = self.engine.keep("measured", inside.select("stay_id").distinct())
        cohort.exclude(
            self.engine,
            "no measurement in the window",
            cohort.kept.semi_join(there, "stay_id"),
        )
        # Also what was looked back for, of stays that have nothing else.
        accepted = accepted.semi_join(there, "stay_id")
        left_out: dict[str, dict[str, int]] = {}
        for row in self.engine.frame(events.exclusions(matched)).itertuples():
            left_out.setdefault(str(row.variable), {})[str(row.reason)] = int(row.rows)
        return accepted, left_out

    def _entered(self, matched: ir.Table) -> dict[str, int]:
        row = self.engine.frame(events.entered(matched)).iloc[0]
        return {
            "rows": int(row["rows"]),
            "after the window": int(row["late"]),
            "stays with such rows": int(row["stays"]),
            "without a storetime": int(row["untold"]),
        }

    def _frame(
        self,
        cohort: cohorts.Cohort,
        labelled: ir.Table,
        given: splits.Given | None,
        dealt: Mapping[int, str] | None,
    ) -> pd.DataFrame:
        stays = cohort.kept.select("stay_id", "subject_id", "hadm_id", "age", "intime")
        if (groups := self.source.groups()) is not None:
            stays = stays.left_join(groups, "stay_id").drop("stay_id_right")
        frame = self.engine.frame(stays.inner_join(labelled, "stay_id").order_by("stay_id"))
        if frame.empty:
            raise none_left(cohort.flow)
        if several := int(frame["stay_id"].duplicated().sum()):
            raise TableError(f"{several} stays have rows that contradict each other")
        subjects = frame["subject_id"].tolist()
        if given is None:
            parts = splits.assign(subjects, self.options.fractions, seed=self.options.seed)
            given = splits.Given(parts)
        frame["split"] = given.of(subjects)
        if dealt is not None:
            frame["split"] = frame["stay_id"].map(dict(dealt))
        check_training(frame)
        if self.source.calendar:
            length = pd.to_timedelta(self.options.seconds, unit="s")
            frame["prediction_time"] = frame["intime"].astype("datetime64[us]") + length
        return frame

    def _modalities(
        self,
        stays: ir.Table,
        read: ir.Table | None,
        frame: pd.DataFrame,
        accepted: ir.Table | None,
        variables: tuple[Variable, ...],
        pictures: Path,
    ) -> Iterator[tuple[str, Written]]:
        """Writes what the source has, one modality after the other."""
        options = self.options
        if accepted is not None:
            self.say("series")
            yield (
                "series",
                modalities.write_series(
                    self.engine,
                    accepted,
                    frame,
                    self.out,
                    hours=options.hours,
                    hours_per_bin=options.hours_per_bin,
                    variables=variables,
                ),
            )
        own = self.reports
        documents = self.source.documents() if own is None else None
        if documents is not None:
            self.say("documents")
            yield (
                self.source.text,
                modalities.write_documents(
                    self.engine,
                    stays if read is None else stays.semi_join(read, "stay_id"),
                    documents,
                    self.out,
                    sections=options.sections if self.source.text == "report" else (),
                    kept=options.sections_kept or "every",
                    hours=options.hours,
                    selection=options.selection,
                    known_by=options.known_by,
                ),
            )
        images = self.source.images()
        if images is not None and own is not None:
            self.say("images and their reports")
            yield from own.write(
                self.engine, stays, images, pictures, self.out, options, threads=self.threads
            )
        elif images is not None:
            self.say("images")
            yield (
                "cxr",
                modalities.write_images(
                    self.engine,
                    stays,
                    images,
                    pictures,
                    self.out,
                    hours=options.hours,
                    selection=options.selection,
                    views=options.views,
                    threads=self.threads,
                ),
            )
        with self.engine.guard():
            tabular = self.source.numbers(stays, options.hours)
        for name, numbers in tabular.items():
            self.say(name)
            yield name, modalities.write_tabular(numbers, name, self.out)
        for name, lines in self.source.lines(stays, options.hours).items():
            self.say(name)
            yield name, modalities.write_lines(self.engine, lines, name, self.out)
