"""Rates of the faults that real tables have, and where they fall.

A fault with a positive rate falls on at least one row, so that a small data set has them all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

__all__ = ["Faults", "pick"]


class Faults(NamedTuple):
    """Share of the rows (patients, stays, events, notes, images) with each fault."""

    minor: float = 0.03
    over_89: float = 0.04
    outtime_before_intime: float = 0.006
    transfer: float = 0.06
    second_stay: float = 0.06
    no_stay_id: float = 0.02
    no_admission_id: float = 0.003
    outside_stay: float = 0.004
    other_unit: float = 0.01
    fraction_for_percent: float = 0.08
    litres_for_fraction: float = 0.03
    entry_error: float = 0.0005
    flagged_error: float = 0.003
    text_for_number: float = 0.003
    corrected_later: float = 0.015
    repeated_row: float = 0.002
    no_storetime: float = 0.005
    verbal_missing: float = 0.04
    both_pressures: float = 0.25
    urine: float = 0.2
    note_error: float = 0.02
    note_without_time: float = 0.05
    repeated_note: float = 0.03
    note_without_section: float = 0.04
    corrupt_image: float = 0.004
    lost_image: float = 0.004
    turned_image: float = 0.01
    lost_report: float = 0.01
    unlisted_patient: float = 0.01

    def scaled(self, factor: float) -> Faults:
        """All rates times a factor, at most one half."""
        return Faults(*(min(rate * factor, 0.5) for rate in self))


def pick(rows: int, rate: float, rng: Generator) -> NDArray[np.bool_]:
    """Marks a share of the rows at random, at least one if the rate is positive."""
    chosen = np.zeros(rows, dtype=bool)
    if rate > 0 and rows > 0:
        number = min(rows, max(1, round(rate * rows)))
        chosen[rng.choice(rows, size=number, replace=False)] = True
    return chosen
