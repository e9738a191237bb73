"""Small networks and batches for the tests of encoders, fusions, models and the learner."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cm2.core.records import Batch
from cm2.networks.encoders import Dense, Encoder
from cm2.networks.models import CM2
from cm2.samples.batches import ArrayDataset

FAST = {"max_epochs": 4, "batch_size": 64, "accelerator": "cpu"}

FEATURES = {"labs": 5, "notes": 3, "vitals": 4, "drugs": 6}


class Identity(Encoder):
    """Takes embeddings as they are."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def network(modalities: int = 3, labels: int = 3, dim: int = 4, **options: Any) -> CM2:
    """A small CM2 with dense encoders."""
    torch.manual_seed(1)
    names = list(FEATURES)[:modalities]
    encoders = {name: Dense(FEATURES[name], dim, width=8, dropout=0.0) for name in names}
    return CM2(encoders, labels, **{"components": 2, "width": 8, "dropout": 0.0} | options)


def sample(rows: int = 12, modalities: int = 3, labels: int = 3, seed: int = 0) -> Batch:
    """A batch in which each row has some modalities; the first row has all, the second has one."""
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(rows, modalities, generator=generator) < 0.6
    present[:, 0] |= ~present.any(dim=1)
    present[0] = True
    if rows > 1:
        present[1] = torch.arange(modalities) == 0
    inputs = {
        name: torch.randn(rows, FEATURES[name], generator=generator) * present[:, [column]]
        for column, name in enumerate(list(FEATURES)[:modalities])
    }
    target = torch.randint(labels, (rows,), generator=generator)
    return Batch(inputs, present, target)


def take(batch: Batch, rows: Sequence[int] | Tensor) -> Batch:
    """Some rows of a batch."""
    index = torch.as_tensor(rows)
    return Batch(
        {name: values[index] for name, values in batch.inputs.items()},
        batch.present[index],
        None if batch.target is None else batch.target[index],
        None if batch.weight is None else batch.weight[index],
    )


def without(batch: Batch, column: int) -> Batch:
    """The batch with one modality absent from every row."""
    present = batch.present.clone()
    present[:, column] = False
    return batch._replace(present=present)


def correlated(
    rows: int, dim: int, tau: Sequence[float], rate: float = 0.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Two embeddings of known Kendall tau in each coordinate (cycled), the second partly absent."""
    generator = torch.Generator().manual_seed(seed)
    rho = torch.tensor([tau[j % len(tau)] for j in range(dim)]).mul(torch.pi / 2).sin()
    first = torch.randn(rows, dim, generator=generator)
    noise = torch.randn(rows, dim, generator=generator)
    z = torch.stack([first, rho * first + (1 - rho**2).sqrt() * noise], dim=1)
    present = torch.ones(rows, 2, dtype=torch.bool)
    present[:, 1] = torch.rand(rows, generator=generator) >= rate
    return z * present.unsqueeze(-1), present


def small_data(rows: int = 240, seed: int = 0, modalities: int = 3) -> ArrayDataset:
    """Three classes told by the first column of each modality; a third of modalities absent."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=rows)
    names = list(FEATURES)[:modalities]
    values = {name: rng.normal(size=(rows, FEATURES[name])) for name in names}
    for block in values.values():
        block[:, 0] += 2.0 * (y - 1)
    present = rng.random((rows, modalities)) < 0.67
    present[~present.any(1), 0] = True
    return ArrayDataset(values, present, y)
