"""Figures and report of real small runs: what they show, and what they must not show."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.collections import PathCollection

from cm2 import cli
from cm2.evaluation import report
from cm2.experiments import config, results, run
from cm2.experiments import figures as drawings
from cm2.experiments import report as page
from cm2.experiments.figures import Drawing
from cm2.experiments.predictions import Predictions
from cm2.experiments.results import Cell
from cm2.experiments.trained import Trained
from fake_runs import fake
from prepared_folder import make_folder, rewrite_manifest

FIRST = 7_310_000
"""Stays are 7310000 and following, so that one of them would be found in a text."""
STAYS, EPOCHS = 240, 2
RUNS = {
    "gumbel": ["model.copula=gumbel"],
    "two": ["model.copula=gumbel", "model.components=2"],
    "frank": ["model.copula=frank"],
    "late": ["model.kind=late"],
    "fewer": ["model.copula=gumbel", "data.missing_rate=0.5"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five runs on one small prepared folder."""
    root = tmp_path_factory.mktemp("real")
    make_folder(root / "data", STAYS, first=FIRST)
    # The first column of the series is the stay, which is too large a number here for a network.
    series = pd.read_parquet(root / "data" / "series.parquet").assign(c0=0.0)
    series.to_parquet(root / "data" / "series.parquet")
    rewrite_manifest(
        root / "data",
        flow=[["unit stays in the folder", 171], ["stays kept", 160]],
        counts={"stays": {"train": {"stays": 80, "patients": 40, "positive": 37}}},
    )
    tree = {
        "name": "Small & real",
        "data": {"root": str(root / "data"), "modalities": ["series", "vitals"]},
        "dim": 3,
        "encoders": {
            "series": {"kind": "series", "width": 4, "layers": 1},
            "vitals": {"kind": "dense", "width": 4},
        },
        "model": {"kind": "cm2", "components": 1, "width": 4, "shared": True},
        "training": {"batch_size": 40, "max_epochs": EPOCHS, "accelerator": "cpu", "lr": 1e-2},
    }
    path = root / "e.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    for name, overrides in RUNS.items():
        run.train(config.load(path, overrides), root / "runs" / name)
    return root


@pytest.fixture(scope="module")
def cells(root: Path) -> list[Cell]:
    return results.cells(results.find([root / "runs"])[0])


@pytest.fixture(scope="module")
def table(cells: list[Cell]) -> pd.DataFrame:
    return results.tables(cells, replicates=50)


@pytest.fixture(scope="module")
def drawn(cells: list[Cell], table: pd.DataFrame) -> dict[str, Drawing]:
    made, left_out = drawings.draw(cells, table)
    assert not left_out
    return {one.name: one for one in made}


@pytest.fixture(scope="module")
def html(root: Path) -> Path:
    path = root / "out" / "report.html"
    assert cli.main(["report", str(root / "runs"), "--out", str(path), "--replicates", "50"]) == 0
    return path


