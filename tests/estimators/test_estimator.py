"""CM2Classifier: scikit-learn's own checks, what users may pass in, and what is refused."""

import re
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.estimator_checks import estimator_checks_generator

from cm2 import CM2Classifier, Samples
from cm2.estimators.heads import Experts, Fusion, Head, JointHead, Pool
from cm2.samples.worlds import make_world

pytestmark = pytest.mark.usefixtures("small_models")

FAST = {"embedding_dim": 4, "n_components": 2, "max_epochs": 2, "n_networks": 2}
GROUPS = {"labs": slice(0, 3), "notes": [3, 4, 5]}
HEADS = ["experts", "joint", "fusion"]


def samples(
    rows: int = 120, seed: int = 0, labels: int = 2
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Two modalities of three columns; the second is missing for every third sample."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % labels
    X = {name: rng.normal(size=(rows, 3)) + 1.5 * y[:, None] for name in ("labs", "notes")}
    X["notes"][::3] = np.nan
    return X, y


def model(head: str = "joint", **options: Any) -> CM2Classifier:
    return CM2Classifier(head=head, random_state=0, **FAST | options)


@cache
def fitted(head: str = "joint") -> CM2Classifier:
    """A model of `samples()`, fitted once; predicting leaves it as it is."""
    return model(head).fit(*samples())


# scikit-learn's checks ------------------------------------------------------------------------

TRAINED = {
    "max_epochs": 12,
    "learning_rate": 0.03,
    "embedding_dim": 2,
    "n_components": 1,
    "n_networks": 1,
    "n_imputations": 1,
}
CHECKED = [
    model("experts"),
    model("joint", copula="independence", modalities={"first": [0], "rest": slice(1, None)}),
    model("fusion", **TRAINED),
    model("pooled", **TRAINED | {"n_networks": 2}),
]
LEARNING = {
    "check_classifiers_train",
    "check_classifiers_classes",
    "check_class_weight_classifiers",
}
"""Checks of how well a classifier has learned; networks train one epoch for the others."""


def expected_failures(_: CM2Classifier) -> dict[str, str]:
    return {
        "check_sample_weight_equivalence_on_dense_data": (
            "a repeated row is dealt to several folds, a row of weight two to one fold"
        ),
        "check_sample_weight_equivalence_on_sparse_data": "likewise",
        "check_do_not_raise_errors_in_init_or_set_params": (
            "the type checker that these tests run under refuses -1 for a text"
        ),
    }


OF_HEADS = LEARNING | {
    "check_dict_unchanged",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_fit_idempotent",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weights_not_overwritten",
}
"""What a head can break. The other checks are of how arguments are read, which the classifier does
before there is a head; the quickest head stands for all of them."""

OF_POOL = {
    "check_estimators_pickle",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_fit_idempotent",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
}
"""What pooling can break; in the others a pool's heads are met one by one, and in less time."""

NOT_APPLICABLE = {
    "check_array_api_input",
    "check_classifiers_multilabel_output_format_decision_function",
}
"""Checks of what the classifier has not: the array API, a decision function."""


def checks() -> Iterator[Any]:
    """scikit-learn's checks of each estimator, with an id that names both.

    All of them for the first; for the others, those of heads.
    """
    for estimator in CHECKED:
        chosen = OF_POOL if estimator.head == "pooled" else OF_HEADS
        for _, check in estimator_checks_generator(estimator):
            name = check.func.__name__
            if name in NOT_APPLICABLE or (estimator is not CHECKED[0] and name not in chosen):
                continue
            reason = expected_failures(estimator).get(name)
            marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
            yield pytest.param(estimator, check, id=f"{estimator.head}-{name}", marks=marks)


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_scikit_learn_checks(
    estimator: CM2Classifier, check: partial[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if estimator.head in (
        "fusion",
        "pooled",
    ):  # networks compute in float32, one rounding of which is 1e-7

        def loose(actual: Any, desired: Any, rtol: float = 0.0, **options: Any) -> None:
            np.testing.assert_allclose(actual, desired, rtol=max(rtol, 1e-5), **options)

        monkeypatch.setattr(estimator_checks, "assert_allclose", loose)
        if check.func.__name__ not in LEARNING:
            estimator = clone(estimator).set_params(max_epochs=1)
    check(estimator)


# What may be passed in ------------------------------------------------------------------------


@pytest.mark.parametrize("head", [*HEADS, "pooled"])
def test_it_learns_from_incomplete_modalities(head: str) -> None:
    X, y = samples(200)
    options = {"max_epochs": 15, "learning_rate": 0.02} if head in ("fusion", "pooled") else {}
    fitted = model(head, **options).fit(X, y)
    test, truth = samples(200, seed=1)
    proba = fitted.predict_proba(test)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)
    assert roc_auc_score(truth, proba[:, 1]) > 0.9
    assert fitted.score(test, truth) == np.mean(fitted.predict(test) == truth)
    assert fitted.modalities_ == ["labs", "notes"]


@pytest.mark.parametrize("labels", [["dead", "alive"], ["a", "b", "c"], [7, -1], [True, False]])
def test_labels_come_back_as_they_are(labels: list[Any]) -> None:
    X, y = samples(labels=len(labels))
    names = np.array(labels)[y]
    fitted = model().fit(X, names)
    np.testing.assert_array_equal(fitted.classes_, np.unique(names))
    predicted = fitted.predict(X)
    assert predicted.dtype == names.dtype
    assert np.mean(predicted == names) > 0.8
    proba = fitted.predict_proba(X)
    assert proba.shape == (120, len(labels))
    np.testing.assert_array_equal(fitted.classes_[proba.argmax(axis=1)], predicted)


def test_pandas_labels() -> None:
    X, y = samples()
    expected = fitted().predict_proba(X)
    numbers = pd.Series(y, index=y + 5, dtype="Int64")
    np.testing.assert_array_equal(model().fit(X, numbers).predict_proba(X), expected)
    words = pd.Series(np.array(["no", "yes"])[y])
    for series in (words, words.astype("category")):
        named = model().fit(X, series)
        assert list(named.classes_) == ["no", "yes"]
        np.testing.assert_array_equal(named.predict_proba(X), expected)


@pytest.mark.parametrize("head", HEADS)
def test_several_labels_a_sample(head: str) -> None:
    X, y = samples()
    labels = np.stack([y, 1 - y, np.arange(120) // 2 % 2], axis=1)
    several = model(head).fit(X, labels)
    proba = several.predict_proba(X)
    assert proba.shape == (120, 3)
    if head != "fusion":  # whose networks learn all labels together
        np.testing.assert_allclose(proba[:, 0], fitted(head).predict_proba(X)[:, 1], rtol=1e-6)
    predicted = several.predict(X)
    np.testing.assert_array_equal(predicted, proba > 0.5)
    assert several.score(X, labels) == np.mean((predicted == labels).all(axis=1))


def test_networks_learn_several_labels_together(tmp_path: Path) -> None:
    """One network for all of them, also if one is constant; what it is not shown it says rarely."""
    X, y = samples()
    labels = np.stack([y, 1 - y, np.zeros(120, int)], axis=1)
    held = Samples({name: table[:40] for name, table in X.items()}, y=labels[:40])
    several = model("fusion", max_epochs=30, n_networks=1, learning_rate=0.03)
    several.fit(X, labels, validation=held)
    assert isinstance(several.head_, Fusion)
    assert [network.labels for network in several.networks_] == [3]
    proba = several.predict_proba(X)
    assert roc_auc_score(y, proba[:, 0]) > 0.9
    assert roc_auc_score(1 - y, proba[:, 1]) > 0.9
    assert proba[:, 2].mean() < 0.2
    none = {name: np.full_like(table, np.nan) for name, table in X.items()}
    np.testing.assert_allclose(several.predict_proba(none)[0], several.prior_[:, 1])
    again = CM2Classifier.load(several.save(tmp_path / "m.cm2"))
    np.testing.assert_array_equal(again.predict_proba(X), proba)
    assert several.predict_spread(X).shape == proba.shape
    each = model("fusion", max_epochs=1, n_networks=1, class_weight="balanced")
    assert len(each.fit(X, labels[:, :2]).head_) == 2, "weights of classes are of a label"


def test_rows_that_stop_training_weigh_as_much_as_their_classes_do() -> None:
    """Balanced as the training rows are, and not as they are themselves."""
    X, y = samples()
    rare = np.flatnonzero((y == 0) | (np.arange(len(y)) % 5 == 0))
    stop = Samples({name: table[:20] for name, table in X.items()}, y=y[:20])
    learn = {name: table[rare] for name, table in X.items()}
    for weights in ("balanced", None):
        fitted = model("fusion", max_epochs=1, n_networks=1, class_weight=weights)
        fitted.fit(learn, y[rare], validation=stop)
        found = fitted.head_.held.weight
        if weights is None:
            assert found is None
            continue
        expected = compute_class_weight("balanced", classes=np.unique(y), y=y[rare])
        np.testing.assert_allclose(found, expected[np.searchsorted(np.unique(y), y[:20])])


def test_unimodal_reads_its_modality_wherever_it_stands(tmp_path: Path) -> None:
    """Also when it was read from a file, which has the encoder of that modality alone."""
    X, y = samples()
    last = list(X)[-1]
    X = {name: table.copy() for name, table in X.items()}
    X[last][::3] = np.nan
    X[next(iter(X))][1::3] = np.nan
    head = Fusion(4, model={"kind": "unimodal", "modality": last}, training={"max_epochs": 2})
    fitted = CM2Classifier(head=head, random_state=0).fit(X, y)
    again = CM2Classifier.load(fitted.save(tmp_path / "m.cm2"))
    proba = fitted.predict_proba(X)
    np.testing.assert_array_equal(again.predict_proba(X), proba)
    assert np.ptp(proba[::3], axis=0).max() < 1e-6, "rows without it have one prediction"
    z = again.embed(X)
    np.testing.assert_array_equal(z, fitted.embed(X))
    assert z.shape[1] == len(X)
    assert np.abs(z[1, -1]).max() > 0


def test_a_head_may_be_given_as_an_object(tmp_path: Path) -> None:
    """With all that its network and its training know; a clone of it is fitted."""
    X, y = samples()
    head = Fusion(
        4,
        model={"kind": "medfuse"},
        training={"max_epochs": 2, "optimizer": "adam", "accumulate": 2},
        task="binary",
        folds=1,
    )
    own = CM2Classifier(head=head, random_state=0).fit(X, y)
    assert not hasattr(head, "networks_")
    assert own.networks_[0].labels == 1
    proba = own.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    again = CM2Classifier.load(own.save(tmp_path / "m.cm2"))
    np.testing.assert_array_equal(again.predict_proba(X), proba)
    np.testing.assert_array_equal(clone(own).fit(X, y).predict_proba(X), proba)
    joint = CM2Classifier(head=JointHead(copula="factor"), random_state=0).fit(X, y)
    assert joint.predict_proba(X).shape == (120, 2)


def test_how_a_modality_is_read_is_said_beside_its_encoder() -> None:
    X, y = samples()
    read = {"labs": {"scaling": "standard", "tokenizer": None}}
    scaled = model(reading=read).fit(X, y).reader_.learned_["labs"].scaler_.scaler_
    np.testing.assert_allclose(scaled.scale_, X["labs"].std(axis=0))
    with pytest.raises(ValueError, match=r"reading\.labs knows scaling, .*, but not 'scale'"):
        model(reading={"labs": {"scale": "standard"}}).fit(X, y)
    with pytest.raises(ValueError, match="unknown modality 'lab'"):
        model(reading={"lab": {"scaling": "standard"}}).fit(X, y)


def test_what_was_learned_before_reads_new_samples() -> None:
    X, y = samples()
    before = fitted().reader_
    moved = {name: table + 3 for name, table in X.items()}
    again = model().fit(moved, y, reader=before)
    assert again.reader_ is before
    none = {name: np.where(np.arange(120)[:, None] < 1, np.nan, table) for name, table in X.items()}
    with pytest.raises(ValueError, match="1 samples have no modality at all"):
        model().fit(none, y, reader=before)


def test_a_dict_frames_and_column_groups_are_the_same() -> None:
    X, y = samples()
    expected = fitted().predict_proba(X)
    frames = {name: pd.DataFrame(table) for name, table in X.items()}
    np.testing.assert_array_equal(model().fit(frames, y).predict_proba(frames), expected)
    array = np.hstack(list(X.values()))
    grouped = model(modalities=GROUPS).fit(array, y)
    np.testing.assert_array_equal(grouped.predict_proba(array), expected)
    assert grouped.n_features_in_ == 6


def test_named_columns() -> None:
    X, y = samples()
    frame = pd.DataFrame(np.hstack(list(X.values())), columns=list("abcdef"))
    groups = {"labs": ["a", "b", "c"], "notes": ["d", "e", "f"]}
    named = model(modalities=groups).fit(frame, y)
    np.testing.assert_array_equal(named.predict_proba(frame), fitted().predict_proba(X))
    assert list(named.feature_names_in_) == list("abcdef")
    with pytest.raises(ValueError, match="feature names should match"):
        named.predict(frame.rename(columns={"a": "z"}))


def test_pipeline_and_grid_search() -> None:
    X, y = samples()
    array = np.hstack(list(X.values()))
    search = GridSearchCV(
        make_pipeline(StandardScaler(), model(modalities=GROUPS)),
        {"cm2classifier__copula": ["gaussian", "independence"]},
        cv=2,
        scoring="roc_auc",
        error_score="raise",
    )
    search.fit(array, y)
    assert set(search.cv_results_["param_cm2classifier__copula"]) == {"gaussian", "independence"}
    assert search.best_score_ > 0.9
    assert search.predict_proba(array).shape == (120, 2)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", ["matrix", "dict"])
def test_masks_hide_what_is_there(head: str, kind: str) -> None:
    """Masked rows are missing rows; what stands in them is not read, be it infinite."""
    X, y = samples()
    here = ~np.isnan(X["notes"][:, 0])
    expected = fitted(head).predict_proba(X)
    X["notes"] = np.where(here[:, None], X["notes"], np.where(y[:, None] == 1, np.inf, -1e9))
    mask = {"notes": here} if kind == "dict" else np.stack([np.ones(120, bool), here], axis=1)
    masked = model(head).fit(X, y, present=mask)
    np.testing.assert_array_equal(masked.predict_proba(X, present=mask), expected)


@pytest.mark.parametrize("head", HEADS)
def test_a_modality_may_be_absent_at_prediction(head: str) -> None:
    X, y = samples()
    X["labs"] = np.nan_to_num(X["labs"])
    fitted = model(head).fit(X, y)
    some = np.flatnonzero(~np.isnan(X["notes"][:, 0]))
    notes = X["notes"][some]
    empty = {"labs": np.full((len(some), 3), np.nan), "notes": notes}
    proba = fitted.predict_proba({"notes": notes})
    assert np.isfinite(proba).all()
    np.testing.assert_array_equal(proba, fitted.predict_proba(empty))
    assert np.abs(proba - fitted.predict_proba({k: v[some] for k, v in X.items()})).max() > 0.01


@pytest.mark.parametrize("head", [*HEADS, "linear", "boosting"])
def test_a_modality_that_one_patient_has_is_lacking_in_a_fold(head: str) -> None:
    X, y = samples()
    X["rare"] = np.full((len(y), 2), np.nan)
    X["rare"][:3] = np.arange(6.0).reshape(3, 2)
    patients = np.arange(len(y))
    patients[:3] = 0
    proba = model(head).fit(X, y, groups=patients).predict_proba(X)
    assert np.isfinite(proba).all()


@pytest.mark.parametrize("head", HEADS)
def test_a_batch_without_a_modality_trains_and_predicts(head: str) -> None:
    """Notes come from the last rows only, so most batches have none."""
    X, y = samples()
    X["notes"][:100] = np.nan
    fitted = model(head, batch_size=8).fit(X, y)
    assert np.isfinite(fitted.predict_proba({k: v[:10] for k, v in X.items()})).all()
    assert np.isfinite(fitted.predict_proba({k: v[:1] for k, v in X.items()})).all()


@pytest.mark.parametrize("head", HEADS)
def test_modalities_may_come_in_another_order(head: str) -> None:
    X, _ = samples()
    found = fitted(head)
    turned = {name: X[name] for name in ("notes", "labs")}
    np.testing.assert_array_equal(found.predict_proba(turned), found.predict_proba(X))
    if head != "experts":
        np.testing.assert_array_equal(found.embed(turned), found.embed(X))


def test_partly_missing_rows_keep_the_modality() -> None:
    """Whether a value was measured can tell the class by itself."""
    rng = np.random.default_rng(0)
    X, y = {"labs": rng.normal(size=(200, 3))}, np.arange(200) % 2
    X["labs"][(y == 1) & (rng.random(200) < 0.8), 1] = np.nan
    assert model("experts").fit(X, y).score(X, y) > 0.8


# Weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_weight_zero_removes_the_row(head: str) -> None:
    """Its values, its label, its part in medians and scales: all of it."""
    X, y = samples()
    weight = (np.arange(120) % 5 > 0).astype(float)
    kept = np.flatnonzero(weight)
    test, _ = samples(30, seed=1)
    expected = model(head).fit({k: v[kept] for k, v in X.items()}, y[kept]).predict_proba(test)
    out = weight == 0
    X["labs"][out] = 1e4
    strange = np.where(out, 5, y)
    fitted = model(head).fit(X, strange, sample_weight=weight)
    np.testing.assert_array_equal(fitted.predict_proba(test), expected)
    np.testing.assert_array_equal(fitted.classes_, [0, 1])


@pytest.mark.parametrize("head", HEADS)
def test_weights_move_the_prediction_to_the_heavier_class(head: str) -> None:
    X, y = samples()
    heavy = np.where(y == 1, 8.0, 1.0)
    test, _ = samples(60, seed=1)

    def mean(**options: Any) -> float:
        fit = options.pop("fit", {})
        return float(model(head, **options).fit(X, y, **fit).predict_proba(test)[:, 1].mean())

    even = float(fitted(head).predict_proba(test)[:, 1].mean())
    assert mean(fit={"sample_weight": heavy}) > even + 0.01
    assert mean(class_weight={0: 1.0, 1: 8.0}) == mean(fit={"sample_weight": heavy})
    assert mean(class_weight={0: 2.0, 1: 1.0}, fit={"sample_weight": 8.0 / heavy}) < even


def test_balanced_classes() -> None:
    X, y = samples()
    y[::4] = 1
    count = np.bincount(y)
    weight = len(y) / (2 * count[y])
    balanced = model(class_weight="balanced").fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(
        balanced, model().fit(X, y, sample_weight=weight).predict_proba(X)
    )


def test_groups_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def fit(self: Pool, blocks: Any, y: Any, weight: Any, groups: Any) -> Pool:
        seen.append(groups)
        return self

    monkeypatch.setattr(Pool, "fit", fit)
    X, y = samples()
    weight = np.arange(120) % 3
    model("pooled").fit(X, y, weight, groups=np.arange(120))
    np.testing.assert_array_equal(seen[0], np.flatnonzero(weight))


# Embeddings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["joint", "fusion", "pooled"])
def test_embeddings_are_nan_where_missing(head: str) -> None:
    X, _ = samples()
    z = fitted(head).embed(X)
    assert z.shape[:2] == (120, 2)
    missing = np.isnan(np.stack([table[:, 0] for table in X.values()], axis=1))
    np.testing.assert_array_equal(np.isnan(z).all(axis=-1), missing)
    np.testing.assert_array_equal(np.isnan(z).any(axis=-1), missing)


@pytest.mark.parametrize("head", ["fusion", "pooled"])
def test_imputation_keeps_present_embeddings_and_draws_the_others(head: str) -> None:
    X, _ = samples()
    found = fitted(head)
    z, one, draws = found.embed(X), found.impute(X), found.impute(X, draws=3)
    assert one.shape == z.shape
    assert draws.shape == (3, *z.shape)
    present = ~np.isnan(z)
    np.testing.assert_array_equal(one[present], z[present])
    for draw in draws:
        np.testing.assert_array_equal(draw[present], z[present])
    assert np.isfinite(draws).all()
    assert draws.std(axis=0)[~present].min() > 0
    np.testing.assert_array_equal(found.impute(X), one)
    row = {name: table[:1] for name, table in X.items()}  # its notes are missing
    # Encoders multiply in single precision.
    np.testing.assert_allclose(found.impute(row), one[:1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.impute(row, draws=3), draws[:, :1], rtol=0, atol=1e-5)
    spread = found.predict_spread(X)[:1]
    np.testing.assert_allclose(found.predict_spread(row), spread, rtol=0, atol=1e-5)


def test_heads_without_embeddings_say_so() -> None:
    X, _ = samples()
    experts, joint = fitted("experts"), fitted("joint")
    with pytest.raises(ValueError, match="head='experts' has no network"):
        experts.embed(X)
    with pytest.raises(ValueError, match="head='experts' has no network"):
        experts.impute(X)
    with pytest.raises(ValueError, match="head='joint' has no network"):
        joint.impute(X)


# Repeatability --------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_same_seed_same_predictions(head: str) -> None:
    X, y = samples()
    first = fitted(head).predict_proba(X)
    np.random.default_rng().normal(size=3)
    np.random.seed(5)  # noqa: NPY002  the global state must not matter
    again = model(head).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), first)
    np.testing.assert_array_equal(again.predict_proba(X), first)
    other = again.set_params(random_state=np.random.RandomState(1)).fit(X, y)
    assert head == "joint" or np.abs(other.predict_proba(X) - first).max() > 0


def test_parameters_are_kept_and_cloned() -> None:
    options = {"copula": "frank", "head": "fusion", "modalities": GROUPS, "patience": 3}
    first = CM2Classifier(**options)
    second = clone(first)
    assert second.get_params() == first.get_params()
    assert {name: getattr(second, name) for name in options} == options
    assert second.set_params(n_components=7).n_components == 7
    with pytest.raises(ValueError, match="Invalid parameter 'copul'"):
        first.set_params(copul="frank")


def test_prediction_needs_a_fit() -> None:
    for call in ("predict", "predict_proba", "embed", "impute"):
        with pytest.raises(NotFittedError):
            getattr(CM2Classifier(), call)(samples()[0])


# Bad input: refused before any training ---------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any head that starts to learn fails the test."""

    def started(self: Head, *_: Any, **__: Any) -> None:
        pytest.fail(f"{type(self).__name__} started to train")

    for head in (Fusion, JointHead, Experts, Pool):
        monkeypatch.setattr(head, "fit", started)
    return None


def changed(**tables: Any) -> dict[str, Any]:
    return samples()[0] | tables


ROWS = 120
SECRET = 4321.0625
EMPTY = np.where(np.arange(ROWS)[:, None] == 9, np.nan, SECRET)
LABELS = np.arange(ROWS) % 2
BAD: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "nothing observed": (
        changed(labs=EMPTY),
        LABELS,
        {},
        "1 samples have no modality at all (rows 9); remove them first",
    ),
    "infinity": (
        changed(labs=np.where(EMPTY == SECRET, SECRET, np.inf)),
        LABELS,
        {},
        "modality 'labs' has infinite values in columns 0",
    ),
    "text": (
        changed(labs=pd.DataFrame({"name": ["secret"] * ROWS})),
        LABELS,
        {},
        "modality 'labs' has text in columns 'name'",
    ),
    "text in one array": (
        np.array([["secret", SECRET]] * ROWS, dtype=object),
        LABELS,
        {},
        "modality 'features' has text in columns 0",
    ),
    "rows of a modality": (
        changed(notes=np.full((ROWS - 1, 3), SECRET)),
        LABELS,
        {},
        "modalities have different numbers of rows: {'labs': 120, 'notes': 119}",
    ),
    "index": (
        {
            "labs": pd.DataFrame({"a": np.full(ROWS, SECRET)}),
            "notes": pd.DataFrame({"a": np.full(ROWS, SECRET)}, index=np.arange(ROWS)[::-1]),
        },
        LABELS,
        {},
        "the index of modality 'notes' has the samples in another order than modality 'labs'",
    ),
    "one dimension": (
        changed(labs=np.full(ROWS, SECRET)),
        LABELS,
        {},
        "modality 'labs' must be two-dimensional",
    ),
    "one dimension of one array": (
        np.full(ROWS, SECRET),
        LABELS,
        {},
        "X must be two-dimensional (samples, columns), but its shape is (120,)",
    ),
    "nobody has it": (
        changed(notes=np.full((ROWS, 3), np.nan)),
        LABELS,
        {},
        "modality 'notes' is missing for every training sample",
    ),
    "nobody that counts has it": (
        changed(notes=EMPTY[:, [0]] * np.where(LABELS, np.nan, 1.0)[:, None]),
        np.where(LABELS == 1, np.arange(ROWS) // 2 % 2, 2),
        {"sample_weight": LABELS},
        "modality 'notes' is missing for every training sample",
    ),
    "components": (
        changed(notes=np.where(np.arange(ROWS)[:, None] < 1, SECRET, np.nan)),
        LABELS,
        {},
        "modality 'notes' is present in 1 samples; n_components=2 needs at least as many",
    ),
    "unknown in the mask": (
        changed(),
        LABELS,
        {"present": {"note": np.ones(ROWS, bool)}},
        "unknown modality 'note'; did you mean 'notes'? The model knows: labs, notes",
    ),
    "mask": (
        changed(),
        LABELS,
        {"present": np.ones((ROWS, 3), bool)},
        "present must be boolean of shape (120, 2), got bool of shape (120, 3)",
    ),
    "NaN label": (
        changed(),
        np.where(np.arange(ROWS) == 17, np.nan, LABELS),
        {},
        "Input y contains NaN: 1 labels, first at row 17",
    ),
    "no string": (
        changed(),
        np.where(np.arange(ROWS) == 17, None, "secret"),
        {},
        "Input y contains NaN: 1 labels, first at row 17",
    ),
    "infinite label": (
        changed(),
        np.where(np.arange(ROWS) == 17, np.inf, LABELS),
        {},
        "Input y contains infinity",
    ),
    "continuous label": (changed(), np.linspace(0, 1, ROWS), {}, "Unknown label type: continuous"),
    "one class": (changed(), np.full(ROWS, "secret"), {}, "the labels have one class only"),
    "one class that counts": (
        changed(),
        LABELS,
        {"sample_weight": LABELS},
        "the labels have one class only",
    ),
    "a constant label": (
        changed(),
        np.stack([LABELS, 0 * LABELS], axis=1),
        {},
        "label 1 is the same class for every sample",
    ),
    "several classes of several labels": (
        changed(),
        np.stack([LABELS, np.arange(ROWS) % 3], axis=1),
        {},
        "y of shape (120, 2) and kind 'multiclass-multioutput' is not supported",
    ),
    "rows of y": (changed(), LABELS[:-1], {}, "X has 120 samples, but y has 119"),
    "no y": (changed(), None, {}, "y is None"),
    "negative weight": (
        changed(),
        LABELS,
        {"sample_weight": -np.ones(ROWS)},
        "sample_weight should be 120 finite numbers >= 0",
    ),
    "rows of the weights": (
        changed(),
        LABELS,
        {"sample_weight": np.ones(7)},
        "sample_weight should be 120 finite numbers >= 0, got shape (7,)",
    ),
    "weights of zero": (
        changed(),
        LABELS,
        {"sample_weight": np.zeros(ROWS)},
        "the sample weights are zero for every sample",
    ),
    "groups": (changed(), LABELS, {"groups": [1, 2]}, "groups must have shape (120,), got (2,)"),
    "no modality": ({}, LABELS, {}, "X has no modality"),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_training(case: str) -> None:
    X, y, options, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=re.escape(message)) as caught:
        model("pooled").fit(X, y, **options)
    seen: BaseException | None = caught.value
    while seen is not None:
        assert "secret" not in str(seen)
        assert str(SECRET) not in str(seen)
        seen = seen.__cause__ or seen.__context__


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"head": "expert"},
            "head must be one of ('pooled', 'linear', 'boosting', 'joint', 'experts', 'fusion')",
        ),
        ({"copula": "gumbl"}, "unknown copula 'gumbl'; did you mean 'gumbel'?"),
        ({"coupling": "rosenblat"}, "unknown coupling 'rosenblat'; did you mean 'rosenblatt'?"),
        ({"imputation": "conditioned"}, "unknown imputer 'conditioned'; did you mean"),
        ({"fusion": "lstn"}, "unknown fusion 'lstn'; did you mean 'lstm'?"),
        ({"n_components": 0}, "n_components must be at least 1, got 0"),
        ({"n_networks": 0}, "n_networks must be at least 1, got 0"),
        ({"modalities": GROUPS}, "but X is a dict"),
    ],
)
def test_bad_options_are_refused_before_training(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        model(**{"head": "pooled"} | options).fit(*samples())


def test_bad_input_at_prediction() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = {"cxr": rng.normal(size=(40, 256)), "ehr": rng.normal(size=(40, 2))}
    fitted = model("experts").fit(X, y)
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"cxr": rng.normal(size=(3, 512))},
            "modality 'cxr' has 512 columns; the fitted model expects 256",
        ),
        ({"cxrs": X["cxr"]}, "unknown modality 'cxrs'; did you mean 'cxr'?"),
        ({"ehr": np.full((2, 2), np.inf)}, "modality 'ehr' has infinite values in columns 0, 1"),
        ({}, "X has no modality"),
    ]
    for call in (fitted.predict, fitted.predict_proba, partial(fitted.score, y=y[:3])):
        for bad, message in cases:
            with pytest.raises(ValueError, match=re.escape(message)):
                call(bad)


