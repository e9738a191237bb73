"""The pool: its optimum, its limits, and that it is honest about what it has seen."""

from __future__ import annotations

from typing import Self

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import log_softmax
from sklearn.base import clone

from cm2.estimators.heads import Experts, Head, Pool
from cm2.estimators.heads.base import stratified_folds
from cm2.estimators.heads.pool import fit_weights, pool
from cm2.samples.inputs import Blocks


class Reader(Head):
    """Reads the log odds off a column of one modality; it learns only who it was fitted on."""

    def __init__(self, modality: str = "good", factor: float = 1.0) -> None:
        self.modality = modality
        self.factor = factor

    def fit(
        self,
        blocks: Blocks,
        y: np.ndarray,
        sample_weight: np.ndarray | None = None,
        groups: np.ndarray | None = None,
    ) -> Self:
        self.rows_ = set(blocks.values["row"][:, 0].astype(int))
        return self

    def predict_log_proba(self, blocks: Blocks) -> np.ndarray:
        odds = self.factor * blocks.values[self.modality][:, 0].astype(float)
        return log_softmax(np.stack([np.zeros_like(odds), odds], axis=1), axis=1)


class Memory(Reader):
    """Certain of each row that it was fitted on: right in sample, silent elsewhere."""

    def fit(
        self,
        blocks: Blocks,
        y: np.ndarray,
        sample_weight: np.ndarray | None = None,
        groups: np.ndarray | None = None,
    ) -> Self:
        self.known_ = dict(zip(blocks.values["row"][:, 0].astype(int), y, strict=True))
        return self

    def predict_log_proba(self, blocks: Blocks) -> np.ndarray:
        known = [self.known_.get(int(i), None) for i in blocks.values["row"][:, 0]]
        odds = np.array([0.0 if k is None else 20.0 * (2 * k - 1) for k in known])
        return log_softmax(np.stack([np.zeros_like(odds), odds], axis=1), axis=1)


