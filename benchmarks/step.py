"""CPU time of one training step of the network that ``CM2Classifier`` trains, and of its parts.

    python benchmarks/step.py

Eleven modalities of 24 columns, embeddings of 16 coordinates, 256 rows in a batch, 30% of the
modalities removed at random: the size of PhysioNet 2012. A step is forward, backward, clipping and
the optimiser, on one thread. Figures are the median and the least of the turns, in milliseconds of
CPU time, which a busy machine hardly changes; the settings take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cm2 import CM2Classifier
from cm2.core.records import Batch
from cm2.estimators import assembly
from cm2.networks.encoders import Dense
from cm2.networks.learner import Learner
from cm2.networks.models import CM2
from cm2.networks.tasks import Multiclass

MODALITIES, FEATURES, ROWS, RATE = 11, 24, 256, 0.3
DEFAULTS = CM2Classifier()
SETTINGS: dict[str, dict[str, Any]] = {
    "the default": {},
    "factor, shared components, K = 1": {"components": 1},
    "factor, shared components, K = 3": {"components": 3},
    "factor, Rosenblatt, K = 3": {
        "components": 3,
        "coupling": "rosenblatt",
        "imputation": "conditional",
    },
    "Gaussian, shared components, K = 3": {
        "components": 3,
        "copula": "gaussian",
        "imputation": "conditional",
    },
    "Gaussian, Rosenblatt, K = 3": {
        "components": 3,
        "copula": "gaussian",
        "coupling": "rosenblatt",
        "imputation": "conditional",
    },
    "Gumbel, Rosenblatt, K = 3": {
        "components": 3,
        "copula": "gumbel",
        "coupling": "rosenblatt",
        "imputation": "conditional",
    },
    "draws": {"imputation": "conditional"},
    "marginal imputation": {"imputation": "marginal"},
    "no alignment": {"objective": "none"},
}

Turns = dict[str, Callable[[], object]]


def batch() -> Batch:
    """Columns of noise, with classes and gaps."""
    rng = np.random.default_rng(0)
    inputs = {
        f"modality {m}": torch.tensor(rng.normal(size=(ROWS, FEATURES)), dtype=torch.float32)
        for m in range(MODALITIES)
    }
    present = torch.tensor(rng.random((ROWS, MODALITIES)) > RATE)
    target = torch.tensor(rng.integers(2, size=ROWS))
    return Batch(inputs, present, target, torch.ones(ROWS), torch.arange(ROWS))


def learner(rows: Batch, **settings: Any) -> Learner:
    """The network of the estimator, its joint started from the rows."""
    options = assembly.model(DEFAULTS.get_params())
    del options["kind"]
    torch.manual_seed(0)
    encoders = {name: Dense(FEATURES, DEFAULTS.embedding_dim) for name in rows.inputs}
    model = CM2(encoders, 2, seed=0, **(options | settings))
    model.initialize(rows)
    return Learner(model, Multiclass(2), lr=DEFAULTS.learning_rate)


def step(network: Learner, rows: Batch) -> Callable[[], object]:
    """A training step."""
    optimizer = network.configure_optimizers()

    def run() -> None:
        optimizer.zero_grad()
        network.training_step(rows, 0).backward()
        network.configure_gradient_clipping(optimizer)
        optimizer.step()

    return run


def parts(network: Learner, rows: Batch) -> Turns:
    """The parts of a step, each by itself, forward and backward."""
    model, present = network.model, rows.present
    z = model.embed(rows).detach().requires_grad_()
    weight = torch.full((ROWS,), 1 / ROWS)
    encoded = model.encode(rows)._replace(z=z)
    optimizer = network.configure_optimizers()
    output = model(rows)
    full = model.impute(z, present).detach().requires_grad_()

    def backward(value: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: value().sum().backward()

    def penalties() -> Tensor:
        terms = model.objective.penalties(model.joint, encoded, present, weight)
        return torch.stack(list(terms.values()))

    def auxiliary() -> Tensor:
        logits = dict(zip(model.modalities, model.auxiliary(z).unbind(1), strict=True))
        return network.auxiliary(output._replace(logits_by_modality=logits), rows, rows.target)

    def update() -> None:
        network.configure_gradient_clipping(optimizer)
        optimizer.step()

    return {
        "encoders": backward(lambda: model.embed(rows)),
        "log density of the joint": backward(lambda: model.joint().log_prob(z.detach(), present)),
        "log density and alignment": backward(penalties),
        "imputation": lambda: model.impute(z, model.hidden(present)),
        "fusion and classifier": backward(lambda: model.classify(full, present)),
        "auxiliary heads": backward(auxiliary),
        "clipping and optimiser": update,
    }


def timed(turns: Turns, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of CPU time of each turn, after two that do not count."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(repeats + 2):
        for name, run in turns.items():
            start = time.process_time()
            run()
            if turn > 1:
                times[name].append(1000 * (time.process_time() - start))
    return times


def table(title: str, times: dict[str, list[float]]) -> str:
    """Median and least of each turn."""
    lines = [f"| {title} | median ms | least ms |", "|---|---|---|"]
    lines += [f"| {k} | {statistics.median(v):.0f} | {min(v):.0f} |" for k, v in times.items()]
    return "\n".join(lines)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = batch()
    steps = {name: step(learner(rows, **options), rows) for name, options in SETTINGS.items()}
    print(table("a step of", timed(steps, args.repeats)))
    print()
    print(table("a part of the default", timed(parts(learner(rows), rows), args.repeats)))


if __name__ == "__main__":
    main()
