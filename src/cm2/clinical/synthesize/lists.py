"""Lists of who is in the test set and in validation, as the MIMIC-III benchmark and MedFuse do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.random import Generator

from cm2.clinical.synthesize.faults import Faults, pick
from cm2.clinical.synthesize.files import mark

__all__ = ["write"]

TEST, VALIDATION = 0.15, 0.18


def write(
    folder: Path, subjects: np.ndarray, faults: Faults, rng: Generator, *, ending: str = ""
) -> None:
    """Writes ``testset.csv`` and ``valset.csv``: lines of a patient and 0 or 1, without a header.

    The second lists those who are not in the test set; some patients are in neither.

    Args:
        folder: To be made.
        subjects: All patients.
        faults: Say how many are in no list.
        rng: Source of randomness.
        ending: Of the files' names.
    """
    mark(folder)
    listed = rng.permutation(subjects[~pick(len(subjects), faults.unlisted_patient, rng)])
    test = rng.random(len(listed)) < TEST
    rest = listed[~test]
    _write(folder / f"testset{ending}.csv", listed, test)
    _write(folder / f"valset{ending}.csv", rest, rng.random(len(rest)) < VALIDATION)


def _write(path: Path, subjects: np.ndarray, flags: np.ndarray) -> None:
    lines = (f"{subject},{int(flag)}\n" for subject, flag in zip(subjects, flags, strict=True))
    path.write_text("".join(lines), encoding="utf-8")
