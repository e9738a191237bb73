"""Patterns remove what they say, from the rows that they say, and the same for all who ask."""

import numpy as np
import pytest

from cm2.benchmark.patterns import OBSERVED, RULES, Pattern, apply
from cm2.samples.worlds import make_world, remove


def gone(X: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([np.isnan(block).all(axis=1) for block in X.values()], axis=1)


@pytest.fixture(scope="module")
def world() -> dict[str, np.ndarray]:
    made, _ = make_world("shared", 4000, 3)
    return remove(made, 0.1, 7)


@pytest.mark.parametrize("rule", ["random", "seen", "unseen"])
@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7])
def test_the_rate_is_the_share_of_what_may_go(rule, rate, world):
    X = world
    found = Pattern(rule, rate).removed_from(X, 0)
    before, after = gone(X), gone(found)
    assert not after.all(axis=1).any(), "something of each row stays"
    assert (after >= before).all(), "what was missing stays missing"
    may = ~before
    if rule == "seen":
        may[:, 0] = False  # the first modality tells what goes
    share = (after & ~before)[may].mean()
    # One of four that would all go is kept, which takes at most a quarter of rate^4.
    assert share == pytest.approx(rate, abs=0.02 + rate**4 / 4)
    for name, block in found.items():
        kept = ~np.isnan(block).all(axis=1)
        np.testing.assert_array_equal(block[kept], X[name][kept])


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_as_many_sensors_of_each_row_go_and_never_the_first(rate):
    X = {f"m{k}": np.ones((500, 1)) for k in range(37)}
    found = gone(Pattern("sensors", rate).removed_from(X, 0))
    assert not found[:, 0].any()
    assert set(found.sum(axis=1)) == {round(36 * rate)}
    # Each goes equally often: four standard errors of a share of 500 rows.
    assert found[:, 1:].mean(axis=0) == pytest.approx(rate, abs=4 * np.sqrt(0.25 / 500))


def test_whole_modalities_are_gone_from_all_rows():
    X, _ = make_world("shared", 500, 3)
    after = gone(Pattern("whole", 0.5).removed_from(X, 1))
    assert after.all(axis=0).sum() == 2
    assert not after[:, ~after.all(axis=0)].any()
    other = gone(Pattern("whole", 0.5).removed_from(X, 2))
    assert not np.array_equal(after, other), "another seed, other modalities"
    for seed in range(4):
        both, alone = Pattern("whole", 0.5, "both"), Pattern("whole", 0.5, "train")
        learned = gone(apply(both, "train", X, seed))
        np.testing.assert_array_equal(gone(apply(both, "test", X, seed)), learned)
        np.testing.assert_array_equal(gone(apply(alone, "train", X, seed)), learned)


def test_rules_look_at_what_they_say():
    X, _ = make_world("independent", 4000, 0)
    mean = {name: block[:, 0] for name, block in X.items()}  # t_m itself, with a little noise
    seen = gone(Pattern("seen", 0.5).removed_from(X, 0))
    unseen = gone(Pattern("unseen", 0.5).removed_from(X, 0))

    def apart(removed: np.ndarray, values: np.ndarray) -> float:
        return float(abs(np.corrcoef(removed, values)[0, 1]))

    # The first modality's level decides; four standard errors of no correlation are .063.
    assert not seen[:, 0].any()
    assert apart(seen[:, 1], mean["a"]) > 0.3
    assert apart(seen[:, 1], mean["a"]) > apart(seen[:, 1], mean["b"]) + 0.2
    assert apart(unseen[:, 1], mean["b"]) > 0.3
    assert apart(unseen[:, 1], mean["a"]) < 0.15


@pytest.mark.filterwarnings("error")
def test_columns_without_a_value_tell_nothing():
    rng = np.random.default_rng(0)
    X = {name: rng.normal(size=(200, 3)) for name in ("a", "b")}
    empty = {name: np.hstack([block, np.full((200, 1), np.nan)]) for name, block in X.items()}
    for rule in RULES:
        plain, more = (gone(Pattern(rule, 0.5).removed_from(x, 0)) for x in (X, empty))
        np.testing.assert_array_equal(plain, more)


def test_only_the_rows_that_are_meant_lose_something(world):
    X = world
    before = gone(X)
    for where, changed in (("test", ["test"]), ("train", ["train"]), ("both", ["train", "test"])):
        pattern = Pattern("random", 0.5, where)
        for place in ("train", "test"):
            after = gone(apply(pattern, place, X, 0))
            assert np.array_equal(after, before) == (place not in changed)
    both = Pattern("random", 0.5, "both")
    ours, theirs = (gone(apply(both, place, X, 0)) for place in ("train", "test"))
    assert not np.array_equal(ours, theirs), "not the same draw for both"
    np.testing.assert_array_equal(gone(apply(both, "test", X, 0)), theirs)


def test_what_removes_the_same_from_training_rows_is_one_pattern_there():
    for rule in RULES:
        assert Pattern(rule, 0.5).at("train") == OBSERVED
        assert Pattern(rule, 0.5, "train").at("test") == OBSERVED
        assert Pattern(rule, 0.5, "both").at("train") == Pattern(rule, 0.5, "train").at("train")
    assert Pattern("random", 0.5, "both").at("train") != Pattern("random", 0.3, "both").at("train")


def test_names_and_refusals(world):
    assert OBSERVED.name == "as observed"
    assert Pattern("random", 0.3).name == "30% at random, test only"
    assert Pattern("random", 0.125).name != Pattern("random", 0.12).name
    with pytest.raises(ValueError, match=r"rate should be in \[0, 1\), got 1"):
        Pattern("random", 1.0).removed_from(world, 0)
    with pytest.raises(ValueError, match="rule should be one of"):
        Pattern("gone", 0.5).removed_from(world, 0)
