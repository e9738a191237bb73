"""What the way of imputing is worth when half the samples lack the second modality.

    python benchmarks/imputation.py --seeds 5 --processes 2

Generated data with known dependence: a signal of three coordinates shows in both modalities, in the
second almost without noise, in the first through a correlation of ``--correlation``; the outcome
depends on the second's signal, not linearly. Two settings. *Complete training*: both modalities are
there in training and half the test samples lack the second, as where a model from a curated cohort
is put to use. *Incomplete training*: half the training samples lack it too, and training also hides
modalities that are there, so that a network can learn what the first tells alone.

Same data, seeds, encoders and training for all; only the imputation differs. AUROC over all test
samples and over those that lack the second modality: mean and standard error over seeds, and the
paired difference of conditional imputation to each of the others with its t-test.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from cm2.evaluation.metrics import paired
from cm2.networks import training
from cm2.networks.encoders import Dense
from cm2.networks.models import CM2
from cm2.networks.tasks import Binary
from cm2.samples.batches import ArrayDataset

IMPUTATIONS = ("conditional", "marginal", "zero", "mean")
SETTINGS = {"complete training": (0.0, 0.0), "incomplete training": (0.5, 0.2)}
COLUMNS = 8
ROWS = {"train": 1500, "validation": 500, "test": 4000}
MISSING = 0.5


class Result(NamedTuple):
    """One fit: AUROC over all test samples, and over those without the second modality."""

    setting: str
    imputation: str
    seed: int
    whole: float
    incomplete: float


def world(rows: int, seed: int, correlation: float) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Two modalities of eight columns and the outcome."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(2026).normal(size=(2, 3, COLUMNS))
    second = rng.normal(size=(rows, 3))
    noise = rng.normal(size=(rows, 3))
    first = correlation * second + np.sqrt(1 - correlation**2) * noise
    score = 2.5 * second[:, 0] * second[:, 1] + 2 * second[:, 2]
    y = (rng.random(rows) < 1 / (1 + np.exp(-score))).astype(int)
    x = {
        "first": first @ mixing[0] + 0.1 * rng.normal(size=(rows, COLUMNS)),
        "second": second @ mixing[1] + 0.1 * rng.normal(size=(rows, COLUMNS)),
    }
    return {name: block.astype(np.float32) for name, block in x.items()}, y


def dataset(part: str, seed: int, rate: float, correlation: float) -> ArrayDataset:
    """A part of the data, the second modality missing at random."""
    number = list(ROWS).index(part)
    x, y = world(ROWS[part], 10 * seed + number, correlation)
    present = np.ones((len(y), 2), bool)
    present[:, 1] = np.random.default_rng(1000 + 10 * seed + number).random(len(y)) >= rate
    return ArrayDataset(x, present, y)


def fit(setting: str, imputation: str, seed: int, options: argparse.Namespace) -> Result:
    """Trains a network and tests it."""
    torch.set_num_threads(1)
    rate, hide = SETTINGS[setting]
    data = {
        part: dataset(part, seed, MISSING if part == "test" else rate, options.correlation)
        for part in ROWS
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoders = {name: Dense(COLUMNS, options.dim) for name in data["train"].inputs}
    model = CM2(encoders, 1, imputation=imputation, hide=hide, components=1, seed=seed)
    training.train(
        model, Binary(), data["train"], data["validation"], max_epochs=options.epochs, patience=10,
        batch_size=128, seed=seed, accelerator="cpu", weights={"alignment": options.alignment},
    )  # fmt: skip
    batch = data["test"][slice(None)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = model.predict(batch, 20, probability=Binary().probability).mean[:, 0].numpy()
    y, lacking = np.asarray(batch.target), ~batch.present[:, 1].numpy()
    scores = (roc_auc_score(y, found), roc_auc_score(y[lacking], found[lacking]))
    return Result(setting, imputation, seed, *map(float, scores))


def main() -> None:
    """Fits all, and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--dim", type=int, default=8)
    parser.add_argument("--correlation", type=float, default=0.9)
    parser.add_argument("--alignment", type=float, default=0.1)
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    jobs = [(s, i, seed) for s in SETTINGS for i in IMPUTATIONS for seed in seeds]
    results = Parallel(options.processes)(delayed(fit)(*job, options) for job in jobs)
    for name in ("whole", "incomplete"):
        title = {"whole": "all test samples", "incomplete": "test samples without the second"}[name]
        table = Table("training", "imputation", "AUROC", "conditional - this", "p", title=title)
        for setting in SETTINGS:
            values = {
                i: np.array(
                    [getattr(r, name) for r in results if (r.setting, r.imputation) == (setting, i)]
                )
                for i in IMPUTATIONS
            }
            for imputation, value in values.items():
                row = [setting, imputation, f"{value.mean():.3f} +- {_error(value):.3f}", "", ""]
                if imputation != "conditional":
                    gap = paired(values["conditional"], value)
                    row[3:] = [
                        f"{gap.difference:+.3f} +- {gap.standard_error:.3f}", f"{gap.t_test:.1e}"
                    ]  # fmt: skip
                table.add_row(*row)
        Console(width=100).print(table)


def _error(values: NDArray[Any]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


if __name__ == "__main__":
    main()
