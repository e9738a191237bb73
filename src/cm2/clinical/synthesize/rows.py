"""Charted rows with their times and the faults of entry: wrong, repeated, corrected, stray rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.random import Generator

from cm2.clinical.synthesize.faults import Faults, pick

__all__ = ["seconds", "spread", "texts", "without"]

Array = np.ndarray
UNFIT = ("unable to obtain", "see note", ">500", "___", "33%")


def spread(
    chart: pd.DataFrame, stays: pd.DataFrame, faults: Faults, rng: Generator, *, flags: bool
) -> pd.DataFrame:
    """Gives charted values their times and faults.

    Args:
        chart: stay, itemid, hour, number, text, unit.
        stays: With intime, in the order that ``stay`` counts.
        faults: Their rates.
        rng: Source of randomness.
        flags: Whether rows may be flagged as errors (MIMIC-III).

    Returns:
        stay, itemid, charttime, storetime, number, text, unit, error; sorted by stay and time.
    """
    start = stays["intime"].to_numpy().astype("M8[s]")[chart["stay"].to_numpy()]
    hour = chart["hour"].to_numpy().copy()
    stray = pick(len(chart), faults.outside_stay, rng)
    hour[stray] = rng.uniform(-3.0, -0.05, int(stray.sum()))
    charttime = (start + _seconds(hour)).astype("M8[m]").astype("M8[s]")
    rows = chart.assign(
        charttime=charttime,
        storetime=_stored(charttime, rng),
        error=0,
    ).drop(columns="hour")
    rows = pd.concat(_faulty(rows, faults, rng, flags=flags), ignore_index=True)
    rows.loc[pick(len(rows), faults.no_storetime, rng), "storetime"] = pd.NaT
    return rows.iloc[np.lexsort((rows["itemid"], rows["charttime"], rows["stay"]))].reset_index(
        drop=True
    )


def _faulty(
    rows: pd.DataFrame, faults: Faults, rng: Generator, *, flags: bool
) -> list[pd.DataFrame]:
    numeric = rows["text"].isna().to_numpy() & rows["number"].notna().to_numpy()
    later = rows[pick(len(rows), faults.corrected_later, rng) & numeric]
    later = later.assign(storetime=later["storetime"] + np.timedelta64(3600, "s"))
    changed = later["number"] * rng.choice([0.98, 1.0, 1.02], size=len(later))
    whole = later["number"] == later["number"].round()
    later["number"] = changed.round(2).where(~whole, changed.round())
    again = rows[pick(len(rows), faults.repeated_row, rng)]
    parts = [rows, later, again]
    if flags:
        wrong = rows[pick(len(rows), faults.flagged_error, rng) & numeric].assign(error=1)
        wrong["number"] = np.round(wrong["number"] * rng.choice([0.0, 3.0, 10.0], len(wrong)), 2)
        parts.append(wrong.assign(storetime=wrong["storetime"] + np.timedelta64(5400, "s")))
    slip = pick(len(rows), faults.entry_error, rng) & numeric
    rows["number"] = rows["number"].mask(slip, np.round(rows["number"] * 97.0 + 7))
    unfit = pick(len(rows), faults.text_for_number, rng) & numeric
    rows["number"] = rows["number"].mask(unfit)
    rows["text"] = rows["text"].astype(object).mask(unfit, rng.choice(UNFIT, size=len(rows)))
    return parts


def texts(number: pd.Series, text: pd.Series) -> pa.Array:
    """The column VALUE: the text where there is one, else the number as it would be typed."""
    typed = pc.cast(pa.array(number, from_pandas=True), pa.string())
    return pc.coalesce(pa.array(text, type=pa.string(), from_pandas=True), typed)


def seconds(times: pd.Series) -> pa.Array:
    """Times to the second."""
    return pa.array(times, from_pandas=True).cast(pa.timestamp("s"))


def without(ids: Array, absent: Array) -> pa.Array:
    """Identifiers, null where absent."""
    return pa.array(ids, mask=absent)


def _stored(charttime: Array, rng: Generator) -> Array:
    return charttime + np.round(rng.exponential(900.0, len(charttime))).astype("m8[s]")


def _seconds(hours: Array) -> Array:
    return np.round(hours * 3600).astype("m8[s]")
