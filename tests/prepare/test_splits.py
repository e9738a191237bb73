"""Splits: every row once, no patient twice, the outcome spread evenly."""

import numpy as np
import pandas as pd
import pytest

from cm2.prepare import split

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
