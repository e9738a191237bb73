"""Readings turned into charted rows: item numbers, units, wordings, double charting and faults.

``items.csv`` lists the items of the three systems (CareVue and MetaVision charts, laboratory) with
the form in which each holds its variable; for laboratory items the columns abbreviation and
parameter hold fluid and LOINC code.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.random import Generator

from cm2.clinical.synthesize import vitals
from cm2.clinical.synthesize.episodes import length
from cm2.clinical.synthesize.faults import Faults, pick
from cm2.clinical.synthesize.vitals import LABS, VARIABLES, Readings

__all__ = ["ICU_SYSTEMS", "Item", "chart", "items", "laboratory"]

ICU_SYSTEMS = ("carevue", "metavision")
ARTERIAL_LINE = 0.4

Array = np.ndarray

# Wordings by score; the first of `verbal` is that of intubated patients, whose score is 1.
WORDS = {
    "carevue": {
        "eye": ["1 No Response", "2 To pain", "3 To speech", "4 Spontaneously"],
        "motor": [
            "1 No Response", "2 Abnorm extensn", "3 Abnorm flexion", "4 Flex-withdraws",
            "5 Localizes Pain", "6 Obeys Commands",
        ],
        "verbal": [
            "1.0 ET/Trach", "1 No Response", "2 Incomp sounds", "3 Inapprop words", "4 Confused",
            "5 Oriented",
        ],
        "refill": ["Normal <3 secs", "Abnormal >3 secs"],
    },
    "metavision": {
        "eye": ["None", "To Pain", "To Speech", "Spontaneously"],
        "motor": [
            "No response", "Abnormal extension", "Abnormal Flexion", "Flex-withdraws",
            "Localizes Pain", "Obeys Commands",
        ],
        "verbal": [
            "No Response-ETT", "No Response", "Incomprehensible sounds", "Inappropriate Words",
            "Confused", "Oriented",
        ],
        "refill": ["Normal <3 Seconds", "Abnormal >3 Seconds"],
    },
}  # fmt: skip


class Item(NamedTuple):
    """A row of the catalogue."""

    system: str
    itemid: int
    variable: str
    label: str
    abbreviation: str | None
    category: str | None
    unit: str | None
    parameter: str | None
    form: str
    share: float


class Part(NamedTuple):
    """Rows of one item: stay, hours since admission to the ICU, number, text (null for numbers)."""

    item: int
    unit: str | None
    stay: Array
    hour: Array
    number: Array
    text: Array | None = None


@cache
def items() -> tuple[Item, ...]:
    """The catalogue of items."""
    with files("cm2.clinical.synthesize").joinpath("items.csv").open(encoding="utf-8") as lines:
        return tuple(
            Item(
                system=row["system"],
                itemid=int(row["itemid"]),
                variable=row["variable"],
                label=row["label"],
                abbreviation=row["abbreviation"] or None,
                category=row["category"] or None,
                unit=row["unit"] or None,
                parameter=row["parameter"] or None,
                form=row["form"],
                share=float(row["share"]),
            )
            for row in csv.DictReader(lines)
        )


def chart(
    stays: pd.DataFrame, readable: Array, system: Array, faults: Faults, rng: Generator
) -> pd.DataFrame:
    """Charts all variables of all stays.

    Args:
        stays: With intime and end.
        readable: Latents of the stays' series, (stay, axis).
        system: "carevue" or "metavision" for each stay.
        faults: Rates of the faults.
        rng: Source of randomness.

    Returns:
        stay (row), itemid, hour, number, text, unit, sorted by stay and hour, faults included but
        for those of identifiers and flags.
    """
    hours = length(stays)
    breathing = vitals.ventilated(readable, rng)
    readings = {
        name: vitals.draw(variable, hours, readable, rng)
        for name, variable in VARIABLES.items()
        if name not in PRESSURES
    }
    fio2 = readings["fraction_inspired_oxygen"]
    readings["fraction_inspired_oxygen"] = Readings(
        *(column[breathing[fio2.stay]] for column in fio2)
    )
    pressures = _pressures(hours, readable, rng)
    scores = _scores(readings.pop("gcs"), breathing)
    parts: list[Part] = []
    for name in ICU_SYSTEMS:
        here = system == name
        parts += _pressure_parts(name, pressures, here, faults, rng)
        parts += _score_parts(name, scores, here, breathing, faults, rng)
        for variable, reading in readings.items():
            parts += _parts(name, variable, reading, here, faults, rng)
    return _joined(parts)


PRESSURES = ("systolic_blood_pressure", "diastolic_blood_pressure", "mean_blood_pressure")


def _pressures(hours: Array, readable: Array, rng: Generator) -> dict[str, Readings]:
    at = vitals.times(hours, 1.0, rng)
    high, low = (
        vitals.draw(VARIABLES[name], hours, readable, rng, at=at) for name in PRESSURES[:2]
    )
    low = low._replace(value=np.minimum(low.value, high.value - 8))
    mean = np.round((high.value + 2 * low.value) / 3 + rng.normal(0, 1.5, len(high.value)))
    return dict(zip(PRESSURES, (high, low, high._replace(value=mean)), strict=True))


def _pressure_parts(
    system: str, pressures: dict[str, Readings], here: Array, faults: Faults, rng: Generator
) -> list[Part]:
    """An arterial line where there is one, else the cuff; sometimes both, and they disagree."""
    lined = rng.random(len(here)) < ARTERIAL_LINE
    stay = next(iter(pressures.values())).stay
    both = rng.random(len(stay)) < faults.both_pressures
    forms = {"arterial": here[stay] & lined[stay], "cuff": here[stay] & (~lined[stay] | both)}
    parts = []
    for row in _of(system, PRESSURES):
        keep = forms[row.form]
        reading = pressures[row.variable]
        value = reading.value[keep]
        if row.form == "cuff":
            off = np.round(rng.normal(-3.0, 4.0, len(value)))
            value = value + np.where(lined[reading.stay[keep]], off, 0.0)
        parts.append(Part(row.itemid, row.unit, reading.stay[keep], reading.hour[keep], value))
    return parts


def _scores(latent: Readings, breathing: Array) -> dict[str, Readings]:
    """The three parts of the Glasgow coma scale from one latent level of consciousness."""
    level = latent.value
    eye = np.clip(np.floor(level + 3.0), 1, 4)
    motor = np.clip(np.floor(level * 1.3 + 5.2), 1, 6)
    verbal = np.clip(np.floor(level * 1.2 + 3.6), 1, 5)
    verbal = np.where(breathing[latent.stay], 0.0, verbal)  # 0 stands for intubated here
    values = {"gcs_eye": eye, "gcs_motor": motor, "gcs_verbal": verbal}
    return {name: latent._replace(value=value) for name, value in values.items()}


def _score_parts(
    system: str,
    scores: dict[str, Readings],
    here: Array,
    breathing: Array,
    faults: Faults,
    rng: Generator,
) -> list[Part]:
    parts = []
    stay, hour = scores["gcs_eye"].stay, scores["gcs_eye"].hour
    chosen = here[stay]
    unspoken = chosen & pick(len(stay), faults.verbal_missing, rng)
    for row in _of(system, tuple(scores)):
        keep = chosen & ~unspoken if row.variable == "gcs_verbal" else chosen
        value = scores[row.variable].value[keep].astype(int)
        shift = 0 if row.variable == "gcs_verbal" else 1
        words = np.asarray(WORDS[system][row.form], dtype=object)[value - shift]
        number = np.maximum(value, 1).astype(float)
        parts.append(Part(row.itemid, row.unit, stay[keep], hour[keep], number, words))
    for row in _of(system, ("gcs_total",)):  # CareVue alone charts the sum
        keep = chosen & ~unspoken
        total = sum(np.maximum(scores[name].value[keep], 1.0) for name in scores)
        parts.append(Part(row.itemid, row.unit, stay[keep], hour[keep], np.asarray(total)))
    return parts


def _parts(
    system: str, variable: str, reading: Readings, here: Array, faults: Faults, rng: Generator
) -> list[Part]:
    rows = _of(system, (variable,))
    keep = here[reading.stay]
    stay, hour, value = (column[keep] for column in reading)
    which = rng.choice(len(rows), size=len(stay), p=[row.share for row in rows])
    parts = []
    for place, row in enumerate(rows):
        mine = which == place
        number, text = _in_form(system, row.form, value[mine], faults, rng)
        parts.append(Part(row.itemid, row.unit, stay[mine], hour[mine], number, text))
        if row.itemid == 678:  # CareVue writes the converted value beside the measured one
            converted = np.round(value[mine], 4)
            parts.append(Part(677, "Deg. C", stay[mine], hour[mine], converted))
    return parts


def _in_form(
    system: str, form: str, value: Array, faults: Faults, rng: Generator
) -> tuple[Array, Array | None]:
    """A value as its item holds it, with units mixed up at the given rates."""
    size = len(value)
    fahrenheit = np.round(value * 1.8 + 32, 1)
    if form == "fahrenheit":
        return np.where(pick(size, faults.other_unit, rng), value, fahrenheit), None
    if form == "celsius":
        return np.where(pick(size, faults.other_unit, rng), fahrenheit, value), None
    if form == "percent":
        percent = np.round(100 * value)
        return np.where(pick(size, faults.fraction_for_percent, rng), value, percent), None
    if form == "fraction":
        litres = rng.integers(2, 16, size).astype(float)
        return np.where(pick(size, faults.litres_for_fraction, rng), litres, value), None
    if form == "pounds":
        return np.round(value / 0.45359237, 1), None
    if form == "inches":
        return np.round(value / 2.54), None
    if form == "refill":
        words = np.asarray(WORDS[system]["refill"], dtype=object)[(value > 0).astype(int)]
        return np.full(size, np.nan), words
    return value, None


def laboratory(
    stays: pd.DataFrame, readable: Array, faults: Faults, rng: Generator
) -> pd.DataFrame:
    """Laboratory rows of all stays, as :func:`chart`; urine has a pH and a glucose too."""
    hours = length(stays)
    parts: list[Part] = []
    everywhere = np.ones(len(hours), dtype=bool)
    for name, variable in LABS.items():
        reading = vitals.draw(variable, hours, readable, rng)
        parts += _parts("lab", name, reading, everywhere, faults, rng)
    chosen = np.flatnonzero(pick(len(hours), faults.urine, rng))
    hour = np.round(rng.uniform(0.2, 0.9, len(chosen)) * hours[chosen], 2)
    acid = rng.choice([5.0, 5.5, 6.0, 6.5, 7.0, 8.0], size=len(chosen))
    sugar = rng.choice([0.0, 100.0, 250.0, 1000.0], size=len(chosen), p=[0.8, 0.1, 0.05, 0.05])
    words = np.where(sugar == 0, "NEG", sugar.astype(int).astype(str)).astype(object)
    sugar = np.where(sugar == 0, np.nan, sugar)
    parts.append(Part(51491, "units", chosen, hour, acid))
    parts.append(Part(51478, "mg/dL", chosen, hour, sugar, words))
    return _joined(parts)


def _of(system: str, variables: tuple[str, ...]) -> list[Item]:
    return [item for item in items() if item.system == system and item.variable in variables]


def _joined(parts: list[Part]) -> pd.DataFrame:
    sizes = [len(part.stay) for part in parts]
    text = [np.full(len(p.stay), None) if p.text is None else p.text for p in parts]
    frame = pd.DataFrame(
        {
            "stay": np.concatenate([part.stay for part in parts]),
            "itemid": np.repeat([part.item for part in parts], sizes),
            "hour": np.concatenate([part.hour for part in parts]),
            "number": np.concatenate([part.number for part in parts]).astype(float),
            "text": np.concatenate(text),
            "unit": np.repeat(np.asarray([part.unit for part in parts], dtype=object), sizes),
        }
    )
    order = np.lexsort((frame["itemid"], frame["hour"], frame["stay"]))
    return frame.iloc[order].reset_index(drop=True)
