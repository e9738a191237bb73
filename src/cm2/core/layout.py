"""What the writer of a prepared folder and its readers must agree on."""

__all__ = ["EMBEDDINGS", "FORMAT", "MANIFEST", "SPLITS", "TOKENS"]

MANIFEST = "manifest.json"

FORMAT = 3
"""The latest format of the manifest; in 1, stays have no `prediction_time`, and up to 2
numbers of series are scaled."""

TOKENS, EMBEDDINGS = "tokens", "embeddings"
"""Folders in which readers keep what they made of the others; the writer knows nothing of them."""

SPLITS = ("train", "validation", "test")
"""The parts that stays are dealt out to."""
