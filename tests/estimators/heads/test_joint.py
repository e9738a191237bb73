"""The joint head: discriminant analysis by hand, dependence that pays, incomplete rows."""

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from cm2.estimators.heads import REGISTRY, JointHead
from cm2.estimators.heads.base import stratified_folds
from cm2.estimators.heads.joint import Search, Setting
from cm2.estimators.heads.projection import Projection
from cm2.samples.inputs import Blocks, Reader
from cm2.samples.worlds import make_world, remove

MIXING = np.array([[1.0, 0.0, 0.0], [0.7, 0.8, 0.0], [-0.5, 0.3, 0.9]])
SHIFT = np.array([1.0, 0.2, 0.6])


def scalars(
    rows: int, seed: int, missing: float = 0.0, labels: int = 2
) -> tuple[Blocks, np.ndarray]:
    """Three modalities of one column, Gaussian given the class, with one covariance."""
    rng = np.random.default_rng(seed)
    y = rng.integers(labels, size=rows)
    x = (rng.normal(size=(rows, 3)) @ MIXING.T + y[:, None] * SHIFT).astype(np.float32)
    present = rng.random((rows, 3)) >= missing
    present[~present.any(axis=1), 0] = True
    x[~present] = 0.0
    return Blocks({name: x[:, [m]] for m, name in enumerate("abc")}, present), y


def by_hand(head: JointHead, blocks: Blocks) -> np.ndarray:
    """The posterior from the head's means, margins and correlations, one row at a time."""
    z, means = head.embed(blocks)[..., 0], head.laws_.means_.numpy()[..., 0]
    laws = [joint() for joint in head.laws_.joints_] * (
        len(means) if len(head.laws_.joints_) == 1 else 1
    )
    density = np.empty((len(z), len(means)))
    for c, law in enumerate(laws):
        scale = law.marginals.scale.detach().numpy()[:, 0, 0]
        center = means[c] + law.marginals.loc.detach().numpy()[:, 0, 0]
        covariance = law.copula.correlation.detach().numpy()[0] * np.outer(scale, scale)
        for i, here in enumerate(blocks.present):
            density[i, c] = multivariate_normal.logpdf(
                z[i, here], center[here], covariance[np.ix_(here, here)]
            )
    return log_softmax(np.log(head.prior_) + head.beta_ * density, axis=1)


@pytest.mark.parametrize("pooling", [1.0, 0.3, 0.0])
def test_one_gaussian_coordinate_gives_discriminant_analysis(pooling: float) -> None:
    """Linear with a shared law, quadratic with one a class; rows may lack modalities."""
    head = JointHead("gaussian", poolings=(pooling,)).fit(*scalars(300, 0, labels=3))
    test, _ = scalars(60, 1, missing=0.4, labels=3)
    assert len(head.laws_.joints_) == (1 if pooling == 1.0 else 3)
    found = head.predict_log_proba(test)
    np.testing.assert_allclose(found, by_hand(head, test), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1.0)


def test_the_fitted_laws_are_those_of_the_data() -> None:
    """Means shrink by one row at the overall mean; scales by one row of variance one."""
    data, y = scalars(1500, 0)
    head = JointHead("gaussian", poolings=(1.0,)).fit(data, y)
    x = np.hstack(list(data.values.values())).astype(np.float64)
    z = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    sign = np.sign((head.embed(data)[..., 0] * z).sum(axis=0))  # components have a free sign
    z *= sign
    np.testing.assert_allclose(head.embed(data)[..., 0], z, rtol=1e-3, atol=1e-4)
    count = np.bincount(y)
    means = np.stack([z[y == c].sum(axis=0) for c in (0, 1)]) / (count[:, None] + 1)
    np.testing.assert_allclose(head.laws_.means_.numpy()[..., 0], means, rtol=1e-3, atol=1e-4)
    deviation = z - means[y]
    law = head.laws_.joints_[0]()
    scale = np.sqrt(((deviation**2).sum(axis=0) + 1.0) / (len(y) + 1))
    np.testing.assert_allclose(law.marginals.scale.detach()[:, 0, 0], scale, rtol=2e-3)
    within = np.corrcoef(deviation.T)
    np.testing.assert_allclose(law.copula.correlation.detach()[0], within, atol=0.02)
    np.testing.assert_allclose(head.prior_, (count + 0.5) / (len(y) + 1))
    rival = LinearDiscriminantAnalysis().fit(x, y).predict_log_proba(x)
    mine = head.predict_log_proba(data)
    slope = np.polyfit(rival[:, 1] - rival[:, 0], mine[:, 1] - mine[:, 0], 1)[0]
    assert np.corrcoef(rival[:, 1] - rival[:, 0], mine[:, 1] - mine[:, 0])[0, 1] > 0.999
    assert abs(slope - 1) < 0.1


