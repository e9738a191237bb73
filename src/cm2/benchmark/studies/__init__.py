"""Data sets that methods are compared on; a new one is one class in one file."""

from cm2.benchmark.studies import (  # noqa: F401
    digits,
    eicu,
    mimic4,
    physionet2012,
    rosmap,
    worlds,
)
from cm2.benchmark.studies.base import STUDIES, Given, Split, Study

__all__ = ["STUDIES", "Given", "Split", "Study"]
