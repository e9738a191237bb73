"""The worlds hold what they promise: where the class can be told, and where it cannot."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cm2.samples.worlds import MODALITIES, WORLDS, make_world, remove
from laws import monte_carlo


def within_class_correlation(X: dict[str, np.ndarray], y: np.ndarray) -> np.ndarray:
    """Of the first features, which are the views with a little noise."""
    first = np.stack([block[:, 0] for block in X.values()], axis=1)
    centred = first - np.stack([first[y == c].mean(axis=0) for c in (0, 1)])[y]
    return np.corrcoef(centred.T)


@pytest.mark.parametrize("name", WORLDS)
def test_shapes_balance_and_seeds(name: str) -> None:
    X, y = make_world(name, n=2000, seed=1)
    assert tuple(X) == MODALITIES
    assert {block.shape for block in X.values()} == {(2000, 6)}
    assert abs(y.mean() - 0.5) < monte_carlo(2000, 0.5)
    again, _ = make_world(name, n=2000, seed=1)
    other, _ = make_world(name, n=2000, seed=2)
    assert all((X[m] == again[m]).all() for m in X)
    assert not any((X[m] == other[m]).any() for m in X)


def test_shared_views_depend_within_a_class_and_independent_ones_do_not() -> None:
    n = 4000
    across = np.triu_indices(4, 1)
    shared = within_class_correlation(*make_world("shared", n))[across]
    assert (np.abs(shared) > 0.1).all()
    assert np.abs(shared).max() > 0.5
    independent = within_class_correlation(*make_world("independent", n))[across]
    assert (np.abs(independent) < monte_carlo(n)).all()


def test_in_the_shared_world_views_together_tell_what_no_view_tells() -> None:
    X, y = make_world("shared", 4000)
    views = np.stack([block[:, 0] - block[:, 1] for block in X.values()], axis=1) / 2
    single = [roc_auc_score(y, view) for view in views.T]
    assert max(single) < 0.75
    difference = views[y == 1].mean(axis=0) - views[y == 0].mean(axis=0)
    pooled = (np.cov(views[y == 0].T) + np.cov(views[y == 1].T)) / 2
    assert roc_auc_score(y, views @ np.linalg.solve(pooled, difference)) > 0.95


def test_xor_views_tell_nothing_alone_and_the_product_does() -> None:
    X, y = make_world("xor", 4000)
    first, second = X["a"][:, 0], X["b"][:, 0]
    # Standard error of an AUROC of 1/2 from n/2 against n/2.
    error = 4 * np.sqrt(1 / (3 * 4000))
    assert abs(roc_auc_score(y, first) - 0.5) < error
    assert abs(roc_auc_score(y, second) - 0.5) < error
    assert roc_auc_score(y, first * second) > 0.65
    assert 0.53 < roc_auc_score(y, X["c"][:, 0]) < 0.65


def test_across_ranks_a_second_view_tells_beside_the_first_of_the_modality_before() -> None:
    X, y = make_world("cross-rank", 4000)
    first = np.stack([block[:, 0] - block[:, 1] for block in X.values()], axis=1) / 2
    second = np.stack([block[:, 4] - block[:, 5] for block in X.values()], axis=1) / 2
    # Standard error of an AUROC of 1/2 from n/2 against n/2.
    error = 4 * np.sqrt(1 / (3 * 4000))
    assert max(abs(roc_auc_score(y, view) - 0.5) for view in first.T) < error
    assert max(roc_auc_score(y, view) for view in second.T) < 0.65
    assert roc_auc_score(y, (second - np.roll(first, 1, axis=1)).sum(axis=1)) > 0.97
    # Components of one rank say nothing of one another.
    for views in (first, second):
        centred = views - np.stack([views[y == c].mean(axis=0) for c in (0, 1)])[y]
        assert (np.abs(np.corrcoef(centred.T)[np.triu_indices(4, 1)]) < monte_carlo(4000)).all()


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.7])
def test_removal_drops_whole_rows_at_the_rate_and_keeps_one(rate: float) -> None:
    n = 5000
    X, _ = make_world("independent", n)
    gone = np.stack([np.isnan(b) for b in remove(X, rate, seed=3).values()], axis=1)
    assert (gone.all(axis=2) == gone.any(axis=2)).all()
    missing = gone[:, :, 0]
    assert not missing.all(axis=1).any()
    # Rows that would have lost all four keep one, evenly drawn.
    expected = rate - rate**4 / 4
    assert np.abs(missing.mean(axis=0) - expected).max() <= monte_carlo(n, 0.5) * (rate > 0)


def test_removal_leaves_the_rest_and_the_input_alone() -> None:
    X, _ = make_world("independent", 100)
    before = {m: block.copy() for m, block in X.items()}
    after = remove(X, 0.5)
    for m in X:
        kept = ~np.isnan(after[m][:, 0])
        np.testing.assert_array_equal(after[m][kept], before[m][kept])
        np.testing.assert_array_equal(X[m], before[m])


def test_what_was_missing_stays_missing_and_is_not_the_one_kept() -> None:
    X, _ = make_world("independent", 2000)
    X["a"][:1000] = np.nan
    after = np.stack([np.isnan(b[:, 0]) for b in remove(X, 0.9).values()], axis=1)
    assert after[:1000, 0].all()
    assert not after.all(axis=1).any()


def test_bad_names_and_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown world 'nand'"):
        make_world("nand")
    with pytest.raises(ValueError, match="rate"):
        remove({"a": np.zeros((2, 1))}, 1.0)
