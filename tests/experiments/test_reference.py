"""The paper's protocol: each command of configs/reference, run as it is written there."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from cm2 import cli
from cm2.clinical.synthesize import World, synthesize
from cm2.experiments import config, run
from cm2.networks.encoders.sections import arguments
from cm2.networks.models import CM2
from tiny_experiments import CONFIGS, command, tiny

REFERENCE = CONFIGS / "reference"
EXPERIMENTS = sorted(path.relative_to(REFERENCE) for path in REFERENCE.glob("*/*.yaml"))
HERE = {
    "mimic-iii-1.4": "mimic3",
    "mimic3-benchmarks": "mimic3/lists",
    "mimic-iv-2.2": "mimic4",
    "mimic-cxr-jpg-2.0.0": "mimic4/cxr",
    "mimic-cxr-2.1.0": "mimic4/cxr-reports",
    "MedFuse": "mimic4/lists",
}
"""Where the generated files lie that stand for each folder of a command."""


def folders(words: list[str]) -> dict[str, str]:
    """The folders that a command names, by option; those of --lists are names of repositories."""
    named = ("--raw", "--images", "--reports", "--lists")
    return {option: words[words.index(option) + 1] for option in named if option in words}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files in which many die and many are tested, so that few stays tell of both outcomes."""
    base = tmp_path_factory.mktemp("generated")
    for source, ending, seed in (("mimic3", "", 1), ("mimic4", "_iv", 3)):
        synthesize(source, 50, base / source, seed=seed, world=World(death=(-0.5, 2.2)))
        lists = base / source / "lists"
        lines = (lists / f"testset{ending}.csv").read_text().split()
        parts = {line.split(",")[0]: "ttvrr"[k % 5] for k, line in enumerate(sorted(lines))}
        for name, part, others in (("testset", "t", "vr"), ("valset", "v", "r")):
            listed = (f"{s},{int(p == part)}\n" for s, p in parts.items() if p in part + others)
            (lists / f"{name}{ending}.csv").write_text("".join(listed))
    return base


@pytest.fixture(scope="module")
def prepared(generated: Path) -> dict[tuple[str, ...], Path]:
    """What the commands gave, each run once."""
    return {}


def prepare(path: Path, generated: Path, prepared: dict[tuple[str, ...], Path]) -> Path:
    words = command(path)
    key = tuple(words)
    if key not in prepared:
        out = generated / words[words.index("--out") + 1]
        given = {"--out": str(out)} | {
            option: str(generated / HERE[name]) for option, name in folders(words).items()
        }
        for option, value in given.items():
            words[words.index(option) + 1] = value
        assert cli.main(words) == 0
        prepared[key] = out
    return prepared[key]


def test_the_matrix_is_whole() -> None:
    pairs = {(path.parts[0], path.stem) for path in EXPERIMENTS}
    settings = {
        f"{task}-{s}" for task in ("mortality", "readmission") for s in ("paired", "partial")
    }
    assert pairs == {(source, name) for source in ("mimic3", "mimic4") for name in settings} | {
        ("mimic4-trimodal", "mortality-paired"),
        ("mimic4-trimodal", "readmission-paired"),
    }


@pytest.mark.parametrize("name", EXPERIMENTS, ids=str)
def test_the_protocol_is_that_of_the_paper(name: Path) -> None:
    words, experiment = command(REFERENCE / name), config.load(REFERENCE / name)
    given = dict(zip(words[2::2], words[3::2], strict=True))
    three = name.parts[0] == "mimic3"
    assert words[:2] == ["prepare", "mimic3" if three else "mimic4"]
    assert given["--hours-per-bin"] == "2"
    assert given["--look-back"] == "0"
    assert given["--selection"] == "reference"
    assert given.get("--readmission") == (
        "or-death" if name.stem.startswith("readmission") else None
    )
    assert given["--splits-from"] == ("mimic3-benchmarks" if three else "medfuse")
    assert given.get("--notes-of") == ("third" if three else None)
    assert given["--out"] == experiment.data["root"]
    assert experiment.training["batch_size"] == (16 if three else 32)
    if {"notes", "report"} & set(experiment.data["modalities"]):
        assert (experiment.data["chunks"], experiment.data["chunks_per_document"]) == (5, 1)
    if "report" in experiment.data["modalities"]:
        assert given["--sections"] == "impression,findings,last_paragraph,comparison"
        assert {"--reports", "--images"} <= set(given)


def test_the_method_is_written_out() -> None:
    """No option of the model is left to a default, and each is as the paper or its code has it."""
    tree = yaml.safe_load((CONFIGS / "published.yaml").read_text())
    options = set(arguments(CM2)) - {"encoders", "labels", "seed"}
    assert set(tree["model"]) == options | {"kind"}
    for name in EXPERIMENTS:
        model, training = (
            config.load(REFERENCE / name).model,
            config.load(REFERENCE / name).training,
        )
        wanted = {
            "objective": "likelihood", "copula": "frank", "components": 3, "fusion": "lstm",
            "imputation": "marginal", "hide": 0.0, "auxiliary": False, "classifier": "linear",
            "normalize": True, "shared": True,
        }  # fmt: skip
        assert wanted.items() <= model.items()
        assert training["weights"] == {"likelihood": 1e-6}
        assert (training["monitor"], training["patience"]) == ("val_auroc", 15)


@pytest.mark.parametrize("name", EXPERIMENTS, ids=str)
def test_a_reference_experiment_runs(
    name: Path, generated: Path, prepared: dict[tuple[str, ...], Path], tmp_path: Path
) -> None:
    root = prepare(REFERENCE / name, generated, prepared)
    about = yaml.safe_load((root / "manifest.json").read_text())
    assert about["modalities"]["series"]["bins"] == 24
    stays = pd.read_parquet(root / "stays.parquet")
    if name.parts[0] == "mimic3":
        third = sum(about["counts"]["notes read"].values())
        assert abs(third - len(stays) / 3) <= 1.5  # each of three parts is rounded
        assert 0 < stays["has_notes"].sum() <= third
    if name.parts[0] == "mimic4-trimodal":
        assert (stays["has_report"] == stays["has_cxr"]).all()
    result = run.train(tiny(REFERENCE / name, root), tmp_path / "run")
    assert result["rows"] > result["positives"] > 0
    shares = result["present"]
    assert all(share == 1 for share in shares.values()) == name.stem.endswith("paired")
