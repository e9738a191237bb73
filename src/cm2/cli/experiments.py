"""Commands on experiments: train, evaluate, predict, embed, sweep, figures, report."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cm2.core.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from cm2.experiments.sweep import Job

WIDTH = 160


def train(
    experiment: Path,
    *,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = False,
    split: Literal["test", "validation"] = "test",
) -> None:
    """Trains the model of an experiment's YAML file, and tests it once.

    Args:
        experiment: The YAML file.
        overrides: Another value for a key of the file, as in `--set model.copula=frank`; may be
            repeated.
        out: Folder of the run; runs/ and the path of the file below configs/ if not given.
        resume: Go on where an interrupted run stopped.
        split: What the trained model is measured on; validation for a run that is to be selected
            first, and not tested.
    """
    from cm2.experiments import config, run

    chosen = config.load(experiment, overrides)
    if lost := config.dropped(experiment, overrides):
        raise InputError(
            f"--set {lost[0]} is taken back by a later one; name a kind before its arguments"
        )
    with _heard():
        result = run.train(chosen, out or _folder(experiment), resume=resume, split=split)
    if result:
        _show(result)


def evaluate(
    run: Path,
    *,
    data: Path | None = None,
    split: Literal["test", "validation", "train"] | None = None,
    replicates: int = 1000,
) -> None:
    """Measures a trained run again on a split of its data, or on other data.

    Args:
        run: Folder of the run.
        data: Another folder that `cm2 prepare` wrote; the run's own if not given.
        split: Which part of the data; test if not given, and of another folder all stays that
            have a label.
        replicates: Bootstrap samples behind the intervals.
    """
    from cm2.experiments import run as runs

    with _heard():
        result = runs.evaluate(run, root=data, split=split, replicates=replicates)
    _show(result)


def predict(
    run: Path,
    *,
    data: Path,
    out: Path,
    split: Literal["test", "validation", "train"] | None = None,
    meds: bool = False,
) -> None:
    """Writes the probabilities that a run gives to prepared data, one row a stay.

    Args:
        run: Folder of the run.
        data: Folder that `cm2 prepare` wrote.
        out: Parquet file with stay_id, one probability a class and their spread over imputations.
        split: Which part of the data; all if not given.
        meds: Write the columns that meds-evaluation reads instead: subject_id, prediction_time,
            boolean_value and what is predicted.
    """
    from cm2.experiments import run as runs

    write = runs.write_meds if meds else runs.write_predictions
    with _heard():
        write(run, data, out, split=split)


def embed(run: Path, *, data: Path, modality: str) -> None:
    """Caches a modality's embeddings by a trained encoder, as a modality of the data.

    Args:
        run: Folder of the run whose encoder is used.
        data: Folder that `cm2 prepare` wrote; the result goes to its folder embeddings.
        modality: Which one.
    """
    from cm2.experiments import run as runs

    with _heard():
        runs.write_embeddings(run, data, modality)


def sweep(
    experiment: Path,
    *,
    variants: Path | None = None,
    grid: Sequence[str] = (),
    seeds: int = 3,
    out: Path | None = None,
    processes: int = 1,
    select: str | None = None,
    points: int | None = None,
    overrides: Sequence[str] = (),
) -> int:
    """Runs variants of an experiment over seeds, and puts all runs into one table.

    What is finished is not run again, so that the same command goes on after an interruption.

    Args:
        experiment: The YAML file.
        variants: YAML file of labels, and below each the keys it sets, such as those in
            configs/ablations.
        grid: Axes of a grid, as in `--grid model.components=1,2,3 model.fusion=lstm,mean`.
        seeds: Runs of each variant, with seeds from that of the experiment on.
        out: Folder of all runs and of table.csv; runs/ and the names of the files if not given.
        processes: Runs side by side; they share the cores.
        select: Test only the variant that is best on validation data, as in `--select
            validation:auroc`, and write the validation figure of each to points.csv.
        points: Run so many of the variants, drawn at random but always alike; a larger number
            goes on with those of a smaller one.
        overrides: Another value for a key in all runs; may be repeated.
    """
    from rich.console import Console
    from rich.markup import escape

    from cm2.core.files import write_text
    from cm2.evaluation import report as pages
    from cm2.experiments import report as page
    from cm2.experiments import results, selection
    from cm2.experiments import sweep as sweeps

    measure = None if select is None else selection.parse(select)
    if processes < 1:
        raise InputError(f"a sweep needs at least one process, but processes is {processes}")
    chosen = {"as given": []} if variants is None else sweeps.read_variants(variants)
    if grid:
        made = sweeps.grid(grid)
        chosen = (
            made
            if variants is None
            else {f"{a} {b}": [*chosen[a], *made[b]] for a in chosen for b in made}
        )
    if points is not None:
        chosen = selection.some(chosen, points)
    name = "sweep" if variants is None else variants.stem
    folder = out or _folder(experiment).with_name(f"{experiment.stem}-{name}")
    jobs = sweeps.plan(experiment, chosen, folder, seeds=seeds, overrides=overrides)
    # A file has no width: tables are not cut there.
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    results.write_labels(folder, jobs)
    split = "test" if measure is None else selection.SPLIT
    failed = sweeps.run(
        experiment, jobs, processes=processes, split=split, report=teller(console, len(jobs))
    )
    for job in failed:
        console.print(f"Failed: {job.folder.with_suffix('.log')}", soft_wrap=True)
    good = [job.folder for job in jobs if job not in failed]
    if measure is not None:
        found = selection.measured(jobs, measure)
        selection.write(found, folder / "points.csv")
        console.print(f"Points: {folder / 'points.csv'}", soft_wrap=True)
        winner = selection.best(found)
        if winner is None:
            console.print("No point has a figure for every seed, so that none can be selected.")
            return 1
        console.print(f"Selected by {select}, and tested: {escape(winner)}", soft_wrap=True)
        good = selection.test([job for job in jobs if job.variant == winner])
    if good:
        cells = results.cells(results.find(good)[0])
        table = results.tables(cells)
        write_text(folder / "table.csv", table.to_csv(index=False))
        for one in page.main(cells, table):
            console.print(pages.rich_table(one))
        console.print(f"Table: {folder / 'table.csv'}", soft_wrap=True)
    return 1 if failed else 0


def teller(console: Console, total: int | None = None) -> Callable[[Job, bool], None]:
    """Returns what says on a console that a run has ended.

    Args:
        console: Where.
        total: Number of runs of one sweep; None for those of several, which are named.
    """
    from rich.markup import escape

    done = itertools.count(1)

    def tell(job: Job, good: bool) -> None:
        state = "done" if good else f"[red]failed[/red], see {job.folder.with_suffix('.log')}"
        number, of = next(done), "" if total is None else f"/{total}"
        sweep = f"{job.folder.parent.parent.name}, " if total is None else ""
        about = escape(f"{sweep}{job.variant}")
        console.print(f"{number}{of} {about}, seed {job.seed}: {state}", soft_wrap=True)

    return tell


def figures(runs: list[Path], *, out: Path) -> None:
    """Draws every figure that finished runs give, as PNG and PDF.

    Args:
        runs: Folders of runs or sweeps, or folders above them.
        out: Folder to write to.
    """
    from rich.console import Console

    from cm2.experiments import figures as drawings
    from cm2.experiments import results

    console = Console()
    cells = results.cells(results.find(runs)[0])
    made, left_out = drawings.draw(cells, results.tables(cells))
    drawings.save(made, out)
    for one in made:
        console.print(f"{out / one.name}.png, .pdf", soft_wrap=True, markup=False)
    for name, reason in left_out.items():
        console.print(f"Not drawn: {name}, {reason}.", soft_wrap=True, markup=False)


def report(runs: list[Path], *, out: Path, replicates: int = 1000) -> None:
    """Writes one HTML page on finished runs, and beside it each table as CSV and LaTeX.

    Args:
        runs: Folders of runs or sweeps, or folders above them.
        out: The HTML file; the tables go to a folder of its name with -tables added.
        replicates: Bootstrap samples behind the intervals.
    """
    from rich.console import Console

    from cm2.experiments import report as page
    from cm2.experiments import results

    found, unfinished = results.find(runs)
    left_out = page.write(out, found, unfinished=len(unfinished), replicates=replicates)
    console = Console()
    for name, reason in left_out.items():
        console.print(f"Not drawn: {name}, {reason}.", soft_wrap=True, markup=False)
    console.print(f"Report: {out}", soft_wrap=True, markup=False)


@contextmanager
def _heard() -> Iterator[None]:
    """Lets the lines of the log go to the standard error."""
    logger = logging.getLogger("cm2")
    level, handler = logger.level, logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _folder(experiment: Path) -> Path:
    """runs/ and the path of a file below configs/, without its ending."""
    parts = experiment.with_suffix("").parts
    below = parts[parts.index("configs") + 1 :] if "configs" in parts else parts[-1:]
    return Path("runs", *below)


def _show(result: dict[str, Any]) -> None:
    """Prints the measures of a run."""
    from rich.console import Console
    from rich.table import Table

    from cm2.experiments.predictions import notes

    table = Table("measure", "value", "95% interval")
    for name, values in result["measures"].items():
        # What is not defined is null in a file, and NaN before.
        value, low, high = ("-" if x is None or x != x else f"{x:.3f}" for x in values)
        table.add_row(name, value, f"{low} to {high}")
    console = Console()
    counts = f"{result['rows']} rows, {result['positives']} positive"
    if patients := result.get("patients"):
        counts = f"{patients} patients, {counts}"
    console.print(f"{result['name']}, {result['split']}: {counts}")
    console.print(table)
    for note in notes(result):
        console.print(note, soft_wrap=True, markup=False)
