"""Identifiers of patients and stays: whole numbers, read to the last digit."""

from __future__ import annotations

import re
from decimal import Decimal

import pandas as pd

__all__ = ["whole_number", "whole_numbers"]

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d{1,3})?", re.ASCII)


def whole_numbers(values: pd.Series) -> pd.Series:
    """Reads whole numbers that fit in 64 bits; anything else is missing.

    Above 2^53 a float no longer tells neighbours apart, so that none is read by way of one.
    ``"300000.0"`` and ``"3.0e5"`` are whole numbers, which pandas writes where a column has gaps.

    Args:
        values: Whole numbers, floats or texts.

    Example:
        >>> whole_numbers(pd.Series(["9007199254740993", " 3.0e5", "12.5", "0x1F"])).tolist()
        [9007199254740993, 300000, <NA>, <NA>]
    """
    if values.dtype.kind == "i":
        return values.astype("Int64")
    codes, texts = pd.factorize(values.astype("string").str.strip())
    found = pd.array([whole_number(text) for text in texts], dtype="Int64")
    return pd.Series(found.take(codes, allow_fill=True), index=values.index, name=values.name)


def whole_number(text: str) -> int | None:
    """Reads one; None if it is none."""
    if not NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    if number and (number.adjusted() > 18 or number != number.to_integral_value()):
        return None
    return int(number) if -(2**63) <= number < 2**63 else None