def world(n: int = 500, seed: int = 0) -> tuple[Blocks, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    sign = 2 * y - 1
    values = {
        "good": 2 * (sign + rng.standard_normal(n)),
        "noise": 2 * rng.standard_normal(n),
        "row": np.arange(n),
    }
    blocks = {m: v[:, None].astype(np.float32) for m, v in values.items()}
    return Blocks(blocks, np.ones((n, 3), dtype=bool)), y


def loss(log_proba: np.ndarray, y: np.ndarray) -> float:
    return float(-log_proba[np.arange(len(y)), y].sum())


def test_a_pool_of_one_is_that_head_up_to_scale() -> None:
    blocks, y = world()
    pooled = Pool({"only": Reader()}).fit(blocks, y)
    assert pooled.weights_ == {"only": 1.0}
    odds = np.diff(pooled.predict_log_proba(blocks), axis=1)[:, 0]
    head = pooled.scale_ * blocks.values["good"][:, 0].astype(float)
    np.testing.assert_allclose(odds, head, rtol=1e-9, atol=1e-9)
    # The column is the true log odds, so there is nothing to rescale; sd of the estimate is .1.
    assert pooled.scale_ == pytest.approx(1.0, abs=0.4)


def test_a_good_head_outweighs_noise() -> None:
    blocks, y = world()
    pooled = Pool({"good": Reader("good"), "noise": Reader("noise")}).fit(blocks, y)
    assert pooled.weights_["good"] > 0.9
    assert sum(pooled.weights_.values()) == pytest.approx(1.0)


def test_an_overconfident_head_is_tempered() -> None:
    blocks, y = world(2000)
    assert Pool({"loud": Reader(factor=4.0)}).fit(blocks, y).scale_ == pytest.approx(0.25, rel=0.2)


def test_the_penalised_optimum_beats_every_single_head() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    truth = 2 * np.eye(3)[y]
    log_proba = log_softmax(truth + 1.5 * rng.standard_normal((3, 400, 3)), axis=2)
    weights, scale = fit_weights(log_proba, y, np.ones(400), np.ones(3))
    pooled = loss(pool(log_proba, weights, scale), y)
    assert pooled < min(loss(head, y) for head in log_proba)
    assert pooled <= loss(pool(log_proba, np.full(3, 1 / 3), 1.0), y)


def test_no_nearby_weights_have_a_lower_penalised_loss() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    log_proba = log_softmax(np.eye(2)[y] + rng.standard_normal((2, 300, 2)), axis=2)
    weights, scale = fit_weights(log_proba, y, np.ones(300), np.ones(2))

    def penalised(w: float, s: float) -> float:
        # With two heads the smallest t that gives the weights is +- half of their log ratio.
        t = 0.5 * np.log(w / (1 - w))
        fitted = pool(log_proba, np.array([w, 1 - w]), np.exp(s))
        return loss(fitted, y) + 2 * t**2 / 8 + s**2 / 0.5

    best = penalised(weights[0], np.log(scale))
    for step in (-0.02, 0.02):
        assert penalised(weights[0] + step, np.log(scale)) > best
        assert penalised(weights[0], np.log(scale) + step) > best
    point = np.array([weights[0], np.log(scale)])
    slope = check_grad(lambda p: penalised(*p), lambda p: np.zeros(2), point)
    assert slope < 1e-2


def test_few_rows_leave_equal_weights() -> None:
    rng = np.random.default_rng(2)
    log_proba = log_softmax(rng.standard_normal((2, 4, 2)), axis=2)
    weights, scale = fit_weights(log_proba, np.array([0, 1, 0, 1]), np.ones(4), np.ones(2))
    assert np.abs(weights - 0.5).max() < 0.25
    assert 0.5 < scale < 1.5


def test_prior_weights_multiply() -> None:
    rng = np.random.default_rng(3)
    log_proba = np.repeat(log_softmax(rng.standard_normal((1, 50, 2)), axis=2), 2, axis=0)
    weights, _ = fit_weights(log_proba, rng.integers(0, 2, 50), np.ones(50), np.array([3.0, 1.0]))
    np.testing.assert_allclose(weights, [0.75, 0.25], atol=1e-4)


def test_weights_are_fitted_on_rows_that_a_head_has_not_seen() -> None:
    blocks, y = world()
    pooled = Pool({"memory": Memory(), "good": Reader("good")}).fit(blocks, y)
    np.testing.assert_allclose(pooled.log_proba_["memory"], np.log(0.5))
    assert pooled.weights_["good"] > 0.5


def test_heads_given_stay_unfitted_and_clones_see_every_row() -> None:
    blocks, y = world(100)
    given = Reader()
    pooled = Pool({"good": given}).fit(blocks, y)
    assert not hasattr(given, "rows_")
    assert pooled.heads_["good"].rows_ == set(range(100))


def test_a_row_of_weight_zero_is_as_if_dropped() -> None:
    blocks, y = world(200)
    heads = {"good": Reader("good"), "noise": Reader("noise")}
    weight = np.ones(200)
    weight[::4] = 0
    kept = np.flatnonzero(weight)
    weighted = Pool(heads).fit(blocks, y, weight)
    dropped = Pool(heads).fit(blocks.take(kept), y[kept])
    assert weighted.weights_ == dropped.weights_
    assert weighted.scale_ == dropped.scale_


def test_groups_are_held_out_together() -> None:
    groups = np.repeat(np.arange(40), 5)
    folds = stratified_folds(np.arange(200) % 2, 5, 0, groups)
    assert all(len(np.unique(folds[groups == g])) == 1 for g in range(40))
    blocks, y = world(200)
    assert Pool({"good": Reader()}).fit(blocks, y, groups=groups).scale_ > 0


def test_folds_are_stratified_even_for_rare_classes() -> None:
    y = np.array([0] * 50 + [1] * 13 + [2] * 2)
    folds = stratified_folds(y, 5, 0)
    for label, low, high in ((0, 10, 10), (1, 2, 3), (2, 0, 1)):
        count = np.bincount(folds[y == label], minlength=5)
        assert count.min() >= low
        assert count.max() <= high


def test_a_class_missing_from_a_fold_s_training_rows() -> None:
    blocks, y = world(60)
    y = y.copy()
    y[0] = 2
    head = Experts(experts=("linear",))
    held_out = Head.out_of_fold(head, blocks, y, None, np.arange(60) % 5)
    assert held_out.shape == (60, 3)
    assert np.isfinite(held_out).all()


def test_pools_can_be_cloned_and_nested() -> None:
    blocks, y = world(100)
    inner = Pool({"good": Reader("good"), "noise": Reader("noise")})
    outer = clone(Pool({"inner": inner, "noise": Reader("noise")}, folds=3)).fit(blocks, y)
    assert outer.predict_log_proba(blocks).shape == (100, 2)
    assert not hasattr(inner, "weights_")


def test_empty_pools_and_bad_weights_are_refused() -> None:
    blocks, y = world(20)
    with pytest.raises(ValueError, match="at least one head"):
        Pool({}).fit(blocks, y)
    with pytest.raises(ValueError, match="sample_weight"):
        Pool({"good": Reader()}).fit(blocks, y, np.full(20, -1.0))
    with pytest.raises(ValueError, match="prior weights"):
        Pool({"good": Reader()}, prior={"good": 0.0}).fit(blocks, y)
