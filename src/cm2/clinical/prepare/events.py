"""From measurements to the long form: one row an observation, in one unit, inside its stay.

Everything is an Ibis expression that any backend runs. One pass goes over the measurements: the
wanted items are picked first, then joined to the stays; what is left out carries its reason, so
that rows and counts come from the same pass. Keep the result of :func:`match` once (it is small:
only rows of the stays and the window), then read :func:`accept` and :func:`exclusions` from it.

Where several rows speak of one variable, the greatest charttime wins, then the greatest storetime
(none counts least), then the greatest item id, then, for rows that agree in all of these, the
greatest value, so that the result does not depend on the order of rows. The same rule decides
between a cuff and an arterial line at one charttime: the cuff's item ids are greater for all three
pressures (those of a second arterial line, greater still), so that the three come from one device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ibis
import ibis.expr.types as ir

from cm2.clinical.prepare.tables import unread
from cm2.clinical.prepare.variables import VARIABLES, Item, items

__all__ = [
    "COLUMNS",
    "KNOWN_BY",
    "LOOKED_BACK",
    "PARTS",
    "REASONS",
    "TOTAL",
    "accept",
    "entered",
    "exclusions",
    "last_in_bin",
    "long_form",
    "match",
    "unreadable",
]

COLUMNS = ("stay_id", "variable", "hour", "value")
ENTERED_LATE = "entered after the window"
KNOWN_BY = ("charttime", "storetime")
LOOKED_BACK = ("height", "weight")
"""Charted at admission to the unit or shortly before; they do not change within hours."""

REASONS = (
    "no admission named",
    "unreadable charttime",
    "no charttime",
    "outside stay",
    "error flag",
    "empty",
    "unreadable",
    "implausible",
    ENTERED_LATE,
)
READ = ("item", "origin", "charttime", "storetime", "text", "number", "unit", "error")
# One row wins over another by these, compared from left to right.
PRECEDENCE = ("hour", "storetime", "rank", "value", "level")
KILOGRAMS = {"kg": 1.0, "lb": 0.45359237, "oz": 0.028349523125}
CENTIMETRES = {"cm": 1.0, "in": 2.54}
PARTS = ("gcs_eye", "gcs_motor", "gcs_verbal")
TOTAL = "gcs_total"
MILLIGRAMS = {"mg/dl": 1.0, "mmol/l": 18.0156}
"""Of glucose in a decilitre: by its molar mass of 180.156 g."""


def match(
    measurements: ir.Table,
    stays: ir.Table,
    *,
    hours: float | int,
    look_back: float | int = 0,
    known_by: str = "charttime",
    wanted: Sequence[Item] | None = None,
) -> ir.Table:
    """Finds the wanted measurements of the stays' first hours, converts and judges them.

    A row belongs to a stay by its stay id. A row without one belongs by its admission, and then it
    must lie within the stay, in the half-open ``[intime, outtime)``. Of either only the window
    ``[0, hours)`` since ``intime`` is used, and ``[-look_back, 0)`` for height and weight. A row
    that names neither is counted where it lies in the window of its patient's stay.

    Args:
        measurements: With columns ``subject_id``, ``hadm_id``, ``stay_id``, ``item``, ``origin``,
            ``charttime``, ``storetime``, ``text``, ``number``, ``unit`` and ``error``.
        stays: With columns ``subject_id``, ``hadm_id``, ``stay_id``, ``intime`` and ``outtime``.
        hours: Length of the window.
        look_back: Hours before ``intime`` from which height and weight are taken.
        known_by: ``"storetime"`` leaves out what was entered when the window was over; a row
            without a storetime goes by its charttime.
        wanted: The items; None for those of ``variables.csv``.

    Returns:
        ``stay_id``, ``variable``, ``hour``, ``value``, ``level`` (number of the category, null for
        a continuous variable), ``storetime``, ``rank``, ``summed`` (a part of a GCS total that the
        chart lacks), ``late`` (entered when the window was over), ``origin``, ``unreadable`` (the
        raw column that could not be read) and ``reason`` (why the row is left out; null where it is
        kept).
    """
    if not hours > 0:
        raise ValueError(f"the window must be longer than 0 hours, got {hours}")
    if known_by not in KNOWN_BY:
        raise ValueError(f"known_by is {' or '.join(KNOWN_BY)}, not {known_by!r}")
    chosen = items() if wanted is None else wanted
    # The plain filter reaches the files below the casts; the join alone would come after them.
    rows = measurements.filter(measurements.item.isin(sorted({one.item for one in chosen})))
    named = ibis.cases((rows.stay_id.notnull(), 0), (rows.hadm_id.notnull(), 1), else_=2)
    key = ibis.coalesce(rows.stay_id, rows.hadm_id, rows.subject_id)
    rows = rows.select(*READ, unreadable=unread(rows), key=key, named=named.cast("int64"))
    rows = rows.join(_wanted(chosen), ["origin", "item"]).join(_places(stays), ["key", "named"])
    end = round(hours * 3600)
    rows = rows.mutate(
        second=rows.charttime.epoch_seconds() - rows.intime.epoch_seconds(),
        late=(rows.storetime.epoch_seconds() - rows.intime.epoch_seconds() >= end).fill_null(False),
        raw=_number(rows),
    )
    back = rows.variable.isin(LOOKED_BACK) & (rows.second >= -round(look_back * 3600))
    rows = rows.mutate(before=(rows.second < 0) & back & (rows.named < 2))
    rows = rows.filter(_reached(rows, end))
    rows = rows.mutate(
        code_key=ibis.cases(
            (rows.conversion == "text", rows.text.strip().lower().coalesce(_whole(rows.raw))),
            else_=ibis.null("string"),
        )
    )
    rows = rows.left_join(_codes(), ["variable", "code_key"])
    rows = rows.mutate(
        value=(rows.conversion == "text").ifelse(rows.code_value, _converted(rows)),
        # Spark reads 3600.0 as a decimal, and would round the hour to six places.
        hour=rows.second.cast("float64") / 3600,
    )
    return rows.select(
        "stay_id",
        "variable",
        "hour",
        "value",
        "level",
        "storetime",
        "rank",
        "summed",
        "late",
        "origin",
        "unreadable",
        reason=_reason(rows, known_by),
    )


def accept(matched: ir.Table) -> ir.Table:
    """Keeps what has no reason against it, and adds GCS totals where a system charts none.

    A total is the sum of the three parts of one charttime, each by the rule of precedence.

    Args:
        matched: The result of :func:`match`.

    Returns:
        ``stay_id``, ``variable``, ``hour``, ``value``, ``level``, ``storetime``, ``rank``.
    """
    kept = matched.filter(matched.reason.isnull())
    parts = _first(kept.filter(kept.summed), ("stay_id", "variable", "hour"))
    totals = parts.group_by("stay_id", "hour").agg(
        total=parts.value.sum(), parts=parts.count(), storetime=parts.storetime.max()
    )
    totals = totals.filter(totals.parts == len(PARTS))
    columns = ("stay_id", "variable", "hour", "value", "level", "storetime", "rank")
    totals = totals.select(
        "stay_id",
        variable=ibis.literal(TOTAL),
        hour="hour",
        value="total",
        level=(totals.total - 3).cast("int64"),
        storetime="storetime",
        rank=ibis.literal(0, "int64"),
    )
    return kept.select(*columns).union(totals)


def exclusions(matched: ir.Table) -> ir.Table:
    """Counts what was left out: ``variable``, ``reason``, ``rows``.

    Rows outside the window are not counted; ``"outside stay"`` are those with a stay id from before
    its ``intime``, and those that an admission places after its ``outtime``. ``"no admission
    named"`` are rows of the stay's patient, inside the stay and the window, with neither id.

    Args:
        matched: The result of :func:`match`.
    """
    left_out = matched.filter(matched.reason.notnull())
    counted = left_out.group_by("variable", "reason").agg(rows=left_out.count())
    return counted.order_by("variable", "reason")


def entered(matched: ir.Table) -> ir.Table:
    """Counts what was entered when the window was over, among rows that are sound.

    Args:
        matched: The result of :func:`match`.

    Returns:
        One row: ``rows``, ``late``, ``stays`` that have late ones, ``untold`` rows without a
        storetime.
    """
    sound = matched.filter(matched.reason.isnull() | (matched.reason == ENTERED_LATE))
    return sound.agg(
        rows=sound.count(),
        late=sound.late.cast("int64").sum().coalesce(0),
        stays=sound.stay_id.nunique(where=sound.late),
        untold=sound.storetime.isnull().cast("int64").sum().coalesce(0),
    )


def unreadable(matched: ir.Table) -> ir.Table:
    """Counts rows with a value that could not be read: ``unreadable``, ``rows``, ``every``.

    Args:
        matched: The result of :func:`match`.

    Returns:
        For each raw column its rows, beside all rows of its table; those of the cohort's stays and
        wanted items in the window, or without a readable time.
    """
    every = matched.group_by("origin").agg(every=matched.count())
    lost = matched.filter(matched.unreadable.notnull())
    lost = lost.group_by("origin", "unreadable").agg(rows=lost.count())
    found = lost.join(every, "origin")
    return found.select("unreadable", "rows", "every").order_by("unreadable")


def long_form(events: ir.Table) -> ir.Table:
    """Returns the table of ``events.parquet``: ``stay_id``, ``variable``, ``hour``, ``value``.

    Rows are sorted by stay, variable and precedence, so that the last of several rows of a bin is
    the one that counts.

    Args:
        events: The result of :func:`accept`.
    """
    return events.order_by("stay_id", "variable", *_sorting(ibis.asc)).select(*COLUMNS)


def last_in_bin(events: ir.Table, *, hours_per_bin: float | int = 1) -> ir.Table:
    """Keeps the last row of each stay, variable and bin.

    Bin b is the half-open ``[b, b + 1) * hours_per_bin`` hours since ``intime``; all that lies
    before it is bin -1.

    Args:
        events: The result of :func:`accept`.
        hours_per_bin: Length of a bin.

    Returns:
        ``stay_id``, ``variable``, ``bin``, ``value``, ``level``.
    """
    if not hours_per_bin > 0:
        raise ValueError(f"a bin must be longer than 0 hours, got {hours_per_bin}")
    step = (events.hour / hours_per_bin).floor().cast("int64")
    binned = events.mutate(bin=ibis.greatest(step, -1))
    last = _first(binned, ("stay_id", "variable", "bin"))
    return last.select("stay_id", "variable", "bin", "value", "level")


def _wanted(chosen: Sequence[Item]) -> ir.Table:
    totals = {one.system for one in chosen if one.variable == TOTAL}
    return ibis.memtable(
        [
            {
                "origin": one.table,
                "item": one.item,
                "variable": one.variable,
                "conversion": one.conversion,
                "default_unit": one.unit,
                "low": one.low,
                "high": one.high,
                "rank": one.rank,
                "summed": one.variable in PARTS and one.system not in totals,
            }
            for one in chosen
        ]
    )


def _codes() -> ir.Table:
    """Lists how each category is written; a bare number is the first category of its value."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for one in VARIABLES:
        for level, code in enumerate(one.codes):
            for text in (*code.texts, f"{code.value:.0f}", f"{code.value:.1f}"):
                rows.setdefault(
                    (one.name, text),
                    {
                        "variable": one.name,
                        "code_key": text,
                        "level": level,
                        "code_value": code.value,
                    },
                )
    return ibis.memtable(list(rows.values()))


