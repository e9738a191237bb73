"""What the writer of a prepared folder and its readers must agree on."""

__all__ = ["EMBEDDINGS", "FORMAT", "MANIFEST", "SPLITS", "TOKENS", "ordered"]

from collections.abc import Mapping
from typing import Any

MANIFEST = "manifest.json"

FORMAT = 3
"""The latest format of the manifest; in 1, stays have no `prediction_time`, and up to 2
numbers of series are scaled."""

TOKENS, EMBEDDINGS = "tokens", "embeddings"
"""Folders in which readers keep what they made of the others; the writer knows nothing of them."""

SPLITS = ("train", "validation", "test")
"""The parts that stays are dealt out to."""


def ordered(modalities: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names in the order in which folders have them, and in which some are removed: series first.

    Args:
        modalities: What the manifest says of each, its ``kind`` among it.
    """
    return sorted(modalities, key=lambda name: (modalities[name]["kind"] != "series", name))
