"""Saving and loading fitted estimators without executing code from the file.

scikit-learn parts go through skops, which builds only types that it is told to trust; networks go
as arrays and are rebuilt from their own constructors.
"""

from __future__ import annotations

import copy
import json
import os
import zipfile
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import skops.io
import torch
from numpy import ndarray
from torch import nn

from cm2.core.files import DAMAGED, replacing
from cm2.core.versions import different, versions

M = TypeVar("M", bound=nn.Module)

_OWN = ("cm2.estimators.", "cm2.samples.")
_FOREIGN = {
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
}
_FORMAT = 6
_HEADER = "cm2.json"


_WRITTEN: ContextVar[dict[nn.Module, dict[str, ndarray]] | None] = ContextVar(
    "arrays of the modules that a file has already", default=None
)


def module_arrays(module: nn.Module) -> dict[str, ndarray]:
    """Parameters and buffers of a module as arrays; one that a file has twice is in it once."""
    written = _WRITTEN.get()
    if written is not None and module in written:
        return written[module]
    made = {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}
    if written is not None:
        written[module] = made
    return made


def load_module_arrays(module: M, arrays: dict[str, ndarray]) -> M:
    """Fills a module with the arrays of one that was built alike."""
    module.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in arrays.items()})
    return module


def plain(value: Any) -> Any:
    """An argument in types that a file can hold: lists for ranges and indexes, text for paths.

    An encoder becomes the section that it says itself to be: its arguments, without weights.

    Example:
        >>> plain({"labs": range(3), "notes": (4, 5)})
        {'labs': [0, 1, 2], 'notes': (4, 5)}
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, slice):
        return slice(plain(value.start), plain(value.stop), plain(value.step))
    if isinstance(value, range | pd.Index | pd.Series):
        return list(map(plain, value))
    section: Any = getattr(value, "section", None)
    if isinstance(value, nn.Module) and callable(section):
        return plain(section())
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return value


def save(estimator: Any, path: str | Path, facts: Mapping[str, Any] | None = None) -> Path:
    """Writes an estimator to one file; a file that is there already is replaced in one step.

    The file holds what was learned and no rows of the training data. Its arguments are those of
    the constructor as :func:`plain` makes them.

    Args:
        estimator: What is written.
        path: The file.
        facts: What :func:`facts` says of the file, beside its format and the versions of packages.

    Raises:
        ValueError: If an argument of the constructor could not be read again.
    """
    estimator = copy.copy(estimator)
    for name, value in estimator.get_params(deep=False).items():
        value = plain(value)
        setattr(estimator, name, value)
        _check_argument(name, value)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        told = _WRITTEN.set({})
        try:
            skops.io.dump(estimator, part, compression=zipfile.ZIP_DEFLATED)
        finally:
            _WRITTEN.reset(told)
        with zipfile.ZipFile(part, "a") as archive:
            written = versions()
            own = {"format": _FORMAT, "cm2": written["cm2"], "versions": written}
            header = {**(facts or {}), **own}
            archive.writestr(_HEADER, json.dumps(header))
    return path


def _check_argument(name: str, value: Any) -> None:
    """Refuses what :func:`load` would refuse, while it is known which argument it is."""
    try:
        foreign = _foreign(skops.io.get_untrusted_types(data=skops.io.dumps(value)))
    except Exception as error:  # skops passes on whatever a type's own methods raise
        what = f"{type(value).__name__} for which skops says: {error}"
        raise ValueError(_unsaved(name, what)) from error
    if foreign:
        raise ValueError(_unsaved(name, ", ".join(foreign)))


def _unsaved(name: str, what: str) -> str:
    return (
        f"the argument {name!r} cannot be saved, since it holds a {what}; give numbers, text, or "
        "lists and dicts with names as keys"
    )


def _foreign(types: list[str]) -> list[str]:
    return [name for name in types if not name.startswith(_OWN) and name not in _FOREIGN]


def facts(path: str | Path) -> dict[str, Any]:
    """Reads what a file says of itself, without the estimator in it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or not from cm2.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no saved estimator at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum does not match")
            header: dict[str, Any] = json.loads(archive.read(_HEADER))
            return {"format": header["format"], "cm2": header["cm2"], **header}
    except DAMAGED as error:
        raise ValueError(f"{path} is not a saved cm2 estimator, or it is damaged") from error


def load(path: str | Path, expected: type) -> Any:
    """Reads an estimator.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, not from cm2, or holds types that cm2 does not write.
    """
    header = facts(path)
    found, writer = header["format"], header["cm2"]
    if found != _FORMAT:
        raise ValueError(
            f"{path} has format {found}, written by cm2 {writer}; this version reads {_FORMAT}: "
            "load it there, or fit again"
        )
    try:
        types = skops.io.get_untrusted_types(file=path)
        foreign = _foreign(types)
        estimator = None if foreign else skops.io.load(path, trusted=types)
    except Exception as error:  # whatever a damaged description makes the reader stumble over
        raise ValueError(
            f"{path} is not a saved cm2 estimator, or it is damaged"
            f"{different(header.get('versions', {}))}"
        ) from error
    if foreign:
        raise ValueError(f"{path} holds types that cm2 does not write: {', '.join(foreign)}")
    if not isinstance(estimator, expected):
        raise ValueError(f"{path} holds a {type(estimator).__name__}, not a {expected.__name__}")
    return estimator
