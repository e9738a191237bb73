"""Rivals: strong where they should be, indifferent to what is absent, and robust."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from cm2.estimators.baselines import Concatenated, Imputed, LateFusion, Rival, Stacking
from cm2.estimators.copula_imputation import CopulaImputed
from cm2.estimators.multimodal_vae import MultimodalVAE
from cm2.estimators.tuning import Fill, tune
from cm2.samples.container import Samples
from cm2.samples.worlds import make_world, remove

QUICK = {
    "late": LateFusion(),
    "late, log": LateFusion(average="log"),
    "stacking": Stacking(),
    "linear": Concatenated("linear"),
    "imputed": Imputed(),
    "autoencoder": MultimodalVAE(max_epochs=20),
}
ALL = {
    **QUICK,
    "late, forest": LateFusion("forest"),
    "boosting": Concatenated("boosting"),
    "forest": Concatenated("forest"),
    "copula-imputed": CopulaImputed(),
}


def world(
    name: str, rate: float, n: int = 600, seed: int = 0
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    X, y = make_world(name, n, seed)
    return remove(X, rate, seed + 100), y


def auroc(rival: Rival, name: str, rate: float) -> float:
    X, y = world(name, rate, 1500)
    test, truth = world(name, rate, 3000, seed=1)
    return float(roc_auc_score(truth, clone(rival).fit(X, y).predict_proba(test)[:, 1]))


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("name", ALL)
def test_probabilities_classes_and_missing_modalities(name: str) -> None:
    X, y = world("independent", 0.4, 300)
    labels = np.array(["no", "yes"])[y]
    rival = clone(ALL[name]).fit(X, labels)
    proba = rival.predict_proba(X)
    assert proba.shape == (300, 2)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-10)
    assert list(rival.classes_) == ["no", "yes"]
    assert rival.score(X, labels) > 0.6
    without = {m: block for m, block in X.items() if m != "b"}
    as_nan = {**without, "b": np.full_like(X["b"], np.nan)}
    np.testing.assert_array_equal(rival.predict_proba(without), rival.predict_proba(as_nan))
    frames = {m: pd.DataFrame(block) for m, block in X.items()}
    np.testing.assert_allclose(rival.predict_proba(frames), proba, rtol=1e-12)


@pytest.mark.parametrize("name", QUICK)
def test_a_row_of_weight_zero_is_as_if_dropped(name: str) -> None:
    X, y = world("independent", 0.3, 200)
    weight = np.ones(200)
    weight[::3] = 0
    kept = weight > 0
    weighted = clone(QUICK[name]).fit(X, y, weight).predict_proba(X)
    dropped = clone(QUICK[name]).fit({m: b[kept] for m, b in X.items()}, y[kept]).predict_proba(X)
    np.testing.assert_array_equal(weighted, dropped)


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("name", ALL)
def test_a_modality_never_seen_and_gaps_inside_rows(name: str) -> None:
    X, y = world("independent", 0.3, 120)
    X["a"][:] = np.nan
    X["b"][::7, 2] = np.nan
    rival = clone(ALL[name]).fit(X, y)
    X["a"] = np.ones_like(X["a"])
    assert np.isfinite(rival.predict_proba(X)).all()


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("name", ALL)
def test_a_modality_that_one_patient_has_is_lacking_in_a_fold(name: str) -> None:
    X, y = world("independent", 0.3, 120)
    X["a"][3:] = np.nan
    patients = np.arange(120)
    patients[:3] = 0
    rival = clone(ALL[name]).fit(X, y, groups=patients)
    assert np.isfinite(rival.predict_proba(X)).all()


def test_more_than_two_classes_of_which_a_modality_shows_two() -> None:
    X, y = world("independent", 0.3, 300)
    y = y + 2 * (np.arange(300) % 3 == 0)
    X["a"][y > 1] = np.nan
    for rival in QUICK.values():
        proba = clone(rival).fit(X, y).predict_proba(X)
        assert proba.shape == (300, 4)
        np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-10)


def siblings(patients: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Eight near-equal rows a patient, whose label is tossed: nothing can be learned."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), 8)
    own = {m: rng.normal(size=(patients, 3)) for m in "ab"}
    X = {m: block[groups] + 0.01 * rng.normal(size=(len(groups), 3)) for m, block in own.items()}
    return X, rng.integers(0, 2, patients)[groups], groups


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("rival", [LateFusion("forest"), Concatenated("forest")], ids=str)
def test_trap_forests_are_judged_on_other_patients(rival: Rival) -> None:
    """Out of bag, eight near-equal rows a patient know each other: the loss believed was .2.

    Over 40 patients and 500 new ones the losses differ by some .05 by chance; a fifth is allowed.
    """
    X, y, groups = siblings(40, seed=0)
    test, truth, _ = siblings(500, seed=1)
    rival = clone(rival).fit(X, y, groups=groups)
    found = rival.experts_["a"] if isinstance(rival, LateFusion) else rival.tuned_
    new = found.proba(test["a"] if isinstance(rival, LateFusion) else np.hstack([*test.values()]))

    def loss(proba: np.ndarray, y: np.ndarray) -> float:
        return float(-np.log(np.maximum(proba[np.arange(len(y)), y], 0.01)).mean())

    assert loss(found.held_out, y) == pytest.approx(loss(new, truth), abs=0.2)
    assert loss(found.held_out, y) > 0.65


@pytest.mark.parametrize("name", QUICK)
def test_few_patients_are_enough_and_one_is_not(name: str) -> None:
    X, y, groups = siblings(40, seed=3)
    for patients in (1, 2, 5):
        few = groups < patients
        y[:4] = 1 - y[4]  # also one patient has both classes
        part = {m: block[few] for m, block in X.items()}
        if patients == 1:
            with pytest.raises(ValueError, match="groups names 1 patients, but"):
                clone(QUICK[name]).fit(part, y[few], groups=groups[few])
        else:
            part["b"][8:] = np.nan  # a modality of one patient says nothing of others
            found = clone(QUICK[name]).fit(part, y[few], groups=groups[few])
            assert np.isfinite(found.predict_proba(X)).all()
    with pytest.raises(ValueError, match="groups must have shape"):
        clone(QUICK[name]).fit(X, y, groups=groups[1:])


def test_late_fusion_is_the_mean_of_what_is_present() -> None:
    X, y = world("independent", 0.4)
    rival = LateFusion().fit(X, y)
    row = {m: block[:1] for m, block in X.items()}
    there = [m for m, block in row.items() if not np.isnan(block).all()]
    expected = np.mean([rival.experts_[m].proba(row[m]) for m in there], axis=0)
    np.testing.assert_allclose(rival.predict_proba(row), expected, rtol=1e-12)


@pytest.mark.parametrize("name", QUICK)
def test_a_sample_without_any_modality_gets_the_prior(name: str) -> None:
    X, y = world("independent", 0.4, 200)
    rival = clone(QUICK[name]).fit(X, y)
    part = {m: block[:3].copy() for m, block in X.items()}
    expected = rival.predict_proba(part)
    for block in part.values():
        block[1] = np.nan
    found = rival.predict_proba(part)
    # Half a row more a class, as all priors here are.
    np.testing.assert_allclose(found[1], (np.bincount(y) + 0.5) / 201, rtol=1e-12)
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], rtol=1e-10)


def test_concatenation_sees_what_late_fusion_cannot() -> None:
    late, joint = auroc(LateFusion(), "shared", 0.0), auroc(Concatenated(), "shared", 0.0)
    assert 0.80 < late < 0.90
    assert joint > 0.985


def test_late_fusion_is_near_its_theoretical_best_on_independent_views() -> None:
    # The four views' clean evidence: d' = 2 x .42 a view, AUROC = Phi(d'/sqrt 2) of all = .882;
    # features blur it a little, and 3,000 test rows give a standard error of .006.
    assert auroc(LateFusion(average="log"), "independent", 0.0) > 0.882 - 0.03


def test_boosting_finds_xor_and_lines_do_not() -> None:
    assert auroc(Concatenated("boosting"), "xor", 0.0) > auroc(Concatenated(), "xor", 0.0) + 0.05


def test_tuning_is_no_worse_than_the_defaults_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 60))
    y = (x[:, 0] + rng.standard_normal(300) > 0).astype(int)
    test = rng.standard_normal((4000, 60))
    truth = (test[:, 0] + rng.standard_normal(4000) > 0).astype(int)
    default = LogisticRegression().fit(x, y).predict_proba(test)[:, 1]
    tuned = tune("linear", x, y, np.ones(300), 2, seed=0).proba(test)[:, 1]
    assert roc_auc_score(truth, tuned) > roc_auc_score(truth, default)
    forest = RandomForestClassifier(random_state=0).fit(x, y).predict_proba(test)[:, 1]
    ours = tune("forest", x, y, np.ones(300), 2, seed=0).proba(test)[:, 1]
    assert roc_auc_score(truth, ours) > roc_auc_score(truth, forest) - 0.01


def test_columns_missing_together_share_an_indicator() -> None:
    X = np.arange(12.0).reshape(4, 3)
    X[1, :2] = np.nan
    X[2, 2] = np.nan
    filled = Fill().fit(X).transform(X)
    assert filled.shape == (4, 5)
    np.testing.assert_array_equal(filled[1, :2], np.nanmedian(X[:, :2], axis=0))
    assert {tuple(column) for column in filled[:, 3:].T} == {(0, 1, 0, 0), (0, 0, 1, 0)}


def test_bad_input_is_named() -> None:
    X, y = world("independent", 0.0, 50)
    with pytest.raises(ValueError, match="at least 2 classes"):
        LateFusion().fit(X, np.zeros(50))
    rival = LateFusion().fit(X, y)
    with pytest.raises(ValueError, match="unknown modality 'e'"):
        rival.predict_proba({**X, "e": X["a"]})
    with pytest.raises(ValueError, match="modality 'b' has 2 columns; the fitted model expects"):
        rival.predict_proba({**X, "b": X["b"][:, :2]})
    with pytest.raises(ValueError, match="average"):
        LateFusion().set_params(average="harmonic").fit(X, y)


def frames(n: int = 60) -> tuple[dict[str, pd.DataFrame], np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, n)
    labs = pd.DataFrame({"heart rate": rng.normal(size=n) + 2 * y, "pressure": rng.normal(size=n)})
    return {"labs": labs, "notes": pd.DataFrame(rng.normal(size=(n, 2)), columns=["a", "b"])}, y


REFUSED = {
    "text": "modality 'labs' has text in columns 'heart rate'",
    "infinite": "modality 'labs' has infinite values in columns 'heart rate'",
    "index": "the index of modality 'notes' has the samples in another order than modality 'labs'",
    "rows": "modalities have different numbers of rows",
    "series": "modality 'notes' must be two-dimensional",
    "none": "X has no modality",
}


def refused(X: dict[str, pd.DataFrame], how: str) -> dict[str, object]:
    labs, notes = X["labs"], X["notes"]
    cases: dict[str, dict[str, object]] = {
        "text": {"labs": labs.assign(**{"heart rate": "JohnSmith"}), "notes": notes},
        "infinite": {"labs": labs.assign(**{"heart rate": np.inf}), "notes": notes},
        "index": {"labs": labs, "notes": notes[::-1]},
        "rows": {"labs": labs, "notes": notes[:9]},
        "series": {"labs": labs, "notes": np.zeros((len(labs), 3, 2))},
        "none": {},
    }
    return cases[how]


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("name", ALL)
def test_tables_are_read_as_the_classifier_reads_them(name: str) -> None:
    X, y = frames()
    rival = clone(ALL[name]).fit(X, y)
    before = rival.predict_proba(X)
    for how, message in REFUSED.items():
        for call in (rival.predict_proba, lambda X: rival.fit(X, y)):
            with pytest.raises(ValueError, match=message) as error:
                call(refused(X, how))
            assert "JohnSmith" not in str(error.value)
            assert error.value.__cause__ is None
    with pytest.raises(ValueError, match=r"column 'pressure' stands where .* 'heart rate'"):
        rival.predict_proba({**X, "labs": X["labs"][["pressure", "heart rate"]]})
    labels = {
        "Input y contains NaN: 3 labels": np.where(np.arange(60) < 3, np.nan, y),
        "Input y contains NaN: 1 labels": [None, *y[1:].tolist()],
        "X has 60 samples, but y has 50": y[:50],
        "y is None": None,
        "at least 2 classes": np.zeros(60),
        "one class a sample, but y has 2 labels": np.stack([y, 1 - y], axis=1),
    }
    for message, wrong in labels.items():
        with pytest.raises(ValueError, match=message):
            rival.fit(X, wrong)
    np.testing.assert_array_equal(rival.predict_proba(X), before)
    assert list(rival.classes_) == [0, 1]


def test_a_fit_that_stops_half_way_leaves_what_was_learned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = frames()
    rival = Stacking().fit(X, y)
    before = rival.predict_proba(X)
    monkeypatch.setattr("cm2.estimators.baselines.tune", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rival.fit({"labs": X["notes"]}, np.array(["no", "yes"])[y])
    np.testing.assert_array_equal(rival.predict_proba(X), before)
    assert list(rival.classes_) == [0, 1]
    new = Stacking()
    with pytest.raises(ZeroDivisionError):
        new.fit(X, y)
    with pytest.raises(NotFittedError):
        new.predict_proba(X)


def test_samples_bring_their_labels_and_patients() -> None:
    X, y = frames()
    groups = np.arange(60) // 2
    plain = LateFusion().fit(X, y, groups=groups)
    held = Samples(X, y=y, groups=groups)
    np.testing.assert_array_equal(
        LateFusion().fit(held).predict_proba(held), plain.predict_proba(X)
    )
    noted = Samples({**X, "text": ["cough", "fever"] * 30}, y=y)
    with pytest.raises(ValueError, match="modality 'text' is of kind 'text', but"):
        LateFusion().fit(noted)
    with pytest.raises(ValueError, match="modality 'text' is of kind 'text', but"):
        plain.predict_proba(noted)


def test_a_modality_of_rows_that_all_miss_is_as_if_not_given() -> None:
    X, y = frames()
    rival = Concatenated().fit(X, y)
    none = {"labs": X["labs"], "notes": [None] * 60}
    np.testing.assert_array_equal(
        rival.predict_proba(none), rival.predict_proba({"labs": X["labs"]})
    )


@pytest.mark.parametrize("strategy", ["mean", "median"])
def test_fills_and_scales_of_rivals_take_weights(strategy: str) -> None:
    """A row of weight two is as two rows to all that is learned before the model."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    x[::4, 1] = np.nan
    y = np.arange(40) % 2
    weight = rng.integers(1, 4, 40)
    rows = np.repeat(np.arange(40), weight)
    weighted, repeated = (
        tune("linear", x, y, weight * 1.0, 2, 0, strategy),
        tune("linear", x[rows], y[rows], np.ones(len(rows)), 2, 0, strategy),
    )
    ours, theirs = (one.model["fill"].fills_ for one in (weighted, repeated))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    for found in ("mean_", "scale_"):
        ours, theirs = (getattr(one.model["scale"], found) for one in (weighted, repeated))
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