def test_one_array_with_other_columns_at_prediction() -> None:
    X, y = samples(60)
    fitted = model(modalities=GROUPS).fit(np.hstack(list(X.values())), y)
    with pytest.raises(ValueError, match="X has 5 features, but CM2Classifier is expecting 6"):
        fitted.predict(np.zeros((3, 5)))


def test_only_relative_weights_matter() -> None:
    """Priors and penalties are worth so many rows, whatever the unit of the weights."""
    X, y = make_world("shared", 240, 0)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(y))
    for head in ("joint", "experts"):
        proba = [
            CM2Classifier(head=head, random_state=0).fit(X, y, unit * weight).predict_proba(X)
            for unit in (1.0, 1e-3, 1e3)
        ]
        np.testing.assert_allclose(proba[1], proba[0], atol=1e-5)
        np.testing.assert_allclose(proba[2], proba[0], atol=1e-5)


def test_groups_reach_every_head() -> None:
    """Twenty patients of twelve rows: folds by patient differ from folds by row."""
    X, y = make_world("shared", 240, 0)
    groups = np.arange(240) // 12
    for head in ("joint", "experts", "fusion"):
        settings = {"head": head, "max_epochs": 2, "n_networks": 2, "random_state": 0}
        by_row = CM2Classifier(**settings).fit(X, y).predict_proba(X)
        by_patient = CM2Classifier(**settings).fit(X, y, groups=groups).predict_proba(X)
        assert not np.array_equal(by_row, by_patient), head


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("head", ["experts", "joint", "fusion", "pooled"])
def test_few_patients_are_enough_or_the_least_number_is_said(head: str) -> None:
    X, y = make_world("shared", 24, 0)
    groups, y = np.arange(24) // 8, np.arange(24) // 4 % 2
    settings = {"head": head, "max_epochs": 1, "n_components": 1, "random_state": 0}
    proba = CM2Classifier(**settings).fit(X, y, groups=groups).predict_proba(X)
    assert np.isfinite(proba).all()
    least = 3 if head in ("fusion", "pooled") else 2
    few = {name: block[: 8 * (least - 1)] for name, block in X.items()}
    with pytest.raises(ValueError, match=f"but head='{head}' needs at least {least}"):
        CM2Classifier(**settings).fit(few, y[: 8 * (least - 1)], groups=groups[: 8 * (least - 1)])


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("head", ["experts", "joint", "fusion", "pooled"])
def test_a_sample_without_any_modality_gets_the_prior(head: str) -> None:
    X, y = samples()
    y = np.where(np.arange(120) % 4 == 0, 2, y)
    weight = np.where(y == 2, 3.0, 1.0)
    settings = {"head": head, "n_components": 1, "max_epochs": 1, "random_state": 0}
    fitted = CM2Classifier(**settings).fit(X, y, weight)
    known = {name: table[:6].copy() for name, table in X.items()}
    expected = fitted.predict_proba(known)
    # Half a row more a class, of weights with mean one.
    share = np.bincount(y, weight / weight.mean()) + 0.5
    prior = share / share.sum()
    more = {name: np.insert(table, [2, 6], np.nan, axis=0) for name, table in known.items()}
    found = fitted.predict_proba(more)
    np.testing.assert_allclose(found[[2, 7]], [prior, prior], rtol=1e-12)
    np.testing.assert_array_equal(np.delete(found, [2, 7], axis=0), expected)
    masked = fitted.predict_proba(known, present=np.zeros((6, 2), bool))
    np.testing.assert_allclose(masked, np.tile(prior, (6, 1)), rtol=1e-12)
    np.testing.assert_allclose(
        fitted.predict_proba({"labs": np.full((1, 3), np.nan)}), prior[None], rtol=1e-12
    )
    if head in ("fusion", "pooled"):
        assert (fitted.predict_spread(more)[[2, 7]] == 0).all()
    with pytest.raises(ValueError, match=r"2 samples have no modality at all \(rows 2, 7\)"):
        fitted.fit(more, [0, 1] * 4)


