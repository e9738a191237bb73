"""Experiments as YAML: every key and value is checked before anything starts."""

from pathlib import Path

import pytest
import yaml

from cm2.experiments import config, heads
from cm2.experiments.config import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
EXPERIMENTS = sorted(
    path
    for path in CONFIGS.rglob("*.yaml")
    if path.parent.name != "ablations" and path.parent != CONFIGS
)
TREE = {
    "data": {"root": "x", "modalities": ["series"]},
    "encoders": {"series": {"kind": "series"}},
    "model": {"kind": "cm2"},
}


def write(path: Path, tree: dict) -> Path:
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def test_the_matrix_of_the_paper_is_there() -> None:
    names = {str(path.relative_to(CONFIGS).with_suffix("")) for path in EXPERIMENTS}
    cells = {
        f"{data}/{task}-{setting}"
        for data in ("mimic3", "mimic4", "mimic4-trimodal")
        for task in ("mortality", "readmission")
        for setting in ("paired", "partial")
    }
    assert cells <= names


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_experiment_is_accepted_and_reads_back(path: Path, tmp_path: Path) -> None:
    experiment = config.load(path)
    assert experiment.name
    again = tmp_path / "again.yaml"
    again.write_text(experiment.dump(), encoding="utf-8")
    assert config.load(again) == experiment


def test_defaults_of_the_paper() -> None:
    experiment = config.load(CONFIGS / "mimic4" / "mortality-partial.yaml")
    training = experiment.training
    assert (training["optimizer"], training["lr"], training["max_epochs"]) == ("adam", 1e-4, 100)
    assert 16 <= training["batch_size"] <= 32
    assert training["patience"] == 15
    assert (experiment.dim, experiment.model["components"]) == (256, 3)
    assert experiment.model["fusion"] == "lstm"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modle": {}}, "unknown key modle; did you mean model?"),
        ({"data": {"rooot": "x"}}, "unknown key data.rooot; did you mean data.root?"),
        ({"model": {"kind": "cm2", "copla": "frank"}}, "model.copla; did you mean model.copula?"),
        ({"model": {"kind": "cm3"}}, "model: unknown model 'cm3'; did you mean 'cm2'?"),
        ({"model": {}}, "model needs a kind: .*cm2"),
        ({"encoders": {"series": {"kind": "serie"}}}, "did you mean 'series'?"),
        (
            {"encoders": {"series": {"kind": "series", "widht": 3}}},
            "encoders.series.widht; did you mean encoders.series.width?",
        ),
        ({"encoders": {"series": {"kind": "series", "width": "wide"}}}, "encoders.series: .*width"),
        ({"encoders": {}}, "an encoder for each modality"),
        ({"data": {"root": "x", "modalities": ["series", "cxr"]}}, r"encoders lacks \['cxr'\]"),
        ({"training": {"lr": "fast"}}, "training: .*lr"),
        ({"training": {"precision": "fp8"}}, "training: .*precision"),
        ({"training": {"run_dir": "x"}}, "unknown key training.run_dir"),
        ({"data": {"root": "x", "split": "test"}}, "unknown key data.split"),
        ({"seed": "zero"}, "seed must be int"),
        ({"dim": True}, "dim must be int"),
        ({"data": [1]}, "data must hold keys and values"),
    ],
)
def test_mistakes_are_named_with_the_nearest_key(
    tmp_path: Path, change: dict, message: str
) -> None:
    path = write(tmp_path / "e.yaml", TREE | change)
    with pytest.raises(ConfigError, match=message) as caught:
        config.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.copula=franck", "unknown copula 'franck'; did you mean 'frank'"),
        ("model.fusion=lstmm", "unknown fusion 'lstmm'"),
        ("model.components=0", "components must be at least 1"),
        ("model.objective=elbo", "needs posterior='gaussian'"),
        ("dim=0", "dim must be at least 1"),
        ("training.max_epochs=0", "training.max_epochs must be at least 1, got 0"),
        ("training.batch_size=-2", "training.batch_size must be at least 1"),
        ("training.lr=0", "training.lr must be positive"),
        ("training.patience=-1", "training.patience must be at least 0"),
        ("seed=-1", "seed must be at least 0"),
    ],
)
def test_values_that_no_model_takes(tmp_path: Path, override: str, message: str) -> None:
    path = write(tmp_path / "e.yaml", TREE)
    with pytest.raises(ConfigError, match=message):
        config.load(path, [override])


