"""Every experiment of configs/, end to end: raw files, preparation, training, test.

On generated files of the layout of MIMIC, and on the real demos where they are.
"""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from cm2 import cli
from cm2.clinical.synthesize.diagnoses import GROUPS
from cm2.experiments import config, run
from tiny_experiments import CONFIGS, tiny

TASKS = {"mortality": "in-hospital-mortality", "readmission": "readmission"}
PREPARED = sorted(
    path.relative_to(CONFIGS)
    for path in CONFIGS.glob("*/*.yaml")
    if path.parent.name not in {"ablations", "reference"}
)
"""Experiments that name a prepared folder."""

EXPERIMENTS = sorted(
    path.relative_to(CONFIGS).with_suffix("")
    for folder in ("mimic3", "mimic4", "mimic4-trimodal")
    for path in (CONFIGS / folder).glob("*.yaml")
    if not path.name.startswith("phenotyping")
)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Generated files of both sources."""
    base = tmp_path_factory.mktemp("generated")
    for source in ("mimic3", "mimic4"):
        command = ["synthesize", source, "--patients", "160", "--out", str(base / source)]
        assert cli.main(command) == 0
    return {source: base / source for source in ("mimic3", "mimic4")}


@pytest.fixture(scope="module")
def prepared(
    generated: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Both sources, prepared for both tasks."""
    base = tmp_path_factory.mktemp("prepared")
    found = {}
    for source, raw in generated.items():
        for short, task in TASKS.items():
            out = base / f"{source}-{short}"
            command = ["prepare", source, "--raw", str(raw), "--task", task, "--out", str(out)]
            assert cli.main(command) == 0
            found[out.name] = out
    return found


@pytest.mark.parametrize("name", EXPERIMENTS, ids=str)
def test_experiment_runs(name: Path, prepared: dict[str, Path], tmp_path: Path) -> None:
    data = f"{name.parts[0].removesuffix('-trimodal')}-{name.name.split('-')[0]}"
    experiment = tiny(CONFIGS / name.with_suffix(".yaml"), prepared[data])
    result = run.train(experiment, tmp_path / "run")
    assert result["rows"] > result["positives"] > 0
    assert all(value[0] >= 0 for value in result["measures"].values())
    shares = result["present"]
    assert list(shares) == experiment.data["modalities"]
    paired = name.name.endswith("paired")
    assert all(share == 1 for share in shares.values()) == paired


@pytest.mark.parametrize("name", PREPARED, ids=str)
def test_the_command_in_its_comment_makes_the_folder_of_an_experiment(name: Path) -> None:
    found = re.search(r"^# .*cm2 (prepare .*)$", (CONFIGS / name).read_text(), re.MULTILINE)
    assert found
    given = cli.parser().parse_args(shlex.split(found[1])).prepare
    assert given.out == Path(config.load(CONFIGS / name).data["root"])
    task = name.stem.split("-")[0]
    assert given.task == TASKS.get(task, task)
    if task == "readmission":
        assert given.readmission == "or-death"


def test_phenotypes_are_learned_together(generated: dict[str, Path], tmp_path: Path) -> None:
    raw, out = generated["mimic4"], tmp_path / "out"
    files = ",".join(str(raw / name) for name in GROUPS.values())
    command = ["prepare", "mimic4", "--raw", str(raw), "--out", str(out)]
    assert cli.main([*command, "--task", "phenotyping", "--ccs", files]) == 0
    experiment = tiny(CONFIGS / "mimic4" / "phenotyping-partial.yaml", out)
    result = run.train(experiment, tmp_path / "run")
    assert result["rows"] >= result["positives"] > 0
    assert {"auroc", "auroc_micro", "auroc septicemia", "aupr shock"} <= set(result["measures"])


@pytest.mark.parametrize(
    ("source", "demo"), [("mimic3", "mimiciii-demo"), ("mimic4", "mimiciv-demo")]
)
def test_series_of_the_real_mimic_demos(
    source: str, demo: str, dataset: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "demo"
    assert cli.main(["prepare", source, "--raw", str(dataset(demo)), "--out", str(out)]) == 0
    path = CONFIGS / source / "mortality-partial.yaml"
    experiment = config.load(
        path,
        [
            f"data.root={out}", "data.modalities=[series]", "data.tokenizer=null", "dim=4",
            "encoders.series.width=8", "training.max_epochs=2", "training.accelerator=cpu",
        ],
    )  # fmt: skip
    run.train(experiment, tmp_path / "run")
    found = json.loads((tmp_path / "run" / "test.json").read_text())
    assert found["rows"] > 0


@pytest.mark.parametrize("setting", ["partial", "paired"])
def test_modalities_of_the_real_eicu_demo(
    setting: str,
    dataset: Callable[[str], Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    out = tmp_path_factory.getbasetemp() / "eicu"
    command = ["prepare", "eicu", "--raw", str(dataset("eicu-demo")), "--hours", "24"]
    assert cli.main([*command, "--out", str(out)]) == 0
    path = CONFIGS / "eicu" / f"mortality-{setting}.yaml"
    # Gumbel draws of seven coordinates, one after the other, would take a minute.
    experiment = tiny(path, out, "model.copula=gaussian")
    result = run.train(experiment, tmp_path / "run")
    assert result["rows"] > result["positives"] > 0
