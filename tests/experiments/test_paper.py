"""The paper's tables and figures: every row is planned, trained and shown beside its printed value.

Quick tests train a row of each on made-up data, slow ones all of them.
"""

import dataclasses
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

import cm2
from cm2 import cli
from cm2.clinical.prepare.options import Options
from cm2.core.errors import InputError
from cm2.evaluation.significance import WHY_NOT
from cm2.experiments import config, paper, results, run, sweep
from cm2.experiments.paper import cost, data, page, plan, printed, shipped, tables
from cm2.experiments.paper.plan import Plan
from cm2.experiments.sweep import Job
from tiny_experiments import CONFIGS, command

MEASURED = [name for name, part in tables.PARTS.items() if part.shown in ("measures", "components")]
TRAINED = [name for name in tables.PARTS if tables.entries(name)]
QUICK = [name for name in data.PREPARED if name.endswith("mortality")]
ROWS = {"T2": "MMTM", "T3": "DrFuse", "T4": "KL", "T5": "partial, without sampling"}
ROWS |= {"T6": "Gaussian", "T7": "MedFuse", "T9": "LSMT", "T10": "Transformer, ViT, Interleaved"}
ROWS |= {"T11": "DAFT", "F2": "Frank", "F3": "Gumbel", "F4": "Gumbel", "F5": "K = 2"}
"""A row of each table and figure, all methods and encoders among them."""


