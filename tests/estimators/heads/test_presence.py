"""What presence says: Bayes' rule by hand, no say where it says nothing, and the fault it mends."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cm2 import CM2Classifier
from cm2.estimators.heads import Fusion
from cm2.estimators.heads.presence import log_presence, log_rates
from cm2.networks.models import Model


def noise(
    rows: int, seed: int, rates: tuple[float, float]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Two modalities of noise; the second is there at a rate that depends on the class."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=rows)
    X = {name: rng.normal(size=(rows, 2)) for name in "ab"}
    X["b"][rng.random(rows) >= np.array(rates)[y]] = np.nan
    return X, y


def test_rates_and_their_logarithms_by_hand() -> None:
    present = np.array([[True, False], [True, True], [True, False], [True, True]])
    y = np.array([0, 0, 1, 1])
    found = np.exp(log_rates(present, y, np.array([1.0, 1.0, 1.0, 3.0]), 2))
    common = (np.array([6.0, 4.0]) + 0.5) / 7
    np.testing.assert_allclose(found[0, 0], (np.array([2.0, 1.0]) + 10 * common) / 12)
    np.testing.assert_allclose(found[0, 1], (np.array([4.0, 3.0]) + 10 * common) / 14)
    np.testing.assert_allclose(found.sum(axis=0), 1)
    expected = np.log(found[0, :, 0]) + np.log(found[1, :, 1])
    np.testing.assert_allclose(log_presence(np.log(found), present[[0]])[0], expected)


@pytest.mark.parametrize("head", ["joint", "experts"])
def test_heads_of_noise_learn_from_presence(head: str, small_models: None) -> None:
    X, y = noise(800, 0, (0.3, 0.9))
    new, truth = noise(2000, 1, (0.3, 0.9))
    auc = {}
    for option in (False, True):
        model = CM2Classifier(head=head, presence=option, random_state=0).fit(X, y)
        auc[option] = roc_auc_score(truth, model.predict_proba(new)[:, 1])
    # Presence alone has an AUROC of .8; .012 is its standard error with 2,000 rows.
    assert auc[True] > 0.8 - 4 * 0.012
    assert auc[True] > auc[False] + 0.15


def test_presence_that_says_nothing_gets_no_say(tmp_path: Path) -> None:
    X, y = noise(600, 2, (0.6, 0.6))
    X["a"] += y[:, None]
    plain = CM2Classifier(head="joint", random_state=0).fit(X, y).predict_proba(X)
    model = CM2Classifier(head="joint", presence=True, random_state=0).fit(X, y)
    # Rates of 300 rows a class differ by .04 by chance, which moves log odds by a fifth at most.
    np.testing.assert_allclose(model.predict_proba(X), plain, atol=0.06)
    assert model.embed(X).shape[:2] == (600, 2)
    again = CM2Classifier.load(model.save(tmp_path / "model.cm2"))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_the_pool_takes_it_too(small_models: None) -> None:
    X, y = noise(300, 3, (0.3, 0.9))
    options = {"max_epochs": 1, "n_networks": 1, "random_state": 0}
    model = CM2Classifier(presence=True, **options).fit(X, y)
    assert model.predict_spread(X).shape == (300, 2)
    assert model.embed(X).shape[:2] == (300, 2)


@pytest.mark.parametrize("networks", [2, 4, 5])
def test_it_trains_as_many_networks_as_asked_for_on_equal_parts(
    networks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def remembered(
        self: Fusion, blocks: Any, y: Any, weight: Any, groups: Any, rows: Any, *_: Any
    ) -> Model:
        seen.append(len(rows))
        return self.start(0).eval()

    monkeypatch.setattr(Fusion, "_train", remembered)
    X, y = noise(60, 4, (0.3, 0.9))
    options = {"head": "fusion", "embedding_dim": 2, "random_state": 0}
    CM2Classifier(presence=True, n_networks=networks, **options).fit(X, y)
    assert seen == [60 - 60 // networks] * networks
