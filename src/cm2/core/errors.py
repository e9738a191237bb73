"""What is wrong with what the user gave, told apart from what is wrong with this code."""

from __future__ import annotations


class InputError(ValueError):
    """Work cannot start; the message says what to change, and quotes no patient's data."""
