"""Maps from the codes of an event stream to variables: a CSV file of ``code,variable,unit``.

A code that ends in ``*`` stands for all that begin so; one that is named whole comes before it,
and a longer beginning before a shorter one. Variables of ``variables.csv`` are converted from the
unit that the line names, and judged by the range there; any other name makes a variable of its own,
whose lines must agree in the unit. Of two events at one time, that of the later line counts.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.events import PARTS, TOTAL
from cm2.clinical.prepare.variables import NAMES, VARIABLES, Item, Variable, items

__all__ = ["ORIGIN", "SHIPPED", "Line", "find", "read", "resolve", "variables"]

SHIPPED = {name: Path(__file__).with_name(f"codes_{name}.csv") for name in ("mimic4", "cm2")}
"""Maps that come with the package: of the public converter of MIMIC-IV, and of `--meds`."""

ORIGIN = "meds"
COLUMNS = ("code", "variable", "unit")
MORE = {"glucose": ("milligram", "mmol/L"), "oxygen_saturation": ("percent", "fraction")}
"""Conversions and units that no item of ``variables.csv`` needs."""


class Line(NamedTuple):
    """One line of a map.

    Attributes:
        code: A code, or the beginning of codes and ``*``.
        variable: What it measures.
        unit: The unit of its values.
        number: Of the line in the file.
    """

    code: str
    variable: str
    unit: str
    number: int


def find(named: Path) -> Path:
    """Returns the file of a map.

    Args:
        named: A file, or one of `SHIPPED`.

    Raises:
        MissingError: There is neither.
    """
    if named.is_file():
        return named
    if str(named) in SHIPPED:
        return SHIPPED[str(named)]
    raise MissingError(
        f"{named}: no such file of codes; maps that come with the package are {', '.join(SHIPPED)}"
    )


def read(path: Path) -> tuple[Line, ...]:
    """Reads a map and checks it.

    Args:
        path: The file.

    Raises:
        TableError: A column is missing, a code is there twice, or a unit is not known.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, skipinitialspace=True)
            if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
                raise TableError(f"{path}: a map of codes lacks column(s) {', '.join(missing)}")
            lines = tuple(
                Line(code.strip(), variable.strip(), unit.strip(), rows.line_num)
                for row in rows
                for code, variable, unit in [[row[name] or "" for name in COLUMNS]]
            )
    except (UnicodeDecodeError, csv.Error):
        raise TableError(f"{path}: cannot be read as comma-separated values in UTF-8") from None
    if not lines:
        raise TableError(f"{path}: a header and no row")
    _check(lines, path)
    return lines


def _check(lines: Sequence[Line], path: Path) -> None:
    codes: set[str] = set()
    units: dict[str, str] = {}
    for one in lines:
        place = f"{path}, line {one.number}"
        if one.code in codes or one.code in ("", "*"):
            raise TableError(f"{place}: the code is empty or there already")
        if not one.variable.isidentifier():
            raise TableError(f"{place}: {one.variable!r} is no name: letters, digits and _ only")
        if one.variable in NAMES and one.unit not in (known := _units(one.variable)):
            raise TableError(
                f"{place}: the unit of {one.variable} may be {' or '.join(map(repr, known))},"
                f" not {one.unit!r}"
            )
        if one.variable not in NAMES and units.setdefault(one.variable, one.unit) != one.unit:
            raise TableError(
                f"{place}: {one.variable} is in {one.unit!r} here and in {units[one.variable]!r}"
                " before; convert one, or name them apart"
            )
        codes.add(one.code)


def resolve(lines: Iterable[Line], codes: Iterable[str]) -> tuple[Item, ...]:
    """Returns an item for each code that a map names.

    Args:
        lines: The map.
        codes: What is there.

    Example:
        >>> lines = [Line("LAB//50820//*", "ph", "", 2), Line("HR", "heart_rate", "/min", 3)]
        >>> [(one.item, one.variable) for one in resolve(lines, ["HR", "LAB//50820//units", "X"])]
        [('HR', 'heart_rate'), ('LAB//50820//units', 'ph')]
    """
    ordered = sorted(lines, key=lambda one: -len(one.code))
    whole = {one.code: one for one in ordered if not one.code.endswith("*")}
    begun = [one for one in ordered if one.code.endswith("*")]
    found = {}
    for code in sorted(codes):
        begins = (one for one in begun if code.startswith(one.code[:-1]))
        if (line := whole.get(code) or next(begins, None)) is not None:
            found[code] = line
    return tuple(_item(code, line) for code, line in found.items())


def variables(lines: Iterable[Line]) -> tuple[Variable, ...]:
    """Returns the variables of a map: those of ``variables.csv`` first, then others by name.

    The total of the three parts of the Glasgow coma scale is one of them.

    Args:
        lines: The map.
    """
    named = {one.variable: one.unit for one in lines}
    if set(PARTS) <= set(named):
        named.setdefault(TOTAL, "points")
    others = [Variable(name, named[name], math.nan) for name in sorted(set(named) - set(NAMES))]
    return (*(one for one in VARIABLES if one.name in named), *others)


def _units(variable: str) -> list[str]:
    known = {one.unit for one in items() if one.variable == variable}
    if variable in MORE:
        known.add(MORE[variable][1])
    return sorted(known)


def _item(code: str, line: Line) -> Item:
    usual = next((one for one in items() if one.variable == line.variable), None)
    conversion = "none" if usual is None else usual.conversion
    return Item(
        source=(ORIGIN,),
        table=ORIGIN,
        system=ORIGIN,
        item=code,
        label=code,
        variable=line.variable,
        unit=line.unit,
        conversion=MORE.get(line.variable, (conversion, ""))[0],
        low=-math.inf if usual is None else usual.low,
        high=math.inf if usual is None else usual.high,
        note="",
        rank=line.number,
    )
