"""What the writer of a prepared folder and its readers must agree on."""

__all__ = ["FORMAT", "MANIFEST", "SPLITS"]

MANIFEST = "manifest.json"

FORMAT = 2
"""The latest format of the manifest; in 1, stays have no `prediction_time`."""

SPLITS = ("train", "validation", "test")
"""The parts that stays are dealt out to."""
