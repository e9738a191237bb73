"""Columns to robust deviations, whatever a few extreme values do."""

import numpy as np
import pytest

from cm2.inputs import Reader
from cm2.scaling import REACH, RobustScaler
from laws import EXACT

ROWS = 200


def column(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    return {
        "normal": rng.normal(3.0, 2.0, ROWS),
        "binary": (np.arange(ROWS) % 10 == 0).astype(float),
        "mostly zero": np.where(np.arange(ROWS) % 10 == 0, rng.exponential(5.0, ROWS), 0.0),
        "counts": rng.poisson(3.0, ROWS).astype(float),
    }[kind]


KINDS = ("normal", "binary", "mostly zero", "counts")


@pytest.mark.parametrize("kind", ["normal", "counts"])
def test_columns_with_quartiles_are_scaled_by_them(kind: str) -> None:
    x = column(kind)[:, None]
    low, center, high = np.percentile(x, [25, 50, 75])
    expected = ((x - center) / ((high - low) / 1.349)).clip(-REACH, REACH)
    np.testing.assert_allclose(RobustScaler().fit(x).transform(x), expected, **EXACT)


def test_columns_of_two_values_are_standardised() -> None:
    x = column("binary")[:, None]
    expected = (x - x.mean()) / x.std()
    np.testing.assert_allclose(RobustScaler().fit(x).transform(x), expected, **EXACT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("junk", [1e20, -1e20, 1e308])
def test_one_fill_value_flattens_no_other_row(kind: str, junk: float) -> None:
    clean = column(kind)[:, None]
    dirty = clean.copy()
    dirty[7] = junk
    before, after = (RobustScaler().fit(x).transform(x) for x in (clean, dirty))
    others = np.arange(ROWS) != 7
    assert np.isfinite(after).all()
    assert abs(after[7, 0]) == pytest.approx(REACH)
    # Without quartiles, a far row lies at most 5.1 median distances from the mean; here such a
    # distance is at most 1/.3 standard deviations (binary, one in ten), so the row adds at most
    # (5.1/.3)^2 / 200 = 1.5 to a variance of 1. Quartiles of 200 rows move by less.
    ratio = before[others].std() / after[others].std()
    assert 0.95 < ratio < np.sqrt(2.5)
    assert np.corrcoef(before[others, 0], after[others, 0])[0, 1] > 0.99


def test_later_values_are_drawn_in_and_constants_say_nothing() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(size=ROWS), np.full(ROWS, 0.1)], axis=1)
    scaler = RobustScaler().fit(x)
    np.testing.assert_allclose(scaler.transform(x)[:, 1], 0.0, atol=1e-12)
    later = scaler.transform(np.array([[1e308, 0.1], [-1e308, 0.1]]))
    np.testing.assert_allclose(later[:, 0], [REACH, -REACH])


def test_a_reader_clips_only_what_lies_far_out() -> None:
    rng = np.random.default_rng(0)
    X = {"ehr": rng.normal(size=(ROWS, 3)), "cxr": rng.normal(size=(ROWS, 2))}
    clean = Reader().fit_blocks(X).values
    X["ehr"][5, 1] = 1e20
    dirty = Reader().fit_blocks(X).values
    assert dirty["ehr"][5, 1] == pytest.approx(REACH)
    for other in (0, 2):
        np.testing.assert_array_equal(clean["ehr"][:, other], dirty["ehr"][:, other])
    np.testing.assert_array_equal(clean["cxr"], dirty["cxr"])
