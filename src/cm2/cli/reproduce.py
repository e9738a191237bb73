"""The command that runs the tables and figures of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cm2.cli.experiments import teller


def reproduce(
    what: Literal["paper"],
    *,
    data: Sequence[str] = (),
    out: Path = Path("runs/paper"),
    only: tuple[str, ...] = (),
    seeds: int = 1,
    processes: int = 1,
    replicates: int = 1000,
    estimate: bool = False,
    rehearse: bool = False,
    configs: Path | None = None,
    overrides: Sequence[str] = (),
) -> int:
    """Runs the tables and figures of Wu et al. (2025), and shows them beside what was printed.

    Before the first run starts it says how long all take, from a few batches of each. What is
    finished is not run again, so that the same command goes on after an interruption.

    Args:
        what: What is reproduced.
        data: Folders by name, as in `--data mimic4=DIR medfuse=DIR`. Raw tables are mimic3 and
            mimic4; with them go the published lists of splits, mimic3-benchmarks and medfuse, and
            where mimic4 has no cxr within, mimic-cxr-jpg; mimic-cxr, the reports, for three
            modalities; mimic3-notes if they are elsewhere. Prepared folders are given as
            mimic3-mortality, mimic4-trimodal-readmission and so on. What lacks its data is left
            out.
        out: Folder of all runs, of data that are prepared, and of the page paper.html.
        only: Tables and figures, T1 to T11 and F2 to F5; all if not given.
        seeds: Runs of each row of a table.
        processes: Runs side by side; they share the cores.
        replicates: Bootstrap samples behind the intervals.
        estimate: Stop after saying how long it takes.
        rehearse: Cut all networks down and train them for one epoch, on made-up data if none are
            given, to see that everything runs; minutes, and no result.
        configs: A folder of experiments and variants, such as a changed copy of the repository's
            configs; that which comes with cm2 if not given.
        overrides: Another value for a key in all runs, unless a row of a table sets it; may be
            repeated.
    """
    from rich.console import Console

    from cm2.experiments import paper

    console = Console()
    failed = paper.reproduce(
        out,
        only=only,
        given=data,
        configs=configs,
        seeds=seeds,
        processes=processes,
        replicates=replicates,
        rehearse=rehearse,
        estimate=estimate,
        overrides=overrides,
        say=lambda line: console.print(line, soft_wrap=True, markup=False),
        report=teller(console),
    )
    for job in failed:
        console.print(f"Failed: {job.folder.with_suffix('.log')}", soft_wrap=True, markup=False)
    if not estimate:
        console.print(f"Page: {out / 'paper.html'}", soft_wrap=True, markup=False)
    return 1 if failed else 0
