"""Splits in which no patient stands on two sides.

Three ways: stratified by the outcome (folds of scikit-learn's StratifiedGroupKFold, dealt out to
the parts by their fractions); by a hash of the patient's identifier, so that a patient stays in a
part however many others join; or read from a file (`lists` reads published ones).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cm2.clinical.prepare.errors import MissingError, TableError
from cm2.clinical.prepare.identifiers import whole_numbers
from cm2.core.layout import SPLITS

__all__ = ["Given", "assign", "checked", "read", "split", "texts"]

NAMES = {
    **{part: part for part in SPLITS},
    "training": "train",
    **dict.fromkeys(("val", "valid", "validate", "dev", "tuning"), "validation"),
    "held_out": "test",
}
"""What the parts are called in files of others, MIMIC-CXR and MEDS among them."""

FOLDS = 20


class Given(NamedTuple):
    """Parts that come from elsewhere.

    Attributes:
        parts: The part of each patient.
        rest: The part of patients who are not among them; None where these are left out.
    """

    parts: Mapping[int, str]
    rest: str | None = None

    def of(self, subjects: Sequence[int]) -> list[str]:
        """Returns the part of each patient.

        Args:
            subjects: Identifiers of patients.

        Raises:
            TableError: Not one of them is known.
        """
        if self.parts.keys().isdisjoint(subjects):
            raise TableError(
                f"none of the {len(set(subjects))} patients that are left is in the lists of"
                " splits; they are of other data"
            )
        return [self.parts.get(subject) or str(self.rest) for subject in subjects]


def split(
    patients: pd.Series,
    target: pd.Series | None = None,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    *,
    seed: int = 0,
) -> tuple[NDArray[np.int64], ...]:
    """Deals rows out to parts such that each patient is in one part.

    Args:
        patients: The patient of each row.
        target: Classes to be spread evenly over the parts; None for no stratification.
        fractions: Share of each part, to a twentieth; they sum to one.
        seed: Of the shuffle.

    Returns:
        For each fraction the sorted positions of its rows.
    """
    if abs(sum(fractions) - 1) > 1e-6 or min(fractions) <= 0:
        raise ValueError(f"fractions must be positive and sum to 1, got {tuple(fractions)}")
    labels = np.zeros(len(patients), dtype=int) if target is None else np.asarray(target)
    rarest = int(np.unique(labels, return_counts=True)[1].min()) if len(labels) else 0
    folds = min(FOLDS, patients.nunique(), rarest)
    if folds < len(fractions):
        raise ValueError(
            f"{len(fractions)} parts need as many patients and rows of each class, got"
            f" {patients.nunique()} patients and {rarest} rows of the rarest class"
        )
    from sklearn.model_selection import StratifiedGroupKFold

    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = [rows for _, rows in dealer.split(labels, labels, np.asarray(patients))]
    ends = _ends(fractions, folds)
    return tuple(
        np.sort(np.concatenate(parts[start:end]))
        for start, end in zip([0, *ends[:-1]], ends, strict=True)
    )


def assign(
    subjects: Iterable[int], fractions: Sequence[float] = (0.7, 0.15, 0.15), *, seed: int = 0
) -> dict[int, str]:
    """Puts each patient into a part by a hash of identifier and seed.

    Args:
        subjects: Identifiers of patients.
        fractions: Expected shares of training, validation and test; they sum to one.
        seed: Another seed gives another split.

    Returns:
        ``"train"``, ``"validation"`` or ``"test"`` for each patient.

    Example:
        >>> assign([1, 2, 3], seed=0) == {s: assign([s], seed=0)[s] for s in (1, 2, 3)}
        True
    """
    check_fractions(fractions)
    ends = np.cumsum(fractions)[:-1]
    return {
        int(subject): SPLITS[int(np.searchsorted(ends, _uniform(subject, seed), side="right"))]
        for subject in subjects
    }


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuses shares that are not three or do not sum to one.

    Args:
        fractions: Shares of training, validation and test.
    """
    if len(fractions) != len(SPLITS) or abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0:
        raise TableError(
            f"three fractions that sum to 1 are wanted (train, validation, test), got"
            f" {tuple(fractions)}"
        )


def _uniform(subject: int, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}/{int(subject)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def read(path: Path) -> dict[int, str]:
    """Reads a split from a CSV file with the columns ``subject_id`` and ``split``.

    A part may also be called as in `NAMES`, in any case of letters.

    Raises:
        MissingError: There is no such file.
        TableError: Columns are missing, a part is unknown, or a patient is in two parts.
    """
    frame = texts(path, "splits")
    if missing := [c for c in ("subject_id", "split") if c not in frame.columns]:
        raise TableError(f"{path}: a file of splits lacks column(s) {', '.join(missing)}")
    return checked(frame, path)


def texts(path: Path, what: str) -> pd.DataFrame:
    """Reads a small CSV file as texts, under the names of its columns in lower case.

    Args:
        path: The file.
        what: What it is a file of, for the message.

    Raises:
        MissingError: There is no such file.
        TableError: It is not made of comma-separated values.
    """
    if not path.is_file():
        raise MissingError(f"{path}: no such file of {what}")
    try:
        frame = pd.read_csv(path, dtype=str, skipinitialspace=True)
    except (ValueError, UnicodeError):
        raise TableError(f"{path}: cannot be read as comma-separated values") from None
    frame.columns = [str(column).strip().lower() for column in frame.columns]
    return frame


def checked(frame: pd.DataFrame, path: Path) -> dict[int, str]:
    """Returns the part of each patient, from rows of ``subject_id`` and ``split``.

    Args:
        frame: The rows; a part may be called as in `NAMES`, in any case of letters.
        path: Where they are from.

    Raises:
        TableError: A part is unknown, or a patient is in two parts.
    """
    subjects = whole_numbers(frame["subject_id"])
    parts = frame["split"].str.strip().str.lower().map(NAMES)
    if not (subjects.notna() & parts.notna()).all():
        raise TableError(
            f"{path}: subject_id must be a whole number and split one of {', '.join(NAMES)}"
            " in every row"
        )
    pairs = set(zip(subjects.astype("int64"), parts, strict=True))
    found = {int(subject): str(part) for subject, part in pairs}
    if len(found) < len(pairs):
        raise TableError(f"{path}: {len(pairs) - len(found)} patients stand in two parts")
    return found


def _ends(fractions: Sequence[float], folds: int) -> list[int]:
    """The fold after each part's last, with at least one fold a part."""
    ends: list[int] = []
    for part, share in enumerate(np.cumsum(fractions)):
        least = (ends[-1] if ends else 0) + 1
        most = folds - (len(fractions) - 1 - part)
        ends.append(min(max(round(float(share) * folds), least), most))
    return ends
