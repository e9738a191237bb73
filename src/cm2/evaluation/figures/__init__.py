"""Figures: functions from data to a matplotlib `Figure`, without pyplot and its global state.

Every function returns a figure that has not been shown or saved; `style.save` writes one as PNG
and PDF. None of them shows a single patient.
"""

from cm2.evaluation.figures import (
    availability,
    calibration,
    comparison,
    density,
    embeddings,
    pairs,
    style,
    training,
)

__all__ = [
    "availability",
    "calibration",
    "comparison",
    "density",
    "embeddings",
    "pairs",
    "style",
    "training",
]
