"""The command that shows the whole on open data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def demo(
    *,
    data: Path | None = None,
    out: Path = Path("runs/demo"),
    seeds: int = 3,
    rates: tuple[float, ...] = (0.0, 0.3, 0.6),
    removal: Literal["test", "both"] = "test",
    epochs: int = 30,
    replicates: int = 1000,
    processes: int = 2,
) -> None:
    """Trains and evaluates CM² and its rivals on real data, and writes a report.

    The data are in-hospital mortality on the eICU demo, if its folder is given by --data or found
    in CM2_DATA_HOME, and otherwise the UCI digits that scikit-learn carries, cut into views.

    Args:
        data: Folder of the eICU demo's tables.
        out: Folder to write to; an earlier run there is written over.
        seeds: Number of random splits into training and test.
        rates: Shares of the modalities that are removed at random.
        removal: Where: from test rows of one fit, or from training and test rows of a fit each.
        epochs: Largest number of passes of a network over the training rows.
        replicates: Bootstrap draws behind the intervals.
        processes: Fits run side by side, one thread each.
    """
    from cm2.demo import Settings, run

    run(
        Settings(
            data=data,
            out=out,
            seeds=seeds,
            rates=tuple(rates),
            removal=removal,
            epochs=epochs,
            replicates=replicates,
            processes=processes,
        )
    )