def _places(stays: ir.Table) -> ir.Table:
    """Lists every stay three times: under its own id, its admission's and its patient's."""
    columns = ("stay_id", "intime", "outtime")
    ids = ("stay_id", "hadm_id", "subject_id")
    return ibis.union(
        *(
            stays.select(*columns, key=name, named=ibis.literal(k, "int64"))
            for k, name in enumerate(ids)
        )
    )


def _reached(rows: ir.Table, end: int) -> ir.BooleanValue:
    """Rows of the window, those before it whose stay is named, and those without a time."""
    window = (rows.second >= 0) & (rows.second < end)
    theirs = window & (rows.charttime < rows.outtime).fill_null(False)
    early = (rows.second < 0) & (rows.named == 0)
    known = rows.charttime.isnull() | window | rows.before | early
    return ibis.cases((rows.named == 2, theirs), else_=known).fill_null(False)


def _number(rows: ir.Table) -> ir.FloatingValue:
    written = rows.text.replace("%", "").strip().try_cast("float64")
    return rows.number.coalesce(written)


def _whole(number: ir.FloatingValue) -> ir.StringValue:
    return number.round(0).cast("int64").cast("string")


def _converted(rows: ir.Table) -> ir.FloatingValue:
    """Converts numbers; the value itself tells per cent from fraction and Fahrenheit from Celsius.

    The ranges do not meet: no plausible temperature is between 45 degrees Celsius and 79 degrees
    Fahrenheit (26 degrees Celsius), and a number between 1 and 20 is neither an inspired fraction
    nor its per cent. It is left as it is, out of range.
    """
    raw = rows.raw
    return ibis.cases(
        (rows.conversion == "none", raw),
        (rows.conversion == "fraction", (raw >= 20).ifelse(raw / 100, raw)),
        (rows.conversion == "percent", ((raw > 0) & (raw <= 1)).ifelse(raw * 100, raw)),
        (rows.conversion == "celsius", (raw >= 79).ifelse((raw - 32) * 5 / 9, raw)),
        (rows.conversion == "kilogram", raw * _scale(rows, KILOGRAMS)),
        (rows.conversion == "centimetre", raw * _scale(rows, CENTIMETRES)),
        (rows.conversion == "milligram", raw * _scale(rows, MILLIGRAMS)),
        else_=ibis.null("float64"),
    )