def test_overrides_and_bases(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", TREE | {"seed": 3, "dim": 8})
    write(tmp_path / "below.yaml", {"base": "base.yaml", "model": {"kind": "cm2", "width": 5}})
    experiment = config.load(
        tmp_path / "below.yaml",
        ["training.weights={alignment: 0.5}", "data.missing_rate=0.3", "model.copula=frank"],
    )
    assert (experiment.seed, experiment.dim) == (3, 8)
    assert experiment.model["width"] == 5
    assert experiment.model["copula"] == "frank"
    assert experiment.training["weights"] == {"alignment": 0.5}
    assert experiment.data["missing_rate"] == 0.3


def test_another_kind_drops_the_arguments_of_the_first(tmp_path: Path) -> None:
    tree = TREE | {"model": {"kind": "cm2", "copula": "frank"}}
    path = write(tmp_path / "e.yaml", tree)
    assert "copula" not in config.load(path, ["model.kind=medfuse"]).model
    write(tmp_path / "f.yaml", {"base": "e.yaml", "model": {"kind": "late"}})
    assert "copula" not in config.load(tmp_path / "f.yaml").model
    assert config.load(path, ["model.kind=cm2"]).model["copula"] == "frank"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        config.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not a YAML file"):
        config.load(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="keys and values were expected"):
        config.load(tmp_path / "list.yaml")
    write(tmp_path / "a.yaml", {"base": "b.yaml"})
    write(tmp_path / "b.yaml", {"base": "a.yaml"})
    with pytest.raises(ConfigError, match="in a circle"):
        config.load(tmp_path / "a.yaml")
    path = write(tmp_path / "e.yaml", TREE)
    for override in ("model.copula", "=3", "seed.deep=3"):
        with pytest.raises(ConfigError):
            config.load(path, [override])


OWN = """
from torch import nn
from cm2.networks.encoders import Encoder


class Mine(Encoder):
    def __init__(self, dim: int, features: int, width: int = 4):
        super().__init__(dim)
        self.body = nn.Linear(features, dim)

    def forward(self, x):
        return self.body(x)


class Other:
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_encoders_of_a_test.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "own_encoders_of_a_test"


def test_an_encoder_of_ones_own_is_named_by_its_module(own: str) -> None:
    tree = {**TREE, "encoders": {"series": {"kind": f"{own}.Mine", "width": 8}}}
    experiment = config.parse(tree)
    assert experiment.encoders["series"] == {"kind": f"{own}.Mine", "width": 8}
    model = heads.build(experiment, {"series": {"features": 3}}, 2)
    assert type(model.encoders["series"]).__name__ == "Mine"
    assert model.encoders["series"].body.in_features == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Absent", "cannot be imported"),
        ("Other", "no subclass of cm2.networks.encoders.Encoder"),
    ],
)
def test_what_is_no_encoder_is_refused(own: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.parse({**TREE, "encoders": {"series": {"kind": f"{own}.{name}"}}})


def test_a_mistyped_argument_of_ones_own_encoder_is_named(own: str) -> None:
    with pytest.raises(ConfigError, match=r"did you mean encoders\.series\.width"):
        config.parse({**TREE, "encoders": {"series": {"kind": f"{own}.Mine", "widht": 8}}})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"training": {"max_epochs": 0}}, "head pooled: max_epochs must be at least 1, got 0"),
        ({"seed": -3}, "seed must be at least 0, but is -3"),
    ],
)
def test_numbers_of_a_head_are_checked_before_data_are_read(tree: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.parse({"head": "pooled", "data": {"root": "nowhere"}, **tree})