def prepare(names: list[str], base: Path) -> dict[str, Path]:
    folders = data.made_up(base / "made-up")
    return {name: data.prepare(name, folders, base, lambda line: None) for name in names}


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A prepared folder of each source."""
    return prepare(QUICK, tmp_path_factory.mktemp("paper"))


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproduced")


@pytest.fixture(scope="session")
def planned(roots: dict[str, Path], out: Path) -> Plan:
    """All runs on the task of these folders, small."""
    parts = list(tables.PARTS)
    found = plan.make(parts, roots, CONFIGS, out, last=plan.small)
    for one in found.sweeps:
        results.write_labels(one.folder, one.jobs)
    return found


def train(planned: Plan, name: str, label: str) -> None:
    """Trains the runs behind a row of a table or figure that are not trained yet."""
    wanted = {
        planned.variants[row] for row in planned.variants if (row.part, row.label) == (name, label)
    }
    assert wanted
    for one in planned.sweeps:
        for job in one.jobs:
            if (one.folder, job.variant) in wanted and not plan.finished(job):
                result = run.train(config.load(one.experiment, job.overrides), job.folder)
                assert result["rows"] > result["positives"] > 0


def written(planned: Plan, parts: list[str], roots: dict[str, Path], path: Path) -> str:
    page.write(path, planned, parts, roots, CONFIGS, replicates=20)
    return path.read_text(encoding="utf-8")


def section(html: str, name: str) -> str:
    """A table or figure of the page."""
    kind = {"T": "Table", "F": "Figure"}[name[0]]
    found = re.search(rf"<h2>{kind} {name[1:]}\. .*?</section>", html, re.DOTALL)
    assert found, name
    return found[0]


def test_all_that_is_printed_stands_in_a_table() -> None:
    """And nothing else does, but what has no number in print: figure 5, and CM2 against itself."""
    paper_values = printed.read()
    keys = ["table", "data", "setting", "method", "series_encoder", "other_encoder", "task"]
    there = set(paper_values.loc[paper_values["table"] != "T1", keys].itertuples(index=False))
    rows = [row for name in tables.PARTS for row in tables.entries(name)]
    ours = {(r.part, r.data, r.setting, r.method, *r.encoders, r.task) for r in rows}
    assert set(map(tuple, there)) <= ours
    assert {key[0] for key in ours - set(map(tuple, there))} == {"T11", "F2", "F3", "F4", "F5"}
    assert len([row for row in rows if row.part in MEASURED]) == 184


def test_printed_values_are_found() -> None:
    rows = {(r.setting, r.label, r.task): r for r in tables.entries("T5")}
    frame, row = printed.read(), rows["partial", "partial, full", "readmission"]
    found = printed.value(frame, row, "auroc")
    assert found is not None
    assert found.value == 0.771
    own = next(row for row in tables.entries("T3") if row.label == "CM2")
    assert printed.value(frame, own, "auroc") == (0.856, 0.833, 0.877)
    assert printed.value(frame, row, "auroc-p") is None
    first = tables.entries("T11")[0]
    value = printed.value(frame, first, "auroc-p")
    assert first.method == "mmtm"
    assert value is not None
    assert value.value == pytest.approx(2.02e-6)
    assert printed.counts(frame, "mimic4", "matched", "readmission") == {
        "train": 4287, "validation": 465, "test": 1179, "positive": 1262,
    }  # fmt: skip


def test_a_run_stands_in_several_tables(planned: Plan) -> None:
    """All headline figures are those of one row of table 6; half of all runs are here."""
    called = {
        (row.part, row.label): planned.variants[row]
        for row in planned.variants
        if (row.data, row.setting) == ("mimic4", "matched")
    }
    own = [("T2", "CM2"), ("T4", "copula"), ("T5", "matched, full")]
    own += [("T6", "Frank"), ("T9", "CM2"), ("T10", "LSTM, ResNet-34, CM2"), ("F5", "K = 3")]
    assert len({called[key] for key in own}) == 1
    for method in ("MMTM", "DAFT", "Unified", "MedFuse"):
        assert called["T2", method] == called["T10", f"LSTM, ResNet-34, {method}"]
    assert called["T2", "DrFuse"] != called["T10", "LSTM, ResNet-34, DrFuse"], "printed twice"
    assert len(planned.jobs) == 77
    assert len({job.folder for job in planned.jobs}) == 77


@pytest.mark.parametrize("part", ["T4", "T5", "T9", "F5"])
def test_tables_taken_one_after_the_other_have_their_runs_in_common(
    part: str, planned: Plan, roots: dict[str, Path], out: Path
) -> None:
    """A run is called the same whichever tables are asked for, so that it is trained once."""
    alone = plan.make([part], roots, CONFIGS, out, last=plan.small)
    assert {job.folder for job in alone.jobs} < {job.folder for job in planned.jobs}
    assert alone.variants == {
        row: found for row, found in planned.variants.items() if row.part == part
    }


@pytest.mark.parametrize("name", TRAINED)
def test_a_row_of_each_table_and_figure_is_trained(name: str, planned: Plan) -> None:
    train(planned, name, ROWS[name])


@pytest.fixture(scope="session")
def html(planned: Plan, roots: dict[str, Path], out: Path) -> str:
    for name, label in {**ROWS, "T9": "CM2"}.items():
        train(planned, name, label)
    return written(planned, list(tables.PARTS), roots, out / "paper.html")


def test_each_value_stands_beside_the_printed_one(html: str, out: Path) -> None:
    values = pd.read_csv(out / "values.csv")
    assert len(values) == 184, "of one task of two, and two measures"
    trained = values[values["value"].notna()]
    assert set(trained["table"]) == set(MEASURED)
    same = trained["difference"].dropna() + trained["printed"].dropna() - trained["value"]
    assert same.dropna().abs().max() < 1e-12
    assert set(values.loc[values["printed"].isna(), "table"]) == {"F5"}
    one = trained[(trained["table"] == "T7") & (trained["metric"] == "auroc")].iloc[0]
    assert (one["row"], one["printed"]) == ("MedFuse", 0.801)
    part = section(html, "T7")
    assert f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" in part
    assert f"{one['difference']:+.3f}" in part
    assert "made up: these are not results on patients" in html


@pytest.mark.parametrize("name", [name for name in tables.PARTS if name != "T8"])
def test_each_part_is_on_the_page(name: str, html: str) -> None:
    part = section(html, name)
    assert "Not drawn" not in part
    assert ("<img" in part) == (name[0] == "F")
    assert ("<table" in part) == (name[0] == "T" or name == "F5")


def test_the_counts_are_those_of_the_folders(html: str, roots: dict[str, Path]) -> None:
    stays = pd.read_parquet(roots["mimic3-mortality"] / "stays.parquet")
    number = int(((stays["split"] == "train") & stays["has_notes"]).sum())
    row = rf"MIMIC-III, matched</td>.*?train</td><td>3,652</td><td>{number}</td>"
    assert re.search(row, section(html, "T1")), "printed, and here"
    assert f"<td>{number - 3652:+,}</td>" in section(html, "T1")


def test_the_printed_p_value_stands_beside_honest_ones(html: str) -> None:
    """With the sentence why the paper's own says nothing."""
    assert WHY_NOT in section(html, "T11")
    row = re.search(r"<tr><td[^>]*>DAFT</td>.*?</tr>", section(html, "T11"), re.DOTALL)
    assert row
    assert row[0].count("<td") == 8
    assert "0.11</td>" in row[0]


