"""Identifiers are whole numbers of 64 bits, to the last digit, in every small file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cm2.clinical.prepare import lists, noted, splits
from cm2.clinical.prepare.errors import TableError
from cm2.clinical.prepare.identifiers import whole_numbers

LARGE = 2**53 + 1
"""The first whole number that a float does not hold."""


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (str(LARGE), LARGE),
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        ("0e25", 0),
        (f"{LARGE}.0", LARGE),
        (f" +{LARGE} ", LARGE),
        ("9007199254740993e0", LARGE),
        ("3.0e5", 300_000),
        ("-12.", -12),
        ("0", 0),
        (str(2**63), None),
        ("12.5", None),
        ("1.5e0", None),
        ("1e19", None),
        ("1e999", None),
        ("1e999999999", None),
        ("1e-999", None),
        ("0x1F", None),
        ("1_000", None),
        ("\N{SUPERSCRIPT TWO}", None),
        ("\N{ARABIC-INDIC DIGIT ONE}", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        (None, None),
    ],
)
def test_texts_are_read_exactly_or_are_missing(text: str | None, number: int | None) -> None:
    [found] = whole_numbers(pd.Series([text, "1"]))[:1]
    assert (None if pd.isna(found) else found) == number


def test_numbers_stay_as_they_are() -> None:
    for values in (np.array([3, LARGE]), np.array([3, LARGE], np.uint64), pd.array([3, LARGE])):
        assert whole_numbers(pd.Series(values)).tolist() == [3, LARGE]
    assert whole_numbers(pd.Series([3.0, np.nan, 0.5])).isna().tolist() == [False, True, True]
    assert whole_numbers(pd.Series([], dtype=str)).empty


def test_lists_of_patients_and_stays_are_exact_and_refuse_fractions(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"

    def write(column: str, *values: object, rest: str = "") -> Path:
        path.write_text(f"{column}\n" + "".join(f"{value}{rest}\n" for value in values))
        return path

    split = write("subject_id,split", LARGE, LARGE - 1, rest=",test")
    frame = splits.texts(split, "parts")
    assert set(splits.checked(frame, split)) == {LARGE, LARGE - 1}
    frame.loc[0, "subject_id"] = "1.5"
    with pytest.raises(TableError, match="subject_id must be a whole number"):
        splits.checked(frame, split)
    assert lists._of_stays(write("subject_id", LARGE, LARGE - 1)) == {LARGE, LARGE - 1}
    with pytest.raises(TableError, match="1 stays have no number of a patient"):
        lists._of_stays(write("subject_id", "1.5", 3))
    assert noted.read(write("stay_id", LARGE, "3.0e5")) == [300_000, LARGE]
    with pytest.raises(TableError, match="must be a whole number in every row"):
        noted.read(write("stay_id", "1.5", 3))
