"""Synthetic raw data in the layouts of MIMIC-III and MIMIC-IV, with known dependence.

For tests, and for trying every command without access to the real data. Files have the names and
columns of the real ones, so that `cm2 prepare` reads them; a notice in each folder, the header of
each compressed file, the comment in each image, identifiers outside the real ranges and
``synthetic.json`` say what they are. `cm2.clinical.synthesize.latents` states the generative model.

An island like preparation: it imports no torch.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from cm2.clinical.synthesize import latents, mimic3, mimic4, vitals
from cm2.clinical.synthesize.episodes import Episodes
from cm2.clinical.synthesize.faults import Faults
from cm2.clinical.synthesize.files import MARKER, write_csv
from cm2.clinical.synthesize.latents import MODALITIES, World
from cm2.core.errors import InputError
from cm2.core.files import to_json

__all__ = ["MANIFEST", "TRUTH", "World", "synthesize"]

MANIFEST = "synthetic.json"
TRUTH = "SYNTHETIC_truth.csv.gz"
SOURCES = {"mimic3": mimic3, "mimic4": mimic4}
STREAMS = (
    "episodes", "admissions", "diagnoses", "chart", "laboratory", "notes", "studies", "images",
    "lists", "reports",
)  # fmt: skip


def synthesize(
    source: str,
    patients: int,
    out: Path,
    *,
    seed: int = 0,
    world: World | None = None,
) -> dict[str, int]:
    """Writes a synthetic data set; the folder appears when it is complete.

    Args:
        source: Whose layout: "mimic3" or "mimic4".
        patients: How many, at least one.
        out: The folder to make. Only an earlier synthetic data set is written over.
        seed: Equal seeds and options give equal files, byte for byte.
        world: Parameters of the generative model; by default those of :class:`World`.

    Returns:
        Counts: patients, admissions, stays, deaths, and stays with each modality.
    """
    world = World() if world is None else world
    latents.check(world)
    if patients < 1:
        raise InputError(f"patients must be at least 1, got {patients}")
    if source not in SOURCES:
        raise InputError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
    out = Path(out)
    if out.exists() and not (out / MANIFEST).is_file():
        raise InputError(f"{out}: exists and is no synthetic data set; choose another folder")
    building = out.with_name(f".{out.name}.part")
    if building.exists():
        shutil.rmtree(building)
    building.mkdir(parents=True)
    writer = SOURCES[source]
    generator = np.random.default_rng([seed, sorted(SOURCES).index(source)])
    streams = dict(zip(STREAMS, generator.spawn(len(STREAMS)), strict=True))
    faults = Faults().scaled(world.messiness)
    found, has = writer.write(building, patients, world, faults, streams)
    write_csv(_truth(found, has), building / TRUTH, quote=False)
    counts = {
        "patients": patients,
        "admissions": len(found.admissions),
        "stays": len(found.stays),
        "deaths": int(found.admissions["deathtime"].notna().sum()),
        **{f"stays with {name}": int(there.sum()) for name, there in has.items()},
    }
    about = {
        "synthetic": True,
        "notice": f"no patient data; see {MARKER}",
        "source": source,
        "layout": f"{source} {writer.VERSION}",
        "cm2": importlib.metadata.version("cm2"),
        "seed": seed,
        "counts": counts,
        "world": world._asdict(),
        "modalities": MODALITIES,
        "series": {name: variable._asdict() for name, variable in vitals.VARIABLES.items()},
        "faults": faults._asdict(),
    }
    text = to_json(about)
    (building / MANIFEST).write_text(text, encoding="utf-8")
    if out.exists():
        shutil.rmtree(out)
    building.rename(out)
    return counts


def _truth(found: Episodes, has: dict[str, np.ndarray]) -> pd.DataFrame:
    """The latents of the stays: what an encoder could at best find."""
    columns: dict[str, object] = {
        "stay_id": found.stays["stay_id"],
        "severity": found.severity.round(6),
    }
    for place, name in enumerate(MODALITIES):
        if name in has:
            columns[f"has_{name}"] = has[name].astype(int)
            for axis in range(latents.AXES):
                columns[f"{name}_{axis + 1}"] = found.readable[:, place, axis].round(6)
    return pd.DataFrame(columns)