@pytest.mark.parametrize("name", data.PREPARED)
def test_data_are_prepared_as_the_configurations_say(name: str) -> None:
    source, short = name.rsplit("-", 1)
    words = command(CONFIGS / "reference" / source / f"{short}-paired.yaml")
    asked = cli.parser().parse_args(words).prepare
    fields = {field.name: asked.get(field.name) for field in dataclasses.fields(Options)}
    recipe = data.RECIPES[source]
    assert Options(**{**recipe.options, **data.OF_TASK[short]}) == Options(**fields)
    named = {option for option in ("lists", "reports") if getattr(asked, option)}
    assert set(recipe.needed.values()) == named
    assert words[1] == recipe.raw


def test_what_lacks_its_data_is_named(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    folders = data.given([f"mimic4={tmp_path / 'raw'}", f"medfuse={tmp_path / 'raw'}"])
    assert data.lacking("mimic4-mortality", folders) == []
    assert data.lacking("mimic4-trimodal-mortality", folders) == ["mimic-cxr"]
    assert data.lacking("mimic3-readmission", folders) == ["mimic3", "mimic3-benchmarks"]
    for word, message in (
        ("mimic5=x", "a name of mimic3-mortality, "),
        ("mimic4", "takes NAME=DIR"),
        (f"mimic4={tmp_path / 'no'}", "there is no"),
        (f"mimic4-mortality={tmp_path / 'raw'}", "raw tables are mimic4=DIR"),
    ):
        with pytest.raises(InputError, match=message):
            data.given([word])
    with pytest.raises(InputError, match=r"T1, T2, .* T12 is none of them"):
        tables.chosen(["T12"])
    with pytest.raises(InputError, match="F1 is a drawing in the documentation"):
        tables.chosen(["F1"])
    with pytest.raises(InputError, match="no data for any of it"):
        paper.reproduce(tmp_path / "out", configs=CONFIGS)
    with pytest.raises(InputError, match="folders reference and ablations were expected"):
        paper.reproduce(tmp_path / "out", configs=tmp_path)


def test_an_installed_package_has_its_experiments_within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a checkout beside its sources."""
    assert shipped.configs() == CONFIGS.resolve()
    monkeypatch.setattr(cm2, "__file__", str(tmp_path / "site" / "cm2" / "__init__.py"))
    with pytest.raises(InputError, match=r"cm2 has no configs in it or beside it: .* --configs"):
        shipped.configs()
    within = tmp_path / "site" / "cm2" / "configs"
    shutil.copytree(CONFIGS, within)
    assert shipped.configs() == within
    assert shipped.configs(CONFIGS) == CONFIGS
    target = tomllib.loads((CONFIGS.parent / "pyproject.toml").read_text())["tool"]["hatch"][
        "build"
    ]
    assert "configs" in target["targets"]["wheel"]["only-include"]
    assert target["targets"]["wheel"]["sources"] == {"src": "", "configs": "cm2/configs"}
    assert "configs" in target["targets"]["sdist"]["include"]


def test_the_time_is_measured(
    planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each run that is not finished; what costs the same once, and then from the file."""
    monkeypatch.setattr(cost, "starting", lambda: 100.0)
    one = planned.sweeps[0]
    job = next(job for job in one.jobs if not plan.finished(job))
    twin = job._replace(seed=1, overrides=(*job.overrides, "seed=1", "training.max_epochs=40"))
    longer = twin._replace(folder=job.folder.with_name("seed_1"))
    again = longer._replace(seed=2, folder=job.folder.with_name("seed_2"))
    small = Plan([one._replace(jobs=[longer, again])], {})
    lines: list[str] = []
    found = cost.of_plan(small, tmp_path / "costs.json", lines.append)
    assert len(lines) == 1, "seeds cost the same"
    assert found[0] == found[1]
    assert found[0].reading > 100
    assert 0 < found[0].epoch < 10
    assert (found[0].least, found[0].most) == (16, 40)
    assert cost.of_plan(small, tmp_path / "costs.json", lines.append) == found
    assert len(lines) == 1


def test_an_epoch_costs_its_batches(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of training and validation, each by the time from one batch to the next."""
    changes = ["data.root=" + str(roots["mimic4-mortality"]), "model.kind=late"]
    path = CONFIGS / "reference" / "mimic4" / "mortality-partial.yaml"
    small = [*changes, *plan.small(config.load(path, changes)), "training.batch_size=10"]
    experiment = config.load(path, [*small, "training.validation_batch_size=3"])
    monkeypatch.setattr(cost.Watched, "gap", lambda self: float(len(self) < 50))
    found = cost.measure(experiment)
    assert found.epoch == 7, "19 stays of validation in batches of three, at a second each"


def test_stays_are_counted_without_any_run(roots: dict[str, Path], tmp_path: Path) -> None:
    """Of tables 1 and 8 alone; and where no run has come through, the page says so."""
    given = [f"mimic4-mortality={roots['mimic4-mortality']}"]
    assert paper.reproduce(tmp_path, only=["T8"], given=given, configs=CONFIGS) == []
    html = (tmp_path / "paper.html").read_text(encoding="utf-8")
    assert "4,287</td>" in section(html, "T8")
    assert "mimic3-mortality is left out" in html
    assert pd.read_csv(tmp_path / "values.csv").empty
    name = {"mimic4-mortality": roots["mimic4-mortality"]}
    html = written(plan.make(["T4"], name, CONFIGS, tmp_path), ["T4"], name, tmp_path / "p.html")
    assert "3 runs are not finished" in html


def in_process(failing: str = "") -> Callable[..., list[Job]]:
    """What stands in for processes of their own, which start slowly."""

    def work(
        experiment: Path, jobs: list[Job], *, processes: int, report: Callable[[Job, bool], None]
    ) -> list[Job]:
        for job in jobs:
            if job.variant != failing:
                run.train(config.load(experiment, job.overrides), job.folder, resume=True)
            report(job, job.variant != failing)
        return [job for job in jobs if job.variant == failing]

    return work


def test_the_command_goes_on_where_it_stopped(
    roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A run that failed is told, and the page has the rest; the next call runs it alone."""
    monkeypatch.setattr(cost, "starting", lambda: 1.0)
    root = roots["mimic4-mortality"]
    words = ["reproduce", "paper", "--only", "T4", "--data", f"mimic4-mortality={root}"]
    words += ["--out", str(tmp_path / "out"), "--replicates", "20"]
    words += ["--rehearse", "--set", "training.batch_size=64"]
    assert cli.main([*words, "--estimate"]) == 0
    told = capsys.readouterr().out
    assert "mimic4-readmission is left out: it needs --data mimic4=DIR medfuse=DIR." in told
    assert "3 rows of tables and figures from 3 runs, of which 0 are finished." in told
    assert "if none stops early" in told
    assert not (tmp_path / "out" / "paper.html").exists()
    monkeypatch.setattr(sweep, "run", in_process("KL"))
    assert cli.main(words) == 1
    told = capsys.readouterr().out
    assert "timing" not in told, "it is measured once"
    assert "mimic4-mortality-paired, KL, seed 0: failed" in told
    html = (tmp_path / "out" / "paper.html").read_text(encoding="utf-8")
    assert "1 runs are not finished" in html
    assert "mimic4-readmission is left out" in html
    assert "A rehearsal" in html
    monkeypatch.setattr(sweep, "run", in_process())
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "of which 2 are finished" in told
    assert "seed 0: done" in told
    assert "2 mimic4" not in told, "one run alone"
    assert cli.main([*words[:-1], "training.batch_size=16"]) == 2
    assert "holds a run of another experiment" in capsys.readouterr().err


def test_rows_are_checked_before_anything_runs(roots: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown key training\.batchsize; did you mean"):
        plan.make(["T2"], roots, CONFIGS, tmp_path, overrides=["training.batchsize=2"])
    for folder in ("reference", "ablations"):
        (tmp_path / folder).symlink_to(CONFIGS / folder)
    (tmp_path / "published.yaml").symlink_to(CONFIGS / "published.yaml")
    (tmp_path / "ablations").unlink()
    shutil.copytree(CONFIGS / "ablations", tmp_path / "ablations")
    (tmp_path / "ablations" / "copulas.yaml").write_text(yaml.safe_dump({"Gumbel": {}}))
    with pytest.raises(InputError, match=r"T6 has a row 'Frank', which copulas\.yaml lacks"):
        plan.make(["T6"], roots, tmp_path, tmp_path)


@pytest.mark.slow
def test_all_rows_of_all_tables_on_made_up_data(tmp_path: Path) -> None:
    """Tables 2 to 10 and figure 5: 184 rows of a task each, behind which there are 154 runs."""
    roots = prepare(list(data.PREPARED), tmp_path / "prepared")
    parts = list(tables.PARTS)
    found = plan.make(parts, roots, CONFIGS, tmp_path, last=plan.small)
    assert len(found.jobs) == 154
    for one in found.sweeps:
        results.write_labels(one.folder, one.jobs)
        for job in one.jobs:
            run.train(config.load(one.experiment, job.overrides), job.folder)
    html = written(found, parts, roots, tmp_path / "paper.html")
    values = pd.read_csv(tmp_path / "values.csv")
    rows = values.groupby(["table", "data", "setting", "row", "task"])
    assert len(rows) == 184
    assert values["value"].between(0, 1).all()
    assert "Not drawn" not in html
    assert "not finished" not in html


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "demo"), [("mimic3", "mimiciii-demo"), ("mimic4", "mimiciv-demo")]
)
def test_the_series_of_the_real_demos(
    source: str, demo: str, dataset: Callable[[str], Path], tmp_path: Path
) -> None:
    """Every method with partly missing modalities, on the one that the demos have."""
    roots = {}
    for task, short in tables.TASKS.items():
        roots[f"{source}-{short}"] = tmp_path / short
        words = ["prepare", source, "--raw", str(dataset(demo)), "--out", str(tmp_path / short)]
        words += ["--task", task, "--hours-per-bin", "2", "--look-back", "0"]
        words += ["--selection", "reference", "--fractions", "(0.5,0.25,0.25)"]
        if short == "readmission":
            words += ["--readmission", "or-death"]
        assert cli.main(words) == 0
    series = ["data.modalities=[series]"]
    found = plan.make(["T3", "T9"], roots, CONFIGS, tmp_path, overrides=series, last=plan.small)
    assert len(found.jobs) == {"mimic3": 12, "mimic4": 22}[source]
    for one in found.sweeps:
        for job in one.jobs:
            result = run.train(config.load(one.experiment, job.overrides), job.folder)
            assert result["rows"] > result["positives"] > 0
            assert list(result["present"]) == ["series"]
