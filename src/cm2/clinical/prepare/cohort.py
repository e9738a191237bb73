"""Which stays are used: adults, one stay an admission, without transfers, long enough.

As in Harutyunyan et al. (2019), Multitask learning and benchmarking with clinical time series data,
Scientific Data 6:96. The exclusions are applied one after the other, and each is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from cm2.clinical.prepare.engine import Engine
from cm2.clinical.prepare.errors import TableError, none_left

__all__ = ["ADULT", "Cohort", "root", "whole_window"]

ADULT = 18


@dataclass
class Cohort:
    """Stays that are left, and how they came to be left.

    Attributes:
        every: All that begin at a known time, whatever else is unknown of them: to whom a patient
            returns. Rows of one stay may differ.
        kept: Those not excluded.
        size: How many these are.
        flow: What was found, each exclusion, and how many it took.
    """

    every: ir.Table
    kept: ir.Table
    size: int
    flow: list[tuple[str, int]]

    def exclude(self, engine: Engine, reason: str, kept: ir.Table) -> None:
        """Replaces the stays by those of them that are kept, and counts the others."""
        size = count(engine, kept)
        self.flow.append((f"excluded: {reason}", self.size - size))
        self.kept, self.size = kept, size

    def judge(self, engine: Engine, name: str, reasons: Mapping[str, ir.BooleanValue]) -> None:
        """Excludes stays by the first reason that applies to each.

        Args:
            engine: Where the work is done.
            name: Of the stored result.
            reasons: When each applies to a row of `kept`.

        Raises:
            TableError: No stay is left.
        """
        self._count(engine, engine.keep(name, _judged(self.kept, reasons)), reasons)
        if not self.size:
            raise none_left(self.flow)

    def _count(self, engine: Engine, judged: ir.Table, reasons: Iterable[str]) -> None:
        frame = engine.frame(judged.group_by("reason").agg(stays=judged.count()))
        numbers = {r: int(n) for r, n in zip(frame["reason"], frame["stays"], strict=True)}
        found = {reason: numbers.get(reason, 0) for reason in reasons}
        self.flow += [(f"excluded: {reason}", number) for reason, number in found.items()]
        self.kept = judged.filter(judged.reason.isnull()).drop("reason")
        self.size = sum(numbers.values()) - sum(found.values())


def count(engine: Engine, table: ir.Table) -> int:
    """Counts the rows of a table."""
    return int(engine.frame(table.agg(rows=table.count()))["rows"].iloc[0])


def root(engine: Engine, stays: ir.Table, *, admission: str = "only", told: bool = True) -> Cohort:
    """Applies the exclusions that do not depend on the length of the window.

    Args:
        engine: Where the work is done.
        stays: Normalised stays, as they come from a source.
        admission: Which stays of an admission are used: ``"only"`` one that is the only one without
            a transfer, as in the benchmark; ``"first"`` the first of any number, since whoever asks
            for a return must not drop those who came back.
        told: Whether discharge and outcome must be known; they are not of patients who are still
            there.

    Raises:
        TableError: Rows with one stay id differ, or no stay is left.
    """
    rows = engine.keep("stays_found", stays)
    found = count(engine, rows)
    cohort = Cohort(rows, rows, found, [("rows of stays found", found)])
    cohort.exclude(engine, "a row of the same stay again", rows.distinct())
    rows = cohort.kept
    known = (rows[name].notnull() for name in ("stay_id", "subject_id", "intime"))
    cohort.every = rows.filter(*known)
    cohort.judge(
        engine,
        "stays_usable",
        {
            "no identifier of stay, admission or patient": rows.stay_id.isnull()
            | rows.hadm_id.isnull()
            | rows.subject_id.isnull(),
            "no time of admission to the unit or of discharge": rows.intime.isnull()
            | (rows.outtime.isnull() & told),
            "discharge from the unit not after admission": rows.outtime <= rows.intime,
        },
    )
    # Before outcomes are looked at: one that is unknown may be what a stay contradicts itself in.
    _refuse_repeated(engine, cohort.kept)
    unknown = ~cohort.kept.died.isin([0, 1]).fill_null(False) & told
    cohort.judge(engine, "stays_told", {"outcome of the hospital admission unknown": unknown})
    stays = cohort.kept
    moved = stays.transferred.fill_null(False)
    transferred = {"transferred between units or wards": moved}
    if admission == "first":
        order = ibis.window(group_by="hadm_id", order_by=["intime", "stay_id"])
        stays = stays.mutate(place=ibis.row_number().over(order))
        exclusions = {"not the first stay of its admission": stays.place > 0} | transferred
    else:
        stays = stays.mutate(
            place=(~moved).cast("int64").sum().over(ibis.window(group_by="hadm_id"))
        )
        exclusions = transferred | {"another stay in the same admission": stays.place > 1}
    cohort.kept = stays
    ages = {"age unknown": stays.age.isnull(), f"younger than {ADULT}": stays.age < ADULT}
    cohort.judge(engine, "stays_root", exclusions | ages)
    cohort.kept = cohort.kept.drop("place")
    return cohort


def whole_window(engine: Engine, cohort: Cohort, hours: float | int, *, dead: bool = False) -> None:
    """Excludes stays that do not last through the window.

    Args:
        engine: Where the work is done.
        cohort: Changed in place.
        hours: Length of the window from admission to the unit.
        dead: Whether stays with a time of death inside the window are kept.

    Raises:
        TableError: No stay is left.
    """
    seconds = round(hours * 3600)
    stays = cohort.kept
    start = stays.intime.epoch_seconds()
    reasons = {f"left the unit before {hours:g} h": stays.outtime.epoch_seconds() - start < seconds}
    if not dead:
        # A few admissions carry a time of death before the end of their stay: known by then, it
        # would leave nothing to predict.
        early = stays.deathtime.epoch_seconds() - start < seconds
        reasons[f"died before {hours:g} h"] = early.fill_null(False)
    cohort.judge(engine, "stays_kept", reasons)


def _judged(stays: ir.Table, reasons: Mapping[str, ir.BooleanValue]) -> ir.Table:
    tests = [(test, reason) for reason, test in reasons.items()]
    return stays.mutate(reason=ibis.cases(*tests, else_=ibis.null("string")))


def _refuse_repeated(engine: Engine, stays: ir.Table) -> None:
    repeated = stays.group_by("stay_id").agg(rows=stays.count()).filter(ibis._.rows > 1)
    if number := count(engine, repeated):
        raise TableError(
            f"{number} stay ids have several rows that differ (in the table of stays, or because"
            " their admission or patient has several); one row a stay expected"
        )
