"""What is wrong with raw tables, told apart from what is wrong with this code."""

from __future__ import annotations

from collections.abc import Iterable

from cm2.core.errors import InputError


class TableError(InputError):
    """A raw table cannot be used; the message names it and its fault, and quotes no data."""


def none_left(flow: Iterable[tuple[str, int]]) -> TableError:
    """That no stay is left, and at which step of the cohort's making how many went."""
    return TableError(f"no stay is left ({'; '.join(f'{step}: {n}' for step, n in flow)})")


class MissingError(TableError, FileNotFoundError):
    """A file or folder that is needed is not there."""
