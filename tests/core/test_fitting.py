"""An estimator is fitted whole or not at all."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from cm2 import CM2Classifier


def test_a_fit_that_is_refused_leaves_what_was_learned() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=80)
    X = {name: rng.normal(size=(80, 2)) + y[:, None] for name in ("a", "b")}
    model = CM2Classifier(head="joint", random_state=0).fit(X, y)
    before = model.predict_proba(X)
    other = {"a": X["b"] * 100, "b": X["a"]}
    refused = {
        "one patient": {"y": y, "groups": np.zeros(80)},
        "one class": {"y": np.zeros(80)},
        "a weight too few": {"y": y, "sample_weight": np.ones(79)},
    }
    for options in refused.values():
        with pytest.raises(ValueError, match=r"groups|class|weight"):
            model.fit(other, **options)
        np.testing.assert_array_equal(model.predict_proba(X), before)


def test_one_array_after_a_frame_is_fitted_anew() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=80)
    X = rng.normal(size=(80, 4)) + y[:, None]
    parts = {"a": slice(0, 2), "b": slice(2, 4)}
    model = CM2Classifier(head="experts", modalities=parts, random_state=0)
    with pytest.raises(ValueError, match="one class"):
        model.fit(X, np.zeros(80))
    assert not [name for name in vars(model) if name.endswith("_")]
    assert list(inspect.signature(model.fit).parameters)[:3] == ["X", "y", "sample_weight"]
