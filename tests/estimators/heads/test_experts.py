"""The expert head against Bayes' rule, and what may not change its predictions."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from cm2.estimators.heads import Experts, scores
from cm2.estimators.heads.base import stratified_folds
from cm2.estimators.heads.scores import Expert
from cm2.samples.inputs import Blocks
from laws import EXACT

LINEAR = ("linear",)
few_trees = pytest.mark.usefixtures("small_models")


def gaussian_blocks(
    n: int, missing: float, seed: int, rho: float = 0.8
) -> tuple[Blocks, np.ndarray, np.ndarray]:
    """Three scalar views, equally correlated given the class; with their true log odds."""
    rng = np.random.default_rng(seed)
    covariance = np.full((3, 3), rho) + (1 - rho) * np.eye(3)
    effect = np.array([0.6, 0.2, -0.2])
    y = rng.integers(0, 2, n)
    x = (2 * y[:, None] - 1) * effect + rng.multivariate_normal(np.zeros(3), covariance, n)
    present = rng.random((n, 3)) >= missing
    odds = np.zeros(n)
    for row in range(n):
        seen = present[row]
        inverse = np.linalg.inv(covariance[np.ix_(seen, seen)])
        odds[row] = 2 * x[row, seen] @ inverse @ effect[seen]
    values = {m: np.where(present[:, [i]], x[:, [i]], 0) for i, m in enumerate("abc")}
    return Blocks({m: v.astype(np.float32) for m, v in values.items()}, present), y, odds


def digits_blocks(n: int, seed: int = 0, labels: int = 4) -> tuple[Blocks, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, labels, n)
    values = {
        m: (rng.standard_normal((labels, 5))[y] + rng.standard_normal((n, 5))).astype(np.float32)
        for m in "abc"
    }
    present = rng.random((n, 3)) > 0.3
    for i, block in enumerate(values.values()):
        block[~present[:, i]] = 0
    return Blocks(values, present), y


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_it_learns_bayes_rule_on_gaussian_views(missing: float) -> None:
    train, y, _ = gaussian_blocks(3000, missing, seed=0)
    test, truth, odds = gaussian_blocks(3000, missing, seed=1)
    head = Experts(experts=LINEAR).fit(train, y)
    log_proba = head.predict_log_proba(test)
    best, ours = roc_auc_score(truth, odds), roc_auc_score(truth, log_proba[:, 1])
    # Some ten parameters from 3,000 rows: excess log loss is about 10 / (2 x 3,000) = .002, and
    # AUROC moves by the same order. Ignoring the correlation costs far more.
    assert best - ours < 0.005
    excess = log_loss(truth, np.exp(log_proba)) - log_loss(truth, expit(odds))
    assert excess < 0.006
    naive = Experts("independence", experts=LINEAR).fit(train, y)
    assert ours - roc_auc_score(truth, naive.predict_log_proba(test)[:, 1]) > 0.02


def test_independence_keeps_scores_independent() -> None:
    train, y, _ = gaussian_blocks(500, 0.3, seed=0)
    head = Experts("independence", experts=LINEAR).fit(train, y)
    assert head.strength_ == np.inf
    covariance = head.gaussian_.covariance_
    np.testing.assert_array_equal(covariance, np.diag(np.diag(covariance)))


def test_the_strength_chosen_has_the_lowest_held_out_loss() -> None:
    train, y, _ = gaussian_blocks(600, 0.3, seed=0)
    head = Experts(experts=LINEAR).fit(train, y)
    assert head.losses_[head.strength_] == min(head.losses_.values())
    assert np.isfinite(head.strength_)


@few_trees
def test_missing_values_do_not_matter() -> None:
    blocks, y = digits_blocks(300)
    junk = Blocks(
        {
            m: np.where(blocks.present[:, [i]], v, np.float32(1e6))
            for i, (m, v) in enumerate(blocks.values.items())
        },
        blocks.present,
    )
    head = Experts().fit(blocks, y)
    np.testing.assert_array_equal(head.predict_log_proba(blocks), head.predict_log_proba(junk))
    twin = Experts().fit(junk, y)
    np.testing.assert_array_equal(head.predict_log_proba(blocks), twin.predict_log_proba(blocks))


@few_trees
def test_the_order_of_modalities_does_not_matter() -> None:
    blocks, y = digits_blocks(300)
    order = ["c", "a", "b"]
    other = Blocks({m: blocks.values[m] for m in order}, blocks.present[:, [2, 0, 1]])
    ours = Experts().fit(blocks, y).predict_log_proba(blocks)
    theirs = Experts().fit(other, y).predict_log_proba(other)
    # EM stops at a tolerance, on sums taken in another order.
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)


@few_trees
def test_a_row_of_weight_zero_is_as_if_dropped() -> None:
    blocks, y = digits_blocks(300)
    weight = np.ones(300)
    weight[::3] = 0
    kept = np.flatnonzero(weight)
    weighted = Experts().fit(blocks, y, weight).predict_log_proba(blocks)
    dropped = Experts().fit(blocks.take(kept), y[kept]).predict_log_proba(blocks)
    np.testing.assert_array_equal(weighted, dropped)


@few_trees
def test_probabilities_are_normalised_and_nothing_present_gives_the_prior() -> None:
    blocks, y = digits_blocks(300)
    head = Experts().fit(blocks, y)
    log_proba = head.predict_log_proba(blocks)
    assert log_proba.shape == (300, 4)
    np.testing.assert_allclose(np.exp(log_proba).sum(axis=1), 1.0, **EXACT)
    nothing = blocks._replace(present=np.zeros_like(blocks.present))
    np.testing.assert_allclose(
        np.exp(head.predict_log_proba(nothing)), np.tile(head.prior_, (300, 1)), **EXACT
    )


@few_trees
def test_rows_do_not_depend_on_their_neighbours() -> None:
    blocks, y = digits_blocks(200)
    head = Experts().fit(blocks, y)
    one_by_one = [head.predict_log_proba(blocks.take(np.array([i]))) for i in range(20)]
    np.testing.assert_allclose(
        np.concatenate(one_by_one), head.predict_log_proba(blocks)[:20], **EXACT
    )


def test_out_of_fold_predictions_do_not_see_the_row() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    noise = {m: rng.standard_normal((400, 30)).astype(np.float32) for m in "ab"}
    blocks = Blocks(noise, np.ones((400, 2), dtype=bool))
    head = Experts()
    [held_out] = head.out_of_fold(blocks, y, None, np.arange(400) % 5)
    assert not hasattr(head, "gaussian_")
    # Pure noise: an honest AUROC is 1/2 with a standard error of .029; in sample it is near one.
    assert roc_auc_score(y, held_out[:, 1]) < 0.5 + 4 * 0.029
    assert roc_auc_score(y, head.fit(blocks, y).predict_log_proba(blocks)[:, 1]) > 0.6


@few_trees
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_modality_that_is_almost_never_there(rows: int) -> None:
    blocks, y = digits_blocks(200)
    blocks.present[:, 1] = False
    blocks.present[:rows, 1] = True
    head = Experts().fit(blocks, y)
    assert np.isfinite(head.predict_log_proba(blocks)).all()
    full = blocks._replace(present=np.ones_like(blocks.present))
    assert np.isfinite(head.predict_log_proba(full)).all()


@few_trees
def test_a_modality_seen_with_one_class_only_says_the_prior() -> None:
    blocks, y = digits_blocks(200, labels=2)
    blocks.present[:, 1] &= y == 1
    head = Experts().fit(blocks, y)
    assert head.experts_["b"].chosen_ == ()
    alone = blocks._replace(present=np.tile([False, True, False], (200, 1)))
    np.testing.assert_allclose(
        np.exp(head.predict_log_proba(alone)), np.tile(head.prior_, (200, 1)), atol=1e-6
    )


@few_trees
def test_a_class_that_a_modality_never_shows() -> None:
    blocks, y = digits_blocks(300)
    blocks.present[:, 0] &= y != 2
    head = Experts().fit(blocks, y)
    assert np.isfinite(head.predict_log_proba(blocks)).all()


def test_clone_keeps_settings() -> None:
    head = clone(Experts("independence", strengths=(1.0, 0.5), random_state=3))
    assert head.get_params()["strengths"] == (1.0, 0.5)


def test_unknown_experts_are_named() -> None:
    with pytest.raises(ValueError, match="oracle"):
        Expert(("oracle",))


def test_a_forest_wins_where_the_line_fails() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    expert = Expert()
    expert.cross_fit(x, y, np.ones(600), np.arange(600) % 5, 2)
    assert expert.chosen_ == ("forest",)
    assert expert.loss_["forest"] < 0.4 < expert.loss_["linear"]


def test_nothing_is_learned_from_noise_out_of_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out predictions that had seen their own labels would have an AUROC above one half."""
    monkeypatch.setattr(scores, "PENALTIES", (0.1,))  # what is chosen among does not matter here
    areas = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        blocks = Blocks(
            {m: rng.normal(size=(80, 5)).astype(np.float32) for m in "abcdef"},
            rng.random((80, 6)) < 0.8,
        )
        y = rng.permutation(np.arange(80) % 2)
        head = Experts(experts=("linear",), strengths=(0.1,), folds=3, random_state=seed)
        [held_out] = head.cross_fit(blocks, y, None, stratified_folds(y, 3, seed))
        areas.append(roc_auc_score(y, held_out[:, 1]))
    # The AUROC of 40 against 40 noise scores has a standard deviation of .065, so their mean of
    # .021; four of these. With the Gaussians fitted to experts that saw the fold it is .640.
    assert np.mean(areas) < 0.5 + 4 * 0.021


