"""A small prepared folder with every kind of modality, for tests of what reads it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cm2.clinical.prepare import manifest

COLUMNS = [f"c{i}" for i in range(76)]
VARIABLES = ["heart_rate", "glucose", "weight"]
WORDS = ["patient", "stable", "lungs", "clear", "effusion", "heart", "normal", "sedated"]


def make_folder(
    root: Path,
    stays: int = 40,
    *,
    seed: int = 0,
    synthetic: bool = True,
    absent: Sequence[str] = (),
    source: str = "mimic4",
    first: int = 100,
    labels: Sequence[str] = (),
) -> Path:
    """Consecutive stays, two a patient; series for all but the last, others for two in three.

    Args:
        root: Is made.
        stays: Number of stays.
        seed: Of everything.
        synthetic: What the manifest says.
        absent: Modalities that no stay has.
        source: What the manifest says.
        first: Identifier of the first stay.
        labels: Labels that may hold together, in the place of one class a stay.
    """
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True)
    ids = np.arange(first, first + stays)
    has = {name: rng.random(stays) < 2 / 3 for name in ("report", "cxr", "vitals")}
    has["series"] = np.arange(stays) < stays - 1
    has |= {name: np.zeros(stays, bool) for name in absent}
    frame = pd.DataFrame(
        {
            "stay_id": ids,
            "subject_id": ids // 2,
            "hadm_id": ids + 1000,
            "split": np.where(ids // 2 % 4 == 0, "validation", "train"),
            "label": rng.integers(0, 2, stays),
            "age": rng.uniform(18, 90, stays),
            "prediction_time": pd.Timestamp("2150-01-01") + pd.to_timedelta(ids, unit="h"),
            **{f"has_{name}": there for name, there in has.items()},
        }
    )
    frame.loc[ids // 2 % 4 == 1, "split"] = "test"
    if labels:
        frame["label"] = pd.array([None] * stays, dtype="Int64")
        frame[[f"label_{name}" for name in labels]] = rng.integers(0, 2, (stays, len(labels)))
    frame.to_parquet(root / "stays.parquet")
    write_series(root, ids[has["series"]], rng)
    write_events(root, ids[has["series"]], np.random.default_rng(seed + 1))
    write_reports(root, ids[has["report"]], rng)
    write_images(root, ids[has["cxr"]], rng)
    vitals = pd.DataFrame({"stay_id": ids[has["vitals"]]})
    vitals["pulse"] = rng.normal(80, 10, len(vitals))
    vitals["constant"] = 7.0
    vitals["lactate"] = np.where(rng.random(len(vitals)) < 0.5, np.nan, 2.0)
    vitals.to_parquet(root / "vitals.parquet")
    manifest.write(
        root,
        {
            "source": source,
            "synthetic": synthetic,
            **({"classes": None, "labels": list(labels)} if labels else {}),
            "modalities": {
                "series": {"kind": "series", "file": "series.parquet"},
                "report": {"kind": "text", "file": "reports.parquet"},
                "cxr": {"kind": "image", "file": "images.npy", "index": "images.parquet"},
                "vitals": {"kind": "tabular", "file": "vitals.parquet"},
            },
        },
    )
    return root


def write_series(root: Path, ids: np.ndarray, rng: np.random.Generator) -> None:
    """One to six bins a stay; the first column is the stay, the second the bin."""
    bins = rng.integers(1, 7, len(ids))
    values = rng.normal(size=(bins.sum(), len(COLUMNS))).astype(np.float32)
    table = pd.DataFrame(values, columns=COLUMNS)
    table.insert(0, "stay_id", np.repeat(ids, bins))
    table.insert(1, "bin", np.concatenate([np.arange(n) for n in bins] or [np.arange(0)]))
    table["c0"] = table["stay_id"].astype(np.float32)
    table["c1"] = table["bin"].astype(np.float32)
    table.to_parquet(root / "series.parquet")


def write_events(root: Path, ids: np.ndarray, rng: np.random.Generator) -> None:
    """One to nine events a stay, sorted as in a real folder: by variable, then by hour."""
    stay = np.repeat(ids, rng.integers(1, 10, len(ids)))
    table = pd.DataFrame(
        {
            "stay_id": stay,
            "variable": rng.choice(VARIABLES, len(stay)),
            "hour": rng.uniform(-2, 48, len(stay)).round(1),
            "value": rng.normal(80, 10, len(stay)),
        }
    )
    table.sort_values(["stay_id", "variable", "hour"]).to_parquet(root / "events.parquet")


def write_reports(root: Path, ids: np.ndarray, rng: np.random.Generator) -> None:
    """One to three documents a stay, of up to 40 words."""
    rows = [
        {
            "stay_id": stay,
            "position": position,
            "hour": float(position),
            "section": "findings",
            "text": " ".join(rng.choice(WORDS, rng.integers(1, 41))),
        }
        for stay in ids
        for position in range(rng.integers(1, 4))
    ]
    columns = ["stay_id", "position", "hour", "section", "text"]
    pd.DataFrame(rows, columns=columns).astype({"stay_id": "int64"}).to_parquet(
        root / "reports.parquet"
    )


def write_images(root: Path, ids: np.ndarray, rng: np.random.Generator) -> None:
    """An image a stay whose first pixel is the stay, in an order of its own."""
    order = rng.permutation(len(ids))
    pixels = rng.integers(0, 256, (len(ids), 256, 256), np.uint8)
    pixels[order, 0, 0] = ids
    np.save(root / "images.npy", pixels)
    pd.DataFrame({"stay_id": ids, "row": order, "hour": order + 0.5, "view": "AP"}).to_parquet(
        root / "images.parquet"
    )


def rewrite_manifest(root: Path, **entries: object) -> None:
    """Changes entries of the manifest, and its checksums to those of the files as they are."""
    content = json.loads((root / "manifest.json").read_text()) | {"files": manifest.checksums(root)}
    (root / "manifest.json").write_text(json.dumps(content | entries))


def drop(root: Path, name: str) -> None:
    """Makes a folder one that knows nothing of a modality, as of a site without the device."""
    content = json.loads((root / "manifest.json").read_text())
    facts = content["modalities"].pop(name)
    for file in {facts["file"], facts.get("index", facts["file"])}:
        (root / file).unlink()
    stays = pd.read_parquet(root / "stays.parquet").drop(columns=f"has_{name}")
    stays.to_parquet(root / "stays.parquet")
    (root / "manifest.json").write_text(json.dumps(content))
    rewrite_manifest(root)
