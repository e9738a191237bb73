"""Commands on experiments: train, evaluate, predict, embed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal


def train(
    experiment: Path,
    *,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = False,
) -> None:
    """Trains the model of an experiment's YAML file, and tests it once.

    Args:
        experiment: The YAML file.
        overrides: Another value for a key of the file, as in `--set model.copula=frank`; may be
            repeated.
        out: Folder of the run; runs/ and the path of the file below configs/ if not given.
        resume: Go on where an interrupted run stopped.
    """
    from cm2.experiments import config, run

    chosen = config.load(experiment, overrides)
    result = run.train(chosen, out or _folder(experiment), resume=resume)
    if result:
        _show(result)


def evaluate(
    run: Path,
    *,
    split: Literal["test", "validation", "train"] = "test",
    replicates: int = 1000,
) -> None:
    """Measures a trained run again on a split of its data.

    Args:
        run: Folder of the run.
        split: Which part of the data.
        replicates: Bootstrap samples behind the intervals.
    """
    from cm2.experiments import run as runs

    _show(runs.evaluate(run, split=split, replicates=replicates))


def predict(
    run: Path,
    *,
    data: Path,
    out: Path,
    split: Literal["test", "validation", "train"] | None = None,
) -> None:
    """Writes the probabilities that a run gives to prepared data, one row a stay.

    Args:
        run: Folder of the run.
        data: Folder that `cm2 prepare` wrote.
        out: Parquet file with stay_id, one probability a class and their spread over imputations.
        split: Which part of the data; all if not given.
    """
    from cm2.experiments import run as runs

    runs.write_predictions(run, data, out, split=split)


def embed(run: Path, *, data: Path, modality: str) -> None:
    """Caches a modality's embeddings by a trained encoder, as a modality of the data.

    Args:
        run: Folder of the run whose encoder is used.
        data: Folder that `cm2 prepare` wrote; the result goes to its folder embeddings.
        modality: Which one.
    """
    from cm2.experiments import run as runs

    runs.write_embeddings(run, data, modality)


def _folder(experiment: Path) -> Path:
    """runs/ and the path of a file below configs/, without its ending."""
    parts = experiment.with_suffix("").parts
    below = parts[parts.index("configs") + 1 :] if "configs" in parts else parts[-1:]
    return Path("runs", *below)


def _show(result: dict[str, Any]) -> None:
    """Prints the measures of a run."""
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", "value", "95% interval")
    for name, (value, low, high) in result["measures"].items():
        table.add_row(name, f"{value:.3f}", f"{low:.3f} to {high:.3f}")
    console = Console()
    counts = f"{result['rows']} rows, {result['positives']} positive"
    console.print(f"{result['name']}, {result['split']}: {counts}")
    console.print(table)
