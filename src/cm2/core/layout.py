"""What the writer of a prepared folder and its readers must agree on."""

__all__ = ["EMBEDDINGS", "FORMAT", "MANIFEST", "SPLITS", "TOKENS"]

MANIFEST = "manifest.json"

FORMAT = 2
"""The latest format of the manifest; in 1, stays have no `prediction_time`."""

TOKENS, EMBEDDINGS = "tokens", "embeddings"
"""Folders in which readers keep what they made of the others; the writer knows nothing of them."""

SPLITS = ("train", "validation", "test")
"""The parts that stays are dealt out to."""
