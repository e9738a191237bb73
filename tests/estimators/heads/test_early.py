"""Early fusion: it never sees what it is judged by, and holds where modalities are gone."""

import numpy as np
import pytest

from cm2.estimators.heads import Boosting, Linear, early
from cm2.estimators.heads.base import stratified_folds
from cm2.estimators.heads.early import Early
from cm2.estimators.tuning import Seen
from cm2.samples.inputs import Blocks

BOTH = pytest.mark.parametrize("head", [Linear(), Boosting()], ids=["linear", "boosting"])


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested does not depend on how many there are."""
    monkeypatch.setattr(early, "ROUNDS", (40, 40))


def world(n: int = 400, labels: int = 2, seed: int = 0) -> tuple[Blocks, np.ndarray]:
    """Two modalities that both tell of the class, of which a quarter is missing."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % labels
    present = rng.random((n, 2)) < 0.75
    present[~present.any(axis=1)] = True
    values = {}
    for m, name in enumerate("ab"):
        x = np.eye(labels)[y] + rng.standard_normal((n, labels))
        values[name] = np.where(present[:, [m]], x, 0).astype(np.float32)
    return Blocks(values, present), y


def loss(log_proba: np.ndarray, y: np.ndarray) -> float:
    return float(-log_proba[np.arange(len(y)), y].mean())


@BOTH
def test_out_of_fold_predictions_do_not_see_the_fold(head: Early) -> None:
    """The labels of a fold may turn without a change of what is said of it."""
    blocks, y = world()
    folds = stratified_folds(y, 2, 0)
    views = [np.array([True, False]) & blocks.present]
    first = head.cross_fit(blocks, y, None, folds, None, views)
    assert first.shape == (2, 400, 2)
    np.testing.assert_allclose(np.exp(first).sum(axis=2), 1, atol=1e-6)
    turned = head.cross_fit(blocks, np.where(folds == 0, 1 - y, y), None, folds, None, views)
    setting = head.setting_
    head.cross_fit(blocks, y, None, folds)
    if setting == head.setting_:
        np.testing.assert_array_equal(first[:, folds == 0], turned[:, folds == 0])
    assert not np.allclose(first[:, folds == 1], turned[:, folds == 1])


@BOTH
def test_what_stands_in_absent_rows_changes_nothing(head: Early) -> None:
    blocks, y = world()
    head.fit(blocks, y)
    spoilt = {
        name: np.where(blocks.present[:, [m]], values, 99).astype(np.float32)
        for m, (name, values) in enumerate(blocks.values.items())
    }
    np.testing.assert_array_equal(
        head.predict_log_proba(blocks), head.predict_log_proba(blocks._replace(values=spoilt))
    )


