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

What `samples` names is said of samples and not measured: in no table are columns of these names
features, also where samples and a table are one file.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray
from pyarrow.dataset import dataset

from cm2.clinical.prepare import own
from cm2.clinical.prepare.collection import Collected, Collection, register
from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.identifiers import whole_numbers
from cm2.clinical.prepare.options import Options
from cm2.clinical.prepare.tables import refuse_unreadable
from cm2.clinical.prepare.variables import Variable

__all__ = ["Table"]

KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "samples": (("file", "id"), ("group", "label", "split", "start")),
    "events": (("file", "id", "variable", "time", "value"), ()),
}
"""What each part of the description must name, and what it may."""

NAMES = ["stay_id", "variable", "hour", "value"]
GAPS = (
    *("", "#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NULL", "NaN", "None", "n/a", "nan", "null"),
    *("-NaN", "-nan", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN"),
)
"""What stands for nothing in a column of names: what pandas takes so, but for sodium's."""

ZONE = r"[T\s]\d\d(?::?\d\d){0,2}(?:[.,]\d+)?\s?(?:Z|[+-]\d\d(?::?\d\d)?)$"
"""How a time with a zone ends."""


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
        samples = _read(files["samples"], about)
        columns = {key: samples[about[key]] for key in ("group", "label", "split") if key in about}
        stays = own.sample_frame(
            len(samples),
            columns.get("label"),
            _every(files["samples"], samples[about["id"]]),
            _every(files["samples"], columns["group"]) if "group" in columns else None,
            columns.get("split"),
            options.seed,
            options.fractions,
        )
        begin, counts = _begin(files["samples"], samples, about)
        if begin is not None:
            length = pd.to_timedelta(options.seconds, unit="s")
            stays["prediction_time"] = begin.times.to_numpy() + length
            begin = begin._replace(times=begin.times.set_axis(stays["stay_id"].to_numpy()))
        flow = [("samples found", len(stays))]
        if given is not None:
            stays["split"] = stays["subject_id"].map(dict(given))
            out = int(stays["split"].isna().sum())
            flow.append(("excluded: not in the file of splits", out))
            stays = stays.dropna(subset="split")
        events = pd.DataFrame(columns=NAMES).astype({"stay_id": "int64"})
        if "events" in parts:
            place = files["events"]
            events, more = _events(place, parts["events"], stays["stay_id"], begin, options.hours)
            counts |= more
        train = stays.loc[stays["split"] == "train", "stay_id"]
        names = sorted(events.loc[events["stay_id"].isin(train), "variable"].unique())
        said = [column for key, column in about.items() if key not in ("file", "id")]
        numbers: dict[str, pd.DataFrame] = {}
        left_out: dict[str, dict[str, int]] = {}
        for name, part in parts.items():
            if name not in KEYS:
                numbers[name], lost = _numbers(files[name], part, stays["stay_id"], said)
                left_out |= {f"{name}.{key}": reasons for key, reasons in lost.items()}
        if "events" in parts and not names:
            raise TableError(f"{files['events']}: no event of a training sample in the window")
        if not names and not numbers:
            raise TableError(f"{self.raw}: no event of a training sample, and no table")
        return Collected(
            stays=stays,
            variables=tuple(Variable(name, "", math.nan) for name in names),
            events=events[events["variable"].isin(names)],
            numbers=numbers,
            beside={},
            flow=flow,
            left_out=left_out,
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
        tables = given.get("tables") or {}
        if not all(isinstance(one, Mapping) for one in (tables, *parts.values())):
            raise TableError("table: samples, events and tables are given by names and values")
        for name, part in tables.items():
            if not isinstance(part, Mapping):
                raise TableError(f"table.tables: {name} must name file and id")
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


class _Times(NamedTuple):
    """Times without a zone, and whether they had one; those that had one are in UTC."""

    times: pd.Series
    zoned: bool


def _begin(
    path: Path, samples: pd.DataFrame, about: Mapping[str, Any]
) -> tuple[_Times | None, dict[str, int]]:
    """When each sample begins, and how many do not say so."""
    if "start" not in about:
        return None, {}
    begin = _times(path, samples[about["start"]])
    return begin, {f"samples.{about['start']}": int(begin.times.isna().sum())}


def _events(
    path: Path, part: Mapping[str, Any], stays: pd.Series, begin: _Times | None, hours: float
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Events of the samples in the half-open window, and what could not be read."""
    columns = [part[key] for key in ("id", "variable", "time", "value")]
    raw = _read(path, part)[columns].set_axis(NAMES, axis=1)
    owner = _ids(path, raw["stay_id"].rename(part["id"]))
    known = _known(path, owner, stays)
    counts = {f"events.{part['id']}": int((owner.isna() & raw["stay_id"].notna()).sum())}
    value = _floats(path, raw["value"].rename(part["value"]))
    if begin is None:
        hour = _floats(path, raw["hour"].rename(part["time"]))
    else:
        times = _times(path, raw["hour"].rename(part["time"]))
        if times.zoned != begin.zoned:
            raise TableError(
                f"{path}: times of column {part['time']} are {_said(times)}, but the start of"
                f" samples is {_said(begin)}; give both with a zone, or both without"
            )
        hour = (times.times - owner.map(begin.times)).dt.total_seconds() / 3600
    frame = raw.assign(
        stay_id=owner, variable=raw["variable"].astype("string"), hour=hour, value=value
    )[known].astype({"stay_id": "int64"})
    raw = raw[known]
    finite = np.isfinite(frame["value"].astype("float64"))
    counts[f"events.{part['time']}"] = int((frame["hour"].isna() & raw["hour"].notna()).sum())
    counts[f"events.{part['value']}"] = int((~finite & raw["value"].notna()).sum())
    counts[f"events.{part['variable']}"] = int(frame["variable"].isna().sum())
    counts["events of no sample"] = int((~known & owner.notna()).sum())
    inside = frame["hour"].between(0, hours, inclusive="left")
    kept = frame[inside & finite & frame["variable"].notna()]
    return kept.astype({"variable": "object", "hour": "float64", "value": "float64"}), counts


def _said(times: _Times) -> str:
    return "with a time zone" if times.zoned else "without a time zone"


def _times(path: Path, values: pd.Series) -> _Times:
    """Reads times, which all have a zone or all have none."""
    if pd.api.types.is_datetime64_any_dtype(values):
        zoned = values.dt.tz is not None
        return _Times(values.dt.tz_convert(None) if zoned else values, zoned)
    if pd.api.types.is_numeric_dtype(values):
        raise TableError(f"{path}: column {values.name} has numbers where times are expected")
    texts = values.astype("string").str.strip()
    zones = texts[texts.notna()].str.contains(ZONE)
    if zones.any() and not zones.all():
        raise TableError(
            f"{path}: {int(zones.sum())} of {len(zones)} times of column {values.name} have a time"
            " zone; give all with one, or all without"
        )
    times = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True).dt.tz_convert(None)
    _refuse(path, values, times)
    return _Times(times, bool(zones.any()))


def _floats(path: Path, values: pd.Series) -> pd.Series:
    if values.dtype.kind in "mM":
        raise TableError(
            f"{path}: column {values.name} has times or durations where numbers are expected;"
            " times of the calendar need the start of samples"
        )
    numbers = pd.to_numeric(values, errors="coerce")
    _refuse(path, values, numbers)
    return numbers


def _ids(path: Path, values: pd.Series) -> pd.Series:
    """Reads identifiers, to the last digit; one that is no whole number is missing."""
    ids = whole_numbers(values)
    _refuse(path, values, ids)
    return ids


def _every(path: Path, values: pd.Series) -> ndarray:
    """Identifiers of samples, of which none may be missing."""
    ids = _ids(path, values)
    if lost := int(ids.isna().sum()):
        raise TableError(
            f"{path}: {lost} of {len(ids)} samples have no whole number in column {values.name};"
            " number them from 0 in all files if they are called by text"
        )
    return ids.to_numpy(np.int64)


def _known(path: Path, ids: pd.Series, stays: pd.Series) -> pd.Series:
    """Which rows are of samples; refuses a file in which none is."""
    known = ids.isin(stays)
    if len(known) and not known.any():
        raise TableError(
            f"{path}: none of {len(known)} rows has in column {ids.name} the identifier of a sample"
        )
    return known


def _refuse(path: Path, given: pd.Series, read: pd.Series) -> None:
    there = given.notna()
    lost = int((there & read.isna()).sum())
    refuse_unreadable(f"{path}: column {given.name}", lost, int(there.sum()))


def _read(path: Path, part: Mapping[str, Any]) -> pd.DataFrame:
    """Reads a CSV or Parquet file that has the columns that its description names."""
    # One that is missing would make floats of the others, and no float has 19 digits.
    exact = {part[key]: "string" for key in ("id", "group") if key in part}
    names = [part["variable"]] if "variable" in part else []
    try:
        frame = _parquet(path, part) if path.suffix == ".parquet" else _csv(path, exact, names)
    except (ValueError, OSError, EOFError, zlib.error):
        raise TableError(f"{path}: cannot be read as Parquet or comma-separated values") from None
    except pd.errors.ParserWarning:
        raise TableError(f"{path}: rows have more fields than the header names") from None
    if missing := [str(one) for key, one in part.items() if key != "file" and one not in frame]:
        raise TableError(f"{path}: lacks column(s) {', '.join(missing)}")
    return frame


def _parquet(path: Path, part: Mapping[str, Any]) -> pd.DataFrame:
    """Reads a file; of events the columns that are named, since others may be many."""
    if "variable" not in part:
        return pd.read_parquet(path)
    said = {value for key, value in part.items() if key != "file"}
    return pd.read_parquet(path, columns=[one for one in dataset(path).schema.names if one in said])


def _csv(path: Path, exact: Mapping[str, str], names: Sequence[str]) -> pd.DataFrame:
    """Reads comma-separated values; in columns of names ``NA`` is sodium, and no gap."""
    with warnings.catch_warnings():
        # Of more fields than columns the last would be left out, or the first name the rows.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame = pd.read_csv(path, dtype=dict(exact), index_col=False)
        for name in [one for one in names if one in frame]:
            texts = pd.read_csv(
                path, usecols=[name], dtype="string", keep_default_na=False, index_col=False
            )[name].str.strip()
            frame[name] = texts.mask(texts.isin(GAPS))
    return frame


def _numbers(
    path: Path, part: Mapping[str, Any], stays: pd.Series, said: list[str]
) -> tuple[pd.DataFrame, dict[str, dict[str, int]]]:
    """A table by sample, and which of its columns are left out, since they are said of samples."""
    frame = _read(path, part)
    key = part["id"]
    frame[key] = _ids(path, frame[key])
    known = _known(path, frame[key], stays)
    frame = frame[known].astype({key: "int64"})
    if repeated := int(frame[key].duplicated().sum()):
        raise TableError(f"{path}: {repeated} rows repeat a {key}; one row a sample expected")
    out = [column for column in said if column in frame and column != key]
    table = frame.set_index(key).drop(columns=out)
    left_out = {column: {"named by samples": len(table)} for column in out}
    for column in [one for one in table if table[one].dtype.kind == "O"]:
        read = pd.to_numeric(table[column], errors="coerce")
        if read.isna().all() and table[column].notna().any():
            continue  # words, which are refused below
        if lost := int((table[column].notna() & read.isna()).sum()):
            _refuse(path, table[column], read)
            left_out[str(column)] = {"no number": lost}
        table[column] = read
    if worded := [str(c) for c in table if table[c].dtype.kind not in "biuf"]:
        raise TableError(f"{path}: has columns that are no numbers: {', '.join(worded[:5])}")
    if not len(table.columns):
        raise TableError(f"{path}: has no column of numbers beside those that samples are named by")
    if not known.all():
        left_out[key] = {"of no sample": int((~known).sum())}
    return table.replace([np.inf, -np.inf], np.nan), left_out
