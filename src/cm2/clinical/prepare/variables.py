"""The 17 variables of the time series: where they are in the raw tables and how they are coded.

``variables.csv`` beside this file is the table to read and to edit: one line a raw item, with its
unit, conversion and plausible range, and with the items that look right and are left out. The
variables, their normal values and the 76 columns are those of Harutyunyan et al. (2019), Multitask
learning and benchmarking with clinical time series data, Scientific Data 6:96.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources
from typing import NamedTuple

__all__ = ["CONVERSIONS", "NAMES", "VARIABLES", "Code", "Item", "Variable", "items", "variable"]

CONVERSIONS = (
    "none",
    "fraction",
    "percent",
    "celsius",
    "kilogram",
    "centimetre",
    "milligram",
    "text",
    "excluded",
)


class Item(NamedTuple):
    """One raw item of the table.

    Attributes:
        source: The data sets that have it, such as ``("mimic3", "mimic4")``.
        table: The raw table, lower case.
        system: ``"carevue"``, ``"metavision"``, ``"laboratory"`` or ``"eicu"``.
        item: Item id; in eICU the name of a column or a label.
        label: The item's name in the raw data.
        variable: Which variable it measures.
        unit: The unit of the raw value, where the row itself names none.
        conversion: How the raw value becomes the variable's; ``"excluded"``: it is left out.
        low: The least plausible value, after conversion.
        high: The greatest plausible value, after conversion.
        note: Why it is here, or why not.
        rank: What decides between items of one charttime and storetime: the greater wins. The item
            id where it is a number, otherwise the place in the table.
    """

    source: tuple[str, ...]
    table: str
    system: str
    item: str
    label: str
    variable: str
    unit: str
    conversion: str
    low: float
    high: float
    note: str
    rank: int


class Code(NamedTuple):
    """A category of a variable that is charted in words.

    Attributes:
        name: The end of its column's name.
        value: The score it stands for.
        texts: How it is written, lower case; a number stands for the first code of its value.
    """

    name: str
    value: float
    texts: tuple[str, ...]


class Variable(NamedTuple):
    """One variable.

    Attributes:
        name: Its name in ``events.parquet``.
        unit: The unit after conversion.
        normal: The value before the first observation of a stay; NaN where none is known.
        codes: Its categories, in the order of their columns; empty for a continuous variable.
    """

    name: str
    unit: str
    normal: float
    codes: tuple[Code, ...] = ()


def _codes(carevue: tuple[str, ...], metavision: tuple[str, ...]) -> tuple[Code, ...]:
    """The two systems' words for the scores 1, 2, .. of one scale; CareVue's begin with them."""
    codes = [
        Code(f"carevue_{level}", float(level), (f"{level} {text}",))
        for level, text in enumerate(carevue, start=1)
    ]
    codes += [
        Code(f"metavision_{level}", float(level), (text,))
        for level, text in enumerate(metavision, start=1)
    ]
    return tuple(codes)


_EYE = _codes(
    ("no response", "to pain", "to speech", "spontaneously"),
    ("none", "to pain", "to speech", "spontaneously"),
)
_MOTOR = _codes(
    (
        "no response",
        "abnorm extensn",
        "abnorm flexion",
        "flex-withdraws",
        "localizes pain",
        "obeys commands",
    ),
    (
        "no response",
        "abnormal extension",
        "abnormal flexion",
        "flex-withdraws",
        "localizes pain",
        "obeys commands",
    ),
)
_VERBAL = (
    *_codes(
        ("no response", "incomp sounds", "inapprop words", "confused", "oriented"),
        ("no response", "incomprehensible sounds", "inappropriate words", "confused", "oriented"),
    ),
    # An intubated patient cannot speak: scored 1, with columns of its own.
    Code("carevue_intubated", 1.0, ("1.0 et/trach", "1 et/trach")),
    Code("metavision_intubated", 1.0, ("no response-ett",)),
)
_TOTAL = tuple(Code(str(score), float(score), ()) for score in range(3, 16))
_REFILL = (
    Code("0", 0.0, ("normal <3 secs", "normal <3 seconds", "brisk")),
    Code("1", 1.0, ("abnormal >3 secs", "abnormal >3 seconds", "delayed")),
)

VARIABLES = (
    Variable("capillary_refill_rate", "0 normal, 1 delayed", 0.0, _REFILL),
    Variable("diastolic_blood_pressure", "mmHg", 59.0),
    Variable("fraction_inspired_oxygen", "fraction", 0.21),
    Variable("gcs_eye", "points", 4.0, _EYE),
    Variable("gcs_motor", "points", 6.0, _MOTOR),
    Variable("gcs_total", "points", 15.0, _TOTAL),
    Variable("gcs_verbal", "points", 5.0, _VERBAL),
    Variable("glucose", "mg/dL", 128.0),
    Variable("heart_rate", "/min", 86.0),
    Variable("height", "cm", 170.0),
    Variable("mean_blood_pressure", "mmHg", 77.0),
    Variable("oxygen_saturation", "%", 98.0),
    Variable("respiratory_rate", "/min", 19.0),
    Variable("systolic_blood_pressure", "mmHg", 118.0),
    Variable("temperature", "degree Celsius", 36.6),
    Variable("weight", "kg", 81.0),
    Variable("ph", "", 7.4),
)
NAMES = tuple(one.name for one in VARIABLES)


def variable(name: str) -> Variable:
    """Returns the variable of this name."""
    if name not in NAMES:
        raise ValueError(f"unknown variable {name!r}; there are {', '.join(NAMES)}")
    return VARIABLES[NAMES.index(name)]


def items(source: str | None = None) -> tuple[Item, ...]:
    """Returns the items that are used (``variables.csv`` without its excluded lines).

    Args:
        source: Only those of ``"mimic3"``, ``"mimic4"`` or ``"eicu"``; None: all.

    Example:
        >>> sorted({one.item for one in items("mimic4") if one.variable == "gcs_verbal"})
        ['223900']
    """
    return tuple(
        one
        for one in table()
        if one.conversion != "excluded" and (source is None or source in one.source)
    )


@cache
def table() -> tuple[Item, ...]:
    """Reads ``variables.csv``, excluded lines included, and checks it.

    Raises:
        ValueError: If a line names an unknown variable or conversion, lacks its range, or repeats
            an item.
    """
    text = (
        resources.files("cm2.clinical.prepare")
        .joinpath("variables.csv")
        .read_text(encoding="utf-8")
    )
    found: dict[tuple[str, str], Item] = {}
    for line, row in enumerate(csv.DictReader(text.splitlines()), start=2):
        one = _item(row, line)
        if (one.table, one.item) in found:
            raise ValueError(f"variables.csv, line {line}: {one.table} {one.item} is there twice")
        found[one.table, one.item] = one
    return tuple(found.values())


def _item(row: dict[str, str], line: int) -> Item:
    variable(row["variable"])
    if row["conversion"] not in CONVERSIONS:
        raise ValueError(
            f"variables.csv, line {line}: unknown conversion {row['conversion']!r};"
            f" there are {', '.join(CONVERSIONS)}"
        )
    used = row["conversion"] != "excluded"
    return Item(
        source=tuple(row["source"].split()),
        table=row["table"],
        system=row["system"],
        item=row["item"],
        label=row["label"],
        variable=row["variable"],
        unit=row["unit"],
        conversion=row["conversion"],
        low=float(row["low"]) if used else 0.0,
        high=float(row["high"]) if used else 0.0,
        note=row["note"],
        rank=int(row["item"]) if row["item"].isdigit() else line,
    )
