"""Measurements of made-up stays, as the common tables of `cm2.clinical.prepare` have them."""

from __future__ import annotations

from functools import cache

import ibis
import pandas as pd
import pyarrow as pa

from cm2.clinical.prepare import events

INTIME = "2150-03-01 08:15:30"
MEASUREMENTS = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("hadm_id", pa.int64()),
        ("stay_id", pa.int64()),
        ("item", pa.string()),
        ("origin", pa.string()),
        ("charttime", pa.timestamp("us")),
        ("storetime", pa.timestamp("us")),
        ("text", pa.string()),
        ("number", pa.float64()),
        ("unit", pa.string()),
        ("error", pa.bool_()),
    ]
)
STAYS = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("hadm_id", pa.int64()),
        ("stay_id", pa.int64()),
        ("intime", pa.timestamp("us")),
        ("outtime", pa.timestamp("us")),
    ]
)


def at(hour: float | None, intime: str = INTIME) -> pd.Timestamp | None:
    """The time so many hours after admission to the unit."""
    if hour is None:
        return None
    return pd.Timestamp(intime) + pd.Timedelta(seconds=round(hour * 3600))


def row(
    item: str | int,
    value: float | str | None,
    hour: float | None = 1.0,
    *,
    text: str | None = None,
    unit: str | None = None,
    stay_id: int | None = 100,
    hadm_id: int | None = 10,
    stored: float | None = None,
    error: bool = False,
    origin: str = "chartevents",
) -> dict[str, object]:
    """One measurement; a value of text has no number."""
    number = float(value) if isinstance(value, int | float) else None
    return {
        "subject_id": 1,
        "hadm_id": hadm_id,
        "stay_id": stay_id,
        "item": str(item),
        "origin": origin,
        "charttime": at(hour),
        "storetime": at(stored),
        "text": text if text is not None else None if value is None else str(value),
        "number": number,
        "unit": unit,
        "error": error,
    }


def lab(item: str | int, value: float | str | None, hour: float = 1.0, **options):
    """One laboratory result, which has an admission and no stay."""
    return row(item, value, hour, stay_id=None, origin="labevents", **options)


def stay(stay_id: int = 100, hadm_id: int = 10, length: float = 72.0, intime: str = INTIME):
    """One stay, of so many hours."""
    return {
        "subject_id": 1,
        "hadm_id": hadm_id,
        "stay_id": stay_id,
        "intime": pd.Timestamp(intime),
        "outtime": at(length, intime),
    }


def tables(rows, stays=None) -> tuple[ibis.Table, ibis.Table]:
    """Measurements and stays as tables that any engine takes."""
    stays = [stay()] if stays is None else stays
    return (
        ibis.memtable(pa.Table.from_pylist(rows, schema=MEASUREMENTS)),
        ibis.memtable(pa.Table.from_pylist(stays, schema=STAYS)),
    )


class Plan:
    """The expressions of preparation, compiled once and run on whatever the tables hold."""

    def __init__(self, hours: float, hours_per_bin: float) -> None:
        self.engine = ibis.duckdb.connect(threads=1)
        empty = tables([], [])
        raw = [
            self.engine.create_table(name, table)
            for name, table in zip(("measurements", "stays"), empty, strict=True)
        ]
        # Executed once, so that the engine knows the small tables inside the expressions; kept, so
        # that it does not forget them.
        self.matched = events.match(*raw, hours=hours)
        matched = self.engine.create_table("matched", self.matched)
        accepted = self.engine.create_table("accepted", events.accept(matched))
        self.stages = {
            "matched": self.engine.compile(self.matched),
            "accepted": self.engine.compile(events.accept(matched)),
        }
        self.results = {
            "events": self.engine.compile(events.long_form(accepted)),
            "last": self.engine.compile(events.last_in_bin(accepted, hours_per_bin=hours_per_bin)),
            "exclusions": self.engine.compile(events.exclusions(matched)),
        }

    def run(self, rows, stays) -> dict[str, pd.DataFrame]:
        """Fills the tables and returns the results."""
        duckdb = self.engine.con
        for name, made, schema in (
            ("measurements", rows, MEASUREMENTS),
            ("stays", stays, STAYS),
        ):
            duckdb.register("given", pa.Table.from_pylist(made, schema=schema))
            duckdb.execute(f"create or replace table {name} as select * from given")
            duckdb.unregister("given")
        for name, sql in self.stages.items():
            duckdb.execute(f"create or replace table {name} as {sql}")
        return {name: duckdb.execute(sql).df() for name, sql in self.results.items()}


@cache
def plan(hours: float, hours_per_bin: float) -> Plan:
    """The plan of this window and bin."""
    return Plan(hours, hours_per_bin)


class Extracted:
    """What preparation makes of rows: events, exclusions and the last of each bin."""

    def __init__(self, rows, stays=None, *, hours: float = 48, hours_per_bin: float = 1) -> None:
        made = plan(hours, hours_per_bin).run(rows, [stay()] if stays is None else stays)
        self.events, self.last = made["events"], made["last"]
        self.excluded = {
            (line.variable, line.reason): line.rows
            for line in made["exclusions"].itertuples(index=False)
        }

    def values(self, variable: str) -> list[float]:
        """The values of a variable, in order."""
        return self.events.loc[self.events["variable"] == variable, "value"].tolist()

    def at_bin(self, variable: str, number: int) -> float:
        """The last value of a bin."""
        last = self.last[(self.last["variable"] == variable) & (self.last["bin"] == number)]
        return last["value"].item()