def alone(blocks: Blocks, m: int) -> Blocks:
    """The same rows with one modality only."""
    return Blocks(blocks.values, blocks.present & (np.arange(3) == m))


@pytest.mark.parametrize("copula", ["independence", "gaussian", "factor"])
def test_evidence_adds_up_only_without_dependence(copula: str) -> None:
    head = JointHead(copula=copula, poolings=(1.0,)).fit(*scalars(400, 0))
    test, _ = scalars(50, 1)
    prior = np.log(head.prior_)[1] - np.log(head.prior_)[0]

    def log_odds(blocks: Blocks) -> np.ndarray:
        log_proba = head.predict_log_proba(blocks)
        return log_proba[:, 1] - log_proba[:, 0] - prior

    apart = sum(log_odds(alone(test, m)) for m in range(3))
    gap = np.abs(log_odds(test) - apart).max()
    assert gap < 1e-3 if copula == "independence" else gap > 0.5


def test_no_modality_gives_the_prior() -> None:
    head = JointHead().fit(*scalars(100, 0))
    test, _ = scalars(4, 1)
    test.present[:] = False
    np.testing.assert_allclose(np.exp(head.predict_log_proba(test)), [head.prior_] * 4, rtol=1e-6)


@pytest.mark.parametrize("copula", ["factor", "gaussian", "gumbel", "frank"])
def test_what_stands_in_absent_rows_changes_nothing(copula: str) -> None:
    data, y = scalars(120, 0, missing=0.4)
    test, _ = scalars(40, 1, missing=0.4)
    head = JointHead(copula=copula, poolings=(1.0,))
    first = head.fit(data, y).predict_log_proba(test)
    for blocks in (data, test):
        for m, block in enumerate(blocks.values.values()):
            block[~blocks.present[:, m]] = 1e3
    np.testing.assert_array_equal(head.fit(data, y).predict_log_proba(test), first)


def test_weight_zero_is_the_same_as_no_row() -> None:
    data, y = scalars(160, 0, missing=0.2)
    kept = np.arange(160) % 4 > 0
    folds = stratified_folds(y, 3, 0)
    turned = np.where(kept, y, 1 - y)
    for block in data.values.values():
        block[~kept] += 50.0
    head, other = JointHead(), JointHead()
    head.cross_fit(data, turned, kept.astype(float), folds)
    other.cross_fit(data.take(np.flatnonzero(kept)), y[kept], None, folds[kept])
    np.testing.assert_allclose(
        head.predict_log_proba(data), other.predict_log_proba(data), rtol=1e-4, atol=1e-4
    )


def test_a_modality_that_no_row_of_a_class_has() -> None:
    data, y = scalars(120, 0)
    data.present[y == 1, 2] = False
    data.values["c"][y == 1] = 0.0
    head = JointHead(poolings=(0.0,)).fit(data, y)
    assert np.isfinite(head.predict_log_proba(scalars(20, 1)[0])).all()


def test_a_modality_that_no_row_has() -> None:
    data, y = scalars(120, 0)
    data.present[:, 2] = False
    data.values["c"][:] = 0.0
    head = JointHead().fit(data, y)
    assert np.isfinite(head.predict_log_proba(scalars(20, 1)[0])).all()


@pytest.mark.parametrize("pooling", [1.0, 0.0])
def test_a_modality_that_does_not_vary_says_nothing(pooling: float) -> None:
    """A constant, and one that a single row has; also where classes differ in size."""
    data, y = scalars(200, 0)
    y[::3] = 0
    data.values["b"][:] = 0.5
    data.present[1:, 2] = False
    data.values["c"][1:] = 0.0
    head = JointHead(poolings=(pooling,)).fit(data, y)
    test, _ = scalars(20, 1)
    test.values["b"][:] = 3.0
    np.testing.assert_allclose(
        head.predict_log_proba(test), head.predict_log_proba(alone(test, 0)), atol=1e-4
    )


def test_a_modality_of_one_column_takes_nothing_from_the_others() -> None:
    X, y = make_world("shared", 400, seed=3)
    fresh, truth = make_world("shared", 800, seed=4)
    wide = fitted_auroc(X, y, fresh, truth)
    noise = np.random.default_rng(0).normal(size=(1200, 1))
    more = fitted_auroc(X | {"age": noise[:400]}, y, fresh | {"age": noise[400:]}, truth)
    assert more[1] == wide[1] == 6
    assert abs(more[0] - wide[0]) < 0.01


