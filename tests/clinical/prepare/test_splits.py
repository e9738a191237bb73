"""Splits: every row once, no patient twice, the outcome spread evenly."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cm2.clinical.prepare import split
from cm2.clinical.prepare.splits import assign, read

RNG = np.random.default_rng(0)
PATIENTS = pd.Series(RNG.integers(0, 300, 500)).astype(str)
TARGET = pd.Series(RNG.random(500) < 0.1).astype(int)


@pytest.mark.parametrize("fractions", [(0.7, 0.15, 0.15), (0.8, 0.2)])
@pytest.mark.parametrize("target", [None, TARGET])
def test_each_patient_is_in_one_part(
    fractions: tuple[float, ...], target: pd.Series | None
) -> None:
    parts = split(PATIENTS, target, fractions, seed=1)
    assert sorted(np.concatenate(parts)) == list(range(500))
    patients = [set(PATIENTS.iloc[rows]) for rows in parts]
    assert sum(map(len, patients)) == PATIENTS.nunique()
    np.testing.assert_allclose([len(rows) / 500 for rows in parts], fractions, atol=0.03)


def test_the_outcome_is_spread_evenly() -> None:
    for rows in split(PATIENTS, TARGET, seed=1):
        assert abs(TARGET.iloc[rows].mean() - TARGET.mean()) < 0.03


def test_the_seed_decides() -> None:
    one, again, other = (split(PATIENTS, TARGET, seed=s)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_wrong_fractions_and_too_few_patients() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        split(PATIENTS, TARGET, (0.5, 0.2))
    with pytest.raises(ValueError, match="3 parts need as many patients"):
        split(pd.Series(["a", "a", "b"]))


def test_a_patient_stays_in_its_part_when_others_join() -> None:
    few, many = assign(range(50), seed=3), assign(range(5000), seed=3)
    assert few == {subject: many[subject] for subject in range(50)}
    shares = pd.Series(many).value_counts(normalize=True)
    # Four standard errors of a share of 0.7 among 5000.
    assert abs(shares["train"] - 0.7) < 4 * (0.7 * 0.3 / 5000) ** 0.5
    assert assign(range(5000), seed=4) != many


def test_parts_may_be_empty_and_must_be_three() -> None:
    assert set(assign(range(100), (1.0, 0.0, 0.0)).values()) == {"train"}
    with pytest.raises(ValueError, match="three fractions that sum to 1"):
        assign(range(3), (0.5, 0.5))


def test_a_split_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text("Subject_ID,split\n7,train\n8,test\n8,test\n")
    assert read(path) == {7: "train", 8: "test"}


def test_parts_may_have_the_names_of_others(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    names = ["val", "validate", "Valid", "tuning", "held_out", "training", "TEST"]
    rows = "".join(f"{k},{name}\n" for k, name in enumerate(names))
    path.write_text("subject_id,split\n" + rows)
    parts = ["validation"] * 4 + ["test", "train", "test"]
    assert read(path) == dict(enumerate(parts))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject,split\n7,train\n", r"lacks column\(s\) subject_id"),
        ("subject_id,split\n7,exam\n", "one of train, validation, test"),
        ("subject_id,split\nx7,train\n", "must be a whole number"),
        ("subject_id,split\n7,train\n7,test\n", "1 patients stand in two parts"),
        ("", "cannot be read"),
    ],
)
def test_a_wrong_file_of_splits_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_no_file_of_splits(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file of splits"):
        read(tmp_path / "splits.csv")
