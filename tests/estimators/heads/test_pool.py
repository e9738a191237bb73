"""The pool: its optimum, its limits, and that it is honest about what it has seen."""

from __future__ import annotations

from typing import Self

import numpy as np
import pytest
from joblib import parallel_config
from scipy.optimize import check_grad
from scipy.special import log_softmax
from sklearn.base import clone

import elsewhere
from cm2.estimators.heads import Experts, Fusion, Head, Pool, Presence
from cm2.estimators.heads.base import Held, class_prior, hold, stratified_folds
from cm2.estimators.heads.log_linear import fit_weights, pool
from cm2.evaluation.calibrated import slope
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


def fitted(
    log_proba: np.ndarray, y: np.ndarray, prior: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and confidence of each row where as much is missing in all of them."""
    prior = np.ones(len(log_proba)) if prior is None else prior
    missing = np.zeros((1, len(y)))
    return fit_weights(log_proba[:, None], y, np.ones(len(y)), prior, missing).at(missing[0])


def log_frequency(y: np.ndarray) -> np.ndarray:
    """Logarithms of the frequencies of the classes."""
    return np.log(class_prior(y, np.ones(len(y)), int(y.max()) + 1))


def loss(log_proba: np.ndarray, y: np.ndarray) -> float:
    return float(-log_proba[np.arange(len(y)), y].sum())


def test_a_pool_of_one_is_that_head_up_to_scale() -> None:
    blocks, y = world()
    pooled = Pool({"only": Reader()}).fit(blocks, y)
    assert pooled.weights_ == {"only": 1.0}
    odds = np.diff(pooled.predict_log_proba(blocks), axis=1)[:, 0]
    _, scale = pooled.pooled_.at(np.zeros(len(y)))
    [prior] = np.diff(log_frequency(y))
    head = prior + scale * (blocks.values["good"][:, 0].astype(float) - prior)
    np.testing.assert_allclose(odds, head, rtol=1e-9, atol=1e-9)
    # The column is the true log odds, so there is nothing to rescale; sd of the estimate is .1.
    assert scale[0] == pytest.approx(1.0, abs=0.4)


def test_a_good_head_outweighs_noise() -> None:
    blocks, y = world()
    pooled = Pool({"good": Reader("good"), "noise": Reader("noise")}).fit(blocks, y)
    assert pooled.weights_["good"] > 0.9
    assert sum(pooled.weights_.values()) == pytest.approx(1.0)


def test_an_overconfident_head_is_tempered() -> None:
    blocks, y = world(2000)
    pooled = Pool({"loud": Reader(factor=4.0)}).fit(blocks, y)
    # Where its column is hidden the head says nothing, and no confidence can change that.
    assert pooled.pooled_.at(np.zeros(1))[1][0] == pytest.approx(0.25, rel=0.2)


def test_the_penalised_optimum_beats_every_single_head() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    truth = 2 * np.eye(3)[y]
    log_proba = log_softmax(truth + 1.5 * rng.standard_normal((3, 400, 3)), axis=2)
    weights, scale = fitted(log_proba, y)
    pooled = loss(pool(log_proba, weights, scale, log_frequency(y)), y)
    assert pooled < min(loss(head, y) for head in log_proba)
    equal = pool(log_proba, np.full((400, 3), 1 / 3), np.ones(400), log_frequency(y))
    assert pooled <= loss(equal, y)


def test_no_nearby_weights_have_a_lower_penalised_loss() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    log_proba = log_softmax(np.eye(2)[y] + rng.standard_normal((2, 300, 2)), axis=2)
    weights, scale = (one[0] for one in fitted(log_proba, y))

    def penalised(w: float, s: float) -> float:
        # With two heads the smallest t that gives the weights is +- half of their log ratio.
        t = 0.5 * np.log(w / (1 - w))
        weights = np.tile([w, 1 - w], (300, 1))
        pooled = pool(log_proba, weights, np.full(300, np.exp(s)), log_frequency(y))
        return loss(pooled, y) + 2 * t**2 / 8 + s**2 / 0.5

    best = penalised(weights[0], np.log(scale))
    for step in (-0.02, 0.02):
        assert penalised(weights[0] + step, np.log(scale)) > best
        assert penalised(weights[0], np.log(scale) + step) > best
    point = np.array([weights[0], np.log(scale)])
    slope = check_grad(lambda p: penalised(*p), lambda p: np.zeros(2), point)
    assert slope < 1e-2


def test_confidence_makes_a_rare_class_no_more_or_less_frequent() -> None:
    """Heads that know different things say too little each; together they are to be believed.

    To the power of more than one, their mean would move the prior as well. The slope's deviation
    is .02 with 1,000 positives, and the mean is the frequency, since the heads are right.
    """
    rng = np.random.default_rng(6)
    y = (rng.random(20_000) < 0.05).astype(int)
    [prior] = np.diff(log_frequency(y))
    seen = (2 * y - 1) * 0.75 + rng.standard_normal((3, 20_000))
    odds = prior + 1.5 * seen  # each head's true log odds; of all three, the sum beyond the prior
    log_proba = log_softmax(np.stack([np.zeros_like(odds), odds], axis=2), axis=2)
    weights, scale = fitted(log_proba, y)
    assert scale[0] == pytest.approx(3.0, rel=0.1)
    pooled = pool(log_proba, weights, scale, log_frequency(y))
    assert np.exp(pooled[:, 1]).mean() == pytest.approx(0.05, abs=0.003)
    [found] = slope(y == 1, np.exp(pooled[:, 1]))
    assert found == pytest.approx(1.0, abs=0.06)


def test_few_rows_leave_equal_weights() -> None:
    rng = np.random.default_rng(2)
    log_proba = log_softmax(rng.standard_normal((2, 4, 2)), axis=2)
    weights, scale = fitted(log_proba, np.array([0, 1, 0, 1]))
    assert np.abs(weights - 0.5).max() < 0.25
    assert (np.abs(scale - 1) < 0.5).all()


def test_prior_weights_multiply() -> None:
    rng = np.random.default_rng(3)
    log_proba = np.repeat(log_softmax(rng.standard_normal((1, 50, 2)), axis=2), 2, axis=0)
    weights, _ = fitted(log_proba, rng.integers(0, 2, 50), np.array([3.0, 1.0]))
    np.testing.assert_allclose(weights[0], [0.75, 0.25], atol=1e-4)


def test_the_gradient_of_weights_and_confidence_is_that_of_differences() -> None:
    """At the optimum of views that differ in what is missing, no direction goes down."""
    rng = np.random.default_rng(4)
    y = rng.integers(0, 3, 200)
    log_proba = log_softmax(np.eye(3)[y] + rng.standard_normal((2, 3, 200, 3)), axis=3)
    missing = rng.random((3, 200))
    found = fit_weights(log_proba, y, np.ones(200), np.ones(2), missing)

    def penalised(free: np.ndarray) -> float:
        moved = found._replace(level=free[:2], slope=free[2:4], scale=free[4:])
        views = [moved.pooled(log_proba[:, v], missing[v]) for v in range(3)]
        fit = np.mean([loss(one, y) for one in views])
        return float(
            fit + free[:2] @ free[:2] / 8 + free[2:4] @ free[2:4] / 2 + 2 * free[4:] @ free[4:]
        )

    best = np.concatenate([found.level, found.slope, found.scale])
    for step in np.concatenate([np.eye(6), -np.eye(6)]) * 0.02:
        assert penalised(best + step) > penalised(best)


def test_a_head_that_is_good_where_little_is_missing_has_its_weight_there() -> None:
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, 2000)
    missing = np.tile(rng.random(2000), (1, 1))
    sure = np.eye(2)[y] * 3 + rng.standard_normal((2000, 2))
    noise = rng.standard_normal((2000, 2))
    whole = missing[0, :, None] < 0.5
    heads = np.stack([np.where(whole, sure, noise), np.where(whole, noise, sure)])
    found = fit_weights(log_softmax(heads, axis=2)[:, None], y, np.ones(2000), np.ones(2), missing)
    weights, _ = found.at(np.array([0.05, 0.95]))
    assert weights[0, 0] > 0.9
    assert weights[1, 1] > 0.9


def test_a_head_that_does_not_pay_is_left_out() -> None:
    blocks, y = world(2000)
    pooled = Pool({"good": Reader("good"), "noise": Reader("noise", factor=0.0)}).fit(blocks, y)
    assert list(pooled.heads_) == ["good", "noise"], "what says nothing does no harm"
    pooled = Pool({"good": Reader("good"), "noise": Reader("noise", factor=4.0)}).fit(blocks, y)
    assert list(pooled.heads_) == ["good"]
    assert list(pooled.left_out_) == ["noise"]
    assert pooled.weights_ == {"good": 1.0, "noise": 0.0}


class Networks(Fusion):
    """Three networks in name, which read the log odds off a column."""

    def __init__(self, modality: str = "good", factor: float = 1.0, folds: int = 3) -> None:
        self.modality = modality
        self.factor = factor
        self.folds = folds

    def begin(self, blocks: Blocks, *given: object) -> tuple[np.ndarray, np.ndarray]:
        rows = np.arange(0, len(blocks.present), 3)
        reader = Reader(self.modality, self.factor)
        shown = [blocks, *(blocks.hidden(view) for view in given[-1])]
        return rows, np.stack([reader.predict_log_proba(one.take(rows)) for one in shown])

    def finish(self, blocks: Blocks, *given: object) -> np.ndarray:
        self.finished_ = True
        shown = [blocks, *(blocks.hidden(view) for view in given[-1])]
        return np.stack([Reader(self.modality).predict_log_proba(one) for one in shown])


@pytest.mark.parametrize(
    ("reader", "says", "factor", "worth"),
    [("good", "noise", 4.0, False), ("noise", "good", 1.0, True), ("good", "good", 1.0, True)],
)
def test_the_other_networks_are_trained_where_the_first_has_its_share(
    reader: str, says: str, factor: float, worth: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """One that says the same as another head has half of the weight, and gains nothing yet."""
    blocks, y = world(1500)
    heads = {"reader": Reader(reader), "fusion": Networks(says, factor)}
    with caplog.at_level("INFO", "cm2.estimators.heads.pool"):
        pooled = Pool(heads).fit(blocks, y)
    found = pooled.heads_ if worth else pooled.left_out_
    assert hasattr(found["fusion"], "finished_") == worth
    assert ("the others are trained" in caplog.text) == worth
    assert ("the others are not trained" in caplog.text) != worth


def test_weights_are_fitted_on_rows_that_a_head_has_not_seen() -> None:
    blocks, y = world()
    pooled = Pool({"memory": Memory(), "good": Reader("good")}).fit(blocks, y)
    np.testing.assert_allclose(pooled.log_proba_["memory"][0], np.log(0.5))
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
    np.testing.assert_array_equal(weighted.pooled_.scale, dropped.pooled_.scale)


def test_groups_are_held_out_together() -> None:
    groups = np.repeat(np.arange(40), 5)
    folds = stratified_folds(np.arange(200) % 2, 5, 0, groups)
    assert all(len(np.unique(folds[groups == g])) == 1 for g in range(40))
    blocks, y = world(200)
    assert Pool({"good": Reader()}).fit(blocks, y, groups=groups).weights_ == {"good": 1.0}


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
    [held_out] = Head.out_of_fold(head, blocks, y, None, np.arange(60) % 5)
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


@pytest.mark.parametrize("kind", ["one network", "several, of which one comes first", "presence"])
def test_trap_rows_that_stop_training_reach_other_processes(
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A head goes there as it goes into a file, which holds no rows of a patient."""
    blocks, y = world(80)
    learn, stop = np.arange(60), np.arange(60, 80)
    folds = 3 if kind.startswith("several") else 1

    def said(held: Held | None) -> np.ndarray:
        network = Fusion(2, training={"max_epochs": 5, "patience": 1, "lr": 0.03}, folds=folds)
        head = Presence(network, 2) if kind == "presence" else network
        hold(head, held)
        monkeypatch.setattr(Pool, "_is_worth", lambda *_: True)
        fitted = Pool({"noise": Reader("noise"), "fusion": head}).fit(blocks.take(learn), y[learn])
        return (fitted.heads_ | fitted.left_out_)["fusion"].predict_log_proba(blocks)

    held = Held(blocks.take(stop), 1 - y[stop])  # of the wrong outcome: training stops at once
    here, without = said(held), said(None)
    assert np.abs(here - without).max() > 1e-3
    monkeypatch.setattr("cm2.estimators.heads.pool.Parallel", elsewhere.parallel)
    np.testing.assert_array_equal(said(held), here)


@pytest.mark.parametrize("backend", ["multiprocessing", "threading", "sequential"])
def test_heads_are_fitted_by_any_backend(backend: str) -> None:
    blocks, y = world(60)
    heads = {"good": Reader(), "noise": Reader("noise")}
    with parallel_config(backend=backend):
        fitted = Pool(heads, n_jobs=2).fit(blocks, y)
    assert fitted.weights_ == Pool(heads).fit(blocks, y).weights_
