"""The page of a reproduction: tables and figures of the paper, printed values beside ours."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cm2.core.files import write_text
from cm2.core.layout import SPLITS
from cm2.evaluation.bootstrap import Interval
from cm2.evaluation.report import Picture, Section, Table
from cm2.evaluation.summary import METRICS
from cm2.experiments import config, report, results, significance
from cm2.experiments import figures as drawings
from cm2.experiments.paper import printed
from cm2.experiments.paper.plan import Plan, finished
from cm2.experiments.paper.tables import PARTS, SETTINGS, SOURCES, TASKS, Part, entries
from cm2.experiments.results import Cell
from cm2.samples.stays import Stays

__all__ = ["compared", "write"]

MEASURES = ("auroc", "aupr")


class Found(NamedTuple):
    """What there is to be shown.

    Attributes:
        plan: Where each row finds its runs.
        roots: Prepared folders by name.
        configs: The folder ``configs``.
        cells: The experiments that have a finished run.
        table: What :func:`~cm2.experiments.results.tables` made of them.
        values: What :func:`compared` made of that.
        replicates: Bootstrap samples.
    """

    plan: Plan
    roots: Mapping[str, Path]
    configs: Path
    cells: list[Cell]
    table: pd.DataFrame
    values: pd.DataFrame
    replicates: int

    def of(self, name: str) -> list[Cell]:
        """The experiments of a part, with the runs of its rows alone."""
        wanted = [self.plan.variants[row] for row in entries(name) if row in self.plan.variants]
        cut = [
            cell._replace(runs=[run for run in cell.runs if (_sweep(cell), run.label) in wanted])
            for cell in self.cells
        ]
        return [cell for cell in cut if cell.runs]


def write(
    path: Path,
    plan: Plan,
    parts: Sequence[str],
    roots: Mapping[str, Path],
    configs: Path,
    *,
    left_out: Sequence[str] = (),
    replicates: int = 1000,
) -> None:
    """Writes the page, beside it its tables, and ``values.csv`` with all values in a row each.

    Args:
        path: The HTML file.
        plan: The runs, of which those that are finished are shown.
        parts: Names of tables and figures.
        roots: Prepared folders by name.
        configs: The folder ``configs``.
        left_out: Sentences on what is not there.
        replicates: Bootstrap samples behind the intervals.
    """
    done = [job.folder for job in plan.jobs if finished(job)]
    cells = results.cells(results.find(done)[0])
    table = results.tables(cells, replicates=replicates)
    values = compared(plan, parts, cells, table)
    found = Found(plan, roots, configs, cells, table, values, replicates)
    write_text(path.with_name("values.csv"), values.to_csv(index=False))
    # Tables 1 and 8 are one.
    once = {id(PARTS[name]): name for name in reversed(parts)}
    sections = [_section(name, found) for name in parts if once[id(PARTS[name])] == name]
    rest = len(plan.jobs) - len(done)
    remarks = [*left_out, *([f"{rest} runs are not finished."] if rest else [])]
    first = Section("Reading", [report.METHOD[0], READING, *remarks, *report.notes(cells, table)])
    lead = f"{len(done)} runs behind {len(plan.variants)} rows of the paper's tables and figures."
    report.bind(path, "The paper's tables and figures", lead, [first, *sections], cells, table)


READING = (
    "A difference is ours minus the printed value. The intervals beside both are of drawing other "
    "test patients; neither says how much another start of training would change."
)


def compared(
    plan: Plan, parts: Sequence[str], cells: Sequence[Cell], table: pd.DataFrame
) -> pd.DataFrame:
    """Printed values and ours, one a row; what was not printed or not run is missing.

    Args:
        plan: Where each row finds its runs.
        parts: Names of tables and figures; those that show no measures have no rows.
        cells: What :func:`~cm2.experiments.results.cells` returned.
        table: What :func:`~cm2.experiments.results.tables` returned.
    """
    paper = printed.read()
    sweep_of = {cell.title: _sweep(cell) for cell in cells}
    ours = {
        (sweep_of[row["experiment"]], row["method"], row["metric"]): row
        for row in table[table["label"] == ""].to_dict("records")
    }
    made = []
    shown = [name for name in parts if PARTS[name].shown in ("measures", "components")]
    for row in itertools.chain.from_iterable(map(entries, shown)):
        if row not in plan.variants:
            continue
        for metric in MEASURES:
            there = printed.value(paper, row, metric)
            here = ours.get((*plan.variants[row], METRICS[metric]))
            made.append(
                {
                    "table": row.part,
                    "data": row.data,
                    "setting": row.setting,
                    "row": row.label,
                    "task": row.task,
                    "metric": metric,
                    **dict(
                        zip(("printed", "printed_low", "printed_high"), there or (), strict=False)
                    ),
                    **(
                        {} if here is None else {k: here[k] for k in ("value", "low", "high", "sd")}
                    ),
                }
            )
    columns = ["table", "data", "setting", "row", "task", "metric", "printed", "printed_low"]
    columns += ["printed_high", "value", "low", "high", "sd"]
    frame = pd.DataFrame(made, columns=columns)
    return frame.assign(difference=frame["value"] - frame["printed"])


def _sweep(cell: Cell) -> Path:
    """The folder of the sweep that a cell's runs are from."""
    return cell.runs[0].folder.parent.parent