def log(root: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(root / "runs" / name / "metrics.csv")


def test_all_figures_come_from_run_folders(drawn: dict[str, Drawing]) -> None:
    kinds = {next(k for k in drawings.FIGURES if name.startswith(k)) for name in drawn}
    assert kinds == set(drawings.FIGURES)


def test_a_run_of_one_modality_and_more_classes_than_occur_is_reported(
    root: Path, tmp_path: Path
) -> None:
    """As of lengths of stay: ten classes, of which few stays are of some."""
    make_folder(tmp_path / "data", 60)
    rewrite_manifest(tmp_path / "data", classes=10)
    changes = [f"data.root={tmp_path / 'data'}", "data.modalities=[vitals]"]
    run.train(config.load(root / "e.yaml", changes), tmp_path / "run")
    assert Predictions.load(tmp_path / "run" / "test.npz").probability.shape[1] == 10
    found = results.cells(results.find([tmp_path / "run"])[0])
    made, left_out = drawings.draw(found, results.tables(found, replicates=10))
    assert [one.name.split("-")[0] for one in made] == ["calibration"]
    assert "two modalities" in left_out["copula-density"]


def test_density_is_at_the_learned_parameter(root: Path, drawn: dict[str, Drawing]) -> None:
    titles = [ax.get_title() for ax in drawn["copula-density"].figure.axes if ax.get_title()]
    for name, title in zip(("gumbel", "frank"), titles, strict=True):
        model = Trained(root / "runs" / name).network
        tau = float(model.joint().kendall_tau()[..., 0, 1].detach().mean())
        assert title == f"{name}, $\\tau$ = {tau:.2f}"


def test_alpha_and_its_tau_are_those_of_the_log(root: Path, drawn: dict[str, Drawing]) -> None:
    left, right = drawn["alpha-small-real"].figure.axes
    assert len(left.lines) == 2
    alpha = log(root, "gumbel")["alpha"].to_numpy()
    curves = {tuple(line.get_ydata()): tuple(line.get_xdata()) for line in left.lines}
    assert curves[tuple(alpha)] == (1, 2)
    assert tuple((alpha - 1) / alpha) in {tuple(line.get_ydata()) for line in right.lines}


def test_densities_are_at_epochs_that_exist(root: Path, drawn: dict[str, Drawing]) -> None:
    titles = [ax.get_title() for ax in drawn["density-by-epoch"].figure.axes if ax.get_title()]
    alpha = log(root, "gumbel")["alpha"]
    assert titles == [f"epoch {k + 1}, $\\alpha$ = {alpha[k]:.3f}" for k in range(EPOCHS)]


def test_components_and_rates_are_drawn_from_the_table(
    drawn: dict[str, Drawing], table: pd.DataFrame
) -> None:
    auroc = table[table["metric"] == "AUROC"].set_index(["experiment", "method"])["value"]
    of = lambda title, k: auroc[title, f"cm2 copula=gumbel components={k}"]  # noqa: E731
    (line,) = [c.lines[0] for c in drawn["components"].figure.axes[0].containers]
    assert line.get_ydata().tolist() == [of("Small & real", 1), of("Small & real", 2)]
    assert line.get_xdata().tolist() == [1, 2]
    (line,) = [c.lines[0] for c in drawn["missing-rate"].figure.axes[0].containers]
    expected = [of("Small & real", 1), of("Small & real, 50% removed", 1)]
    assert line.get_ydata().tolist() == expected
    assert line.get_xdata().tolist() == [0, 0.5]


def test_availability_counts_test_rows(root: Path, drawn: dict[str, Drawing]) -> None:
    present = np.load(root / "runs" / "late" / "test.npz")["present"]
    bars = drawn["availability-small-real"].figure.axes[0].patches
    counts = np.unique(present, axis=0, return_counts=True)[1]
    assert sorted(bar.get_height() for bar in bars) == sorted(counts[counts >= 10])


def test_no_single_stay_is_drawn(drawn: dict[str, Drawing]) -> None:
    """Embeddings are outlines; points of a calibration curve stand for many rows."""
    figure = drawn["embeddings"].figure
    assert [ax.get_title() for ax in figure.axes] == ["before training", "after training"]
    for ax in figure.axes:
        assert not ax.lines
        assert not any(isinstance(found, PathCollection) for found in ax.collections)
        assert len(ax.collections) == 4, "regions and outlines of two modalities"
    for ax in drawn["calibration-small-real"].figure.axes:
        assert len(ax.containers[0].lines[0].get_xdata()) <= STAYS / 4 / drawings.SMALLEST


def test_what_runs_cannot_give_is_said(root: Path) -> None:
    cells = results.cells(results.find([root / "runs" / "late"])[0])
    made, left_out = drawings.draw(cells, results.tables(cells, replicates=5))
    assert {one.name for one in made} == {"availability", "calibration"}
    assert "model.copula=gumbel" in left_out["alpha"]
    assert "data.missing_rate" in left_out["missing-rate"]


def test_figures_are_written_as_png_and_pdf(root: Path, tmp_path: Path) -> None:
    assert cli.main(["figures", str(root / "runs" / "late"), "--out", str(tmp_path / "f")]) == 0
    names = {path.name for path in (tmp_path / "f").iterdir()}
    assert names == {f"{a}.{b}" for a in ("availability", "calibration") for b in ("png", "pdf")}


def test_the_page_is_whole_and_fetches_nothing(html: Path) -> None:
    source = html.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|<script|<link", source)
    for text in ("Small &amp; real", "unit stays in the folder", "171", "model.copula", "torch"):
        assert text in source
    assert "made up" in source, "data that are synthetic are called so"
    images = re.findall(r'<img src="data:image/png;base64,([^"]+)"', source)
    assert len(images) >= len(drawings.FIGURES)
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)


