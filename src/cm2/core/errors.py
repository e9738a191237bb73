"""What is wrong with what the user gave, told apart from what is wrong with this code."""

from __future__ import annotations

from numbers import Integral


class InputError(ValueError):
    """Work cannot start; the message says what to change, and quotes no patient's data."""


def check_count(name: str, value: object) -> None:
    """Refuses what is no whole number, or none above zero."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
