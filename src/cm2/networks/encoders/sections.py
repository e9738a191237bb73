"""Encoders by their sections: a ``kind`` and arguments, as in a YAML file."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from cm2.networks.encoders.base import REGISTRY, Encoder

__all__ = ["arguments", "build", "encoder"]


def build(section: Mapping[str, Any], dim: int, shape: Mapping[str, int]) -> Encoder:
    """Builds an encoder.

    Args:
        section: Its ``kind`` and arguments.
        dim: Width of the embedding.
        shape: Arguments that follow from the data, such as ``features``; those of the section win.

    Raises:
        ValueError: If there is no such encoder, or it does not take these arguments.
        ImportError: If it needs a package that is not installed.
    """
    cls: Any = encoder(section["kind"])
    wanted = arguments(cls)
    known = {key: value for key, value in shape.items() if key in wanted}
    given = {key: value for key, value in section.items() if key != "kind"}
    options = {"dim": dim, **known, **given}
    try:
        inspect.signature(cls).bind(**options)
    except TypeError as error:
        raise ValueError(f"{section['kind']!r} does not read this modality: {error}") from None
    built: Encoder = cls(**options)
    return built


def encoder(kind: str) -> Any:
    """Returns the class of an encoder: a registered name, or ``package.module.Class`` of one's own.

    Raises:
        ValueError: If there is no such class, or it is no encoder.
    """
    module, _, name = str(kind).rpartition(".")
    if not module:
        return REGISTRY[kind]
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{kind!r} cannot be imported: {error}") from None
    if not (inspect.isclass(found) and issubclass(found, Encoder)):
        raise ValueError(f"{kind!r} is no subclass of cm2.networks.encoders.Encoder")
    return found


def arguments(function: Callable[..., Any]) -> list[str]:
    """Names the arguments of a function or class."""
    return list(inspect.signature(function).parameters)