def test_a_sample_without_any_modality_gets_the_prior_of_each_label() -> None:
    X, y = samples()
    labels = np.stack([y, np.arange(120) % 5 == 0], axis=1).astype(int)
    fitted = CM2Classifier(head="joint", class_weight="balanced", random_state=0).fit(X, labels)
    found = fitted.predict_proba({"labs": np.full((1, 3), np.nan)})
    np.testing.assert_allclose(found, [[0.5, 0.5]], rtol=1e-12)


def test_weights_reach_the_reader_and_the_projection() -> None:
    """A row of weight two is as two rows; so are weights of classes."""
    X, y = samples()
    weight = np.where(y == 1, 2.0, 1.0)
    twice = np.repeat(np.arange(120), weight.astype(int))
    weighted = CM2Classifier(head="joint", random_state=0).fit(X, y, weight)
    by_class = CM2Classifier(head="joint", random_state=0, class_weight={0: 1.0, 1: 2.0}).fit(X, y)
    repeated = CM2Classifier(head="joint", random_state=0)
    repeated.fit({name: table[twice] for name, table in X.items()}, y[twice])
    plain = CM2Classifier(head="joint", random_state=0).fit(X, y)

    def learned(model: CM2Classifier) -> list[np.ndarray]:
        blocks, projection = model.reader_.blocks(X), model.head_.projection_
        found = [blocks.values[name] for name in X]
        # Signs and stretches of directions of near-equal variance differ by rounding only.
        return [*found, *(projection.centers_[name] for name in X)]

    for other in (by_class, repeated):
        for one, two in zip(learned(weighted), learned(other), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5)
    assert not np.allclose(learned(weighted)[0], learned(plain)[0], atol=1e-3)


