"""The shape of the code: import direction, what an import costs and changes, what is documented."""

import ast
import importlib
import importlib.metadata
import inspect
import json
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest

import cm2
from cm2.core import moved

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "cm2"
MODULES = sorted(SOURCE.rglob("*.py"))
KINDS = [
    "copulas",
    "couplings",
    *(f"networks.{kind}" for kind in ("encoders", "imputers", "fusions")),
    "estimators.heads",
]
ROOMS = {
    *("core", "copulas", "marginals", "couplings", "samples", "networks", "estimators"),
    *("evaluation", "experiments", "clinical", "benchmark", "demo", "cli"),
}
HEAVY = [
    *("lightning", "sklearn", "pandas", "matplotlib", "torchmetrics", "ibis", "duckdb", "scipy"),
    "transformers",
]


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imports_only_go_up():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_import_is_light_and_changes_no_torch_global():
    printed = run_python(
        "import sys, json, torch\n"
        "from torch.distributions import Distribution\n"
        "look = lambda: [str(torch.get_default_dtype()), torch.get_num_threads(),"
        " torch.is_grad_enabled(), torch.initial_seed(),"
        " vars(Distribution).get('_validate_args')]\n"
        "before, known = look(), set(sys.modules)\n"
        "import cm2\n"
        "cm2.copulas, cm2.couplings, cm2.marginals, cm2.CopulaJoint\n"
        "print(json.dumps([before, look(), sorted(set(sys.modules) - known)]))"
    )
    before, after, loaded = json.loads(printed)
    assert before == after
    assert not {module.split(".")[0] for module in loaded} & set(HEAVY)


def test_every_module_stands_in_a_room():
    loose = {path.stem for path in SOURCE.glob("*.py")} - {"__init__"}
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert (loose, rooms) == (set(), ROOMS)


def test_names_from_before_the_rooms_stand_for_the_same_modules():
    for old, new in moved.TABLE.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = importlib.import_module(f"cm2.{old}")
        assert f"cm2.{old} is cm2.{new} now" in str(caught[-1].message)
        assert found is importlib.import_module(f"cm2.{new}")
        assert found.__name__ == found.__spec__.name == f"cm2.{new}"
        for name in [name for name in sys.modules if moved.place(name)]:
            del sys.modules[name]  # so that the next test finds none of it


def test_work_on_tables_loads_no_torch():
    """It would cost a preparation 190 MB and more time than the MIMIC-III demo takes to read."""
    printed = run_python(
        "import sys\n"
        "import cm2.cli, cm2.clinical.prepare.pipeline, cm2.clinical.synthesize\n"
        "print(*sorted({module.split('.')[0] for module in sys.modules}))"
    )
    loaded = set(printed.split())
    assert {"cm2", "ibis", "pandas"} <= loaded
    assert not loaded & {"torch", "lightning", "sklearn", "matplotlib", "transformers", "pyspark"}


def test_version_is_the_metadata():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert cm2.__version__ == importlib.metadata.version("cm2") == declared
    assert f"version: {declared}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_every_registered_module_of_a_kind_is_listed(kind):
    folder = SOURCE / kind.replace(".", "/")
    listed = (folder / "__init__.py").read_text()
    registers = re.compile(r"^@(?:[\w.]+\.)?register\(", re.MULTILINE)
    missing = [
        path.stem
        for path in sorted(folder.glob("*.py"))
        if registers.search(path.read_text()) and f"cm2.{kind}.{path.stem} " not in listed
    ]
    assert not missing, f"cm2.{kind} does not import {missing}"


