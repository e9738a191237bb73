"""DeLong's test against its definition, patients against rows, and a test that is none."""

import numpy as np
import pytest

from cm2.evaluation import bootstrap, metrics, significance

RNG = np.random.default_rng(3)
TARGET = RNG.random(80) < 0.3
FIRST, SECOND = (np.round(s * TARGET + RNG.normal(size=80), 1) for s in (1.2, 0.7))


def by_pairs(target: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Difference and error from all pairs of a positive and a negative, as defined in 1988."""
    wins = [
        (s[target][:, None] > s[~target]) + 0.5 * (s[target][:, None] == s[~target])
        for s in (first, second)
    ]
    gap = wins[0] - wins[1]
    rows, columns = gap.mean(axis=1), gap.mean(axis=0)
    variance = rows.var(ddof=1) / len(rows) + columns.var(ddof=1) / len(columns)
    return gap.mean(), np.sqrt(variance)


def test_it_is_delongs_with_ties() -> None:
    found = significance.delong(TARGET, FIRST[None], SECOND[None])
    assert found[:2] == pytest.approx(by_pairs(TARGET, FIRST, SECOND), rel=1e-12)
    areas = [metrics.auroc(TARGET, s, np.ones((1, 80)))[0] for s in (FIRST, SECOND)]
    assert found.difference == pytest.approx(areas[0] - areas[1], rel=1e-12)
    back = significance.delong(TARGET, SECOND[None], FIRST[None])
    assert (back.difference, back.p) == pytest.approx((-found.difference, found.p))
    assert np.isnan(significance.delong(TARGET, FIRST[None], FIRST[None]).p)


def test_patients_with_the_same_row_twice_are_no_more_patients() -> None:
    once = significance.delong(TARGET, FIRST[None], SECOND[None])
    twice = [np.repeat(part, 2) for part in (TARGET, FIRST, SECOND)]
    groups = np.repeat(np.arange(80), 2)
    by_patient = significance.delong(twice[0], twice[1][None], twice[2][None], groups)
    assert by_patient == pytest.approx(once, rel=1e-9)
    by_row = significance.delong(twice[0], twice[1][None], twice[2][None])
    assert by_row.standard_error < 0.75 * once.standard_error


def test_it_agrees_with_the_paired_bootstrap() -> None:
    """Also over runs, and where patients have rows of both outcomes."""
    groups = np.arange(80) // 2
    first, second = (s + RNG.normal(size=(2, 80)) for s in (FIRST, SECOND))
    found = significance.delong(TARGET, first, second, groups)
    counts = bootstrap.draws(40, 2000)[:, groups].astype(float)
    each = [np.mean([metrics.auroc(TARGET, s, counts) for s in m], axis=0) for m in (first, second)]
    # The bootstrap's error has one of 1.6% from 2,000 draws, and the two differ by some 1 / 40.
    assert found.standard_error == pytest.approx((each[0] - each[1])[1:].std(), rel=0.1)


def test_rows_of_both_outcomes_of_a_patient_go_together() -> None:
    """What a patient's rows share cancels between outcomes: the jackknife over patients sees it."""
    rng, target = np.random.default_rng(0), np.arange(120) % 2 == 0
    groups = np.arange(120) // 2
    shared = np.repeat(rng.normal(size=60), 2)
    first, second = (target + w * shared + rng.normal(size=120) for w in (2.0, 0.0))
    found = significance.delong(target, first[None], second[None], groups)
    left = [
        by_pairs(*(part[groups != one] for part in (target, first, second))) for one in range(60)
    ]
    jackknife = np.std([gap for gap, _ in left]) * np.sqrt(59)
    assert found.standard_error == pytest.approx(jackknife, rel=0.02)
    alone = significance.delong(target, first[None], second[None]).standard_error
    assert alone > 1.2 * found.standard_error


def test_few_patients_have_no_p() -> None:
    """All rows of an outcome of one patient, or none at all."""
    found = significance.delong(TARGET, FIRST[None], SECOND[None], TARGET.astype(int))
    assert found.difference == pytest.approx(by_pairs(TARGET, FIRST, SECOND)[0])
    assert np.isnan(found[1:]).all()
    assert np.isnan(significance.delong(TARGET & False, FIRST[None], SECOND[None])).all()


def test_trap_a_t_test_over_replicates_tells_of_their_number() -> None:
    """Two scores that differ by chance: ever surer with more replicates, as the tests are not."""
    target = np.arange(200) % 2 == 0
    rng = np.random.default_rng(1)
    first, second = (target + 2 * rng.normal(size=200) for _ in range(2))
    p = {}
    for replicates in (100, 1000, 4000):
        counts = bootstrap.draws(200, replicates).astype(float)
        areas = [metrics.auroc(target, score, counts) for score in (first, second)]
        p[replicates] = significance.over_replicates(*(area[1:] for area in areas))
        assert bootstrap.p_value((areas[0] - areas[1])[1:]) > 0.05
    assert p[4000] < p[1000] < p[100]
    assert p[1000] < 1e-6
    assert significance.delong(target, first[None], second[None]).p > 0.05
