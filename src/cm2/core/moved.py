"""Names of modules before they were grouped into rooms, which work until version 0.2.

An old name stands for the very module that took its place, so that a class has one identity.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

TABLE = {
    **{
        name: f"core.{name}"
        for name in (
            "errors", "files", "layout", "learnable", "numerics", "persistence", "progress",
            "records", "registry", "removal",
        )
    },
    "joint": "couplings.joint",
    "data": "samples",
    **{name: f"samples.{name}" for name in ("inputs", "scaling", "tables", "targets")},
    **{
        name: f"networks.{name}"
        for name in (
            "encoders", "fusions", "imputers", "learner", "models", "penalties", "recurrent",
            "tasks", "training",
        )
    },
    **{name: f"estimators.{name}" for name in ("baselines", "heads", "tuning")},
    "estimator": "estimators.classifier",
    **{name: f"evaluation.{name}" for name in ("bootstrap", "figures", "metrics", "report")},
    "experiments.summary": "evaluation.summary",
    "figures.runs": "experiments.figures",
    "report.runs": "experiments.report",
    **{name: f"clinical.{name}" for name in ("prepare", "synthesize")},
}  # fmt: skip
"""Where each module went, both within ``cm2``."""


def place(name: str) -> str | None:
    """Where a module of an old name is now; None for any other name.

    Example:
        >>> place("cm2.heads.joint")
        'cm2.estimators.heads.joint'
    """
    known = name.removeprefix("cm2.")
    for old in sorted(TABLE, key=len, reverse=True) if known != name else ():
        if known == old or known.startswith(f"{old}."):
            return f"cm2.{TABLE[old]}{known.removeprefix(old)}"
    return None


class _Moved(MetaPathFinder, Loader):
    """Answers an import of an old name with the module of the new one."""

    def find_spec(
        self, fullname: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if place(fullname) is None else ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        new = str(place(spec.name))
        warnings.warn(
            f"{spec.name} is {new} now; the old name will go with version 0.2",
            DeprecationWarning,
            stacklevel=2,
        )
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__  # which the import machinery is about to replace
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Makes the old names importable in this process."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        # First, or a module within a moved package would be loaded anew from the package's folder.
        sys.meta_path.insert(0, _Moved())