@few_trees
def test_trap_experts_are_judged_on_other_patients() -> None:
    """40 patients of eight near-equal rows and a tossed label: nothing is to be believed.

    Judged out of bag the forest's loss was .16, and .7 at best on new patients. Log loss over 40
    tossed labels has a deviation below .1 here; two are allowed.
    """
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(540), 8)
    own = rng.normal(size=(540, 3))[patient]
    values = {"a": (own + 0.01 * rng.normal(size=own.shape)).astype(np.float32)}
    values["b"] = values["a"] + 0.01 * rng.normal(size=own.shape).astype(np.float32)
    blocks = Blocks(values, np.ones((len(patient), 2), bool))
    y = rng.integers(0, 2, 540)[patient]
    train, test = np.flatnonzero(patient < 40), np.flatnonzero(patient >= 40)
    head = Experts().fit(blocks.take(train), y[train], groups=patient[train])
    new = log_loss(y[test], np.exp(head.predict_log_proba(blocks.take(test))))
    assert head.losses_[head.strength_] == pytest.approx(new, abs=0.2)
    assert new < 0.85
    expert, known = Expert(("forest",)), patient[train]
    folds = stratified_folds(y[train], 5, 0, known)
    expert.cross_fit(values["a"][train], y[train], np.ones(320), folds, 2, known)
    by_forest = expert.fitted_["forest"].model.predict_proba(values["a"][test])
    mixed = 0.99 * by_forest + 0.01 * expert.prior_
    assert expert.loss_["forest"] == pytest.approx(log_loss(y[test], mixed), rel=0.3)