def fitted_auroc(
    X: dict[str, np.ndarray], y: np.ndarray, fresh: dict[str, np.ndarray], truth: np.ndarray
) -> tuple[float, int]:
    reader = Reader()
    head = JointHead(dim=8, poolings=(1.0,)).fit(reader.fit_blocks(X), y)
    log_proba = head.predict_log_proba(reader.blocks(fresh))
    return float(roc_auc_score(truth, log_proba[:, 1])), head.embed(reader.blocks(fresh)).shape[-1]


def test_same_seed_same_laws_and_clones() -> None:
    data, y = scalars(100, 0)
    head = JointHead(copula="frank", poolings=(1.0,), random_state=3)
    assert clone(head).get_params() == head.get_params()
    assert REGISTRY["joint"] is JointHead
    first = head.fit(data, y).predict_log_proba(data)
    np.testing.assert_array_equal(clone(head).fit(data, y).predict_log_proba(data), first)


def test_out_of_fold_predictions_do_not_see_the_fold() -> None:
    """Turning a fold's labels around leaves the densities of that fold as they are."""
    data, y = scalars(200, 0)
    folds = stratified_folds(y, 2, 0)
    head = JointHead("gaussian", poolings=(1.0,))  # nothing is chosen by the labels
    [first] = head.cross_fit(data, y, None, folds)
    beta = head.beta_
    [turned] = head.cross_fit(data, np.where(folds == 0, 1 - y, y), None, folds)
    inside = folds == 0

    def log_odds(log_proba: np.ndarray) -> np.ndarray:
        return log_proba[inside, 1] - log_proba[inside, 0]

    assert head.beta_ < beta
    assert np.corrcoef(log_odds(first), log_odds(turned))[0, 1] > 1 - 1e-6


def fitted(name: str, rows: int, rate: float, copula: str) -> tuple[JointHead, float]:
    """A head fitted on a simulated world, and its AUROC on fresh samples."""
    X, y = make_world(name, rows, seed=3)
    fresh, truth = make_world(name, 1500, seed=4)
    reader = Reader()
    data = reader.fit_blocks(remove(X, rate, seed=1))
    head = JointHead(copula=copula).fit(data, y)
    log_proba = head.predict_log_proba(reader.blocks(remove(fresh, rate, seed=2)))
    return head, float(roc_auc_score(truth, log_proba[:, 1]))


def test_dependence_pays_where_modalities_share_nuisance() -> None:
    _, independent = fitted("shared", 600, 0.3, "independence")
    for copula in ("factor", "gaussian"):
        _, joint = fitted("shared", 600, 0.3, copula)
        assert joint > independent + 0.05


@pytest.mark.parametrize("copula", ["factor", "gaussian"])
def test_exclusive_or_needs_a_law_for_each_class(copula: str) -> None:
    """Two signs whose product is the class: means say nothing, dependence does."""
    head, auroc = fitted("xor", 1500, 0.0, copula)
    assert head.pooling_ < 1.0
    assert auroc > 0.7


