"""Any data set in the Medical Event Data Standard, as public converters write it.

    cm2 prepare meds --raw DIR --labels LABELS --codes CODES.csv --out OUT

`DIR` holds `data/**/*.parquet` and perhaps `metadata/subject_splits.parquet`. `LABELS` is a file,
or a folder of Parquet files, as ACES writes: `subject_id`, `prediction_time`, `boolean_value`. Each
row is a sample, and its window is [`prediction_time` - hours, `prediction_time`), to the second;
none is excluded for age. `CODES.csv` says which codes are which variables, see `codes`.

An event has one time. Some converters give results the time at which they were stored: they enter
the window by that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from cm2.clinical.prepare import codes, splits
from cm2.clinical.prepare.cohort import Cohort, count
from cm2.clinical.prepare.engine import Engine, is_parquet, parts
from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.events import LOOKED_BACK
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.source import (
    MEASUREMENTS,
    STAYS,
    Measured,
    Source,
    register,
    shaped,
    whole_years,
)
from cm2.clinical.prepare.tables import Tables

__all__ = ["MEDS"]

SHOWN = 20
"""Codes without a map that the manifest names, the most frequent first."""

FAMILIES: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    lambda kind: pa.types.is_timestamp(kind) and kind.tz is None,
    lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
)
"""Types that are read alike: converters differ in the width of numbers and in the unit of times."""


@register("meds")
class MEDS(Source):
    """A folder of MEDS 0.4 (or 0.3), with labels and a map of codes."""

    name = "meds"
    wanted: ClassVar[dict[str, dict[str, str]]] = {
        "data": {
            "subject_id": "int64",
            "time": "timestamp",
            "code": "string",
            "numeric_value": "float64?",
            "text_value": "string?",
        },
        "labels": {"subject_id": "int64", "prediction_time": "timestamp", "boolean_value": "int8?"},
        "subject_splits": {"subject_id": "int64", "split": "string"},
    }
    optional = frozenset({"subject_splits"})
    lazy = frozenset({"data"})
    filled = frozenset({"data", "labels"})
    subfolders = ("metadata",)
    modalities = ("series",)
    tasks = ("in-hospital-mortality", "none")
    outcome = "own"
    untold: ClassVar[dict[str, str]] = dict.fromkeys(
        ("readmission", "length-of-stay"), "the file of labels tells the outcome; leave --task"
    )

    def __init__(self, raw: Tables, options: Options | None = None) -> None:
        super().__init__(raw, options)
        if self.options.known_by != "charttime":
            raise TableError("an event of meds has one time; leave --known-by")
        self.mapping = codes.read(raw.path("codes"))

    @classmethod
    def named(cls, raw: Path, **files: Path | None) -> dict[str, Path]:
        labels, named = files.get("labels"), files.get("codes")
        if labels is None or named is None:
            raise MissingError(
                "meds needs --labels FILE and --codes FILE; see `cm2 prepare --help`"
            )
        if not labels.exists():
            raise MissingError(f"{labels}: no such file or folder of labels")
        if not parts(raw / "data") or not (raw / "data").is_dir():
            raise MissingError(
                f"{raw}: no folder data with Parquet files, so it is no MEDS data set"
            )
        path = codes.find(named)
        codes.read(path)
        standards = _standards()
        _check(raw / "data", standards["data"])
        if is_parquet(labels):
            _check(labels, standards["labels"])
        return {"data": raw / "data", "labels": labels, "codes": path}

    def stays(self) -> ir.Table:
        samples, data = self._samples(), self.raw["data"]
        born = (
            data.filter(data.code == "MEDS_BIRTH").group_by("subject_id").agg(birth=data.time.min())
        )
        joined = samples.left_join(born, "subject_id").drop("subject_id_right")
        start = joined.prediction_time - ibis.interval(seconds=self.options.seconds)
        return shaped(
            joined.mutate(
                hadm_id="stay_id",
                intime=start,
                outtime="prediction_time",
                died="label",
                age=whole_years(joined.birth, start),
                transferred=False,
                gender=ibis.null("string"),
                **dict.fromkeys(("admittime", "dischtime", "deathtime"), ibis.null("timestamp")),
            ),
            STAYS,
        )

    def samples(self, engine: Engine) -> tuple[Cohort, ir.Table]:
        rows = engine.keep("samples_found", self.raw["labels"])
        found = count(engine, rows)
        every = engine.keep("stays_found", self.stays())
        cohort = Cohort(every, every, found, [("labels found", found)])
        cohort.exclude(engine, "the same label again", every)
        known = engine.keep("subjects_there", self.raw["data"].select("subject_id").distinct())
        untold = every.died.isnull() & (self.options.task != "none")
        reasons = {
            "no subject or prediction time": every.subject_id.isnull() | every.outtime.isnull(),
            "no boolean_value": untold,
        }
        cohort.judge(engine, "samples_usable", reasons)
        there = cohort.kept.semi_join(known, "subject_id")
        cohort.exclude(engine, "subject without an event in the data", there)
        pairs = cohort.kept.group_by("subject_id", "outtime").agg(rows=cohort.kept.count())
        if twice := count(engine, pairs.filter(pairs.rows > 1)):
            raise TableError(
                f"labels: {twice} subjects and prediction times have two outcomes; one expected"
            )
        told = self.options.task != "none"
        label = cohort.kept.died if told else ibis.null("int64")
        kind = ibis.literal("boolean_value true") if told else ibis.null("string")
        return cohort, cohort.kept.select("stay_id", label=label, kind=kind)

    def parts(self, engine: Engine) -> dict[int, str] | None:
        if "subject_splits" not in self.raw:
            return None
        frame = engine.frame(self.raw["subject_splits"])
        return splits.checked(frame, Path("metadata/subject_splits.parquet"))

    def measurements(self) -> ir.Table:
        data = self.raw["data"]
        return shaped(
            data.mutate(
                hadm_id=ibis.null("int64"),
                stay_id=ibis.null("int64"),
                item=data.code,
                origin=ibis.literal(codes.ORIGIN),
                charttime=data.time,
                storetime=ibis.null("timestamp"),
                text=data.text_value,
                number=data.numeric_value,
                unit=ibis.null("string"),
                error=ibis.literal(False),
            ),
            MEASUREMENTS,
        )

    def measured(self, engine: Engine, stays: ir.Table) -> Measured:
        # A subject may have several samples: an event is a row of each in whose window it lies.
        samples = stays.select("stay_id", "subject_id", start="intime")
        rows = self.measurements().drop("stay_id").join(samples, "subject_id")
        second = rows.charttime.epoch_seconds() - rows.start.epoch_seconds()
        back = round(self.options.look_back * 3600)
        rows = rows.filter(second >= -back, second < self.options.seconds)
        inside = (second >= 0).cast("int64")
        seen = engine.frame(rows.group_by("item").agg(inside=inside.sum()))
        items = codes.resolve(self.mapping, seen["item"])
        looked = sorted(one.item for one in items if one.variable in LOOKED_BACK)
        rows = rows.filter((second >= 0) | rows.item.isin(looked))
        found = seen[seen["inside"] > 0].set_index("item")["inside"].astype(int).to_dict()
        told = _told(found, {one.item for one in items}, len(self.mapping))
        return Measured(shaped(rows, MEASUREMENTS), items, codes.variables(self.mapping), told)

    def _samples(self) -> ir.Table:
        """The labels, numbered by subject and time: the number stands for the stay."""
        labels = self.raw["labels"].distinct()
        order = ibis.window(order_by=["subject_id", "prediction_time", "boolean_value"])
        return labels.select(
            "subject_id",
            "prediction_time",
            # Spark counts rows in 32 bits, whatever Ibis believes: a cast to 64 would be left out.
            stay_id=ibis.row_number().over(order).cast("float64").cast("int64"),
            label="boolean_value",
        )


def _told(events: dict[str, int], mapped: set[str], lines: int) -> dict[str, Any]:
    """What the manifest says of the codes in the windows; none with a map is refused."""
    total, used = sum(events.values()), sum(n for code, n in events.items() if code in mapped)
    if not used:
        raise TableError(
            f"none of the {len(events)} codes in the windows is among the {lines} of the map"
        )
    others = {code: n for code, n in events.items() if code not in mapped}
    first = sorted(others, key=lambda code: (-others[code], code))[:SHOWN]
    return {
        "codes": {
            "events in the windows": total,
            "events with a map": used,
            "share with a map": round(used / total, 6),
            "codes in the windows": len(events),
            "codes without a map": len(others),
            "lines of the map": lines,
        },
        "codes without a map": {code: others[code] for code in first},
    }


def _standards() -> dict[str, Any]:
    try:
        from meds.schema import DataSchema, LabelSchema
    except ImportError as error:
        raise ImportError("reading MEDS needs its schemas: pip install 'cm2[tables]'") from error
    return {"data": DataSchema, "labels": LabelSchema}


def _check(path: Path, standard: Any) -> None:
    """Refuses files whose columns are not those of a schema of MEDS, or not alike."""
    from flexible_schema import SchemaValidationError

    names: set[str] | None = None
    for part in parts(path):
        try:
            found = pq.read_schema(part)
        except (pa.ArrowInvalid, OSError):
            raise TableError(f"{part}: not a readable parquet file") from None
        try:
            standard.validate(found)
        except SchemaValidationError as fault:
            wrong = [
                f"{column} is {got}, not {want}"
                for column, want, got in fault.mistyped_cols or ()
                if not _alike(want, got)
            ]
            wrong += [f"there is no {column}" for column in fault.missing_req_cols or ()]
            if wrong:
                raise TableError(
                    f"{part}: is not as MEDS says ({standard.__name__}): {'; '.join(wrong)}"
                ) from None
        ours = {column for column in found.names if column in standard.columns()}
        if names not in (None, ours):
            raise TableError(f"{part}: has other columns than the files before it")
        names = ours


def _alike(want: pa.DataType, got: pa.DataType) -> bool:
    if pa.types.is_dictionary(got):
        got = got.value_type
    return any(family(want) and family(got) for family in FAMILIES)
