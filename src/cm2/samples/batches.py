"""Arrays in memory as batches: whole tensors indexed by a batch of row numbers.

No sample is ever handled alone, so an epoch over a small table costs a few indexing operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cm2.core.records import Batch
from cm2.samples.kinds import Inputs


class ArrayDataset(Dataset[Batch]):
    """Rows of each modality, with what is present and the target.

    Args:
        values: For each modality an array whose first axis are the samples, or ``Inputs``. What
            stands in rows where the modality is absent is replaced by zeros.
        present: For each sample and modality, in the order of ``values``, whether it was observed.
        target: One code, or one row of labels, a sample.
        weight: Weight of each sample in the loss.

    Example:
        >>> data = ArrayDataset({"a": np.ones((3, 2)), "b": np.ones((3, 1))}, np.ones((3, 2), bool))
        >>> data[[0, 2]].inputs["a"].shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        present: Any,
        target: Any | None = None,
        weight: Any | None = None,
    ) -> None:
        self.present = torch.as_tensor(np.asarray(present), dtype=torch.bool)
        if self.present.ndim != 2 or self.present.shape[1] != len(values):
            raise ValueError(
                f"present must have one column for each of the modalities {list(values)}, "
                f"but its shape is {tuple(self.present.shape)}"
            )
        rows = len(self.present)
        self.inputs: dict[str, Tensor | Inputs] = {}
        for column, (name, array) in enumerate(values.items()):
            if isinstance(array, Inputs):
                self.inputs[name] = array
                continue
            tensor = torch.as_tensor(np.asarray(array)).to(torch.get_default_dtype())
            if len(tensor) != rows:
                raise ValueError(f"modality {name!r} has {len(tensor)} rows, present has {rows}")
            observed = self.present[:, column].reshape(-1, *[1] * (tensor.ndim - 1))
            tensor = torch.where(observed, tensor, 0.0)
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"modality {name!r} has NaN or infinity in present rows")
            self.inputs[name] = tensor
        self.target = None if target is None else self._column("target", target)
        self.weight = None
        if weight is not None:
            self.weight = self._column("weight", weight).to(torch.get_default_dtype())

    def _column(self, name: str, values: Any) -> Tensor:
        """Checks that there is one entry a sample."""
        given = values if isinstance(values, Tensor) else np.array(values)  # may not be writable
        tensor = torch.as_tensor(given)
        if len(tensor) != len(self.present):
            raise ValueError(f"{name} has {len(tensor)} rows, but present has {len(self.present)}")
        return tensor

    def __len__(self) -> int:
        """Returns the number of samples."""
        return len(self.present)

    def __getitem__(self, rows: int | Sequence[int] | slice | Tensor) -> Batch:
        """Returns the batch of the given rows; one row number gives a batch of one."""
        index = [rows] if isinstance(rows, int) else rows
        numbers = torch.arange(len(self), device="cpu")[index]
        present = self.present[index]
        inputs: dict[str, Any] = {}
        hours = {}
        for column, (name, values) in enumerate(self.inputs.items()):
            if not isinstance(values, Inputs):
                inputs[name] = values[index]
                continue
            there = torch.where(present[:, column], numbers, -1).numpy()
            inputs[name] = values.take(there)
            hours[name] = values.hours(there)
        return Batch(
            inputs=inputs,
            present=present,
            target=None if self.target is None else self.target[index],
            weight=None if self.weight is None else self.weight[index],
            rows=numbers,
            hours={name: hour for name, hour in hours.items() if hour is not None},
        )

    def take(self, rows: Sequence[int] | Tensor) -> ArrayDataset:
        """Returns the data set of the given rows."""
        index = torch.as_tensor(rows)
        values = {
            name: one.select(index.numpy()) if isinstance(one, Inputs) else one[index]
            for name, one in self.inputs.items()
        }
        target, weight = (None if one is None else one[index] for one in (self.target, self.weight))
        return ArrayDataset(values, self.present[index], target, weight)


class Batches(Sampler[Tensor]):
    """Row numbers in batches, in an order that depends on the seed and the epoch only.

    The last batch of a shuffled pass that would be smaller than half a batch joins the one before.

    Args:
        rows: Number of samples.
        size: Number of samples in a batch, over all processes.
        seed: Seed of the order; ``None`` keeps the order of the data.
        process: Which of the ``processes`` this is; it gets its share of every batch.
        processes: Number of processes that train side by side.
    """

    def __init__(
        self, rows: int, size: int, *, seed: int | None = None, process: int = 0, processes: int = 1
    ) -> None:
        if size < 1:
            raise ValueError(f"a batch needs at least one sample, but the size is {size}")
        if processes > 1 and min(size // 2, rows) < processes:
            raise ValueError(
                f"batches of {size} of {rows} samples are too small for {processes} processes; "
                f"a batch needs {2 * processes} samples"
            )
        self.rows = rows
        self.size = size
        self.seed = seed
        self.process = process
        self.processes = processes
        self.epoch = 0

    def __len__(self) -> int:
        """Returns the number of batches in an epoch."""
        whole, rest = divmod(self.rows, self.size)
        joined = self.seed is not None and whole > 0 and 2 * rest < self.size
        return whole + (rest > 0 and not joined)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next pass; Lightning calls this, also where a run goes on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        """Yields the row numbers of each batch of one epoch."""
        order = torch.arange(self.rows, device="cpu")
        if self.seed is not None:
            entropy = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)
            generator = torch.Generator("cpu").manual_seed(int(entropy[0]))
            order = torch.randperm(self.rows, generator=generator, device="cpu")
        batches = len(self)
        for number in range(batches):
            start = number * self.size
            batch = order[start:] if number == batches - 1 else order[start : start + self.size]
            yield batch[self.process :: self.processes]


@runtime_checkable
class Rows(Protocol):
    """What a loader needs of a data set: whole batches by row numbers."""

    target: Tensor | None

    def __len__(self) -> int:
        """Returns the number of samples."""
        ...

    def __getitem__(self, rows: Tensor, /) -> Batch:
        """Returns the batch of the given rows."""
        ...


def loader(
    dataset: Rows,
    size: int,
    *,
    seed: int | None = None,
    process: int = 0,
    processes: int = 1,
    workers: int = 0,
) -> DataLoader[Batch]:
    """Returns a loader of whole batches, shuffled where a seed is given; see ``Batches``.

    Args:
        dataset: What is read.
        size: Number of samples in a batch, over all processes.
        seed: Seed of the order; ``None`` keeps the order of the data.
        process: Which of the ``processes`` this is.
        processes: Number of processes that train side by side.
        workers: Processes that read ahead.
    """
    batches = Batches(len(dataset), size, seed=seed, process=process, processes=processes)
    source: Any = dataset
    return DataLoader(
        source,
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def share(
    dataset: Rows, size: int, trainer: Any, *, seed: int, workers: int = 0
) -> DataLoader[Batch]:
    """Returns the loader of one process's share of shuffled batches.

    Args:
        dataset: What is read.
        size: Number of samples in a batch, over all processes.
        trainer: Lightning's trainer, which knows the processes; None where there is but one.
        seed: Seed of the order.
        workers: Processes that read ahead.
    """
    return loader(
        dataset,
        size,
        seed=seed,
        process=trainer.global_rank if trainer else 0,
        processes=trainer.world_size if trainer else 1,
        workers=workers,
    )
