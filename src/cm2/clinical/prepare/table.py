"""A user's own files, CSV or Parquet: samples, events and tables, whose columns a YAML file names.

    cm2 prepare table --config mine.yaml

with, in `mine.yaml`, beside `raw` and `out`:

    table:
      samples: {file: stays.csv, id: stay, group: patient, label: died, start: admitted}
      events: {file: events.parquet, id: stay, variable: name, time: charted, value: number}
      tables: {labs: {file: labs.csv, id: stay}}

Of `samples` only `file` and `id` must be named (a column of the `split` may be), and `events` or
`tables` may be left out. With
`start`, `time` is a time of the calendar; without it, hours since the sample's beginning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cm2.clinical.prepare import own
from cm2.clinical.prepare.collection import Collected, Collection, register
from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.variables import Variable

__all__ = ["Table"]

KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "samples": (("file", "id"), ("group", "label", "split", "start")),
    "events": (("file", "id", "variable", "time", "value"), ()),
}
"""What each part of the description must name, and what it may."""


@register("table")
class Table(Collection):
    """Files that a description names."""

    name = "table"
    tasks = ("in-hospital-mortality",)
    label = "own"

    def files(self, options: Options) -> dict[str, Path]:
        found = {}
        for name, part in self._parts(options).items():
            path = self.raw / str(part["file"])
            if not path.is_file():
                raise MissingError(f"{path}: no such file of {name}")
            found[name] = path
        return found

    def collect(self, options: Options, given: Mapping[int, str] | None) -> Collected:
        parts, files = self._parts(options), self.files(options)
        about = parts["samples"]
        samples = _read(files["samples"], [v for k, v in about.items() if k != "file"])
        columns = {key: samples[about[key]] for key in ("group", "label", "split") if key in about}
        stays = own.sample_frame(
            len(samples),
            columns.get("label"),
            samples[about["id"]],
            columns.get("group"),
            columns.get("split"),
            options.seed,
            options.fractions,
        )
        if "start" in about:
            length = pd.to_timedelta(options.seconds, unit="s")
            stays["prediction_time"] = _times(samples[about["start"]]).to_numpy() + length
        flow = [("samples found", len(stays))]
        if given is not None:
            stays["split"] = stays["subject_id"].map(dict(given))
            out = int(stays["split"].isna().sum())
            flow.append(("excluded: not in the file of splits", out))
            stays = stays.dropna(subset="split")
        events, counts = self._events(parts, files, samples, stays, options)
        train = stays.loc[stays["split"] == "train", "stay_id"]
        names = sorted(events.loc[events["stay_id"].isin(train), "variable"].unique())
        numbers = {
            name: _numbers(files[name], part["id"], stays["stay_id"])
            for name, part in parts.items()
            if name not in KEYS
        }
        if not names and not numbers:
            raise TableError(f"{self.raw}: no event of a training sample, and no table")
        return Collected(
            stays=stays,
            variables=tuple(Variable(name, "", math.nan) for name in names),
            events=events[events["variable"].isin(names)],
            numbers=numbers,
            beside={},
            flow=flow,
            left_out={},
            unreadable={name: number for name, number in counts.items() if number},
            positive="label above 0",
        )

    def _parts(self, options: Options) -> dict[str, Mapping[str, Any]]:
        """The description, checked: samples, events, and each table by its name."""
        given = dict(options.table or {})
        if unknown := sorted(set(given) - {*KEYS, "tables"}):
            raise TableError(f"table has unknown part(s) {unknown}; there are {[*KEYS, 'tables']}")
        if "samples" not in given:
            raise TableError("table must say which file holds the samples; give --config FILE")
        parts = {name: given[name] for name in KEYS if name in given}
        for name, part in dict(given.get("tables") or {}).items():
            if not str(name).isidentifier() or name in (*KEYS, "series", "stays"):
                raise TableError(f"table.tables: {name!r} cannot be the name of a modality")
            parts[name] = part
        for name, part in parts.items():
            must, may = KEYS.get(name, (("file", "id"), ()))
            missing, unknown = sorted(set(must) - set(part)), sorted(set(part) - {*must, *may})
            if missing or unknown:
                raise TableError(
                    f"table: {name} must name {', '.join(must)} and may name"
                    f" {', '.join(may) or 'nothing else'}; missing {missing}, unknown {unknown}"
                )
        return parts

    def _events(
        self,
        parts: Mapping[str, Mapping[str, Any]],
        files: Mapping[str, Path],
        samples: pd.DataFrame,
        stays: pd.DataFrame,
        options: Options,
    ) -> tuple[pd.DataFrame, dict[str, int]]:
        """Events of the samples in the half-open window, and what could not be read."""
        names = ["stay_id", "variable", "hour", "value"]
        if "events" not in parts:
            return pd.DataFrame(columns=names).astype({"stay_id": "int64"}), {}
        part, start = parts["events"], parts["samples"].get("start")
        columns = [part[key] for key in ("id", "variable", "time", "value")]
        raw = _read(files["events"], columns)[columns].set_axis(names, axis=1)
        frame = raw.assign(
            stay_id=pd.to_numeric(raw["stay_id"], errors="coerce"),
            variable=raw["variable"].astype("string"),
            value=pd.to_numeric(raw["value"], errors="coerce"),
        )
        frame = frame[frame["stay_id"].isin(stays["stay_id"])].astype({"stay_id": "int64"})
        if start is None:
            frame["hour"] = pd.to_numeric(frame["hour"], errors="coerce")
        else:
            begin = _times(samples[start]).set_axis(samples[parts["samples"]["id"]].to_numpy())
            since = _times(frame["hour"]) - frame["stay_id"].map(begin)
            frame["hour"] = since.dt.total_seconds() / 3600
        raw = raw.loc[frame.index]
        counts = {
            f"events.{part[key]}": int((frame[name].isna() & raw[name].notna()).sum())
            for key, name in (("time", "hour"), ("value", "value"))
        }
        finite = np.isfinite(frame["value"].astype("float64"))
        inside = frame["hour"].between(0, options.hours, inclusive="left")
        kept = frame[inside & finite & frame["variable"].notna()]
        return kept.astype({"variable": "object", "hour": "float64", "value": "float64"}), counts


def _times(values: pd.Series) -> pd.Series:
    times = pd.to_datetime(values, errors="coerce", format="ISO8601")
    return times if times.dt.tz is None else times.dt.tz_convert(None)


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    """Reads a CSV or Parquet file that has these columns."""
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError):
        raise TableError(f"{path}: cannot be read as Parquet or comma-separated values") from None
    if missing := [column for column in columns if column not in frame]:
        raise TableError(f"{path}: lacks column(s) {', '.join(map(str, missing))}")
    return frame


def _numbers(path: Path, key: str, stays: pd.Series) -> pd.DataFrame:
    frame = _read(path, [key])
    frame = frame[frame[key].isin(stays)]
    if repeated := int(frame[key].duplicated().sum()):
        raise TableError(f"{path}: {repeated} rows repeat a {key}; one row a sample expected")
    table = frame.set_index(key)
    if worded := [str(c) for c in table if table[c].dtype.kind not in "biuf"]:
        raise TableError(f"{path}: has columns that are no numbers: {', '.join(worded[:5])}")
    return table.replace([np.inf, -np.inf], np.nan)
