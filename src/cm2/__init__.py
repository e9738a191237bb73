"""Probabilistic multimodal learning with copulas when modalities are missing.

The names below are the public interface. Each is imported when it is first used, so that preparing
tables costs neither the time nor the memory of torch.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cm2 import copulas, couplings, marginals
    from cm2.estimator import CM2Classifier
    from cm2.joint import CopulaJoint
    from cm2.models.cm2 import CM2

__version__ = version("cm2")

_PLACES = {"CM2": "cm2.models.cm2", "CM2Classifier": "cm2.estimator", "CopulaJoint": "cm2.joint"}

__all__ = ["CM2", "CM2Classifier", "CopulaJoint", "copulas", "couplings", "marginals"]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    if name in __all__:
        return importlib.import_module(f"cm2.{name}")
    raise AttributeError(f"module 'cm2' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
