"""Finished runs without training, for the tests of tables and reports."""

import json
from pathlib import Path

import numpy as np
import yaml

from cm2.experiments import config
from cm2.experiments.predictions import Predictions

TARGET = np.random.default_rng(7).integers(0, 2, 90)
PATIENT = np.arange(90) % 45


def fake(
    folder: Path,
    seed: int = 0,
    *,
    kind: str = "cm2",
    skill: float = 1.0,
    target: np.ndarray = TARGET,
    overrides: tuple[str, ...] = (),
) -> Path:
    """A finished run without training: noisy probabilities of a given skill."""
    folder.mkdir(parents=True)
    tree = {
        "name": "Fake",
        "data": {"root": "x", "modalities": ["a", "b"]},
        "encoders": {"a": {"kind": "dense"}, "b": {"kind": "dense"}},
        "model": {"kind": kind},
    }
    source = folder.parent / f"{folder.name}.source"
    source.write_text(yaml.safe_dump(tree), encoding="utf-8")
    experiment = config.load(source, [f"seed={seed}", *overrides])
    (folder / "config.yaml").write_text(experiment.dump(), encoding="utf-8")
    facts = {
        "python": "3", "packages": {}, "device": "cpu",
        "data": {"checksum": "c", "shape": {"a": {}, "b": {}}, "classes": 2},
    }  # fmt: skip
    (folder / "environment.json").write_text(json.dumps(facts), encoding="utf-8")
    rng = np.random.default_rng([seed, len(kind), int(100 * skill)])
    p = 1 / (1 + np.exp(-(skill * (target - 0.5) + rng.normal(size=len(target)))))
    probability = np.stack([1 - p, p], axis=1)
    present = np.ones((len(target), 2), bool)
    found = Predictions(target, probability, np.zeros_like(probability), present, PATIENT)
    found.save(folder / "test.npz")
    return folder