def test_groups_of_one_row_are_as_none() -> None:
    blocks, y = digits_blocks(60, labels=2)
    head = Experts("independence", experts=LINEAR)
    alone = clone(head).fit(blocks, y, groups=np.arange(60)[::-1])
    without = clone(head).fit(blocks, y)
    np.testing.assert_array_equal(
        alone.predict_log_proba(blocks), without.predict_log_proba(blocks)
    )


@pytest.mark.parametrize("patients", [2, 3, 7, 30])
def test_folds_by_patient_are_full_and_even(patients: int) -> None:
    """No fold is empty and no patient in two; with many patients classes are even.

    ``StratifiedGroupKFold`` refuses the small cases.
    """
    rng = np.random.default_rng(patients)
    groups = rng.permutation(np.repeat(np.arange(patients), 8))
    y = (np.arange(patients) % 3 == 0).astype(int)[groups]
    folds = stratified_folds(y, 6, 0, groups)
    assert sorted(set(folds)) == list(range(min(6, patients)))
    assert all(len(set(folds[groups == one])) == 1 for one in range(patients))
    if patients == 30:
        reference = np.empty(len(y), int)
        splitter = StratifiedGroupKFold(6, shuffle=True, random_state=0)
        for fold, (_, test) in enumerate(splitter.split(y, y, groups)):
            reference[test] = fold
        spread = [np.std(np.bincount(one[y == 1], minlength=6)) for one in (folds, reference)]
        assert spread[0] <= spread[1]
    with pytest.raises(ValueError, match="at least 2 groups"):
        stratified_folds(y, 6, 0, np.zeros(len(y)))
