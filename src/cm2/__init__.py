"""Probabilistic multimodal learning with copulas when modalities are missing.

The names below are the public interface. The core needs torch alone; names that need Lightning or
scikit-learn are imported when they are first used.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cm2 import copulas, couplings, marginals
from cm2.joint import CopulaJoint

if TYPE_CHECKING:
    from cm2.estimator import CM2Classifier
    from cm2.models.cm2 import CM2

__version__ = version("cm2")

_LAZY = {"CM2": "cm2.models.cm2", "CM2Classifier": "cm2.estimator"}

__all__ = ["CM2", "CM2Classifier", "CopulaJoint", "copulas", "couplings", "marginals"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'cm2' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
