"""The demo: its data, its intervals, and a small run from end to end."""

import functools
import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from cm2 import CM2Classifier, demo
from cm2.benchmark.methods import LATE_FUSION, METHODS, POOLED, Method
from cm2.benchmark.patterns import Pattern
from cm2.benchmark.studies import STUDIES, Given
from cm2.clinical.prepare.errors import TableError
from cm2.demo import FITS, InputError, Settings, run, studies
from cm2.demo.studies import eicu_folder
from cm2.evaluation import bootstrap, summary
from cm2.samples.views import QUADRANTS, digit_views
from small_models import shrink


def test_views_are_the_digits_put_together_again():
    from sklearn.datasets import load_digits

    views, y = digit_views()
    images = np.empty((len(y), 8, 8))
    for name, (rows, columns) in QUADRANTS.items():
        images[:, rows, columns] = views[name].reshape(-1, 4, 4)
    np.testing.assert_array_equal(images, load_digits().images)


def test_digits_split_is_disjoint_and_stratified():
    study = STUDIES["digits"]()
    train, test = study.split(0)
    assert not set(train) & set(test)
    assert len(train) + len(test) == len(study.y)
    share = np.bincount(study.y[test]) / np.bincount(study.y)
    np.testing.assert_allclose(share, 0.3, atol=0.01)
    assert not np.array_equal(test, study.split(1)[1])


def test_folder_of_tables_is_found_in_a_home(tmp_path):
    assert eicu_folder(None, None) is None
    tables = tmp_path / "eicu-demo"
    tables.mkdir()
    (tables / "patient.csv.gz").touch()
    assert eicu_folder(None, str(tmp_path)) == tables
    assert eicu_folder(tables, "elsewhere") == tables
    with pytest.raises(InputError, match=r"--data names .*which does not exist"):
        eicu_folder(tmp_path / "absent", str(tmp_path))