def test_no_stay_and_no_place_is_in_report_tables_or_figures(html: Path, root: Path) -> None:
    stays = pd.read_parquet(root / "data" / "stays.parquet")
    secret = {str(value) for key in ("stay_id", "subject_id", "hadm_id") for value in stays[key]}
    texts = [re.sub(r'"data:image[^"]+"', "", html.read_text(encoding="utf-8"))]
    tables = html.with_name("report-tables")
    texts += [path.read_text(encoding="utf-8") for path in tables.iterdir()]
    assert len(texts) > 5
    for text in texts:
        assert not secret & set(re.findall(r"\d+", text))
        assert str(root) not in text


def cells_of(tex: str) -> list[list[str]]:
    """What LaTeX sets, cell by cell."""
    body = tex.split("\\toprule\n")[1].split("\\bottomrule")[0].replace("\\midrule\n", "")
    rows = [row.removesuffix(" ") for row in body.split("\\\\\n") if row.strip()]
    undo = {"textbackslash{}": "\\", "textasciitilde{}": "~", "textasciicircum{}": "^"}
    plain = re.compile(r"\\(text\w+\{\}|[&%$#_{}])")
    split = re.compile(r"(?<!\\) & ")
    return [
        [plain.sub(lambda m: undo.get(m[1], m[1]), cell) for cell in split.split(row)]
        for row in rows
    ]


def test_latex_csv_and_page_have_the_same_numbers(html: Path) -> None:
    folder = html.with_name("report-tables")
    source = html.read_text(encoding="utf-8")
    found = pd.read_csv(folder / "results.csv")
    paths = sorted(folder.glob("*.tex"))
    assert paths
    for path in paths:
        frame = pd.read_csv(path.with_suffix(".csv"), dtype=str, keep_default_na=False)
        rows = cells_of(path.read_text(encoding="utf-8"))
        assert rows == [list(frame.columns), *frame.to_numpy().tolist()]
    first = pd.read_csv(paths[0].with_suffix(".csv"), dtype=str)
    for row in found[found["experiment"] == "Small & real"].itertuples():
        shown = first.set_index("method").loc[row.method, row.metric]
        assert shown == f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
        assert shown in source


def test_special_characters_survive_latex() -> None:
    text = r"a_b & 50% {x} #1 ~ ^ $ \end"
    frame = pd.DataFrame({"method": [text], "AUROC": [0.12345]})
    assert cells_of(report.latex(report.Table("c", frame))) == [
        ["method", "AUROC"],
        [text, "0.123"],
    ]


def test_the_table_on_a_narrow_terminal_keeps_names(table: pd.DataFrame, cells: list) -> None:
    from rich.console import Console

    console = Console(width=80, file=io.StringIO())
    console.print(report.rich_table(page.measures(table, cells[0])))
    printed = console.file.getvalue()
    assert "late" in printed
    value = table[(table["method"] == "late") & (table["metric"] == "AUROC")]["value"].iloc[0]
    assert f"{value:.3f}" in printed


def test_a_sweep_ends_with_a_table_and_names_what_failed(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = tmp_path / "variants.yaml"
    variants.write_text("late: {model.kind: late}\nbroken: {data.root: nowhere}\n")
    command = ["sweep", str(root / "e.yaml"), "--variants", str(variants), "--seeds", "1"]
    command += ["--out", str(tmp_path / "s"), "--processes", "2"]
    assert cli.main([*command, "--set", "training.max_epochs=1"]) == 1
    printed = capsys.readouterr().out
    assert "late, seed 0: done" in printed
    assert f"Failed: {tmp_path / 's' / 'broken' / 'seed_0.log'}" in printed
    table = pd.read_csv(tmp_path / "s" / "table.csv")
    assert set(table["method"]) == {"late"}
    assert set(table["metric"]) == {"AUROC", "AUPR", "Brier", "log loss"}
    assert "nowhere" in (tmp_path / "s" / "broken" / "seed_0.log").read_text()


def test_figures_of_a_run_that_reads_all_modalities(tmp_path: Path) -> None:
    fake(tmp_path / "a", overrides=("data.modalities=null",))
    cells = results.cells(results.find([tmp_path])[0])
    made, left_out = drawings.draw(cells, results.tables(cells, replicates=5))
    assert any("which modalities" in one.caption for one in made)
    assert left_out
