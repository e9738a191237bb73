"""Diagnoses at discharge, tied to the second latents so that phenotyping has something to find."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy.special import expit

__all__ = ["CODES", "draw"]

Array = np.ndarray


class Code(NamedTuple):
    """A diagnosis: ICD-9 and ICD-10 codes, title, log-odds: intercept and slopes of the latents."""

    icd9: str
    icd10: str
    title: str
    odds: tuple[float, float, float]


CODES = (
    Code("99592", "R6520", "Severe sepsis", (-1.5, 0.9, 0.6)),
    Code("51881", "J9600", "Acute respiratory failure", (-0.8, 0.9, 0.0)),
    Code("5849", "N179", "Acute kidney failure, unspecified", (-0.9, 0.6, 0.5)),
    Code("4280", "I509", "Congestive heart failure, unspecified", (-0.9, 0.0, 1.2)),
    Code("25000", "E119", "Type II diabetes mellitus without complication", (-1.2, 0.0, 0.8)),
    Code("4019", "I10", "Unspecified essential hypertension", (0.0, -0.3, 0.3)),
    Code("42731", "I4891", "Atrial fibrillation", (-1.0, 0.2, 0.6)),
    Code("486", "J189", "Pneumonia, organism unspecified", (-1.4, 0.8, 0.0)),
    Code("2724", "E785", "Other and unspecified hyperlipidemia", (-0.8, -0.2, 0.2)),
    Code("41401", "I2510", "Coronary atherosclerosis of native coronary artery", (-0.8, 0.0, 0.5)),
)


def draw(stays: pd.DataFrame, severity: Array, readable: Array, rng: Generator) -> pd.DataFrame:
    """Draws the codes of admissions.

    Args:
        stays: With the row of the admission; the first stay of an admission decides.
        severity: Of the stays.
        readable: Latents of the stays, (stay, modality, axis).
        rng: Source of randomness.

    Returns:
        admission (row), seq_num, code (row of :data:`CODES`).
    """
    first = ~stays["admission"].duplicated().to_numpy()
    odds = np.asarray([code.odds for code in CODES])
    fluid = readable[first, :, 1].mean(1)
    logits = odds[:, 0] + np.outer(severity[first], odds[:, 1]) + np.outer(fluid, odds[:, 2])
    has = rng.random(logits.shape) < expit(logits)
    has[~has.any(1), 5] = True
    admission, code = np.nonzero(has)
    frame = pd.DataFrame({"admission": stays["admission"].to_numpy()[first][admission]})
    frame["seq_num"] = frame.groupby("admission").cumcount() + 1
    return frame.assign(code=code)
