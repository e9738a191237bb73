"""Columns to robust deviations, whatever a few extreme values do."""

import numpy as np
import pytest

from cm2.samples.inputs import Reader
from cm2.samples.scaling import REACH, RobustScaler
from laws import EXACT

ROWS = 200


def column(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    return {
        "normal": rng.normal(0.0, 2.0, ROWS),
        "sizes": rng.lognormal(0.0, 1.0, ROWS),
        "binary": (np.arange(ROWS) % 10 == 0).astype(float),
        "mostly zero": np.where(np.arange(ROWS) % 10 == 0, rng.exponential(5.0, ROWS), 0.0),
        "counts": rng.poisson(3.0, ROWS).astype(float),
    }[kind]


KINDS = ("normal", "sizes", "binary", "mostly zero", "counts")


def test_a_column_of_both_signs_is_standardised_once_its_far_values_are_drawn_in() -> None:
    x = column("normal")
    median = np.median(x)
    reach = 5 * np.median(np.abs(x - median))
    inside = x.clip(median - reach, median + reach)
    expected = ((x - inside.mean()) / inside.std()).clip(-REACH, REACH)
    np.testing.assert_allclose(RobustScaler().fit_transform(x[:, None])[:, 0], expected, **EXACT)


@pytest.mark.parametrize("kind", ["sizes", "counts", "mostly zero"])
def test_sizes_are_read_by_logarithms_in_units_of_their_median(kind: str) -> None:
    x = column(kind)
    found = RobustScaler().fit_transform(x[:, None])[:, 0]
    logs = np.log1p(x / np.median(x[x > 0]))
    inside = np.abs(found) < REACH
    # A straight line through two of its values gives all others.
    slope, start = np.polyfit(logs[inside], found[inside], 1)
    np.testing.assert_allclose(found[inside], start + slope * logs[inside], **EXACT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", [1e-6, 88.4, 1e9])
def test_units_do_not_matter(kind: str, unit: float) -> None:
    x = column(kind)[:, None]
    before, after = (RobustScaler().fit_transform(part) for part in (x, unit * x))
    np.testing.assert_allclose(before, after, **EXACT)


def test_columns_of_two_values_are_standardised() -> None:
    x = column("binary")[:, None]
    expected = (x - x.mean()) / x.std()
    np.testing.assert_allclose(RobustScaler().fit_transform(x), expected, **EXACT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("junk", [1e20, -1e20, 1e308])
def test_one_fill_value_flattens_no_other_row(kind: str, junk: float) -> None:
    clean = column(kind)[:, None]
    dirty = clean.copy()
    dirty[7] = junk
    before, after = (RobustScaler().fit_transform(x) for x in (clean, dirty))
    others = np.arange(ROWS) != 7
    assert np.isfinite(after).all()
    assert abs(after[7, 0]) == pytest.approx(REACH)
    # A far row lies at most 5 median distances from the median. Where the column varies all over,
    # that is 3.4 deviations, and the row adds 3.4^2 / 200 = .06 to a variance of 1; where one row
    # in ten differs, a distance is 1/.3 deviations, the mean .1 of one from the median, and it
    # adds (5.1/.3)^2 / 200 = 1.5.
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


@pytest.mark.parametrize("kind", KINDS)
def test_gaps_change_no_scale(kind: str) -> None:
    x = column(kind)[:, None]
    gaps = np.full((3 * ROWS, 1), np.nan)
    gaps[::3] = x
    found = RobustScaler().fit_transform(gaps)
    np.testing.assert_allclose(found[::3], RobustScaler().fit_transform(x), **EXACT)
    assert np.isnan(found[1::3]).all()
    empty = RobustScaler().fit(np.full((4, 1), np.nan))
    assert (empty.center_, empty.scale_) == (0.0, np.inf)


THIRD = 0.1 + 0.2  # not quite .3


@pytest.mark.parametrize(
    "seen",
    [[5.0, 5.0, 5.0, 5.0], [np.nan] * 4, [0.0, 0.0, np.nan, 0.0], [THIRD, 0.3, THIRD, 0.3]],
)
@pytest.mark.parametrize("later", [7.0, -1.0, 1e308, -1e308, np.nan])
def test_trap_a_column_that_never_varied_moves_no_later_row(
    seen: list[float], later: float
) -> None:
    """In a table and in series: no weight that reads the column was trained."""
    rng = np.random.default_rng(0)
    other = rng.normal(size=4)
    table = np.stack([other, seen], axis=1)
    new = table.copy()
    new[:, 1] = later
    reader = Reader()
    reader.fit({"labs": table, "vitals": [np.tile(row, (2, 1)) for row in table]})
    steady, found = (
        reader.blocks({"labs": part, "vitals": [np.tile(row, (2, 1)) for row in part]})
        for part in (table, new)
    )
    np.testing.assert_array_equal(found.values["labs"][:, 1], 0.0)
    series = [blocks.inputs["vitals"].take(np.arange(4))[0] for blocks in (steady, found)]
    np.testing.assert_array_equal(series[1][..., 1], 0.0)
    np.testing.assert_array_equal(series[1][..., 0], series[0][..., 0])
    # Of the six summaries all but the number of values, which may vary where there are gaps.
    np.testing.assert_array_equal(found.values["vitals"][:, 1:10:2], 0.0)


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


def test_a_reader_scales_by_what_was_seen_and_flags_gaps() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 2))
    gaps = np.concatenate([x, x])
    gaps[ROWS:, 0] = np.nan
    full, found = (Reader().fit_blocks({"lab": part}).values["lab"] for part in (x, gaps))
    np.testing.assert_allclose(found[:ROWS, :2], full, atol=1e-6)  # blocks are float32
    assert (found[ROWS:, 0] == 0).all()
    np.testing.assert_allclose(found[:, 2], np.repeat([-1.0, 1.0], ROWS), atol=1e-6)


def test_a_row_of_weight_two_is_as_two_rows() -> None:
    rng = np.random.default_rng(0)
    X = np.stack([rng.normal(size=41), rng.lognormal(0, 2, 41), rng.integers(0, 3, 41)], axis=1)
    X[::7, 0] = np.nan
    weight = rng.integers(0, 4, 41)
    repeated = RobustScaler().fit(np.repeat(X, weight, axis=0))
    for unit in (1.0, 0.1, 1e-3):  # sums of tenths are rounded, and halves must still be found
        weighted = RobustScaler().fit(X, sample_weight=unit * weight)
        for name in ("unit_", "center_", "scale_"):
            np.testing.assert_allclose(
                getattr(weighted, name), getattr(repeated, name), rtol=1e-9, err_msg=name
            )


def test_without_weights_the_middle_is_the_median() -> None:
    rng = np.random.default_rng(1)
    for rows in (1, 2, 9, 10):
        x = rng.normal(size=(rows, 1))
        unit = RobustScaler().fit(np.exp(x)).unit_
        assert unit[0] == np.median(np.exp(x)), rows
