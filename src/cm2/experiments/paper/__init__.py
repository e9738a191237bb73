"""All tables and figures of Wu et al. (2025) that data give, in one go, beside what was printed.

``tables`` says what stands in each, and all else follows from it: ``plan`` which runs that takes,
``data`` what they read, ``cost`` how long they take, ``page`` what is shown in the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from cm2.core.errors import InputError
from cm2.experiments import results, sweep
from cm2.experiments.paper import cost, data, page, plan, shipped, tables
from cm2.experiments.paper.plan import Plan
from cm2.experiments.sweep import Job

__all__ = ["reproduce"]


def reproduce(
    out: Path,
    *,
    only: Sequence[str] = (),
    given: Sequence[str] = (),
    configs: Path | None = None,
    seeds: int = 1,
    processes: int = 1,
    replicates: int = 1000,
    rehearse: bool = False,
    estimate: bool = False,
    overrides: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
    report: Callable[[Job, bool], None] = lambda job, good: None,
) -> list[Job]:
    """Trains what tables and figures of the paper need, and writes a page of them.

    The same call goes on where another stopped.

    Args:
        out: Folder of runs, prepared data and the page, ``paper.html``.
        only: Names of tables and figures, such as ``T5``; all if none is named.
        given: ``NAME=DIR`` of data, see ``data.NAMES``; what lacks its data is left out.
        configs: Another folder ``configs`` than that of the package.
        seeds: Runs of each row.
        processes: Runs side by side.
        replicates: Bootstrap samples behind the intervals.
        rehearse: Cut all networks down and train them for one epoch, on made-up data if none are
            given: to see that everything runs.
        estimate: Stop after saying how long it takes.
        overrides: Another value for a key in all runs, unless a row of a table sets it.
        say: Is told what is done.
        report: Called as each run ends.

    Returns:
        The runs that failed.

    Raises:
        InputError: If something cannot be used, or no data are given.
    """
    parts = tables.chosen(only)
    folders = data.given(given)
    configs = shipped.configs(configs)
    if rehearse and not folders:
        say(f"tables are made up, in {out / 'made-up'}")
        folders = data.made_up(out / "made-up")
    lacks = {name: data.lacking(name, folders) for name in _needed(parts)}
    left_out = [
        f"{name} is left out: it needs --data {' '.join(f'{one}=DIR' for one in names)}."
        for name, names in lacks.items()
        if names
    ]
    if rehearse:
        left_out.append("A rehearsal: networks are cut down and trained for one epoch, no result.")
    for line in left_out:
        say(line)
    there = [name for name, names in lacks.items() if not names]
    if not there:
        raise InputError("no data for any of it; see --data, or try --rehearse")
    # Every run is checked before the long work of preparation starts.
    prepared = out / "prepared"
    roots = {name: folders.get(name, prepared / name) for name in there}
    planned = plan.make(
        parts,
        roots,
        configs,
        out,
        seeds=seeds,
        overrides=overrides,
        last=plan.small if rehearse else lambda experiment: (),
    )
    plan.check(planned)
    for name in there:
        data.prepare(name, folders, prepared, say)
    out.mkdir(parents=True, exist_ok=True)
    say(_size(planned))
    costs = cost.of_plan(planned, out / "costs.json", say)
    if costs:
        say(cost.told(costs))
    if estimate:
        return []
    failed = []
    for one in planned.sweeps:
        results.write_labels(one.folder, one.jobs)
        jobs = [job for job in one.jobs if not plan.finished(job)]
        failed += sweep.run(one.experiment, jobs, processes=processes, report=report)
    page.write(
        out / "paper.html", planned, parts, roots, configs, left_out=left_out, replicates=replicates
    )
    return failed


def _needed(parts: Sequence[str]) -> list[str]:
    """Names of the prepared folders that tables and figures read."""
    sources = [
        source for name in parts for block in tables.PARTS[name].blocks for source in block.data
    ]
    pairs = itertools.product(dict.fromkeys(sources), tables.TASKS.values())
    return [f"{source}-{task}" for source, task in pairs]


def _size(planned: Plan) -> str:
    done = sum(map(plan.finished, planned.jobs))
    return (
        f"{len(planned.variants)} rows of tables and figures from {len(planned.jobs)} runs, of "
        f"which {done} are finished."
    )