def _section(name: str, found: Found) -> Section:
    """A table or figure on the page."""
    part = PARTS[name]
    kind = "Table" if name.startswith("T") else "Figure"
    title = f"{kind} {name[1:]}. {part.title}"
    show = SHOWN.get(part.shown)
    if show is not None:
        tables = show(name, part, found)
        texts = significance.TEXT if part.shown == "tests" else []
        return Section(title, texts if tables else [NOTHING], tables)
    try:
        made = list(drawings.FIGURES[part.shown](found.of(name), found.table))
    except drawings.LackingError as reason:
        return Section(title, [f"Not drawn: {reason}."])
    values = _measures(name, part, found) if part.shown == "components" else []
    pictures = [Picture(caption, figure) for _, caption, figure in made]
    return Section(title, [], values, pictures)


def _measures(name: str, part: Part, found: Found) -> list[Table]:
    """A table for each source and setting: rows by tasks, AUROC and AUPR."""
    frame = found.values[found.values["table"] == name]
    made = []
    for (data, setting), each in frame.groupby(["data", "setting"], sort=False):
        rows = []
        for (label, task), one in each.groupby(["row", "task"], sort=False):
            line = {"row": str(label), "task": str(task)}
            for value in one.to_dict("records"):
                shown = METRICS[str(value["metric"])]
                line[f"{shown} printed"] = _interval(
                    value["printed"], value["printed_low"], value["printed_high"]
                )
                line[f"{shown} here"] = _interval(value["value"], value["low"], value["high"])
                gap = value["difference"]
                line[f"{shown} difference"] = "" if pd.isna(gap) else f"{gap:+.3f}"
            rows.append(line)
        own = [row["row"] for row in rows if row["row"].endswith(("CM2", "full"))]
        caption = f"{name}, {SOURCES[str(data)]}, {setting}"
        made.append(Table(caption, pd.DataFrame(rows), own))
    return made


def _tests(name: str, part: Part, found: Found) -> list[Table]:
    """The table of p-values of each experiment, with what was printed."""
    paper = printed.read()
    known = {}
    for row in entries(name):
        for metric in MEASURES:
            value = printed.value(paper, row, f"{metric}-p")
            if row in found.plan.variants and value is not None:
                sweep, label = found.plan.variants[row]
                known[sweep, label, METRICS[metric]] = f"{value.value:.2g}"
    made = []
    for cell in found.of(name):
        table = significance.table(cell, replicates=found.replicates)
        if table is not None:
            keys = zip(table.frame["method"], table.frame["measure"], strict=True)
            there = [known.get((_sweep(cell), *key), "") for key in keys]
            made.append(table._replace(frame=table.frame.assign(**{"p printed": there})))
    return made


def _counts(name: str, part: Part, found: Found) -> list[Table]:
    """Numbers of stays of each source and setting, for each task."""
    paper = printed.read()
    rows = []
    cohorts = [pair for b in part.blocks for pair in itertools.product(b.data, b.settings)]
    for (data, setting), (task, short) in itertools.product(cohorts, TASKS.items()):
        root = found.roots.get(f"{data}-{short}")
        if root is None:
            continue
        path = found.configs / "reference" / data / f"{short}-{SETTINGS[setting]}.yaml"
        modalities = config.load(path).data["modalities"]
        there = printed.counts(paper, data, setting, task)
        here = _here(root, modalities, SETTINGS[setting])
        for count, value in here.items():
            rows.append(
                {
                    "cohort": f"{SOURCES[data]}, {setting}",
                    "task": task,
                    "stays": count,
                    "printed": f"{there[count]:,}",
                    "here": f"{value:,}",
                    "difference": f"{value - there[count]:+,}",
                }
            )
    return [Table("Numbers of stays", pd.DataFrame(rows))] if rows else []


def _here(root: Path, modalities: Sequence[str], setting: str) -> dict[str, int]:
    found, positive = {}, 0
    for split in SPLITS:
        stays = Stays.open(root, split=split, modalities=modalities, setting=setting, verify=False)
        found[split] = len(stays.stays)
        positive += int((stays.stays["label"] == 1).sum())
    return {**found, "positive": positive}


SHOWN: dict[str, Callable[[str, Part, Found], list[Table]]] = {
    "measures": _measures,
    "tests": _tests,
    "counts": _counts,
}
"""What makes the tables of a part; what is not here is a figure of ``figures.FIGURES``."""


NOTHING = "No run of it is finished, or its data were not given."


def _interval(value: float, low: float, high: float) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.3f}" if pd.isna(low) else str(Interval(value, low, high))
