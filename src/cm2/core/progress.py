"""How far a training is: one line an epoch in the log."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from cm2.core.pace import clock

LOG = logging.getLogger("cm2.core.progress")

NAMES = {"val_loss": ("loss", 1), "val_auroc": ("AUROC", -1)}
"""How a line calls what is monitored, and whether less or more of it is better."""


class Progress(Callback):
    """Says after each epoch its losses, the best so far, and the time left at most.

    Early stopping may end training sooner.

    Args:
        monitor: What the best epoch has the least of: ``"val_loss"``; or the most: ``"val_auroc"``.
    """

    def __init__(self, monitor: str = "val_loss") -> None:
        self.monitor = monitor
        self.name, self.sign = NAMES[monitor]
        self.best = math.inf * self.sign
        self.best_epoch = 0
        self.epochs = 0
        self.since = time.monotonic()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Starts the clock."""
        self.epochs, self.since = 0, time.monotonic()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Says how the epoch went that has been validated."""
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        value, epoch = found[self.monitor], trainer.current_epoch
        if self.sign * value < self.sign * self.best:
            self.best, self.best_epoch = value, epoch
        self.epochs += 1
        pace = (time.monotonic() - self.since) / self.epochs
        left = pace * ((trainer.max_epochs or 0) - epoch - 1)
        if trainer.is_global_zero:
            LOG.info(
                "epoch %d of %s: training loss %.4f, validation %s %.4f, best %.4f in epoch %d;"
                " at most %s left",
                epoch + 1,
                trainer.max_epochs,
                found.get("train_loss", math.nan),
                self.name,
                value,
                self.best,
                self.best_epoch + 1,
                clock(left),
            )

    def state_dict(self) -> dict[str, Any]:
        """Returns the best value and its epoch."""
        return {"best": self.best, "epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes those of an earlier part of the run."""
        self.best, self.best_epoch = state_dict["best"], state_dict["epoch"]
