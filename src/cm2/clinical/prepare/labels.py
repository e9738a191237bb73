"""Outcomes of stays, from stays alone: no measurement, note or image has a say in them.

Phenotyping, whose outcomes are codes of diagnoses, has a module of its own, `phenotypes`.
"""

from __future__ import annotations

import itertools

import ibis
import ibis.expr.types as ir

from cm2.clinical.prepare.cohort import Cohort
from cm2.clinical.prepare.engine import Engine

__all__ = ["CLASSES", "READMISSIONS", "TASKS", "admission", "keeps_dead", "label"]

TASKS = ("in-hospital-mortality", "readmission", "length-of-stay", "phenotyping", "none")
READMISSIONS = ("survivors", "or-death")
DAYS = 30


ENDS = (*range(1, 9), 14)
"""Where the classes of length of stay end, in days: up to one, two, .. eight, fourteen, and more;
those of the MIMIC-III benchmark (Harutyunyan et al. 2019)."""

CLASSES = {"in-hospital-mortality": 2, "readmission": 2, "length-of-stay": len(ENDS) + 1}


def label(
    engine: Engine,
    cohort: Cohort,
    root: ir.Table,
    task: str,
    readmission: str,
    hours: float | int = 48,
) -> ir.Table:
    """Labels the stays that are kept; those without an outcome are excluded and counted.

    ``in-hospital-mortality``: death in hospital during the admission. ``readmission`` within 30
    days, in one of two definitions:

    - ``survivors``: of patients discharged alive from hospital; positive if any stay in intensive
      care begins within 30 days of discharge from the unit, in the same admission or another.
    - ``or-death``, as in the code of Wu et al. (2025): of all; positive if the patient's next stay
      of ``root`` was admitted to hospital less than 30 days after this one's discharge from
      hospital, or the patient died in hospital. Most positives are deaths. Survivors of whom it
      cannot be told, since the one or the other time is unknown, are excluded.

    ``length-of-stay``: the hours that the stay in the unit lasts beyond the window, in ten classes,
    one prediction a stay. ``none``: no outcome, for patients of whom it is not known yet.

    Args:
        engine: Where the work is done.
        cohort: Stays; survivors are picked in place.
        root: The stays among which ``or-death`` looks for the next one.
        task: What is predicted.
        readmission: Which definition.
        hours: Length of the window.

    Returns:
        ``stay_id``, ``label`` and ``kind``, what a positive label is owed to; of length of stay
        ``remaining_hours`` too.
    """
    known = [one for one in TASKS if one != "phenotyping"]
    if task not in known:
        raise ValueError(f"unknown task {task!r}; there are {', '.join(known)}")
    if task == "in-hospital-mortality":
        return cohort.kept.select("stay_id", label="died", kind=_DIED)
    if task == "none":
        return cohort.kept.select("stay_id", label=ibis.null("int64"), kind=ibis.null("string"))
    if task == "length-of-stay":
        return engine.keep("labels", _remaining(cohort.kept, hours))
    if readmission not in READMISSIONS:
        raise ValueError(f"readmission is {' or '.join(READMISSIONS)}, not {readmission!r}")
    if readmission == "survivors":
        alive = cohort.kept.filter(cohort.kept.died == 0)
        cohort.exclude(engine, "died in hospital", alive)
        labels = _returned(alive, _back_in_unit(alive, cohort.every))
    else:
        _exclude_untold(engine, cohort, root)
        labels = _returned(cohort.kept, _admitted_again(cohort.kept, root))
    return engine.keep("labels", labels)


def admission(task: str, readmission: str) -> str:
    """Says which stays of an admission the cohort of a task has, see `cohort.root`.

    Args:
        task: What is predicted.
        readmission: Which definition.
    """
    return "first" if task == "readmission" and readmission == "survivors" else "only"


