"""Which stays are used: adults, one stay an admission, without transfers, long enough.

As in Harutyunyan et al. (2019), Multitask learning and benchmarking with clinical time series data,
Scientific Data 6:96. The exclusions are applied one after the other, and each is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import ibis
import ibis.expr.types as ir

from cm2.prepare.engine import Engine
from cm2.prepare.errors import TableError

__all__ = ["ADULT", "Cohort", "root", "whole_window"]

ADULT = 18

Flow = list[tuple[str, int]]


@dataclass
class Cohort:
    """Stays that are left, and how they came to be left.

    Attributes:
        every: All stays with times in order, one row each; nothing else is asked of them.
        kept: Those not excluded.
        flow: What was found, each exclusion, and how many it took.
    """

    every: ir.Table
    kept: ir.Table
    flow: Flow = field(default_factory=list)

    def exclude(self, engine: Engine, reason: str, kept: ir.Table) -> None:
        """Replaces the stays by those of them that are kept, and counts the others."""
        before, after = count(engine, self.kept), count(engine, kept)
        self.kept = kept
        self.flow.append((f"excluded: {reason}", before - after))


def count(engine: Engine, table: ir.Table) -> int:
    """Counts the rows of a table."""
    return int(engine.frame(table.agg(rows=table.count()))["rows"].iloc[0])


def root(engine: Engine, stays: ir.Table) -> Cohort:
    """Applies the exclusions that do not depend on the task.

    Args:
        engine: Where the work is done.
        stays: Normalised stays, as they come from a source.

    Raises:
        TableError: Rows with one stay id differ, or no stay is left.
    """
    rows = engine.keep("stays_found", stays)
    every = engine.keep("stays_once", rows.distinct())
    cohort = Cohort(every, rows, [("rows of stays found", count(engine, rows))])
    cohort.exclude(engine, "a row of the same stay again", every)
    for reason, usable in USABLE.items():
        cohort.exclude(engine, reason, cohort.kept.filter(usable))
    cohort.kept = engine.keep("stays_usable", cohort.kept)
    cohort.every = cohort.kept
    _refuse_repeated(engine, cohort.kept)
    unmoved = cohort.kept.filter(~cohort.kept.transferred.fill_null(False))
    cohort.exclude(engine, "transferred between units or wards", unmoved)
    alone = unmoved.group_by("hadm_id").agg(stays=unmoved.count()).filter(ibis._.stays == 1)
    cohort.exclude(
        engine, "another stay in the same admission", unmoved.semi_join(alone, "hadm_id")
    )
    known = cohort.kept.filter(cohort.kept.age.notnull())
    cohort.exclude(engine, "age unknown", known)
    cohort.exclude(engine, f"younger than {ADULT}", known.filter(known.age >= ADULT))
    cohort.kept = engine.keep("stays_root", cohort.kept)
    _refuse_empty(engine, cohort)
    return cohort


def whole_window(engine: Engine, cohort: Cohort, hours: float) -> None:
    """Excludes stays that do not last through the window.

    Args:
        engine: Where the work is done.
        cohort: Changed in place.
        hours: Length of the window from admission to the unit.

    Raises:
        TableError: No stay is left.
    """
    seconds = round(hours * 3600)
    stays = cohort.kept
    long = stays.filter(stays.outtime.epoch_seconds() - stays.intime.epoch_seconds() >= seconds)
    cohort.exclude(engine, f"left the unit before {hours:g} h", long)
    # A few admissions carry a time of death before the end of their stay: known by then, it would
    # leave nothing to predict.
    dead = long.deathtime.epoch_seconds() - long.intime.epoch_seconds() < seconds
    cohort.exclude(engine, f"died before {hours:g} h", long.filter(~dead.fill_null(False)))
    cohort.kept = engine.keep("stays_kept", cohort.kept)
    _refuse_empty(engine, cohort)


USABLE: dict[str, Callable[[ir.Table], ir.Value]] = {
    "no identifier of stay, admission or patient": lambda t: (
        t.stay_id.notnull() & t.hadm_id.notnull() & t.subject_id.notnull()
    ),
    "no time of admission to the unit or of discharge": lambda t: (
        t.intime.notnull() & t.outtime.notnull()
    ),
    "discharge from the unit not after admission": lambda t: t.outtime > t.intime,
    "outcome of the hospital admission unknown": lambda t: t.died.isin([0, 1]),
}


def _refuse_repeated(engine: Engine, stays: ir.Table) -> None:
    repeated = stays.group_by("stay_id").agg(rows=stays.count()).filter(ibis._.rows > 1)
    if number := count(engine, repeated):
        raise TableError(
            f"{number} stay ids have several rows that differ (in the table of stays, or because"
            " their admission or patient has several); one row a stay expected"
        )


def _refuse_empty(engine: Engine, cohort: Cohort) -> None:
    if not count(engine, cohort.kept):
        steps = "; ".join(f"{step}: {number}" for step, number in cohort.flow)
        raise TableError(f"no stay is left ({steps})")