@pytest.mark.parametrize("second", [0, 1])
def test_a_class_that_shows_in_a_correlation_of_any_two_components(second: int) -> None:
    """The sign of the correlation is the class; the better component is the second one or not."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=2400)
    x = rng.normal(size=(2400, 2, 2))
    x[:, 1, second] = 0.8 * (2 * y - 1) * x[:, 0, 0] + 0.6 * x[:, 1, second]
    # Unequal scales, so that the order of components is that of the columns.
    columns = np.repeat(x, [3, 1], axis=2) + 0.1 * rng.normal(size=(2400, 2, 4))
    present = np.ones((2400, 2), dtype=bool)
    blocks = Blocks({"a": columns[:, 0], "b": columns[:, 1]}, present)
    head = JointHead().fit(blocks.take(np.arange(1200)), y[:1200])
    log_proba = head.predict_log_proba(blocks.take(np.arange(1200, 2400)))
    assert head.pooling_ < 1.0
    # Without the noise of the columns the best possible is about .90.
    assert roc_auc_score(y[1200:], log_proba[:, 1]) > 0.85


def test_dependence_across_ranks_is_seen() -> None:
    """All that the class shows in lies between components of different rank."""
    _, joint = fitted("cross-rank", 1200, 0.3, "factor")
    _, by_rank = fitted("cross-rank", 1200, 0.3, "gaussian")
    assert joint > by_rank + 0.05


def test_a_row_that_stands_out_rules_nothing() -> None:
    X, y = make_world("shared", 600, seed=3)
    fresh, truth = make_world("shared", 800, seed=4)
    clean = fitted_auroc(X, y, fresh, truth)[0]
    X["a"][5, 2] = 1e20
    fresh["b"][7, 1] = 1e20
    assert abs(fitted_auroc(X, y, fresh, truth)[0] - clean) < 0.005


def test_many_coordinates_take_the_factor_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cm2.estimators.heads.joint.LARGEST", 5)
    data, y = scalars(200, 0, missing=0.2)
    wide = Blocks(
        {k: np.repeat(v, 2, axis=1) ** [1, 2] for k, v in data.values.items()}, data.present
    )
    head = JointHead(dim=2, rank=2, poolings=(1.0,)).fit(wide, y)
    assert head.laws_.joints_[0].rank == 2
    assert len(head.tried_) == 2  # shrinkage is of full covariances only
    assert np.isfinite(head.predict_log_proba(wide)).all()


def test_the_projection_takes_a_row_of_weight_two_for_two() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(40, 3)) * [3, 1, 0.3]).astype(np.float32)
    present = rng.random((40, 1)) > 0.2
    weight = rng.integers(0, 4, 40)
    rows = np.repeat(np.arange(40), weight)
    blocks = Blocks({"a": np.where(present, x, 0)}, present)
    weighted = Projection(2).fit(blocks, weight.astype(float))
    repeated = Projection(2).fit(blocks.take(rows), np.ones(len(rows)))
    np.testing.assert_allclose(weighted.centers_["a"], repeated.centers_["a"], rtol=1e-9)
    np.testing.assert_allclose(weighted.directions_["a"], repeated.directions_["a"], rtol=1e-6)
    np.testing.assert_allclose(weighted.quantiles_, repeated.quantiles_, rtol=1e-6)
    z = repeated.transform(blocks.take(rows))[present[rows, 0], 0]
    by_numpy = np.quantile(z, (np.arange(200) + 0.5) / 200, axis=0)
    np.testing.assert_allclose(repeated.quantiles_[:, 0], by_numpy, atol=1e-12)


@pytest.mark.parametrize(
    ("copies", "grouped", "taken"), [(1, False, 0), (4, False, 1), (4, True, 0)]
)
def test_rows_of_one_group_count_as_one(copies: int, grouped: bool, taken: int) -> None:
    """A gain of .8 standard errors of 50 rows: copies make it look sure, but not in groups."""
    loss = np.random.default_rng(0).normal(size=50)
    loss += 0.8 * loss.std() / np.sqrt(50) - loss.mean()
    rows = np.repeat(loss, copies)
    groups = np.repeat(np.arange(50), copies) if grouped else None
    search = Search(np.ones(len(rows)), groups)
    settings = [Setting(dim, "components", 1.0, 0.3) for dim in (2, 1)]
    for setting, losses in zip(settings, (rows, 0 * rows), strict=True):
        search.add(setting, losses, np.zeros((len(rows), 2)))
    assert search.best == settings[taken]


def test_the_groups_that_a_head_is_given_are_those_that_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    data, y = scalars(60, 0)
    groups = np.repeat(np.arange(20), 3)

    class Noted(Search):
        def __init__(self, weight: np.ndarray, groups: np.ndarray | None = None) -> None:
            seen.append(groups)
            super().__init__(weight, groups)

    monkeypatch.setattr("cm2.estimators.heads.joint.Search", Noted)
    JointHead(dim=1).fit(data, y, groups=groups)
    JointHead(dim=1).cross_fit(data, y, None, stratified_folds(y, 3, 0, groups), groups)
    for found in seen:
        np.testing.assert_array_equal(found, groups)
    assert len(seen) == 2


@pytest.mark.parametrize("labels", [2, 3])
def test_a_class_that_one_patient_alone_has_is_learned(labels: int) -> None:
    """Without that patient's fold no row of the class is left."""
    blocks, y = scalars(90 * labels, 0, labels=labels)
    patient = np.where(y == 1, -1, np.arange(len(y)))
    found = JointHead().fit(blocks, y, groups=patient).predict_log_proba(blocks)
    assert np.isfinite(found).all()
    assert roc_auc_score(y == 1, found[:, 1]) > 0.5


def test_what_does_not_vary_says_nothing() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=80)
    blocks = Blocks({"a": np.zeros((80, 2), np.float32)}, np.ones((80, 1), bool))
    head = JointHead().fit(blocks, y)
    np.testing.assert_allclose(np.exp(head.predict_log_proba(blocks)), [head.prior_] * 80)
