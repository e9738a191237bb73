"""The paper's table of p-values, of finished runs."""

from pathlib import Path

import numpy as np
import pytest

from cm2.evaluation import significance
from cm2.experiments import report, results
from cm2.experiments import significance as page
from fake_runs import PATIENT, TARGET, fake


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> results.Cell:
    """CM2 and two rivals over two seeds, one of them over a third too."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        fake(root / "ours" / f"seed_{seed}", seed, skill=1.5)
        fake(root / "weak" / f"seed_{seed}", seed, kind="late", skill=0.2)
        fake(root / "strong" / f"seed_{seed}", seed, kind="medfuse", skill=1.0)
    fake(root / "strong" / "seed_2", 2, kind="medfuse", skill=1.0)
    return results.cells(results.find([root])[0])[0]


def test_each_rival_is_compared_over_the_seeds_that_both_have(cell: results.Cell) -> None:
    found = page.table(cell, replicates=200)
    assert found is not None
    frame = found.frame.set_index(["method", "measure"])
    assert set(frame.index) == {(m, n) for m in ("late", "medfuse") for n in ("AUROC", "AUPR")}
    scores = {
        kind: np.stack(
            [
                run.predictions.probability[:, 1]
                for run in cell.runs
                if run.experiment.model["kind"] == kind and run.experiment.seed < 2
            ]
        )
        for kind in ("cm2", "late", "medfuse")
    }
    for rival in ("late", "medfuse"):
        expected = significance.delong(TARGET == 1, scores["cm2"], scores[rival], PATIENT)
        row = frame.loc[(rival, "AUROC")]
        assert float(row["p (DeLong)"]) == pytest.approx(expected.p, rel=0.05)  # two digits
        assert float(row["difference"]) == pytest.approx(expected.difference, abs=6e-4)
        assert frame.loc[(rival, "AUPR")]["p (DeLong)"] == ""
        assert float(row["p (replicates)"]) < float(row["p (patients)"])


def test_the_report_has_the_table_and_says_what_it_is_worth(
    cell: results.Cell, tmp_path: Path
) -> None:
    report.write(tmp_path / "page.html", cell.runs, replicates=50)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "p (DeLong)" in text
    assert "says nothing of the difference" in text


def test_there_is_no_table_without_cm2_or_a_rival(cell: results.Cell) -> None:
    for kind in ("cm2", "late"):
        runs = [run for run in cell.runs if run.experiment.model["kind"] == kind]
        assert page.table(cell._replace(runs=runs)) is None