def public_members(module) -> list[tuple[str, object]]:
    """Public classes and functions that the module itself defines, and their public methods."""
    members: list[tuple[str, object]] = []
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        if name.startswith("_") or not own:
            continue
        if inspect.isclass(value) or inspect.isfunction(value):
            members.append((f"{module.__name__}.{name}", value))
        if inspect.isclass(value):
            members += [
                (f"{module.__name__}.{name}.{attribute}", method)
                for attribute, method in vars(value).items()
                if not attribute.startswith("_") and inspect.isfunction(method)
            ]
    return members


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_is_documented(path):
    module = importlib.import_module(name_of(path))
    assert module.__doc__, f"{path.name} opens with no docstring"
    bare = []
    for name, value in public_members(module):
        owner = name.removeprefix(f"{module.__name__}.").split(".")
        inherited = len(owner) == 2 and inspect.getdoc(
            getattr(vars(module)[owner[0]], owner[1], None)
        )
        if not (inherited or inspect.getdoc(value)):
            bare.append(name)
    assert not bare, f"no docstring: {bare}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_source_keeps_the_rules(path):
    text = path.read_text()
    tree = ast.parse(text)
    asserts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert not asserts, f"assert in src at lines {asserts}: raise ValueError with a message"
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", text)
    assert path.stem not in {"utils", "helpers", "common", "misc"}
    lines = text.count("\n")
    assert lines <= 400, f"{path.name} has {lines} lines: split it"


def test_only_one_module_draws_a_bootstrap():
    """Intervals agree only if the same patients are drawn, by one function, wherever they stand."""
    resamplers = re.compile(
        r"(?<!torch)\.multinomial\(|def \w*resampl|import .*\bresample\b|stats\.bootstrap"
    )
    found = [name_of(path) for path in MODULES if resamplers.search(path.read_text())]
    assert found == ["cm2.evaluation.bootstrap"]


def calls(path: Path, pattern: str) -> list[str]:
    """Where in a module something is called, by the text of what is called."""
    tree = ast.parse(path.read_text())
    called = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [name_of(path) for one in called if re.fullmatch(pattern, one)]


def test_there_is_one_call_of_the_trainer_and_one_format_of_a_model():
    """Every network is trained by one line, and every model is one file, whatever its head."""
    trainers = [where for path in MODULES for where in calls(path, r"(\w+\.)*Trainer")]
    assert trainers == ["cm2.networks.training"]
    imported = re.compile(r"networks\.training import .*\btrain\b|training\.train\(")
    users = [name_of(path) for path in MODULES if imported.search(path.read_text())]
    assert users == ["cm2.estimators.heads.fusion"]
    assert calls(SOURCE / "estimators/heads/fusion.py", "train") == users
    writers = [where for path in MODULES for where in calls(path, r"(skops\.io\.dump|torch\.save)")]
    assert writers == ["cm2.core.persistence"]
    kept = [where for path in MODULES for where in calls(path, r"persistence\.save")]
    assert kept == ["cm2.estimators.classifier"]


def test_samples_are_read_in_one_place():
    """One reader; scales are fitted, and vocabularies learned, by what reads a kind of modality."""
    readers = [name_of(path) for path in MODULES if "def fit_blocks(" in path.read_text()]
    assert readers == ["cm2.samples.inputs"]
    learners = {where for path in MODULES for where in calls(path, r"vocabulary\.learn")}
    assert learners == {"cm2.samples.kinds.text"}
    scaling = "cm2.samples.scaling"
    fitters = {where for path in MODULES for where in calls(path, r"Columns|scaler")} - {scaling}
    assert {where.rpartition(".")[0] for where in fitters - {"cm2.estimators.heads.frozen"}} == {
        "cm2.samples.kinds"
    }


def test_public_names_resolve():
    assert {"CM2", "CM2Classifier", "CopulaJoint", "copulas", "marginals"} <= set(cm2.__all__)
    for name in cm2.__all__:
        assert getattr(cm2, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Cm2Clasifier'"):
        _ = cm2.Cm2Clasifier


def test_no_machine_paths_are_tracked():
    places = [rf"/{name}/" for name in ("work", "tmp", "home", "root", "opt")]
    pattern = re.compile(r"(?<![\w.~$)}-])(" + "|".join(places) + ")")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked_files()
        if path.suffix in {".py", ".md", ".toml", ".cff", ".yaml", ".yml", ".html", ".css", ""}
        for number, line in enumerate(path.read_text(errors="ignore").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not found, f"machine paths: {found}"


def test_code_in_docs_is_not_cut_off():
    """As much as the width of a page has room for, by the font's size in docs/conf.py."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        inside = False
        for number, line in enumerate(page.read_text().splitlines(), 1):
            if line.startswith("```"):
                inside = not inside
            assert not inside or len(line) <= 96, f"{page.name}:{number} has {len(line)} columns"