def keeps_dead(task: str, readmission: str) -> bool:
    """Says whether those with a time of death inside the window stay: so the reference does.

    Args:
        task: What is predicted.
        readmission: Which definition.
    """
    return task == "readmission" and readmission == "or-death"


_DIED = ibis.literal("died in hospital")


def _remaining(stays: ir.Table, hours: float | int) -> ir.Table:
    """The hours beyond the window, and in which class they lie; a class begins at its first day."""
    seconds = stays.outtime.epoch_seconds() - stays.intime.epoch_seconds() - round(hours * 3600)
    classes = [(seconds < end * 86400, code) for code, end in enumerate(ENDS)]
    kinds = [f"stay {a} to {b} days more" for a, b in itertools.pairwise(ENDS)]
    names = ["stay less than a day more", *kinds, f"stay {ENDS[-1]} days or more"]
    code = ibis.cases(*classes, else_=len(ENDS)).cast("int64")
    return stays.select(
        "stay_id",
        label=code,
        kind=code.cases(*enumerate(names), else_=ibis.null("string")),
        remaining_hours=seconds.cast("float64") / 3600,
    )


def _back_in_unit(stays: ir.Table, others: ir.Table) -> ir.Table:
    """Lists stays after whose end another one of the patient begins within 30 days."""
    pairs = _pairs(stays, others)
    # Units hand over within minutes: what begins before this stay ended is no return.
    gap = pairs.start.epoch_seconds() - pairs.outtime.epoch_seconds()
    return _elsewhere(pairs.filter(gap.between(0, DAYS * 86400)))


def _admitted_again(stays: ir.Table, others: ir.Table) -> ir.Table:
    """Lists stays whose patient is admitted to hospital again less than 30 whole days later."""
    pairs = _pairs(stays, others)
    gap = pairs.again.epoch_seconds() - pairs.dischtime.epoch_seconds()
    # The next stay is the one that begins next, also where its admission overlaps with this one.
    return _elsewhere(pairs.filter(pairs.start > pairs.intime, gap < DAYS * 86400))


def _exclude_untold(engine: Engine, cohort: Cohort, root: ir.Table) -> None:
    """Excludes survivors whose discharge, or whose next admission, is at an unknown time."""
    stays = cohort.kept
    survived, left = stays.died != 1, stays.dischtime.notnull()
    cohort.exclude(
        engine, "time of discharge from hospital unknown", stays.filter(~survived | left)
    )
    stays = cohort.kept
    pairs = _pairs(stays, root)
    later = pairs.filter(pairs.start > pairs.intime, pairs.died != 1)
    untold = later.filter(later.again.isnull()).select("stay_id").distinct()
    # Another stay that is known to be a return settles it.
    untold = untold.anti_join(_admitted_again(stays, root), "stay_id")
    kept = stays.anti_join(untold, "stay_id")
    cohort.exclude(engine, "time of the next admission to hospital unknown", kept)


def _pairs(stays: ir.Table, others: ir.Table) -> ir.Table:
    other = others.select(
        "subject_id", next_stay="stay_id", next_hadm="hadm_id", start="intime", again="admittime"
    )
    pairs = stays.join(other, "subject_id")
    return pairs.filter(pairs.next_stay != pairs.stay_id)


def _elsewhere(pairs: ir.Table) -> ir.Table:
    return pairs.group_by("stay_id").agg(
        elsewhere=(pairs.next_hadm != pairs.hadm_id).fill_null(True).cast("int64").max()
    )


def _returned(stays: ir.Table, later: ir.Table) -> ir.Table:
    joined = stays.left_join(later, "stay_id")
    returned, died = joined.elsewhere.notnull(), joined.died == 1
    kind = ibis.cases(
        (returned & died, "died in hospital and returned"),
        (died, "died in hospital"),
        (returned & (joined.elsewhere == 1), "returned in a new admission"),
        (returned, "returned in the same admission"),
        else_="none",
    )
    return joined.select("stay_id", label=(returned | died).cast("int64"), kind=kind)
