"""Probabilistic multimodal learning with copulas when modalities are missing.

The names below are the public interface. Each is imported when it is first used: the commands that
turn tables into modalities need no torch, and the copulas need torch alone.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cm2.core import moved

if TYPE_CHECKING:
    from cm2 import copulas, couplings, marginals
    from cm2.couplings.joint import CopulaJoint
    from cm2.estimators.classifier import CM2Classifier
    from cm2.networks.models.cm2 import CM2
    from cm2.samples.container import Samples

__version__ = version("cm2")

_OWNERS = {
    "CM2": "cm2.networks.models.cm2",
    "CM2Classifier": "cm2.estimators.classifier",
    "CopulaJoint": "cm2.couplings.joint",
    "Samples": "cm2.samples.container",
}
_ROOMS = ("copulas", "couplings", "marginals")

__all__ = ["CM2", "CM2Classifier", "CopulaJoint", "Samples", "copulas", "couplings", "marginals"]

moved.install()


def __getattr__(name: str) -> Any:
    if name in _OWNERS:
        return getattr(importlib.import_module(_OWNERS[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"cm2.{name}")
    raise AttributeError(f"module 'cm2' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
