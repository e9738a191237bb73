"""Encoders by a section, such as that of an experiment: a ``kind`` and arguments of its class."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from cm2.core.errors import InputError
from cm2.networks.encoders.base import REGISTRY, Encoder

__all__ = ["arguments", "build", "encoder"]


def build(
    section: Mapping[str, Any], dim: int | None = None, shape: Mapping[str, Any] | None = None
) -> Encoder:
    """Builds an encoder, at the start of its training.

    Args:
        section: Its ``kind`` and arguments, such as :meth:`Encoder.section` gives.
        dim: Width of the embedding, where the section does not say it.
        shape: What the data say of the modality, such as ``features``, of which the encoder takes
            what it asks for and the section does not say.

    Raises:
        ValueError: If there is no such encoder, or its arguments do not fit.

    Example:
        >>> build({"kind": "dense", "width": 8}, dim=4, shape={"features": 3}).section()["features"]
        3
    """
    if "kind" not in section:
        raise InputError(f"an encoder needs a kind: {', '.join(sorted(REGISTRY))}")
    cls = encoder(section["kind"])
    known = arguments(cls)
    data = {"dim": dim, **(shape or {})}
    options = {key: one for key, one in data.items() if key in known and one is not None}
    options |= {key: one for key, one in section.items() if key != "kind"}
    try:
        inspect.signature(cls).bind(**options)
    except TypeError as error:
        raise InputError(f"{section['kind']!r} does not read this modality: {error}") from None
    return cls(**options)


def encoder(kind: str) -> Callable[..., Encoder]:
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
