"""eICU (Pollard et al. 2018, Scientific Data 5:180178) in the shapes that all sources share.

eICU gives minutes since admission to the unit and no dates, so that every stay is put at one and
the same moment. It does not say how far apart the hospital admissions of a patient lie, and of an
admission with several stays in the unit none is kept: no readmission is left to predict. The demo
has no laboratory, monitor or nurse charting tables.

The tables and lists of codes hold what was measured and entered before the prediction time; the
series goes by the time of measurement, unless `--known-by storetime` asks for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import ibis
import ibis.expr.types as ir
import pandas as pd

from cm2.clinical.prepare import eicu
from cm2.clinical.prepare import eicu_columns as columns
from cm2.clinical.prepare.eicu_columns import STAY
from cm2.clinical.prepare.eicu_window import Window
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.source import MEASUREMENTS, STAYS, Source, register, shaped
from cm2.clinical.prepare.tables import unread

__all__ = ["EICU", "EPOCH", "OLDEST"]

EPOCH = "2000-01-01 00:00:00"
"""The moment at which every stay begins."""

OLDEST = 90.0
"""Ages over 89 are given as ``> 89``."""

APERIODIC = ("noninvasivesystolic", "noninvasivediastolic", "noninvasivemean")
PERIODIC = (
    "temperature",
    "sao2",
    "heartrate",
    "respiration",
    "systemicsystolic",
    "systemicdiastolic",
    "systemicmean",
)
ADMITTED = ("admissionheight", "admissionweight")

PATIENT = {
    **columns.WANTED["patient"],
    "patienthealthsystemstayid": "int64",
    "hospitaldischargeoffset": "float64",
    "hospitalid": "int64",
    "hospitaldischargeyear": "int64",
}
HOSPITAL = {"hospitalid": "int64", "region": "string"}
SERIES: dict[str, dict[str, str]] = {
    "vitalperiodic": {
        STAY: "int64",
        "observationoffset": "int64",
        **dict.fromkeys(PERIODIC, "float64"),
    },
    "lab": {
        STAY: "int64",
        "labresultoffset": "int64",
        "labresultrevisedoffset": "int64",
        "labname": "string",
        "labresult": "float64",
        "labmeasurenamesystem": "string",
    },
    "nursecharting": {
        STAY: "int64",
        "nursingchartoffset": "int64",
        "nursingchartentryoffset": "int64",
        "nursingchartcelltypevallabel": "string",
        "nursingchartcelltypevalname": "string",
        "nursingchartvalue": "string",
    },
}


@register("eicu")
class EICU(Source):
    """The eICU Collaborative Research Database 2.0, or its demo."""

    name = "eicu"
    wanted: ClassVar[Mapping[str, Mapping[str, str]]] = {
        **columns.WANTED,
        "patient": PATIENT,
        "hospital": HOSPITAL,
        **SERIES,
    }
    calendar = False
    optional = frozenset({"hospital", *SERIES})
    lazy = frozenset(SERIES)
    filled = frozenset({"patient"})
    modalities = (
        "series",
        "static",
        "vitals",
        "exam",
        "treatment",
        "lab",
        "monitor",
        "apache",
        "notes",
        "diagnosis",
    )
    grouping = ("hospital", "region", "year")
    tasks = ("in-hospital-mortality", "length-of-stay", "none")
    untold: ClassVar[Mapping[str, str]] = {
        "readmission": "eICU does not say when a patient's other hospital admissions were, and"
        " admissions with more than one stay in the unit are not in the cohort",
        "phenotyping": "its diagnoses are entered during the stay, by which time they are inputs;"
        " the codes of a discharge are not in it",
    }

    def stays(self) -> ir.Table:
        patient = self.raw["patient"]
        # "002-1039": hospital group and number within it, both kept apart in one whole number.
        group = patient.uniquepid.re_extract(r"^([0-9]+)-([0-9]+)$", 1).try_cast("int64")
        number = patient.uniquepid.re_extract(r"^([0-9]+)-([0-9]+)$", 2).try_cast("int64")
        age = (patient.age == columns.OLDEST).ifelse(OLDEST, patient.age.try_cast("float64"))
        return shaped(
            patient.mutate(
                subject_id=group * 1_000_000_000 + number,
                hadm_id=patient.patienthealthsystemstayid,
                stay_id=patient[STAY],
                intime=ibis.timestamp(EPOCH),
                outtime=_time(patient.unitdischargeoffset),
                admittime=_time(patient.hospitaladmitoffset),
                dischtime=_time(patient.hospitaldischargeoffset),
                deathtime=ibis.null("timestamp"),
                died=patient.hospitaldischargestatus.cases(
                    ("Expired", 1), ("Alive", 0), else_=ibis.null("int64")
                ),
                age=age,
                transferred=ibis.literal(False),
            ),
            STAYS,
        )

    def groups(self) -> ir.Table:
        patient = self.raw["patient"]
        columns = {
            "stay_id": patient[STAY],
            "hospital": patient.hospitalid.cast("string"),
            "year": patient.hospitaldischargeyear.cast("string"),
        }
        if "hospital" not in self.raw:
            return patient.select(**columns, region=ibis.null("string")).distinct()
        places = self.raw["hospital"].distinct()
        joined = patient.left_join(places, "hospitalid")
        return joined.select(
            stay_id=joined[STAY],
            hospital=joined.hospitalid.cast("string"),
            year=joined.hospitaldischargeyear.cast("string"),
            region=joined.region,
        ).distinct()

    def measurements(self) -> ir.Table:
        charted = self.raw["respiratorycharting"]
        tables = [
            self._columns("patient", ibis.literal(0), ADMITTED),
            self._columns("vitalaperiodic", "observationoffset", APERIODIC),
            charted.select(
                unreadable=ibis.null("string"),
                stay_id=charted[STAY],
                item=charted.respchartvaluelabel,
                origin=ibis.literal("respiratorycharting"),
                charttime=_time(charted.respchartoffset),
                storetime=_time(charted.respchartentryoffset),
                text=charted.respchartvalue,
                number=ibis.null("float64"),
                unit=ibis.null("string"),
            ),
        ]
        if "vitalperiodic" in self.raw:
            tables.append(self._columns("vitalperiodic", "observationoffset", PERIODIC))
        if "lab" in self.raw:
            tables.append(self._laboratory())
        if "nursecharting" in self.raw:
            tables.append(self._nurses())
        every = ibis.union(*tables)
        # Every row has its stay: admissions and patients need not be looked up.
        return shaped(
            every.mutate(
                subject_id=ibis.null("int64"),
                hadm_id=ibis.null("int64"),
                error=ibis.literal(False),
            ),
            MEASUREMENTS,
        )

    def numbers(self, stays: ir.Table, hours: float) -> dict[str, pd.DataFrame]:
        window = self._window(stays, hours)
        patient = self.raw["patient"].semi_join(window.kept, STAY).distinct().execute()
        if several := int(patient[STAY].duplicated().sum()):
            raise TableError(f"patient: {several} stays have rows that contradict each other")
        treatment = window.document(window.treatments())
        return eicu.numbers(window, patient, treatment)

    def lines(self, stays: ir.Table, hours: float) -> dict[str, ir.Table]:
        window = self._window(stays, hours)
        parts = {"notes": window.notes(), "diagnosis": window.diagnoses()}
        return {name: _rows(window.first(part)) for name, part in parts.items()}

    def scores(self, stays: ir.Table, hours: float) -> pd.DataFrame | None:
        kept = stays.select(stays.stay_id.name(STAY))
        return eicu.scores(self.raw, kept) if hours >= eicu.DAY else None

    def _window(self, stays: ir.Table, hours: float) -> Window:
        return Window(self.raw, stays.select(stays.stay_id.name(STAY)), hours * 60)

    def _columns(self, name: str, offset: str | ir.Value, items: tuple[str, ...]) -> ir.Table:
        """One row a column that is filled, from a table with one column a variable."""
        table = self.raw[name]
        minute = table[offset] if isinstance(offset, str) else offset
        lost = unread(table)
        table = table.select(*items, stay_id=table[STAY], charttime=_time(minute), lost=lost)
        long = table.pivot_longer(list(items), names_to="item", values_to="number")
        own = long.lost == ibis.literal(f"{name}.") + long.item
        other = long.lost.isin([f"{name}.{item}" for item in items])
        long = long.filter(long.number.notnull() | own)
        return long.select(
            unreadable=(own | ~other).ifelse(long.lost, ibis.null("string")),
            stay_id="stay_id",
            item="item",
            origin=ibis.literal(name),
            charttime="charttime",
            storetime=ibis.null("timestamp"),
            text=ibis.null("string"),
            number="number",
            unit=ibis.null("string"),
        )

    def _laboratory(self) -> ir.Table:
        lab = self.raw["lab"]
        return lab.select(
            unreadable=unread(lab),
            stay_id=lab[STAY],
            item=lab.labname,
            origin=ibis.literal("lab"),
            charttime=_time(lab.labresultoffset),
            storetime=_time(lab.labresultrevisedoffset),
            text=ibis.null("string"),
            number=lab.labresult,
            unit=lab.labmeasurenamesystem,
        )

    def _nurses(self) -> ir.Table:
        chart = self.raw["nursecharting"]
        return chart.select(
            unreadable=unread(chart),
            stay_id=chart[STAY],
            item=chart.nursingchartcelltypevallabel + "/" + chart.nursingchartcelltypevalname,
            origin=ibis.literal("nursecharting"),
            charttime=_time(chart.nursingchartoffset),
            storetime=_time(chart.nursingchartentryoffset),
            text=chart.nursingchartvalue,
            number=ibis.null("float64"),
            unit=ibis.null("string"),
        )


def _time(minutes: ir.Value) -> ir.Value:
    return ibis.timestamp(EPOCH) + minutes.cast("int64").as_interval("m")


def _rows(first: ir.Table) -> ir.Table:
    """Lines in order, each with the kind that opens it as its category."""
    order = ibis.window(group_by=STAY, order_by=["minute", "line"])
    return first.select(
        stay_id=first[STAY],
        position=ibis.row_number().over(order).cast("int64"),
        hour=first.minute.cast("float64") / 60,
        category=first.line.re_extract(r"^([^|]*)\|", 1),
        text=first.line,
    )
