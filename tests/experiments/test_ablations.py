"""The ablations: every variant is accepted, can be built, and no part is forgotten."""

from itertools import product
from pathlib import Path

import pytest
import yaml

from cm2 import copulas, couplings
from cm2.experiments import config, heads, results, sweep
from cm2.networks import fusions, imputers, models
from cm2.networks.models import objectives, posteriors

CONFIGS = Path(__file__).parents[2] / "configs"
NAMED = {
    "backbones", "paper-alignment", "paper-components", "paper-grid", "paper-rivals",
    "text-and-code",
}  # fmt: skip
"""Those that are for certain experiments."""
FILES = sorted(path for path in (CONFIGS / "ablations").glob("*.yaml") if path.stem not in NAMED)
PAPER = {"mmtm", "daft", "unified", "medfuse", "drfuse", "lsmt", "interleaved", "cm2"}
"""The methods of the paper's tables, whatever other networks there are."""
SHAPE = {name: {"features": 3} for name in ("first", "second", "third")}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with the model of the paper's configurations on small tables."""
    tree = yaml.safe_load((CONFIGS / "paper.yaml").read_text())
    tree |= {
        "data": {"root": "x", "modalities": list(SHAPE)},
        "dim": 4,
        "encoders": {name: {"kind": "dense", "width": 4} for name in SHAPE},
    }
    path = tmp_path_factory.mktemp("base") / "base.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def test_all_ablations_of_the_paper_are_there() -> None:
    assert {path.stem for path in FILES} == {
        "components", "copulas", "coupling", "fusion", "imputation", "lambda", "objective",
        "posterior", "rivals",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_variant_is_accepted_and_built(path: Path, base: Path) -> None:
    variants = sweep.read_variants(path)
    jobs = sweep.plan(base, variants, Path("out"), seeds=1)
    assert [job.variant for job in jobs] == list(variants)
    trees = set()
    for job in jobs:
        experiment = config.load(base, job.overrides)
        assert heads.build(experiment, SHAPE, 2).modalities == tuple(SHAPE)
        trees.add(experiment.dump())
    assert len(trees) == len(variants), "two variants are the same"


def test_every_method_stands_on_every_pair_of_encoders() -> None:
    """Table 10: four pairs and eight methods, each accepted for the paper's experiment."""
    variants = sweep.read_variants(CONFIGS / "ablations" / "backbones.yaml")
    experiment = CONFIGS / "reference" / "mimic4" / "mortality-paired.yaml"
    found = set()
    for job in sweep.plan(experiment, variants, Path("out"), seeds=1):
        tree = config.load(experiment, job.overrides)
        kinds = [tree.encoders[name]["kind"] for name in ("series", "cxr")]
        random = tree.model["kind"] == "medfuse"
        assert (tree.encoders["cxr"]["weights"] is None) == random
        if tree.model["kind"] in ("mmtm", "daft"):
            assert (tree.model["place"], tree.model["missing"]) == ("inside", "zeros")
        assert tree.data["modalities"] == ["series", "cxr"]
        special = {"batch_size": 8, "weights": {"likelihood": 1e-6, "auxiliary": 3.0}}
        usual = {"batch_size": 32, "weights": {"likelihood": 1e-6}}
        wanted = special if tree.model["kind"] == "drfuse" else usual
        assert wanted.items() <= tree.training.items()
        found.add((*kinds, tree.model["kind"]))
    assert len(variants) == 32
    assert found == set(product(("series", "transformer"), ("image", "vit"), PAPER))


def variants_of(name: str, experiment: Path) -> dict[str, config.Experiment]:
    """The variants of a file as experiments."""
    variants = sweep.read_variants(CONFIGS / "ablations" / f"{name}.yaml")
    jobs = sweep.plan(experiment, variants, Path("out"), seeds=1)
    return {job.variant: config.load(experiment, job.overrides) for job in jobs}


def test_the_components_of_table_5_are_removed_one_by_one() -> None:
    """Seven rows; each differs from the full method of its setting in one key alone."""
    experiment = CONFIGS / "reference" / "mimic4" / "mortality-partial.yaml"
    found = variants_of("paper-components", experiment)
    changes = {
        "without copula": ("training.weights.likelihood", 0.0),
        "without sampling": ("model.imputation", "zero"),
        "without fusion": ("model.fusion", "beside"),
    }
    for label, each in found.items():
        setting, row = label.split(", ")
        assert each.data["setting"] == {"partial": "partial", "matched": "paired"}[setting]
        own, full = results.flat(each), results.flat(found[f"{setting}, full"])
        wanted = dict([changes[row]]) if row in changes else {}
        assert {key: own[key] for key in own if own[key] != full[key]} == wanted
    rows = [label.split(", ")[1] for label in found]
    assert sorted(rows) == sorted([*changes, "full", "without copula", "without fusion", "full"])


def test_alignments_of_table_4_have_the_weight_of_the_published_scripts() -> None:
    """One, where that of the copula is 1e-6; all else is the method as printed."""
    experiment = CONFIGS / "reference" / "mimic4" / "mortality-paired.yaml"
    found = {label: results.flat(each) for label, each in variants_of(
        "paper-alignment", experiment
    ).items()}  # fmt: skip
    assert found["copula"] == results.flat(config.load(experiment))
    for label, objective in (("cosine", "cosine"), ("KL", "kl")):
        own = {
            key: value for key, value in found[label].items() if value != found["copula"].get(key)
        }
        assert own == {"model.objective": objective, "training.weights.alignment": 1.0}


def test_rivals_run_as_in_the_paper() -> None:
    """Where it says how: exchange inside encoders, learned vectors, random starts, batches of 8."""
    found = variants_of("paper-rivals", CONFIGS / "reference/mimic4-trimodal/mortality-paired.yaml")
    assert [each.model["kind"] for each in found.values()] == [
        "mmtm", "daft", "unified", "medfuse", "drfuse", "lsmt", "interleaved", "cm2",
    ]  # fmt: skip
    for name in ("MMTM", "DAFT"):
        assert (found[name].model["place"], found[name].model["missing"]) == ("inside", "zeros")
    assert found["MedFuse"].model["missing"] == "learned"
    for label, each in found.items():
        weights = {name: each.encoders[name]["weights"] for name in ("cxr", "report")}
        assert all(one is None for one in weights.values()) == (label == "MedFuse")
        assert each.training["batch_size"] == (8 if label == "DrFuse" else 32)
        assert each.encoders["series"]["dropout"] == 0.3, "and there alone, as in their code"
        assert each.encoders["cxr"]["dropout"] == 0.0
        assert each.model["dropout"] == (0.1 if label == "Interleaved" else 0.0)
    drfuse = found["DrFuse"].encoders
    assert found["DrFuse"].training["weights"]["auxiliary"] == 3, "the mean over three parts"
    assert (drfuse["series"]["kind"], drfuse["cxr"]["weights"]) == (
        "transformer", "microsoft/resnet-50",
    )  # fmt: skip


def test_text_and_code_differ_in_draws_and_weights() -> None:
    found = variants_of("text-and-code", CONFIGS / "reference/mimic4/mortality-partial.yaml")
    each = {label: (e.model["mixing"], e.model["through"]) for label, e in found.items()}
    assert set(each.values()) == set(product(("constant", "network"), (False, True)))
    assert each["code"] == ("constant", False)
    assert each["text"] == ("network", True)


@pytest.mark.parametrize(
    ("name", "key", "known"),
    [
        ("fusion", "model.fusion", set(fusions.REGISTRY)),
        ("imputation", "model.imputation", set(imputers.REGISTRY)),
        ("coupling", "model.coupling", set(couplings.REGISTRY)),
        ("posterior", "model.posterior", set(posteriors.REGISTRY)),
        ("objective", "model.objective", set(objectives.REGISTRY)),
        ("rivals", "model.kind", set(models.REGISTRY)),
        ("components", "model.components", set(range(1, 11))),
        (
            "copulas",
            "model.copula",
            {name for name in copulas.REGISTRY if copulas.REGISTRY[name].largest_dim != 2},
        ),
    ],
)
def test_nothing_that_is_registered_is_left_out(name: str, key: str, known: set) -> None:
    variants = yaml.safe_load((CONFIGS / "ablations" / f"{name}.yaml").read_text())
    assert {keys[key] for keys in variants.values()} == known


@pytest.mark.parametrize("setting", ["paired", "partial"])
def test_eicu_has_all_its_modalities(setting: str) -> None:
    from cm2.clinical.prepare.eicu_source import EICU

    experiment = config.load(CONFIGS / "eicu" / f"mortality-{setting}.yaml")
    # the demo of this configuration lacks the tables of two
    there = set(EICU.modalities) - {"lab", "monitor"}
    assert set(experiment.data["modalities"]) == there == set(experiment.encoders)
    assert experiment.encoders["notes"]["weights"] is None, "it runs without a download"
