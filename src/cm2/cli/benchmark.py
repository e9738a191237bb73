"""The command that compares CM² with what would be used in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def benchmark(
    *,
    suite: str = "quick",
    out: Path = Path("runs/benchmark"),
    data: Sequence[str] = (),
    only: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: int | None = None,
    epochs: int = 60,
    limit: float | None = None,
    jobs: int = 2,
    replicates: int = 10_000,
) -> None:
    """Compares CM² with its rivals on open data, under many patterns of missing modalities.

    All methods get the same rows, splits, removals and encoders. A second call goes on where the
    first stopped, and makes tables and the page again.

    Args:
        suite: ``quick``, ``tables``, ``p12`` or ``open``.
        out: Folder to write to.
        data: Folders of data sets, as NAME=DIR; without them those in CM2_DATA_HOME.
        only: Data sets of the suite; all of them if none is named.
        methods: Methods of the suite; all of them if none is named.
        seeds: Number of splits and removals; that of the suite if not given.
        epochs: Largest number of passes of a network over the training rows.
        limit: Seconds that a fit may take; those that took longer are made again under a larger
            one, and without.
        jobs: Fits side by side, one thread each.
        replicates: Bootstrap draws behind intervals and p-values; refused where they are too few to
            tell anything after correction for the number of cells.
    """
    from cm2.benchmark.command import run

    run(
        suite,
        out,
        data=data,
        only=only,
        methods=methods,
        seeds=seeds,
        epochs=epochs,
        limit=limit,
        processes=jobs,
        replicates=replicates,
    )
