"""Measures against scikit-learn, bootstrap against theory, paired tests against scipy."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from cm2.evaluation import bootstrap, metrics


def _binary(n: int = 300, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, n)
    score = 1 / (1 + np.exp(-(rng.standard_normal(n) + target)))
    return target, score.round(1) if ties else score


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_measures_equal_those_of_sklearn(ties: bool, weighted: bool) -> None:
    target, score = _binary(ties=ties)
    rng = np.random.default_rng(1)
    weight = rng.integers(0, 4, len(target)).astype(float) if weighted else np.ones(len(target))
    ours = metrics.measure(target, score, weight[None])
    clipped = np.clip(score, 1e-12, 1 - 1e-12)
    theirs = {
        "auroc": sklearn_metrics.roc_auc_score(target, score, sample_weight=weight),
        "aupr": sklearn_metrics.average_precision_score(target, score, sample_weight=weight),
        "brier": sklearn_metrics.brier_score_loss(target, score, sample_weight=weight),
        "log_loss": sklearn_metrics.log_loss(target, clipped, sample_weight=weight),
    }
    for name, value in theirs.items():
        # scikit-learn 1.9 rounds the weights of its log loss to float32.
        rtol = 1e-6 if name == "log_loss" else 1e-10
        np.testing.assert_allclose(ours[name][0], value, rtol=rtol, err_msg=name)


@pytest.mark.parametrize("outcome", [0, 1])
def test_an_outcome_that_weighs_nothing_is_absent_and_one_that_weighs_little_is_not(
    outcome: int,
) -> None:
    target, score = _binary(40)
    common = np.random.default_rng(1).random((50, 40))  # no whole numbers, whose sums are exact
    found = metrics.measure(target, score, np.where(target == outcome, 0.0, common))
    assert np.isnan(found["auroc"]).all()
    assert np.isnan(found["aupr"]).all() == (outcome == 1)
    weight = np.where(target == outcome, 1e-12, 1e6) * common[:1]
    found = metrics.measure(target, score, weight)
    # To scale an outcome as a whole changes no AUROC.
    plain = sklearn_metrics.roc_auc_score(target, score, sample_weight=common[0])
    theirs = sklearn_metrics.average_precision_score(target, score, sample_weight=weight[0])
    assert found["auroc"][0] == pytest.approx(plain, rel=1e-9)
    assert found["aupr"][0] == pytest.approx(theirs, rel=1e-9)


def test_weights_of_low_precision_are_summed_in_double() -> None:
    target, score = _binary(6000)
    plain = metrics.measure(target, score)
    for kind in (np.float16, np.float32, np.int8, np.bool_):
        found = metrics.measure(target, score, np.ones((1, 6000), kind))
        for name, value in plain.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


def test_multiclass_measures_equal_those_of_sklearn() -> None:
    rng = np.random.default_rng(2)
    target = rng.integers(0, 4, 400)
    logits = rng.standard_normal((400, 4)) + 1.5 * np.eye(4)[target]
    proba = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ours = metrics.measure(target, proba)
    onehot = np.eye(4)[target]
    theirs = {
        "auroc": sklearn_metrics.roc_auc_score(target, proba, multi_class="ovr"),
        "aupr": sklearn_metrics.average_precision_score(onehot, proba),
        "brier": ((proba - onehot) ** 2).sum(1).mean(),
        "log_loss": sklearn_metrics.log_loss(target, proba),
    }
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name][0], value, rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("weighted", [False, True])
def test_measures_of_several_labels_equal_those_of_sklearn(weighted: bool) -> None:
    rng = np.random.default_rng(3)
    target = (rng.random((200, 3)) < [0.1, 0.5, 0.8]).astype(int)
    proba = np.clip(0.5 * target + 0.6 * rng.random((200, 3)), 0.01, 0.99)
    weight = rng.integers(0, 4, 200).astype(float) if weighted else np.ones(200)
    ours = metrics.measure(target, proba, weight[None])
    rank = {
        "auroc": sklearn_metrics.roc_auc_score,
        "aupr": sklearn_metrics.average_precision_score,
    }
    for name, score in rank.items():
        for how, key in (("macro", name), ("micro", f"{name}_micro")):
            theirs = score(target, proba, average=how, sample_weight=weight)
            np.testing.assert_allclose(ours[key][0], theirs, rtol=1e-10, err_msg=key)
        each = score(target, proba, average=None, sample_weight=weight)
        np.testing.assert_allclose([ours[f"{name} {k}"][0] for k in range(3)], each, rtol=1e-10)
    brier = np.average(((proba - target) ** 2).mean(1), weights=weight)
    np.testing.assert_allclose(ours["brier"][0], brier, rtol=1e-10)
    surprise = -np.log(np.where(target == 1, proba, 1 - proba)).mean(1)
    np.testing.assert_allclose(ours["log_loss"][0], np.average(surprise, weights=weight), rtol=1e-9)


def test_a_label_that_everybody_has_is_left_out_of_the_means() -> None:
    rng = np.random.default_rng(0)
    target = np.stack([np.ones(40, int), rng.integers(2, size=40)], axis=1)
    found = metrics.measure(target, rng.random((40, 2)))
    for name in ("auroc", "aupr"):
        np.testing.assert_array_equal(found[name], found[f"{name} 1"])


def test_a_label_without_both_outcomes_is_left_out_of_the_means() -> None:
    rng = np.random.default_rng(4)
    target = np.stack([rng.integers(0, 2, 60), np.zeros(60, int), rng.integers(0, 2, 60)], axis=1)
    target[:, 2] = 0
    target[7, 2] = 1  # some replicates do not have this row
    proba = rng.random((60, 3))
    found = metrics.measure(target, proba)
    assert [name for name in found if " " in name] == ["auroc 0", "aupr 0", "auroc 2", "aupr 2"]
    each = [found["auroc 0"][0], found["auroc 2"][0]]
    np.testing.assert_allclose(found["auroc"][0], np.mean(each), rtol=1e-12)
    evaluated = metrics.evaluate(target, proba, replicates=100)
    assert all(np.isfinite(interval[:3]).all() for interval in evaluated.values())
    assert "only 1 patients" in " ".join(evaluated["auroc 2"].notes)
    assert not evaluated["auroc 0"].notes
    assert all(one.low <= one.value <= one.high for one in evaluated.values())
    with pytest.raises(ValueError, match="targets"):
        metrics.measure(target, proba[:, :2])


def test_weights_are_counts() -> None:
    target, score = _binary()
    count = bootstrap.draws(len(target), 1)[1:].astype(float)
    repeated = np.repeat(np.arange(len(target)), count[0].astype(int))
    by_weight = metrics.measure(target, score, count)
    by_rows = metrics.measure(target[repeated], score[repeated])
    for name in metrics.MEASURES:
        np.testing.assert_allclose(by_weight[name], by_rows[name], rtol=1e-10)


def test_chunks_do_not_change_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    target, score = _binary()
    monkeypatch.setattr(metrics, "_CHUNK", 7 * len(target))
    small = metrics.evaluate(target, score, replicates=500)
    monkeypatch.setattr(metrics, "_CHUNK", 10**9)
    large = metrics.evaluate(target, score, replicates=500)
    for name, found in large.items():
        np.testing.assert_allclose(small[name][:3], found[:3], rtol=1e-12, err_msg=name)


def test_paired_agrees_with_scipy() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.standard_normal((2, 9))
    got = metrics.paired(first + 0.5, second)
    reference = stats.ttest_rel(first + 0.5, second)
    assert got.t_test == pytest.approx(reference.pvalue)
    assert (got.low, got.high) == pytest.approx(tuple(reference.confidence_interval()))
    assert got.wilcoxon == pytest.approx(stats.wilcoxon(first + 0.5, second).pvalue)


def test_trap_random_splits_of_one_data_set_are_not_independent() -> None:
    """Nadeau and Bengio's correction brings the level of a paired t-test back to what it says.

    Two methods are alike but for which of two equal causes they see, so that neither is better.
    Ten random splits of 60 rows, 18 of them tested, 1,000 data sets: the share rejected has a
    standard error below .007 at .05; four of them are allowed. The uncorrected test is far off.
    """
    rng = np.random.default_rng(0)
    sets, splits, rows, tested = 1000, 10, 60, 18
    x = rng.normal(size=(2, sets, 1, rows))
    y = x.sum(0) + rng.normal(size=(sets, 1, rows))
    test = rng.random((sets, splits, rows)).argsort(axis=-1) < tested
    slope = (x * y * ~test).sum(-1) / (x**2 * ~test).sum(-1)
    loss = ((y - slope[..., None] * x) ** 2 * test).sum(-1) / tested
    rejected = {
        ratio: np.mean([
            metrics.paired(*pair, test_to_train=ratio).t_test < 0.05
            for pair in zip(*loss, strict=True)
        ])
        for ratio in (0.0, tested / (rows - tested))
    }  # fmt: skip
    plain, corrected = rejected.values()
    assert plain > 0.2
    assert abs(corrected - 0.05) < 4 * 0.007
    assert np.isnan(metrics.paired(*loss[:, 0], test_to_train=0.5).wilcoxon)


def test_paired_of_equal_methods_finds_nothing() -> None:
    same = np.array([0.7, 0.8, 0.75])
    assert metrics.paired(same, same) == (0, 0, 0, 0, 1, 1)


@pytest.mark.parametrize(
    ("probability", "message"),
    [(np.array([0.1, np.nan]), "finite"), (np.array([0.1, 0.2, 0.3]), "3 rows")],
)
def test_bad_probabilities_are_named(probability: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.measure(np.array([0, 1]), probability)


def test_one_run_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="at least two runs"):
        metrics.paired(np.array([0.8]), np.array([0.7]))


def test_a_class_without_a_sample_is_left_out_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    target = np.repeat([0, 1, 3], 20)
    probability = rng.dirichlet(np.ones(4), len(target))
    found = metrics.measure(target, probability)
    own = [metrics.auroc(target == c, probability[:, c], np.ones((1, 60)))[0] for c in (0, 1, 3)]
    assert found["auroc"][0] == pytest.approx(np.mean(own))
