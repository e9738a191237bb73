"""Versions of what a result may depend on."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping

__all__ = ["different", "versions"]

PACKAGES = (
    *("cm2", "torch", "lightning", "transformers", "scikit-learn", "skops", "pandas", "numpy"),
    *("scipy", "matplotlib"),
)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages, of those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # an extra
            continue
    return found


def different(written: Mapping[str, str]) -> str:
    """What is said of versions that are others than when something was written.

    Example:
        >>> different(versions())
        ''
    """
    here = versions()
    others = [
        f"{name} {version} (here {here.get(name, 'none')})"
        for name, version in written.items()
        if here.get(name) != version
    ]
    return f"; it was written with {', '.join(others)}" if others else ""