def test_spread_is_of_what_is_missing() -> None:
    X, y = make_world("shared", 240, 0)
    settings = {"head": "fusion", "max_epochs": 5, "n_networks": 2, "random_state": 0}
    model = CM2Classifier(**settings, imputation="marginal").fit(X, y)
    X = {name: block.copy() for name, block in X.items()}
    X["a"][:120] = np.nan
    X["b"][:120] = np.nan
    spread = model.predict_spread(X)
    assert (spread[:120] > 1e-4).all()
    np.testing.assert_allclose(spread[120:], 0.0, atol=1e-7)  # equal draws, up to rounding
    with pytest.raises(ValueError, match="has no network"):
        CM2Classifier(head="experts").fit(X, y).predict_spread(X)


def test_a_prediction_may_average_over_draws() -> None:
    """The default fills in a mean; draws are another answer, with more of them a steadier one."""
    X, y = make_world("shared", 240, 0)
    settings = {"head": "fusion", "max_epochs": 5, "n_networks": 1, "random_state": 0}
    model = CM2Classifier(**settings).fit(X, y)
    less = {name: block.copy() for name, block in X.items()}
    less["a"][:120] = np.nan
    filled = model.predict_proba(less)
    drawn = {draws: model.predict_proba(less, draws=draws) for draws in (2, 256, 512)}
    assert np.abs(drawn[512] - filled)[:120].max() > 1e-4
    np.testing.assert_allclose(drawn[512][120:], filled[120:], atol=1e-6)
    np.testing.assert_allclose(drawn[512].sum(axis=1), 1.0, atol=1e-6)
    few, many = (np.abs(drawn[512] - drawn[draws])[:120].mean() for draws in (2, 256))
    assert many < few / 2
    row = {name: block[:1] for name, block in less.items()}
    np.testing.assert_allclose(model.predict_proba(row, draws=2), drawn[2][:1], atol=1e-5)
    logs = model.predict_log_proba(less, draws=2)
    np.testing.assert_allclose(logs, np.log(drawn[2]), atol=1e-12)
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        model.predict_proba(less, draws=0)
    with pytest.raises(ValueError, match="has no network"):
        CM2Classifier(head="linear").fit(X, y).predict_proba(less, draws=2)
    pool = CM2Classifier(n_networks=1, max_epochs=1, random_state=0).fit(X, y)
    pool.head_.left_out_["fusion"] = pool.head_.heads_.pop("fusion", None) or model.head_
    with pytest.raises(ValueError, match="predicts without its networks, so that nothing is drawn"):
        pool.predict_proba(less, draws=2)
    rival = CM2Classifier(**settings, network="medfuse").fit(X, y)
    with pytest.raises(ValueError, match="'medfuse' imputes nothing"):
        rival.predict_proba(less, draws=2)


def test_the_expert_head_refuses_a_copula_that_it_does_not_know() -> None:
    X, y = make_world("shared", 60, 0)
    with pytest.raises(ValueError, match="head='experts' knows"):
        CM2Classifier(head="experts", copula="gumbel").fit(X, y)
