"""Saving and loading fitted estimators without executing code from the file.

scikit-learn parts go through skops, which builds only types that it is told to trust; networks go
as arrays and are rebuilt from their own constructors.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import skops.io
import torch
from numpy import ndarray
from torch import nn

from cm2.files import replacing

M = TypeVar("M", bound=nn.Module)

_OWN = ("cm2.estimator.", "cm2.heads.", "cm2.inputs.", "cm2.scaling.")
_FOREIGN = {"numpy.dtype", "sklearn.tree._tree.Tree"}
_FORMAT = 2
_HEADER = "cm2.json"


def module_arrays(module: nn.Module) -> dict[str, ndarray]:
    """Parameters and buffers of a module as arrays."""
    return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}


def load_module_arrays(module: M, arrays: dict[str, ndarray]) -> M:
    """Fills a module with the arrays of one that was built alike."""
    module.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in arrays.items()})
    return module


def save(estimator: Any, path: str | Path, version: str) -> Path:
    """Writes an estimator to one file; a file that is there already is replaced in one step.

    The file holds what was learned and no rows of the training data.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        skops.io.dump(estimator, part)
        with zipfile.ZipFile(part, "a") as archive:
            archive.writestr(_HEADER, json.dumps({"format": _FORMAT, "cm2": version}))
    return path


def load(path: str | Path, expected: type) -> Any:
    """Reads an estimator.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, not from cm2, or holds types that cm2 does not write.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no saved estimator at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum does not match")
            header = json.loads(archive.read(_HEADER))
            found, writer = header["format"], header["cm2"]
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a saved cm2 estimator, or it is damaged") from error
    if found != _FORMAT:
        raise ValueError(
            f"{path} has format {found}, written by cm2 {writer}; this version reads {_FORMAT}: "
            "load it there, or fit again"
        )
    try:
        types = skops.io.get_untrusted_types(file=path)
        foreign = [name for name in types if not name.startswith(_OWN) and name not in _FOREIGN]
        estimator = None if foreign else skops.io.load(path, trusted=types)
    except Exception as error:  # whatever a damaged description makes the reader stumble over
        raise ValueError(f"{path} is not a saved cm2 estimator, or it is damaged") from error
    if foreign:
        raise ValueError(f"{path} holds types that cm2 does not write: {', '.join(foreign)}")
    if not isinstance(estimator, expected):
        raise ValueError(f"{path} holds a {type(estimator).__name__}, not a {expected.__name__}")
    return estimator