def _scale(rows: ir.Table, scales: dict[str, float]) -> ir.FloatingValue:
    """Picks the scale by the row's own unit where it names one, or else by the item's."""
    own = [(rows.unit.lower().contains(unit), scale) for unit, scale in scales.items()]
    usual = [(rows.default_unit.lower() == unit, scale) for unit, scale in scales.items()]
    return ibis.cases(*own, *usual, else_=ibis.null("float64"))


def _reason(rows: ir.Table, known_by: str) -> ir.StringValue:
    over = rows.outtime.notnull() & (rows.charttime >= rows.outtime)
    outside = ((rows.second < 0) & ~rows.before) | ((rows.named > 0) & over)
    tests = (
        rows.named == 2,
        rows.charttime.isnull() & rows.unreadable.notnull(),
        rows.charttime.isnull(),
        outside,
        rows.error.fill_null(False),
        rows.text.isnull() & rows.number.isnull(),
        rows.value.isnull(),
        ~rows.value.between(rows.low, rows.high),
        rows.late & (known_by == "storetime"),
    )
    return ibis.cases(*zip(tests, REASONS, strict=True), else_=ibis.null("string"))


def _sorting(direction: Any) -> list[Any]:
    """Sorts by precedence; a missing storetime counts least in either direction."""
    nulls_first = direction is ibis.asc
    return [direction(column, nulls_first=nulls_first) for column in PRECEDENCE]


def _first(events: ir.Table, group: tuple[str, ...]) -> ir.Table:
    """Keeps the row of each group that takes precedence."""
    window = ibis.window(group_by=list(group), order_by=_sorting(ibis.desc))
    numbered = events.mutate(place=ibis.row_number().over(window))
    return numbered.filter(numbered.place == 0).drop("place")