def test_mortality_splits_by_patient_and_learns_features_on_training_rows(data_home):
    study = STUDIES["eicu"](eicu_folder(None, str(data_home)))
    assert (len(study.y), study.y.sum()) == (1292, 103), "the stays of cm2 prepare"
    assert ("stays kept", 1292) in study.flow
    train, test = study.split(0)
    assert not set(study.groups[train]) & set(study.groups[test])
    blocks = study.blocks(train)
    there = np.stack([~np.isnan(block).all(axis=1) for block in blocks.values()], axis=1)
    np.testing.assert_array_equal(there, study.present())
    assert (study.present().mean(axis=0) < 1).sum() >= 4
    fewer = study.blocks(train[: len(train) // 2])
    assert not np.array_equal(blocks["notes"], fewer["notes"], equal_nan=True)


def test_first_draw_is_the_data_and_scores_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    p = np.clip(rng.normal(0.4 + 0.2 * y, 0.2), 0, 1).round(2)
    patient = np.arange(300) // 2
    counts = bootstrap.draws(150, 20)
    proba = np.stack([1 - p, p], axis=1)
    scored = summary.score("a", 0, 0.0, y, proba, counts, patient)
    found = scored.scores["AUROC"]
    assert (scored.rows, scored.patients, scored.positives) == (300, 150, y.sum())
    expected = [roc_auc_score(y, p, sample_weight=w[patient]) for w in counts]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[0] == pytest.approx(roc_auc_score(y, p), rel=1e-12)


def cell(method: str, seed: int, values: np.ndarray) -> summary.Cell:
    return summary.Cell(method, seed, 0.0, 50, 5, 50, 1.0, {"AUROC": values}, {"AUROC": 5})


def test_summary_averages_over_splits_and_pairs_differences():
    noise = np.random.default_rng(0).normal(0, 0.05, 2001)
    noise[0] = 0.0
    cells = [
        cell(LATE_FUSION, 0, 0.70 + noise),
        cell(LATE_FUSION, 1, 0.74 + noise),
        cell(POOLED, 0, 0.73 + noise),
        cell(POOLED, 1, 0.77 + noise),
    ]
    table = summary.summarise(cells, [LATE_FUSION], test_to_train=0.5).set_index("method")
    assert table["notes"].str.contains("only 5 patients have the rarest outcome").all()
    assert table.loc[POOLED, "p_runs"] == 0, "both splits differ by the same"
    assert table.loc[POOLED, "value"] == pytest.approx(0.75)
    assert table.loc[POOLED, "sd"] == pytest.approx(0.04 / np.sqrt(2))
    assert table.loc[POOLED, "high"] - table.loc[POOLED, "low"] == pytest.approx(0.196, abs=0.02)
    gap = table.loc[POOLED, ["difference", "difference_low", "difference_high"]].astype(float)
    np.testing.assert_allclose(gap, 0.03, atol=1e-12)  # the common noise drops out
    assert np.isnan(table.loc[LATE_FUSION, "difference"])


def halves() -> Given:
    """Two classes and a clinical score that some rows lack."""
    X, y = digit_views()
    study = Given(X, y >= 5, title="Halves of the digits")
    study.labels = ("low", "high")
    study.score_name = "a bedside score"
    study.score = np.where(np.arange(len(y)) % 3 == 0, np.nan, 0.4)
    return study


def few() -> Given:
    """Every third image of four digits."""
    X, y = digit_views()
    kept = np.flatnonzero(y < 4)[::3]
    title = "Handwritten digits from four views"
    return Given({name: view[kept] for name, view in X.items()}, y[kept], title=title)


class Recorder:
    """Stands in for a method, and notes when it learns from or predicts how many rows."""

    def __init__(self, name: str, events: list) -> None:
        self.name, self.events = name, events

    def fit(self, X, y, *, groups):
        self.events.append(("fit", self.name, len(y)))
        return self

    def predict_proba(self, X):
        rows = len(next(iter(X.values())))
        self.events.append(("predict", self.name, rows))
        return np.full((rows, 2), 0.5)

    def save(self, path):
        path.touch()


def note_draws(patch: pytest.MonkeyPatch) -> list:
    """Notes every set of bootstrap draws, in order with what a Recorder notes."""
    noted = []
    draws = bootstrap.draws
    patch.setattr(
        bootstrap, "draws", lambda *args: noted.append(("draws", args[1])) or draws(*args)
    )
    return noted


def stand_in(patch: pytest.MonkeyPatch, events: list) -> None:
    """Puts a recorder in the place of each method."""
    for name, method in METHODS.items():
        build = functools.partial(lambda one, budget: Recorder(one, events), name)
        patch.setitem(METHODS, name, Method(build, method.about, method.ours))


def test_trap_a_job_sees_test_rows_once_a_rate_and_draws_once_outside_the_fit(monkeypatch):
    events = note_draws(monkeypatch)
    stand_in(monkeypatch, events)
    study, rates = halves(), (0.0, 0.4)
    train, test = study.split(0)
    patterns = tuple(Pattern("random", rate) for rate in rates)
    demo.job(study, LATE_FUSION, 0, patterns, Settings(rates=rates, replicates=20), None)
    assert events == [
        ("draws", 20),
        ("fit", LATE_FUSION, len(train)),
        *(("predict", LATE_FUSION, len(test)) for _ in rates),
    ]


class Run(NamedTuple):
    """A run that is over."""

    out: Path
    events: list


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """A run of stand-ins on two classes, from a folder given by a relative path."""
    home = tmp_path_factory.mktemp("stand-ins")
    (home / "private" / "eicu-demo").mkdir(parents=True)
    (home / "private" / "eicu-demo" / "patient.csv").touch()
    data, out = Path("private/eicu-demo"), Path("runs/one")
    with pytest.MonkeyPatch.context() as patch:
        events = note_draws(patch)
        stand_in(patch, events)
        patch.setattr(studies, "load", lambda folder: halves())
        patch.chdir(home)
        run(Settings(data, out, seeds=2, rates=(0.3, 0.6), replicates=20, processes=1))
    return Run(home / out, events)


def test_trap_a_run_touches_each_test_split_once_a_method_and_rate(stand_ins):
    events = stand_ins.events
    _, test = halves().split(0)
    counts = Counter(event[1] for event in events if event[0] == "predict")
    assert counts == dict.fromkeys(FITS, 2 * 2)
    assert {event[2] for event in events if event[0] == "predict"} == {len(test)}
    draws = sum(event[0] == "draws" for event in events)
    assert draws == 2 * len(FITS) + 1, "once a job, and once for the clinical score"


def test_a_split_without_a_scored_test_row_is_left_out():
    study = halves()
    rows = [study.split(seed).test for seed in range(2)]
    only = np.setdiff1d(rows[1], rows[0])
    study.score = np.full(len(study.y), np.nan)

    def scored():
        each = [np.full((len(test), 2), 0.5) for test in rows]
        made = [
            demo.Result([], k, test, {POOLED: p})
            for k, (test, p) in enumerate(zip(rows, each, strict=True))
        ]
        return demo._score(study, made, 20, 0.0)

    study.score[only] = 0.4
    assert set(scored()["splits"]) == {1}
    assert set(scored()["rows"]) == {len(only)}
    study.score[:] = np.nan
    study.score[np.setdiff1d(np.arange(len(study.y)), np.concatenate(rows))] = 0.4
    assert scored() is None


def test_report_names_true_rates_and_no_place(stand_ins):
    out = stand_ins.out
    source = (out / "report.html").read_text()
    assert "a bedside score (" in source
    assert "high), 30% removed" in source
    assert "as observed" not in source
    for place in (str(out.parents[1]), "private"):
        assert place not in source
    assert ">eicu-demo<" in source
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["data"], config["out"]) == ("private/eicu-demo", "runs/one")
    table = pd.read_csv(out / "metrics.csv")
    assert set(table.loc[table["rows_with"] == "a clinical score", "rate"]) == {0.3}


def test_faults_of_tables_are_refused_and_bugs_are_not(monkeypatch, tmp_path):
    for error, expected in (
        (TableError("table patient: empty"), InputError),
        (FileNotFoundError("no table"), InputError),
        (ValueError("a bug"), ValueError),
    ):
        monkeypatch.setattr(STUDIES["eicu"], "__init__", Mock(side_effect=error))
        with pytest.raises(expected, match=str(error)) as caught:
            studies.load(tmp_path)
        assert type(caught.value) is expected


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CM2_DATA_HOME", raising=False)
        patch.setattr(studies, "load", lambda folder: few())
        shrink(patch)
        run(Settings(out=out, seeds=1, rates=(0.0, 0.5), epochs=2, replicates=30, processes=1))
    return out


def test_small_run_writes_everything(finished):
    table = pd.read_csv(finished / "metrics.csv")
    assert set(table["method"]) == set(FITS)
    assert set(table["metric"]) >= {"AUROC", "AUPR", "Brier"}
    assert set(table["rate"]) == {0.0, 0.5}
    assert (table["low"] <= table["high"]).all()
    assert json.loads((finished / "versions.json").read_text())["torch"]
    names = {"comparison", "availability", "calibration", "training"}
    assert {path.name for path in (finished / "figures").iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("png", "pdf")
    }
    source = (finished / "report.html").read_text()
    assert "Handwritten digits" in source
    assert all(method in source for method in FITS)
    assert "http://" not in source
    assert "https://" not in source


def test_saved_classifier_predicts(finished):
    views, _ = digit_views()
    probability = CM2Classifier.load(finished / "classifier.skops").predict_proba(
        {name: view[:20] for name, view in views.items()}
    )
    assert probability.shape == (20, 4)
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-6)


def test_removing_modalities_costs_accuracy(finished):
    table = pd.read_csv(finished / "metrics.csv").query("metric == 'AUROC'")
    wide = table.pivot(index="method", columns="rate", values="value")
    assert (wide[0.5] < wide[0.0]).all()
