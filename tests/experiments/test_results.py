"""Tables of runs: every number against an independent computation, and who is compared to whom."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from cm2.core.errors import InputError
from cm2.evaluation import bootstrap, summary
from cm2.experiments import report as page
from cm2.experiments import results, selection, significance, sweep
from cm2.experiments.paper import plan as paper
from cm2.experiments.predictions import Predictions
from fake_runs import PATIENT, TARGET, fake

REPLICATES = 200
INDEPENDENT = {
    "AUROC": roc_auc_score,
    "AUPR": average_precision_score,
    "Brier": brier_score_loss,
    "log loss": log_loss,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rivals, one of them better, and CM2, three seeds each."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        fake(root / "ours" / f"seed_{seed}", seed, skill=1.5)
        fake(root / "weak" / f"seed_{seed}", seed, kind="late", skill=0.2)
        fake(root / "strong" / f"seed_{seed}", seed, kind="medfuse", skill=1.0)
    return root


@pytest.fixture(scope="module")
def table(root: Path) -> pd.DataFrame:
    found = results.tables(results.cells(results.find([root])[0]), replicates=REPLICATES)
    return found.set_index(["method", "metric"])


def kept(root: Path, name: str) -> list[np.ndarray]:
    return [
        np.load(root / name / f"seed_{seed}" / "test.npz")["probability"][:, 1] for seed in range(3)
    ]


@pytest.mark.parametrize("metric", list(INDEPENDENT))
def test_every_number_is_that_of_scikit_learn_and_scipy(
    root: Path, table: pd.DataFrame, metric: str
) -> None:
    score = INDEPENDENT[metric]
    ours, strong = kept(root, "ours"), kept(root, "strong")
    each = np.array([score(TARGET, p) for p in ours])
    rival = np.array([score(TARGET, p) for p in strong])
    row = table.loc[("cm2", metric)]
    assert (row["splits"], row["rows"], row["patients"]) == (3, 90, 45)
    assert row["positives"] == TARGET.sum()
    assert row["value"] == pytest.approx(each.mean(), rel=1e-9)
    assert row["sd"] == pytest.approx(each.std(ddof=1), rel=1e-9)
    assert row["rival"] == "medfuse"
    assert row["difference"] == pytest.approx((each - rival).mean(), rel=1e-9)
    assert row["p_runs"] == pytest.approx(stats.ttest_rel(each, rival).pvalue, rel=1e-6)
    weight = bootstrap.draws(45, REPLICATES)[1:, PATIENT].astype(float)
    drawn = np.array([[score(TARGET, p, sample_weight=w) for w in weight] for p in ours])
    other = np.array([[score(TARGET, p, sample_weight=w) for w in weight] for p in strong])
    np.testing.assert_allclose(
        row[["low", "high"]].astype(float), np.quantile(drawn.mean(0), [0.025, 0.975]), rtol=1e-9
    )
    gap = (drawn - other).mean(0)
    np.testing.assert_allclose(
        row[["difference_low", "difference_high"]].astype(float),
        np.quantile(gap, [0.025, 0.975]),
        rtol=1e-7,
    )
    rarer = min((gap <= 0).sum(), (gap >= 0).sum())
    assert row["p_patients"] == pytest.approx(min(1, 2 * (rarer + 1) / (REPLICATES + 1)))


@pytest.mark.parametrize("metric", list(INDEPENDENT))
def test_the_best_rival_is_never_the_method_itself_nor_cm2(
    table: pd.DataFrame, metric: str
) -> None:
    """Also where less is better; a rival is compared with the best of the other rivals."""
    rivals = table.xs(metric, level="metric")["rival"]
    assert rivals.to_dict() == {"cm2": "medfuse", "late": "medfuse", "medfuse": "late"}


def test_a_head_on_all_features_is_a_rival(tmp_path: Path) -> None:
    fake(tmp_path / "ours", skill=0.5)
    fake(tmp_path / "weak", kind="late", skill=0.2)
    fake(tmp_path / "trees", skill=3.0, overrides=("head=boosting",))
    cells = results.cells(results.find([tmp_path])[0])
    table = results.tables(cells, replicates=20).set_index(["method", "metric"])
    assert table.loc[("cm2", "AUROC"), "rival"] == "boosting"
    assert page.measures(results.tables(cells, replicates=20), cells[0]).strong == ["cm2"]
    compared = significance.table(cells[0], replicates=20)
    assert compared is not None
    assert compared.caption == "Fake: cm2 against each rival"
    assert set(compared.frame["method"]) == {"boosting", "late"}


def test_without_rivals_all_are_compared_with_the_best_other(tmp_path: Path) -> None:
    for skill, fusion in ((0.2, "mean"), (1.0, "lstm"), (2.5, "mlp")):
        fake(tmp_path / fusion, skill=skill, overrides=(f"model.fusion={fusion}",))
    table = results.tables(results.cells(results.find([tmp_path])[0]), replicates=20)
    rivals = table[table["metric"] == "AUROC"].set_index("method")["rival"].to_dict()
    assert rivals == {
        "cm2 fusion=mean": "cm2 fusion=mlp",
        "cm2 fusion=lstm": "cm2 fusion=mlp",
        "cm2 fusion=mlp": "cm2 fusion=lstm",
    }
    assert table["p_runs"].isna().all(), "one seed says nothing of other seeds"
    assert table["sd"].isna().all()


@pytest.mark.parametrize("name", ["environment.json", "test.npz"])
def test_a_run_with_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    run = fake(tmp_path / "a")
    (run / name).write_bytes((run / name).read_bytes()[:20])
    with pytest.raises(InputError, match=f"{name}: damaged"):
        results.find([run])


def test_equal_predictions_differ_by_nothing(tmp_path: Path) -> None:
    """All methods meet the same bootstrap rows."""
    fake(tmp_path / "a")
    twin = fake(tmp_path / "b", kind="late")
    (twin / "test.npz").write_bytes((tmp_path / "a" / "test.npz").read_bytes())
    table = results.tables(results.cells(results.find([tmp_path])[0]), replicates=50)
    row = table[table["method"] == "cm2"]
    assert (row[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    assert (row["p_patients"] == 1).all()


def test_runs_of_an_older_version_are_drawn_by_row_and_that_is_said(tmp_path: Path) -> None:
    run = fake(tmp_path / "a")
    found = Predictions.load(run / "test.npz")
    assert found.patient is not None
    known = results.cells(results.find([run])[0])
    by_patient = results.tables(known, replicates=20)
    assert page.notes(known, by_patient) == []
    assert "of 45 patients" in page.measures(by_patient, known[0]).caption
    found._replace(patient=None).save(run / "test.npz")
    cells = results.cells(results.find([run])[0])
    table = results.tables(cells, replicates=REPLICATES)
    assert (table["patients"] == 90).all()
    weight = bootstrap.draws(90, REPLICATES)[1:].astype(float)
    drawn = [roc_auc_score(TARGET, found.probability[:, 1], sample_weight=w) for w in weight]
    row = table.set_index("metric").loc["AUROC"]
    assert row["low"] == pytest.approx(np.quantile(drawn, 0.025), rel=1e-9)
    assert "before patients were numbered" in page.notes(cells, table)[0]
    assert "of 90 patients" not in page.measures(table, cells[0]).caption


def test_rates_and_data_have_tables_of_their_own(tmp_path: Path) -> None:
    fake(tmp_path / "a")
    fake(tmp_path / "b", overrides=("data.missing_rate=0.3",))
    fake(tmp_path / "c", target=1 - TARGET)
    cells = results.cells(results.find([tmp_path])[0])
    titles = [cell.title for cell in cells]
    assert len(set(titles)) == 3
    assert {run.label for cell in cells for run in cell.runs} == {"cm2"}
    assert cells[0].study == cells[1].study != cells[2].study
    assert titles[1] == f"{titles[0]}, 30% removed"


def test_labels_of_a_sweep_are_kept(tmp_path: Path) -> None:
    variants = {"two words": [], "a/b, c": []}
    source = tmp_path / "e.yaml"
    fake(tmp_path / "first")
    source.write_text((tmp_path / "first" / "config.yaml").read_text())
    jobs = sweep.plan(source, variants, tmp_path / "s", seeds=11)
    for job in jobs:
        fake(job.folder, job.seed)
    results.write_labels(tmp_path / "s", jobs)
    runs, unfinished = results.find([tmp_path / "s"])
    assert [(run.label, run.experiment.seed) for run in runs] == [
        (label, seed) for label in variants for seed in range(11)
    ]
    assert not unfinished
    results.write_labels(tmp_path / "s", jobs[:1])
    assert len(results.find([tmp_path / "s"])[0]) == 22, "labels of earlier sweeps stay"


def test_a_sweep_is_named_where_another_has_the_same_experiment(tmp_path: Path) -> None:
    """Methods of sweeps of different experiments keep their names: they share no table."""
    source = tmp_path / "e.yaml"
    fake(tmp_path / "first")
    source.write_text((tmp_path / "first" / "config.yaml").read_text())
    names = {"a": "One", "b": "One", "c": "Two"}
    for folder, name in names.items():
        out = tmp_path / "all" / folder
        jobs = sweep.plan(source, {"x": []}, out, seeds=1, overrides=[f"name={name}"])
        fake(jobs[0].folder, overrides=(f"name={name}",))
        results.write_labels(out, jobs)
    runs = results.find([tmp_path / "all"])[0]
    assert [run.label for run in runs] == ["a: x", "b: x", "x"]


def test_what_is_not_finished_or_not_there_is_said(tmp_path: Path) -> None:
    fake(tmp_path / "runs" / "a")
    broken = fake(tmp_path / "runs" / "b", 1)
    (broken / "test.npz").unlink()
    runs, unfinished = results.find([tmp_path / "runs"])
    assert [run.folder.name for run in runs] == ["a"]
    assert unfinished == [broken]
    begun = fake(tmp_path / "begun" / "d")
    (begun / "begun.cm2").touch()  # it was interrupted, and measured
    (begun / "test.json").touch()
    (begun / "validation.json").write_text('{"measures": {"auroc": [0.5]}}')
    with pytest.raises(InputError, match="no finished run"):
        results.find([tmp_path / "begun"])
    assert not paper.finished(sweep.Job("d", 0, (), begun))
    assert np.isnan(selection.measured([sweep.Job("d", 0, (), begun)], "auroc")["value"]).all()
    (begun / "model.cm2").touch()  # and ended since
    assert paper.finished(sweep.Job("d", 0, (), begun))
    with pytest.raises(InputError, match="no finished run"):
        results.find([broken])
    with pytest.raises(InputError, match="no such folder"):
        results.find([tmp_path / "none"])
    fake(tmp_path / "runs" / "c")
    with pytest.raises(InputError, match="same method and seed"):
        results.cells(results.find([tmp_path / "runs"])[0])
    again = results.find([tmp_path / "runs" / "a", tmp_path / "runs" / "a"])[0]
    assert len(again) == 1, "a run given twice counts once"


def test_a_difference_needs_common_seeds() -> None:
    values = {"AUROC": np.array([0.7, 0.6, 0.8])}
    cells = [
        summary.Cell("a", 0, 0.0, 9, 3, 9, 1.0, values, {"AUROC": 3}),
        summary.Cell("b", 1, 0.0, 9, 3, 9, 1.0, values, {"AUROC": 3}),
    ]
    table = summary.summarise(cells, ["a", "b"])
    assert table["difference"].isna().all()
    assert (table["rival"] == "").all()


def test_a_rival_without_a_value_is_not_the_best_one() -> None:
    def cell(name: str, value: float) -> summary.Cell:
        scores = {"AUROC": np.array([value, value, value])}
        return summary.Cell(name, 0, 0.0, 9, 3, 9, 1.0, scores, {"AUROC": 3})

    cells = [cell("own", 0.7), cell("lame", np.nan), cell("good", 0.8), cell("bad", 0.6)]
    table = summary.summarise(cells, ["lame", "good", "bad"]).set_index("method")
    assert table.loc["own", "rival"] == "good"
    assert table.loc["own", "difference"] == pytest.approx(-0.1)