@BOTH
def test_it_holds_where_modalities_go_missing(head: Early, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learned from whole rows alone, it would be surer than it should of what is left."""
    rng = np.random.default_rng(0)
    y = np.arange(800) % 2
    shared = rng.standard_normal((800, 1))
    x = {
        m: (y[:, None] + shared * s + 0.3 * rng.standard_normal((800, 1)))
        for m, s in (("a", 1.0), ("b", -1.0))
    }
    values = {m: one.astype(np.float32) for m, one in x.items()}
    whole = Blocks(values, np.ones((800, 2), bool))
    train, test = np.arange(400), np.arange(400, 800)
    one = whole.take(test).hidden(np.tile([True, False], (400, 1)))
    taught = loss(head.fit(whole.take(train), y[train]).predict_log_proba(one), y[test])
    monkeypatch.setattr(early, "COPIES", (1, 1))
    whole_rows = loss(head.fit(whole.take(train), y[train]).predict_log_proba(one), y[test])
    assert taught < whole_rows - 0.05
    assert taught < np.log(2)


def test_boosting_finds_what_two_modalities_tell_together() -> None:
    rng = np.random.default_rng(0)
    values = {m: rng.standard_normal((600, 1)).astype(np.float32) for m in "ab"}
    y = (values["a"] * values["b"] > 0).astype(int)[:, 0]
    blocks = Blocks(values, np.ones((600, 2), bool))
    train, test = np.arange(400), np.arange(400, 600)
    losses = [
        loss(head.fit(blocks.take(train), y[train]).predict_log_proba(blocks.take(test)), y[test])
        for head in (Boosting(), Linear())
    ]
    assert losses[0] < 0.6 < losses[1]


@BOTH
def test_a_row_of_weight_zero_is_hardly_there(head: Early) -> None:
    """But for where trees may cut, and for what is hidden of the others."""
    blocks, y = world(300, labels=3)
    turned, weight = y.copy(), np.ones(300)
    turned[::3], weight[::3] = (y[::3] + 1) % 3, 0
    heavy = head.fit(blocks, turned, weight).predict_log_proba(blocks)
    assert heavy.shape == (300, 3)
    assert loss(heavy, y) < loss(head.fit(blocks, turned).predict_log_proba(blocks), y)


@BOTH
def test_a_class_that_a_fold_s_training_rows_lack(head: Early) -> None:
    blocks, y = world(60)
    y = y.copy()
    y[0] = 2
    held_out = head.cross_fit(blocks, y, None, np.arange(60) % 5)
    assert held_out.shape == (1, 60, 3)
    assert np.isfinite(held_out).all()
    with pytest.raises(ValueError, match="rows of two classes outside some fold"):
        head.cross_fit(blocks, np.arange(60) // 30, None, np.arange(60) // 30)


def test_copies_are_fewer_where_rows_are_many() -> None:
    few, many = (
        Blocks({name: np.zeros((n, 1), np.float32) for name in "ab"}, np.ones((n, 2), bool))
        for n in (100, 20_000)
    )
    head = Linear()
    masks = head._masks(few)
    assert len(masks) == early.COPIES[1]
    assert masks[0].all(), "the rows as they are"
    shares = [1 - mask.mean() for mask in masks]
    assert shares == sorted(shares)
    assert len(head._masks(many)) == early.COPIES[0]


def test_rounds_are_fewer_and_steps_larger_where_data_are_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(early, "ROUNDS", (8, 16))
    small, large = Boosting(), Boosting()
    blocks, y = world(200)
    small.fit(blocks, y)
    monkeypatch.setattr(early, "CELLS", 200 * 7 * 4 / 2)
    large.fit(blocks, y)
    assert (small.rounds_, large.rounds_) == (16, 8)
    assert (small.model_.max_bins, large.model_.max_bins) == early.BINS
    rates = [head.model_.learning_rate for head in (small, large)]
    assert rates[1] == pytest.approx(2 * rates[0])
    assert len(large._masks(blocks)) == 7
    huge = Boosting()
    monkeypatch.setattr(early, "CELLS", 200 * 4 * 5 / 4)
    huge.fit(blocks, y)
    assert len(huge._masks(blocks)) == 5


@pytest.mark.parametrize("rows", [400, 400_000])
@pytest.mark.parametrize("weighing", ["alike", "nothing", "little"])
def test_columns_that_scikit_learn_cannot_bin_part_no_rows(
    rows: int, weighing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It bins 200,000 rows of more, drawn by weight with replacement, and none of no weight."""
    monkeypatch.setattr(early, "ROUNDS", (1, 1))
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, rows)
    x = (rng.standard_normal((rows, 2)) + y[:, None]).astype(np.float32)
    here = np.arange(rows) % (rows // 40) == 1
    if weighing == "alike":
        here = np.arange(rows) == 1
    x[~here, 1] = np.nan
    light = {"alike": 1.0, "nothing": 0.0, "little": 0.01}[weighing]
    weight = np.where(here, light, 1.0)
    for seed in range(3):
        head = Boosting(random_state=seed)
        head.prior_, head.rounds_, head.bins_ = np.array([0.5, 0.5]), 1, 63
        fitted = head._fitted(1.0, early.Part(x, y, weight))
        assert np.isfinite(fitted.predict_proba(x[:9])).all()
        keeps = Seen(binned=True).fit(x, y, weight).transform(x).shape[1]
        assert keeps == 1 + (rows == 400 and weighing != "nothing")
