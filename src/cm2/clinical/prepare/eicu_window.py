"""What was known of a stay before the prediction time, from eICU's event tables.

Every row used was both measured and written down before the window's end. Readings go through one
long table (stay, minute, variable, value); codes and paths become one document a stay.
"""

from __future__ import annotations

from collections.abc import Mapping

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd

from cm2.clinical.prepare import eicu_columns as columns
from cm2.clinical.prepare.eicu_columns import STAY
from cm2.clinical.prepare.source import Raw

__all__ = ["Window"]

EXACT = "decimal(38, 9)"
"""Numbers whose sum is the same in any order."""


class Window:
    """The rows of the kept stays that were known before the prediction time.

    Args:
        tables: The raw tables.
        kept: One column, the stays that are kept.
        minutes: The prediction time, in minutes from admission to the unit.
    """

    def __init__(self, tables: Raw, kept: ir.Table, minutes: float) -> None:
        self.tables = tables
        self.kept = kept
        self.minutes = minutes

    def rows(self, name: str) -> ir.Table:
        """Selects rows all of whose times (measured, entered, started) lie inside the window."""
        table = self.tables[name].semi_join(self.kept, STAY)
        return table.filter(*(table[time] < self.minutes for time in columns.TIMES[name]))

    def examination(self) -> ir.Table:
        """Selects physical examinations; those whose note was entered too late are left out.

        The table carries the time of its note but not when that was entered.
        """
        note = self.tables["note"]
        late = (
            note.group_by(STAY, physicalexamoffset=note.noteoffset)
            .agg(entered=note.noteenteredoffset.min())
            .filter(ibis._.entered >= self.minutes)
        )
        table = self.rows("physicalexam").anti_join(late, [STAY, "physicalexamoffset"])
        return table.select(
            STAY,
            minute=table.physicalexamoffset,
            path=table.physicalexampath.replace(columns.EXAM_PREFIX, "").replace(
                columns.OPTIONS_PREFIX, ""
            ),
            number=ibis.coalesce(
                table.physicalexamtext.try_cast("float64"),
                table.physicalexamvalue.try_cast("float64"),
            ),
        )

    def readings(self) -> ir.Table:
        """Lists the numbers of physical examinations as long rows."""
        exam = self.examination()
        path = exam.path.re_replace(r"/[0-9.]+$", "")
        variable = path.substitute(columns.EXAM_PATHS, else_=ibis.null("string"))
        return exam.select(STAY, "minute", variable=variable, value=exam.number)

    def vitals(self) -> ir.Table:
        """Lists blood pressure, respiratory charting and fluid balance as long rows."""
        return ibis.union(self._pressures(), self._charted(), *self._fluids())

    def _pressures(self) -> ir.Table:
        table = self.rows("vitalaperiodic")
        named = {name: table[column] for column, name in columns.PRESSURES.items()}
        return (
            table.select(STAY, minute=table.observationoffset, **named)
            .pivot_longer(list(named), names_to="variable", values_to="value")
            .select(STAY, "minute", "variable", "value")
        )

    def _charted(self) -> ir.Table:
        table = self.rows("respiratorycharting")
        label = table.respchartvaluelabel.lower()
        return table.select(
            STAY,
            minute=table.respchartoffset,
            variable=label.substitute(columns.CHARTED, else_=ibis.null("string")),
            value=table.respchartvalue.replace("%", "").try_cast("float64"),
        )

    def _fluids(self) -> list[ir.Table]:
        table = self.rows("intakeoutput").distinct()
        table = table.filter(table.intakeoutputoffset >= 0)
        return [
            table.filter(table.cellpath.re_search(pattern)).select(
                STAY,
                minute=table.intakeoutputoffset,
                variable=ibis.literal(name),
                value=table.cellvaluenumeric,
            )
            for name, pattern in columns.FLUIDS.items()
        ]

    def summaries(
        self, events: ir.Table, variables: Mapping[str, columns.Variable]
    ) -> pd.DataFrame:
        """Summarises each variable of each stay by the statistics that its entry names.

        Args:
            events: Long rows.
            variables: Plausible range and statistics of each; others are left out.

        Returns:
            One row a stay with at least one plausible reading, the same columns for any data.
        """
        events = _plausible(events, variables)
        summed = {
            "total": events.value,
            "minutes": events.minute,
            "squares": events.minute * events.minute,
            "products": events.minute * events.value,
        }
        # Of a minute first, so that first and last are told without rows in order, which an engine
        # would have to keep in memory. Sums are of decimals: threads add in any order, and the last
        # digit of floats would differ.
        minutes = events.group_by(STAY, "variable", "minute").agg(
            number=events.value.count(),
            low=events.value.min(),
            high=events.value.max(),
            **{name: terms.cast(EXACT).sum() for name, terms in summed.items()},
        )
        summary = (
            minutes.group_by(STAY, "variable")
            .agg(
                count=minutes.number.sum().cast("float64"),
                min=minutes.low.min(),
                max=minutes.high.max(),
                first=minutes.low.argmin(minutes.minute),
                last=minutes.high.argmax(minutes.minute),
                apart=minutes.minute.max() > minutes.minute.min(),
                **{name: minutes[name].sum().cast("float64") for name in summed},
            )
            .order_by(STAY, "variable")
            .execute()
        )
        summary["mean"], at = (summary[name] / summary["count"] for name in ("total", "minutes"))
        together = summary["products"] / summary["count"] - summary["mean"] * at
        spread = (summary["squares"] / summary["count"] - at**2).where(summary["apart"])
        summary["slope"] = 60 * together / spread  # an hour
        wide = summary.pivot(index=STAY, columns="variable", values=list(columns.STATISTICS))
        wide.columns = [f"{variable}_{statistic}" for statistic, variable in wide.columns]
        names = [f"{name}_{s}" for name, v in variables.items() for s in v.statistics]
        wide = wide.reindex(columns=names).astype("float64")
        return wide.fillna({name: 0.0 for name in names if name.endswith("_count")})

    def notes(self) -> list[ir.Table]:
        """Lists lines of notes, findings of examinations and past history."""
        note = self.rows("note")
        note = note.filter(~note.notepath.contains("/Shared/"))
        note = note.mutate(path=note.notepath.re_replace(columns.NOTE_PREFIX, ""))
        exam = self.examination()
        past = self.rows("pasthistory")
        past = past.mutate(path=past.pasthistorypath.re_replace(columns.HISTORY_PREFIX, ""))
        return [
            _lines(note, "noteoffset", "note", "path", level="/"),
            _lines(exam.filter(exam.number.isnull()), "minute", "exam", "path", level="/"),
            _lines(past, "pasthistoryoffset", "history", "path", level="/"),
        ]

    def diagnoses(self) -> list[ir.Table]:
        """Lists lines of diagnoses and of APACHE's admission diagnosis."""
        admission = self.rows("admissiondx")
        path = admission.admitdxpath.replace(columns.ADMISSION_PREFIX, "")
        return [
            _lines(self.rows("diagnosis"), "diagnosisoffset", "diagnosis", "diagnosisstring"),
            _lines(admission.mutate(path=path), "admitdxenteredoffset", "admission", "path"),
        ]

    def treatments(self) -> list[ir.Table]:
        """Lists lines of treatments, orders, infusions, home drugs and airways."""
        care = self.rows("respiratorycare")
        return [
            _lines(self.rows("treatment"), "treatmentoffset", "treatment", "treatmentstring"),
            _lines(self.rows("medication"), "drugstartoffset", "medication", "drugname"),
            _lines(self.rows("infusiondrug"), "infusionoffset", "infusion", "drugname"),
            _lines(self.rows("admissiondrug"), "drugoffset", "home drug", "drugname"),
            _lines(care, "respcarestatusoffset", "airway", "airwaytype"),
        ]

    def first(self, lines: list[ir.Table]) -> ir.Table:
        """Lists the distinct lines of each stay with the minute of their first appearance."""
        every = ibis.union(*lines)
        known = every.filter(every.line.notnull())
        return known.group_by(STAY, "line").agg(minute=known.minute.min())

    def document(self, lines: list[ir.Table]) -> pd.Series:
        """Joins the distinct lines of each stay in the order of their first appearance."""
        # Joined here: Spark cannot join texts in an order.
        frame = self.first(lines).order_by(STAY, "minute", "line").execute()
        return frame.groupby(STAY)["line"].agg("\n".join).astype(object)


def _plausible(events: ir.Table, variables: Mapping[str, columns.Variable]) -> ir.Table:
    """Keeps readings inside their variable's range, fractions turned into per cent first."""
    fraction = events.variable.isin(columns.PER_CENT) & (events.value <= 1)
    events = events.mutate(value=fraction.ifelse(events.value * 100, events.value))
    low = events.variable.substitute({n: v.low for n, v in variables.items()}, else_=np.inf)
    high = events.variable.substitute({n: v.high for n, v in variables.items()}, else_=-np.inf)
    return events.filter(events.minute >= columns.BEFORE, events.value.between(low, high))


def _lines(table: ir.Table, minute: str, kind: str, path: str, level: str = "|") -> ir.Table:
    """One line a row: the kind and the path, lower case, its levels parted by bars."""
    text = table[path].lower().replace("\n", " ").replace(level, "|")
    return table.select(STAY, minute=table[minute], line=ibis.literal(f"{kind}|") + text)
