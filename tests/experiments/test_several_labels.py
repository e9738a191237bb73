"""Labels that may hold together, from a prepared folder to the report."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from cm2 import cli
from cm2.experiments import results, run
from cm2.experiments.predictions import Predictions
from prepared_folder import make_folder

LABELS = ("shock", "septicemia", "pneumonia")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained runs on one folder, of CM2 and of a rival."""
    root = tmp_path_factory.mktemp("labels")
    make_folder(root / "data", 120, labels=LABELS)
    tree = {
        "name": "Phenotypes",
        "data": {"root": str(root / "data"), "modalities": ["vitals", "series"]},
        "dim": 3,
        "encoders": {
            "vitals": {"kind": "dense", "width": 4},
            "series": {"kind": "series", "width": 4, "layers": 1},
        },
        "model": {"kind": "cm2", "components": 1, "width": 4},
        "training": {"batch_size": 20, "max_epochs": 2, "accelerator": "cpu", "lr": 1e-2},
    }
    path = root / "e.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    for kind in ("cm2", "late"):
        more = ["--out", str(root / "runs" / kind), "--set", f"model.kind={kind}"]
        assert cli.main(["train", str(path), *more]) == 0
    return root


def test_a_run_measures_all_labels_and_each(root: Path) -> None:
    found = json.loads((root / "runs" / "cm2" / "test.json").read_text())
    kept = Predictions.load(root / "runs" / "cm2" / "test.npz")
    assert kept.target.shape == kept.probability.shape == (found["rows"], 3)
    assert ((kept.probability > 0) & (kept.probability < 1)).all()
    assert not np.allclose(kept.probability.sum(axis=1), 1, atol=1e-3)
    measures = found["measures"]
    each = roc_auc_score(kept.target, kept.probability, average=None)
    assert [measures[f"auroc {name}"][0] for name in LABELS] == pytest.approx(each)
    assert measures["auroc"][0] == pytest.approx(each.mean())
    micro = roc_auc_score(kept.target, kept.probability, average="micro")
    assert measures["auroc_micro"][0] == pytest.approx(micro)
    assert found["positives"] == kept.target.any(axis=1).sum()
    facts = json.loads((root / "runs" / "cm2" / "environment.json").read_text())["data"]
    assert facts["labels"] == list(LABELS)


def test_evaluating_again_gives_the_same(root: Path) -> None:
    before = (root / "runs" / "cm2" / "test.json").read_text()
    assert cli.main(["evaluate", str(root / "runs" / "cm2")]) == 0
    assert (root / "runs" / "cm2" / "test.json").read_text() == before


def test_predictions_are_called_by_their_labels(root: Path) -> None:
    make_folder(root / "new", 20, seed=3, first=900)
    for data in ("data", "new"):
        command = ["predict", str(root / "runs" / "cm2"), "--data", str(root / data)]
        assert cli.main([*command, "--out", str(root / f"{data}.parquet")]) == 0
        frame = pd.read_parquet(root / f"{data}.parquet")
        wanted = [f"{what}_{name}" for name in LABELS for what in ("probability", "spread")]
        assert list(frame) == ["stay_id", *wanted]
        assert frame[[f"probability_{name}" for name in LABELS]].to_numpy().max() < 1
    frame = pd.read_parquet(root / "data.parquet").set_index("stay_id")
    data, found = run.predict(root / "runs" / "cm2", root / "data", split="test")
    own = frame.loc[data.stays["stay_id"], [f"probability_{name}" for name in LABELS]]
    assert found.target.tolist() == data.target.tolist()
    # Imputations are drawn batch by batch, so that incomplete rows may differ.
    whole = found.present.all(axis=1)
    np.testing.assert_allclose(own.to_numpy()[whole], found.probability[whole], rtol=1e-5)


def test_tables_figures_and_report(root: Path) -> None:
    cells = results.cells(results.find([root / "runs"])[0])
    table = results.tables(cells, replicates=50)
    whole = table[table["label"] == ""]
    names = ["AUROC", "AUPR", "Brier", "log loss", "micro AUROC", "micro AUPR"]
    assert whole.loc[whole["method"] == "cm2", "metric"].tolist() == names
    each = (
        table[table["label"] != ""].set_index(["method", "metric", "label"])["value"].sort_index()
    )
    assert len(each) == 2 * 2 * len(LABELS)
    macro = whole.set_index(["method", "metric"])["value"]["cm2", "AUROC"]
    assert each["cm2", "AUROC"].mean() == pytest.approx(macro)
    page = root / "report.html"
    assert cli.main(["report", str(root / "runs"), "--out", str(page), "--replicates", "20"]) == 0
    text = page.read_text()
    assert "means over 3 labels, and all labels together (micro)" in text
    assert "Phenotypes: each label on the test rows" in text
    assert "micro AUROC" in text
    assert text.count("septicemia") >= 2
    assert "calibration" in text or "observed frequency" in text
