"""The command that makes raw data up."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def synthesize(
    source: Literal["mimic3", "mimic4"],
    *,
    out: Path | None = None,
    patients: int = 1000,
    seed: int = 0,
    dependence: float = 0.7,
    copula: Literal["gaussian", "gumbel", "independence"] = "gaussian",
    messiness: float = 1.0,
) -> None:
    """Writes made-up raw data in the layout of MIMIC-III or MIMIC-IV, to try everything without it.

    Series, texts and images share latents beyond the outcome; synthetic.json in the folder says
    how, and SYNTHETIC_truth.csv.gz holds them. The same options give the same files.

    Args:
        source: Whose layout.
        out: The folder to make; runs/synthetic-SOURCE if not given.
        patients: How many patients.
        seed: Start of the random numbers.
        dependence: Correlation of the latents that modalities share, from 0 to below 1.
        copula: Family that joins them.
        messiness: Factor on the rates of all faults of the tables; 0 for clean ones.
    """
    from cm2.clinical.synthesize import World
    from cm2.clinical.synthesize import synthesize as write

    world = World(dependence=dependence, copula=copula, messiness=messiness)
    folder = out or Path("runs") / f"synthetic-{source}"
    counts = write(source, patients, folder, seed=seed, world=world)
    print(f"{folder}: synthetic, no patient data")  # noqa: T201
    for name, number in counts.items():
        print(f"{number:>8,} {name}")  # noqa: T201
