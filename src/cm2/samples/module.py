"""The three splits of prepared data behind Lightning's interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning

from cm2.core.errors import InputError
from cm2.core.layout import SPLITS
from cm2.samples.batches import loader, share
from cm2.samples.prepared import Prepared

__all__ = ["PreparedData"]


class PreparedData(lightning.LightningDataModule):
    """Training, validation and test data from a prepared folder.

    The order of training batches depends on the seed and the epoch only, so that a run that goes
    on after an interruption meets them as if there had been none. Each process gets its share of
    every batch; give Lightning's trainer ``use_distributed_sampler=False``.

    Args:
        root: Folder that ``cm2 prepare`` wrote.
        batch_size: Stays in a batch, over all processes.
        workers: Processes that read ahead.
        seed: Of the order, and of the removal of modalities.
        test_root: Another folder from which the test split is taken; scales and vocabulary stay
            those of ``root``.
        mix: Whether generated and real data may be used together.
        options: Other arguments of :class:`~cm2.samples.prepared.Prepared`.

    Raises:
        InputError: If generated and real data would be mixed, or a patient would be met in
            training and in the test.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        batch_size: int = 32,
        workers: int = 0,
        seed: int = 0,
        test_root: str | Path | None = None,
        mix: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.workers = workers
        self.seed = seed
        roots = dict.fromkeys(SPLITS, root) | ({"test": test_root} if test_root else {})
        given: dict[str, Any] = {"seed": seed, **(options or {})}
        self.parts: dict[str, Prepared] = {}
        for split, place in roots.items():
            self.parts[split] = Prepared(place, **given, split=split)
            given["learned"] = self.parts["train"].learned
        self._check(mix)

    def _check(self, mix: bool) -> None:
        """Refuses parts that do not belong together."""
        train, test = self.parts["train"], self.parts["test"]
        if train.synthetic != test.synthetic and not mix:
            kinds = ["generated" if part.synthetic else "real" for part in (train, test)]
            raise InputError(
                f"training data are {kinds[0]}, test data {kinds[1]}; mix=True allows that"
            )
        for split in SPLITS[1:]:
            part = self.parts[split]
            both = set(train.stays["subject_id"]) & set(part.stays["subject_id"])
            if both and part.source == train.source:
                raise InputError(f"{len(both)} patients are in train and in {split}")

    def train_dataloader(self) -> Any:
        """Returns this process's share of the shuffled training batches."""
        return share(
            self.parts["train"], self.batch_size, self.trainer, seed=self.seed, workers=self.workers
        )

    def val_dataloader(self) -> Any:
        """Returns all validation data, in order."""
        return loader(self.parts["validation"], self.batch_size, workers=self.workers)

    def test_dataloader(self) -> Any:
        """Returns all test data, in order."""
        return loader(self.parts["test"], self.batch_size, workers=self.workers)
