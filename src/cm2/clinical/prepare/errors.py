"""What is wrong with raw tables, told apart from what is wrong with this code."""

from __future__ import annotations

from cm2.core.errors import InputError


class TableError(InputError):
    """A raw table cannot be used; the message names it and its fault, and quotes no data."""


class MissingError(TableError, FileNotFoundError):
    """A file or folder that is needed is not there."""
