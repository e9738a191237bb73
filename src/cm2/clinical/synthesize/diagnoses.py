"""Diagnoses at discharge, tied to the second latents so that phenotyping has something to find.

Beside the codes of admissions stand the categories of the Clinical Classifications Software that
the codes belong to, in files laid out as HCUP publishes them: `cm2 prepare --ccs` reads either.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy.special import expit

__all__ = ["CODES", "GROUPS", "draw", "write_groups"]

Array = np.ndarray


class Code(NamedTuple):
    """A diagnosis: ICD-9 and ICD-10 codes, CCS category, title, log-odds.

    The log-odds are an intercept and the slopes of severity and of the second latents.
    """

    icd9: str
    icd10: str
    ccs: int
    title: str
    odds: tuple[float, float, float]


CODES = (
    Code("99592", "R6520", 2, "Severe sepsis", (-1.5, 0.9, 0.6)),
    Code("51881", "J9600", 131, "Acute respiratory failure", (-0.8, 0.9, 0.0)),
    Code("5849", "N179", 157, "Acute kidney failure, unspecified", (-0.9, 0.6, 0.5)),
    Code("4280", "I509", 108, "Congestive heart failure, unspecified", (-0.9, 0.0, 1.2)),
    Code("25000", "E119", 49, "Type II diabetes mellitus without complication", (-1.2, 0.0, 0.8)),
    Code("4019", "I10", 98, "Unspecified essential hypertension", (0.0, -0.3, 0.3)),
    Code("42731", "I4891", 106, "Atrial fibrillation", (-1.0, 0.2, 0.6)),
    Code("486", "J189", 122, "Pneumonia, organism unspecified", (-1.4, 0.8, 0.0)),
    Code("2724", "E785", 53, "Other and unspecified hyperlipidemia", (-0.8, -0.2, 0.2)),
    Code(
        "41401",
        "I2510",
        101,
        "Coronary atherosclerosis of native coronary artery",
        (-0.8, 0.0, 0.5),
    ),
    Code("43491", "I639", 109, "Cerebral artery occlusion with infarction", (-1.8, 0.4, 0.0)),
    Code("41071", "I214", 100, "Subendocardial infarction", (-1.6, 0.3, 0.4)),
    Code("5859", "N189", 158, "Chronic kidney disease, unspecified", (-1.2, 0.0, 0.6)),
    Code("496", "J449", 127, "Chronic airway obstruction", (-1.4, 0.2, 0.2)),
    Code("99859", "T814XXA", 238, "Other postoperative infection", (-1.5, 0.4, 0.0)),
    Code("4263", "I447", 105, "Left bundle branch block", (-2.0, 0.0, 0.3)),
    Code("25060", "E1140", 50, "Type II diabetes with neuropathy", (-1.7, 0.0, 0.7)),
    Code("2761", "E871", 55, "Hyposmolality or hyponatremia", (-1.0, 0.5, 0.4)),
    Code("5789", "K922", 153, "Hemorrhage of gastrointestinal tract", (-1.9, 0.4, 0.0)),
    Code("40390", "I129", 99, "Hypertensive chronic kidney disease", (-1.6, 0.0, 0.5)),
    Code("5715", "K7460", 151, "Cirrhosis of liver without alcohol", (-1.9, 0.5, 0.2)),
    Code("514", "J811", 133, "Pulmonary congestion and hypostasis", (-1.9, 0.4, 0.3)),
    Code("47874", "J386", 134, "Stenosis of larynx", (-2.2, 0.1, 0.0)),
    Code("5119", "J90", 130, "Pleural effusion", (-1.5, 0.6, 0.2)),
    Code("78551", "R570", 249, "Cardiogenic shock", (-1.9, 1.0, 0.4)),
    Code("2859", "D649", 59, "Anemia, unspecified", (-0.9, 0.3, 0.0)),
)

GROUPS = {9: "SYNTHETIC_dxref_2015.csv", 10: "SYNTHETIC_ccs_dx_icd10cm_2019_1.csv"}
"""The files of categories, by version of ICD."""

HEADERS = {
    9: "'ICD-9-CM CODE','CCS CATEGORY','CCS CATEGORY DESCRIPTION','ICD-9-CM CODE DESCRIPTION',"
    "'OPTIONAL CCS CATEGORY','OPTIONAL CCS CATEGORY DESCRIPTION'",
    10: "'ICD-10-CM CODE','CCS CATEGORY','ICD-10-CM CODE DESCRIPTION','CCS CATEGORY DESCRIPTION',"
    "'MULTI CCS LVL 1','MULTI CCS LVL 1 LABEL','MULTI CCS LVL 2','MULTI CCS LVL 2 LABEL'",
}


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


def write_groups(folder: Path, versions: Sequence[int]) -> None:
    """Writes the categories of the codes, and of no other, as HCUP lays its files out.

    Args:
        folder: Where to.
        versions: Of ICD, 9 and 10.
    """
    note = "Only the codes that `cm2 synthesize` draws; the whole files are HCUP's."
    nothing = "'     ','0    ','No DX','INVALID CODES IN USER DATA',' ',' '"
    for version in versions:
        lines = [HEADERS[version]]
        if version == 9:
            lines = [note, *lines, nothing]
            lines += [f"'{c.icd9:<5}','{c.ccs:<5}','','{c.title}',' ',' '" for c in CODES]
        else:
            lines += [f"'{c.icd10}','{c.ccs}',\"{c.title}\",\"\",'','','',''" for c in CODES]
        text = "\n".join(lines) + "\n"
        (folder / GROUPS[version]).write_text(text, encoding="utf-8", newline="\n")
