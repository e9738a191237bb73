"""Fits in two Python threads: what is learned, and what belongs to the process afterwards."""

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cm2 import CM2Classifier
from cm2.estimators import baselines
from cm2.estimators.heads import held_out
from cm2.samples.kinds import SeriesColumn
from small_models import shrink

RNG = np.random.default_rng(0)
Y = RNG.integers(2, size=60)
X = {"labs": RNG.normal(size=(60, 2)) + Y[:, None]}
WAIT = 30.0


@pytest.mark.parametrize(
    "fit",
    [
        lambda: CM2Classifier(head="experts", random_state=0).fit(X, Y),
        lambda: baselines.LateFusion("forest").fit(X, Y),
    ],
    ids=["experts", "rival"],
)
def test_fits_in_two_threads_are_those_alone_and_leave_warnings_as_they_were(
    fit: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first enters a block that changes filters before the second, and leaves it before."""
    shrink(monkeypatch)
    alone = fit().predict_proba(X)
    entered, left = threading.Event(), threading.Event()
    out_of_bag = held_out.out_of_bag

    def in_turn(forest: Callable[[], Any], *rest: Any) -> Any:
        second = threading.current_thread().name.endswith("_1")

        def grown() -> Any:
            if second:
                entered.set()
            assert (left if second else entered).wait(WAIT)
            return forest()

        found = out_of_bag(grown, *rest)
        if not second:
            left.set()
        return found

    monkeypatch.setattr(held_out, "out_of_bag", in_turn)
    before = list(warnings.filters)
    barrier = threading.Barrier(2)

    def run(_: int) -> Any:
        barrier.wait(WAIT)  # so that each has a thread
        return fit().predict_proba(X)

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(run, range(2)))
    np.testing.assert_array_equal(both, [alone, alone])
    assert list(warnings.filters) == before


def test_a_prediction_sets_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of a server predict side by side."""
    steps = np.array([[1.0, np.nan], [3.0, np.nan]])
    column = SeriesColumn("vitals", [steps, None])
    with monkeypatch.context() as patch:
        patch.setattr(warnings, "catch_warnings", None)
        first, second = column.summaries(2)
    expected = np.array([[1.0, 3.0, 1.0, 3.0, 2.0, 2.0], [*[np.nan] * 5, 0.0]]).T.ravel()
    np.testing.assert_array_equal(first, expected)
    assert np.isnan(second).all()
