"""A search over points: which are drawn, and which of them is chosen."""

import json
from pathlib import Path

import pytest

from cm2.core.errors import InputError
from cm2.experiments import config, selection, sweep
from tiny_experiments import CONFIGS


def test_points_are_drawn_alike_and_selected_by_validation_data_alone(tmp_path: Path) -> None:
    variants = sweep.read_variants(CONFIGS / "ablations" / "paper-grid.yaml")
    assert len(variants) == 4 * 3 * 6 * 5 * 3 == 1080
    few, more = (selection.some(variants, points) for points in (20, 60))
    assert len(few) == 20
    assert set(few) < set(more)
    assert list(more) == [label for label in variants if label in more]
    experiment = CONFIGS / "reference" / "mimic4" / "mortality-partial.yaml"
    for label in (*list(few)[:2], *list(few)[-2:]):
        chosen = config.load(experiment, variants[label])
        written = dict(part.split("=") for part in label.split())
        assert chosen.encoders["series"]["dropout"] == float(written["dropout"])
        assert chosen.training["weights"] == {"likelihood": float(written["likelihood"])}
    with pytest.raises(InputError, match="points is from 1 to the 1080"):
        selection.some(variants, 1081)
    for wrong in ("test:auroc", "auroc", "validation:accuracy"):
        with pytest.raises(InputError, match="a point is selected by validation: and one of auroc"):
            selection.parse(wrong)
    bad = tmp_path / "grid.yaml"
    bad.write_text("grid: {model.width: 9}")
    with pytest.raises(InputError, match="a grid has keys and a list of values for each"):
        sweep.read_variants(bad)


def test_a_point_that_failed_is_never_selected(tmp_path: Path) -> None:
    """Nor one of which a seed is missing; of losses the least is best."""
    jobs = [
        sweep.Job(variant, seed, (), tmp_path / variant / str(seed))
        for variant in ("half", "whole", "worse", "none")
        for seed in (0, 1)
    ]
    values = {("half", 0): 0.1, ("whole", 0): 0.3, ("whole", 1): 0.5, ("worse", 0): 0.6}
    values[("worse", 1)] = 0.6
    for job in jobs:
        job.folder.mkdir(parents=True)
        if (job.variant, job.seed) in values:
            measures = {"measures": {"log_loss": [values[job[:2]], 0.0, 1.0]}}
            (job.folder / "validation.json").write_text(json.dumps(measures))
    table = selection.measured(jobs, "log_loss")
    assert selection.best(table) == "whole"
    assert table["value"].tolist()[:2] == pytest.approx([0.4, 0.6])
    assert dict(zip(table["variant"], table["seeds"], strict=True)) == {
        "whole": 2, "worse": 2, "half": 1, "none": 0
    }  # fmt: skip
    assert selection.best(selection.measured(jobs[-2:], "log_loss")) is None
