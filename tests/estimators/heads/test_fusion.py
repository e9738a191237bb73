"""The fusion head: cross-fitted networks, honest out-of-fold predictions, determinism."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

import elsewhere
from cm2 import CM2Classifier, Samples
from cm2.estimators.heads import REGISTRY
from cm2.estimators.heads.base import stratified_folds
from cm2.estimators.heads.early import Linear
from cm2.estimators.heads.fusion import MODEL, Fusion
from cm2.estimators.heads.pool import Pool
from cm2.estimators.heads.presence import Presence
from cm2.networks.encoders import Dense
from cm2.samples.inputs import Blocks
from cm2.samples.worlds import make_world


def fast(epochs: int = 8, folds: int = 2) -> Fusion:
    return Fusion(4, training={"max_epochs": epochs, "lr": 1e-2}, folds=folds)


def blocks(rows: int = 300, seed: int = 0, labels: int = 2) -> tuple[Blocks, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(labels, size=rows)
    values = {name: rng.normal(size=(rows, 3)).astype("float32") for name in "abc"}
    for block in values.values():
        block[:, 0] += 1.5 * (y - (labels - 1) / 2)
    present = rng.random((rows, 3)) < 0.7
    present[~present.any(1), 0] = True
    for column, block in enumerate(values.values()):
        block[~present[:, column]] = 0.0
    return Blocks(values, present), y


@pytest.fixture(scope="module")
def fitted() -> Fusion:
    return fast().fit(*blocks())


def test_it_is_registered_and_clones() -> None:
    assert REGISTRY["fusion"] is Fusion
    model = MODEL | {"hide": 0.3}
    assert clone(Fusion(model=model)).model == model


def test_it_predicts(fitted: Fusion) -> None:
    test, y = blocks(400, seed=1)
    log_proba = fitted.predict_log_proba(test)
    assert log_proba.shape == (400, 2)
    np.testing.assert_allclose(np.exp(log_proba).sum(1), 1.0)
    assert roc_auc_score(y, log_proba[:, 1]) > 0.85


def test_same_seed_same_predictions(fitted: Fusion) -> None:
    test, _ = blocks(50, seed=1)
    first = fitted.predict_log_proba(test)
    np.testing.assert_array_equal(fitted.predict_log_proba(test), first)
    np.testing.assert_array_equal(fast().fit(*blocks()).predict_log_proba(test), first)


def test_out_of_fold_predictions_come_from_networks_that_never_saw_the_row() -> None:
    """Turning the labels of a fold around changes nothing in the predictions of that fold."""
    data, y = blocks(200)
    folds = stratified_folds(y, 2, 0)
    head = fast(2)
    [first] = head.cross_fit(data, y, None, folds)
    turned = np.where(folds == 0, 1 - y, y)
    [other] = head.cross_fit(data, turned, None, folds)
    np.testing.assert_array_equal(first[folds == 0], other[folds == 0])
    assert np.abs(first[folds == 1] - other[folds == 1]).max() > 1e-3


def test_out_of_fold_equals_cross_fit_and_leaves_the_head_alone() -> None:
    data, y = blocks(120)
    folds = stratified_folds(y, 4, 0)
    head = fast(1)
    out = head.out_of_fold(data, y, None, folds)
    assert not hasattr(head, "networks_")
    np.testing.assert_array_equal(out, head.cross_fit(data, y, None, folds))
    assert len(head.networks_) == 2


def test_one_network_and_a_modality_never_there() -> None:
    data, y = blocks(120, labels=3)
    data.present[:, 2] = False
    data.values["c"][:] = 0.0
    data.present[~data.present.any(1), 0] = True
    head = fast(2, folds=1).fit(data, y)
    test, _ = blocks(20, labels=3)
    assert np.isfinite(head.predict_log_proba(test)).all()
    folds = stratified_folds(y, 2, 0)
    assert np.isfinite(head.cross_fit(data, y, None, folds)).all()
    assert len(head.networks_) == 1


def test_embeddings_and_imputations(fitted: Fusion) -> None:
    test, _ = blocks(40, seed=2)
    z = fitted.embed(test)
    assert z.shape == (40, 3, 4)
    assert (z[~test.present] == 0).all()
    draws = fitted.impute(test, draws=3)
    assert draws.shape == (3, 40, 3, 4)
    np.testing.assert_array_equal(
        draws[:, test.present], np.broadcast_to(z[test.present], (3, *z[test.present].shape))
    )
    assert draws.std(0)[~test.present].min() > 0


def test_weight_zero_counts_as_absent() -> None:
    data, y = blocks(150)
    weight = (np.arange(150) < 100).astype(float)
    turned = np.where(weight > 0, y, 1 - y)
    head = fast(2, folds=1)
    first = head.fit(data, y, weight).predict_log_proba(data)
    np.testing.assert_array_equal(head.fit(data, turned, weight).predict_log_proba(data), first)


def test_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="folds=0"):
        Fusion(folds=0).fit(*blocks(20))


def test_trap_what_encoders_begin_from_reaches_other_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A head goes there as it goes into a file, of which encoders are built at random."""
    data, y = blocks(60)
    template = Dense(3, 4, width=5).freeze()
    with torch.no_grad():
        template.linear.weight.fill_(0.25)
    head = Fusion(4, training={"max_epochs": 1}, folds=3, encoders={"b": template})
    monkeypatch.setattr("cm2.estimators.heads.fusion.Parallel", elsewhere.parallel)
    folds = stratified_folds(y, 3, 0)
    trained = [elsewhere.there(clone(head)).fit(data, y)]
    two = elsewhere.there(clone(head))
    two.begin(data, y, None, folds)
    two = elsewhere.there(two)  # as from the process that has trained the first one
    two.finish(data, y, None, folds)
    for one in [*trained, two, elsewhere.there(two)]:
        assert len(one.networks_) == 3
        for network in one.networks_:
            assert (network.encoders["b"].linear.weight == 0.25).all()


@pytest.mark.parametrize("whole", ["presence", "pool"])
def test_rows_that_stop_training_reach_the_networks_inside_a_head(
    whole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    train = Fusion._train

    def spy(self: Fusion, *given: Any) -> Any:
        seen.append(given[-1])
        return train(self, *given)

    monkeypatch.setattr(Fusion, "_train", spy)
    network = Fusion(training={"max_epochs": 1})
    head = Presence(network) if whole == "presence" else Pool({"fusion": network, "b": Linear()})
    X, y = make_world("shared", 90, seed=0)
    fresh, truth = make_world("shared", 30, seed=1)
    CM2Classifier(head=head).fit(X, y, validation=Samples(fresh, y=truth))
    assert seen
    assert all(held is not None and len(held.y) == 30 for held in seen)
