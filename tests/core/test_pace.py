"""Lines in the log about what takes long, and none about what does not."""

import logging
import time

import numpy as np
import pytest

from cm2 import CM2Classifier
from cm2.core import pace
from small_models import shrink


def test_lines_come_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = iter([0.0, 0.0, 6.0, 12.0, 18.0, 24.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    with caplog.at_level(logging.INFO, logger="cm2"):
        assert list(pace.told("abcde", 5, "letters")) == list("abcde")
    assert caplog.messages == [
        "letters: 2 of 5, about 18 s left",
        "letters: 4 of 5, about 6 s left",
    ]


def test_what_is_quick_has_no_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cm2"):
        assert sum(pace.told(range(1000), 1000, "numbers")) == 499_500
    assert caplog.messages == []


def test_fits_and_predictions_are_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Heads of a pool, its experts, their folds, labels, and batches of a prediction."""
    shrink(monkeypatch)
    monkeypatch.setattr(pace, "EVERY", 0.0)
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=(60, 2))
    X = {name: rng.normal(size=(60, 2)) + y for name in ("labs", "vitals")}
    small = {"n_networks": 1, "max_epochs": 1, "device": "cpu", "random_state": 0}
    with caplog.at_level(logging.INFO, logger="cm2.core.pace"):
        CM2Classifier(embedding_dim=2, **small).fit(X, y)
        said = {line.partition(":")[0] for line in caplog.messages}
        assert said >= {"labels", "heads of the pool", "experts", "folds of Experts"}
        caplog.clear()
        many = {name: np.tile(table, (40, 1)) for name, table in X.items()}  # two batches
        CM2Classifier(head="fusion", embedding_dim=2, **small).fit(X, y).predict_proba(many)
    assert any(line.startswith("batches that networks read: 1 of 2") for line in caplog.messages)
