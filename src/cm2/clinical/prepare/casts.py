"""From the columns of raw tables, whatever their types are, to those that are wanted."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from cm2.clinical.prepare.errors import TableError

__all__ = ["FLAG", "text", "typed"]

FLAG = "int8"


def text(value: ir.Value, place: str) -> ir.Value:
    """Returns the text of a value of any type; that of blanks is null.

    Args:
        value: A column.
        place: Where it is, for an error.

    Raises:
        TableError: It is a time with a zone: not the clock of the hospital, which others tell.
    """
    kind = value.type()
    if kind.is_timestamp() and kind.timezone is not None:
        raise TableError(
            f"{place}: times of a zone ({kind.timezone}); times of these tables tell the clock of "
            "the hospital, without a zone: write them as such"
        )
    if kind.is_timestamp() or kind.is_boolean():
        return value
    return value.cast("string").strip().nullif("")


def typed(text: ir.Value, kind: str) -> ir.Value:
    """Casts text; what cannot be read, and what is no finite number, is null.

    Args:
        text: As :func:`text` returns it.
        kind: A type of Ibis; ``FLAG`` for a flag.
    """
    if kind == FLAG:
        return _flag(text)
    if kind == "string" or text.type() == ibis.dtype(kind):
        return text.cast(kind)
    if text.type().is_boolean():
        return text.cast("int64").cast(kind)
    if kind == "int64":
        return _whole(text)
    if kind != "float64":
        return text.try_cast(kind)
    number = text.try_cast("float64")
    return (number.isnan() | number.isinf()).ifelse(ibis.null("float64"), number)


def _whole(text: ir.Value) -> ir.Value:
    """Reads whole numbers by their digits, which may be followed by a point and zeros.

    Engines round fractions, each in its own way, take 0x1F and 1_000 for numbers, and floats do not
    hold neighbours above 2^53 apart; below that, 2.0E7 is read, as Spark writes floats.
    """
    if not text.type().is_string():
        return text.try_cast("int64")
    nothing, number = ibis.null("int64"), text.try_cast("int64")
    digits = text.re_replace(r"[.]0*$", "").try_cast("int64")
    value = text.try_cast("float64")
    whole = value.try_cast("int64")
    power = text.re_search(r"^[+-]?[0-9]+([.][0-9]*)?[eE][+]?[0-9]{1,2}$")
    exact = power & (whole.cast("float64") == value) & (whole < 2**53) & (whole > -(2**53))
    plain = text.re_search(r"^[+-]?[0-9]+([.]0*)?$")
    other = plain.ifelse(digits, exact.ifelse(whole, nothing))
    # Patterns are looked for only where digits alone, which nearly all values are, are not found.
    return (number.cast("string") == text).ifelse(number, other)


def _flag(text: ir.Value) -> ir.Value:
    if text.type().is_boolean():
        return text.cast(FLAG)
    words = text.lower().cases(("true", "1"), ("false", "0"), else_=text)
    return words.try_cast("float64").try_cast(FLAG)
