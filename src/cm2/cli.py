"""The command `cm2`. Options are the arguments of the functions below; `--config` reads them.

Nothing heavy is imported until a command runs, so that `cm2 --help` is quick.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from cm2.errors import InputError


def demo(
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


COMMANDS = {"demo": demo}


def parser() -> ArgumentParser:
    """Builds the parser from the signatures and docstrings of the commands."""
    top = ArgumentParser(
        prog="cm2",
        description="Probabilistic multimodal learning with copulas when modalities are missing.",
        version=importlib.metadata.version("cm2"),
    )
    commands = top.add_subcommands(required=True)
    for name, function in COMMANDS.items():
        command = ArgumentParser(description=(function.__doc__ or "").split("\n\n    Args:")[0])
        command.add_argument("--config", action="config", help="YAML file of options.")
        command.add_function_arguments(function, as_group=False)
        commands.add_subcommand(name, command, help=(function.__doc__ or "").splitlines()[0])
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: What follows `cm2`; None for those of the process.

    Returns:
        0, or 2 if the input was refused before any long work.
    """
    chosen: Namespace = parser().parse_args(arguments)
    name = chosen.subcommand
    options = {key: value for key, value in chosen[name].items() if key != "config"}
    try:
        COMMANDS[name](**options)
    except InputError as refusal:
        print(f"cm2 {name}: {refusal}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
