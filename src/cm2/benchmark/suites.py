"""Which methods meet which data sets under which missing patterns."""

from __future__ import annotations

from typing import NamedTuple

from cm2.benchmark.methods import METHODS, POOLED
from cm2.benchmark.patterns import OBSERVED, Pattern
from cm2.samples.worlds import WORLDS

RATES = (0.3, 0.5, 0.7)
AT_TEST = (OBSERVED, *(Pattern("random", rate) for rate in RATES))
"""Patterns of one fit to the rows as they are."""

TABLES = (
    "LR + dropout",
    "boosting + dropout",
    "concat. LR",
    "concat. boosting",
    "imputed LR",
    "stacking",
    "late fusion",
    "late fusion, log",
    "late fusion, forests",
    "late fusion, forests, log",
)
"""Rivals that read numbers side by side."""


class Suite(NamedTuple):
    """A benchmark.

    Attributes:
        studies: Names of data sets.
        methods: Names of methods.
        patterns: What is removed.
        seeds: Number of splits and removals.
    """

    studies: tuple[str, ...]
    methods: tuple[str, ...]
    patterns: tuple[Pattern, ...]
    seeds: int


SUITES = {
    "quick": Suite(
        ("physionet2012", "digits", "rosmap", "shared", "cross-rank"),
        (POOLED, *TABLES, "MedFuse", "modality dropout", "M3Care", "ShaSpec"),
        (OBSERVED, Pattern("random", 0.5)),
        3,
    ),
    "tables": Suite(
        ("physionet2012-ab", "eicu-hourly", "rosmap", "digits", *WORLDS),
        (POOLED, *TABLES),
        AT_TEST,
        5,
    ),
    "p12": Suite(
        ("p12",),
        (POOLED, "CM², network", *TABLES, "MedFuse", "modality dropout"),
        (OBSERVED, *(Pattern("sensors", rate) for rate in (0.1, 0.2, 0.3, 0.4, 0.5))),
        5,
    ),
    "open": Suite(
        (
            "physionet2012-ab",
            "eicu-hourly",
            "eicu-regions",
            "rosmap-published",
            "digits",
            *WORLDS,
            "mimic4-generated",
        ),
        tuple(METHODS),
        (
            *AT_TEST,
            *(Pattern("random", rate, "both") for rate in RATES),
            Pattern("random", 0.5, "train"),
            Pattern("whole", 0.5),
            Pattern("whole", 0.5, "train"),
            Pattern("seen", 0.5),
            Pattern("unseen", 0.5),
        ),
        5,
    ),
}
"""``tables``: does the default ever lose to what reads numbers side by side? ``p12``: a published
protocol, beside whose figures ours can stand."""
