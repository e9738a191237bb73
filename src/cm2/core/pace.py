"""How far something is that takes long: a line in the log every ten seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["clock", "told"]

T = TypeVar("T")

LOG = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds from line to line."""


def told(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yields items and says how many are done, and how long the others take at this pace.

    Nothing is said of what takes less than ten seconds.

    Args:
        items: What is worked on, one after the other.
        total: How many there are.
        what: What they are, as in ``"trees"``.
    """
    begin = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - said >= EVERY:
            said = now
            left = (now - begin) / done * (total - done)
            LOG.info("%s: %d of %d, about %s left", what, done, total, clock(left))
        yield item


def clock(seconds: float) -> str:
    """Writes a span of time.

    Example:
        >>> clock(7.2), clock(187.0), clock(600.0), clock(7500.0), clock(7200.0), clock(4e5)
        ('7 s', '3 min 7 s', '10 min', '2 h 5 min', '2 h', '4.6 days')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    if whole < 2 * 86400:
        minutes = whole % 3600 // 60
        return f"{whole // 3600} h" + (f" {minutes} min" if minutes else "")
    return f"{whole / 86400:.1f} days"
