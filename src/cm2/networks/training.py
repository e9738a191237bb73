"""Running the training of any model: seeds, callbacks, devices, and going on after an interruption.

Early stopping and the choice of the epoch look at the validation loss of the task only, or its
validation AUROC. No test data ever come here.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import lightning
import numpy as np
import pandas as pd
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from cm2.core.errors import check_count
from cm2.core.files import write_text
from cm2.core.numerics import ALONE
from cm2.core.progress import Progress
from cm2.core.records import Batch
from cm2.networks.encoders import Encoder
from cm2.networks.learner import Learner, Monitor
from cm2.networks.models import Model
from cm2.networks.ranking import check_ranked
from cm2.networks.tasks import Task
from cm2.samples.batches import Rows, loader, share

M = TypeVar("M", bound=Model)

START_ROWS = 2000
"""Most rows from which a model's joint is started."""

START_BATCHES = 16
"""Most batches from which it is started, so that heavy encoders do not run out of memory."""

VALIDATION_ROWS = 4096
"""Rows in a validation batch."""


class History(Callback):
    """The log of a run, one row an epoch, as ``metrics.csv``; it is part of a checkpoint.

    Args:
        path: Where to write; ``None`` keeps the rows in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Adds the epoch that has been validated."""
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **logged})
        if self.path is not None and trainer.is_global_zero:
            write_text(self.path, pd.DataFrame(self.rows).to_csv(index=False))

    def state_dict(self) -> dict[str, Any]:
        """Returns the rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the rows of an earlier part of the run."""
        self.rows = list(state_dict["rows"])


class Loaders(lightning.LightningDataModule):
    """Training and validation data, shared out once it is known how many processes there are."""

    def __init__(
        self,
        training: Rows,
        validation: Rows,
        sizes: tuple[int, int],
        seed: int,
        workers: int,
    ) -> None:
        super().__init__()
        self.training = training
        self.validation = validation
        self.sizes = sizes
        self.seed = seed
        self.workers = workers

    def train_dataloader(self) -> Any:
        """Returns this process's share of the shuffled training batches."""
        return share(
            self.training, self.sizes[0], self.trainer, seed=self.seed, workers=self.workers
        )

    def val_dataloader(self) -> Any:
        """Returns all validation data, so that all processes stop at the same epoch."""
        return loader(self.validation, self.sizes[1], workers=self.workers)


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seeds every generator inside, and leaves the caller's and the environment as they were."""
    before = dict(os.environ)
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  Lightning seeds it
    with torch.random.fork_rng():
        lightning.seed_everything(seed, verbose=False)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            for name in set(os.environ) - set(before):
                del os.environ[name]
            os.environ.update(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Lightning's notices on hardware and loaders inside."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", category=PossibleUserWarning)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def interruptible() -> Iterator[None]:
    """Lets Ctrl-C through, in whose place Lightning ends the process and ignores later ones."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGINT, before)


@contextmanager
def folder(run_dir: str | Path | None) -> Iterator[Path]:
    """Yields the run's folder, or a temporary one that is removed afterwards."""
    if run_dir is not None:
        Path(run_dir).mkdir(parents=True, exist_ok=True)
        yield Path(run_dir)
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def finished(checkpoint: Mapping[str, Any], max_epochs: int, patience: int) -> bool:
    """Says whether a checkpoint of the end of an epoch is that of the last epoch."""
    waited = max(
        state["wait_count"]
        for name, state in checkpoint["callbacks"].items()
        if name.startswith("EarlyStopping")
    )
    return bool(waited >= max(patience, 1) or checkpoint["epoch"] + 1 >= max_epochs)


COUNTS = ("max_epochs", "batch_size", "validation_batch_size", "draws", "accumulate", "devices")


def check(given: Mapping[str, Any]) -> None:
    """Refuses numbers with which nothing can be trained.

    Args:
        given: Arguments of :func:`train` by name.

    Raises:
        ValueError: Naming the argument.
    """
    for name in COUNTS:
        check_count(name, given[name])
    for name in ("lr", "clip"):
        if not given[name] > 0:
            raise ValueError(f"{name} must be positive, got {given[name]}")
    for name in ("patience", "workers", "weight_decay", "temperature"):
        if not given[name] >= 0:
            raise ValueError(f"{name} must be at least 0, got {given[name]}")


def train(
    model: M,
    task: Task,
    training: Rows,
    validation: Rows,
    *,
    max_epochs: int = 100,
    patience: int = 10,
    lr: float = 3e-3,
    batch_size: int = 256,
    validation_batch_size: int = VALIDATION_ROWS,
    seed: int = 0,
    weights: Mapping[str, float] | None = None,
    optimizer: Literal["adamw", "adam"] = "adamw",
    weight_decay: float = 1e-2,
    clip: float = 1.0,
    draws: int = 3,
    temperature: float = 0.0,
    monitor: Monitor = "val_loss",
    accumulate: int = 1,
    precision: Literal["32", "bf16"] = "32",
    devices: int = 1,
    workers: int = 0,
    compiled: bool = False,
    run_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    accelerator: str = "auto",
) -> M:
    """Trains a model and leaves it with the weights of its best epoch.

    The caller's random state is left as it was; of several threads one trains at a time. Without
    ``run_dir`` nothing stays on disk.

    Args:
        model: What is trained, in place.
        task: Its loss.
        training: What it learns from.
        validation: What early stopping and the choice of the epoch look at.
        max_epochs: Largest number of passes over the training data.
        patience: Epochs without a better value of ``monitor`` before training stops.
        lr: Learning rate of the network.
        batch_size: Samples in a training batch, over all devices.
        validation_batch_size: Samples in a validation batch.
        seed: Seed of the order of samples, dropout, hiding and imputation.
        weights: Weights of the loss terms by name, in place of ``learner.WEIGHTS``.
        optimizer: ``"adamw"`` or ``"adam"``.
        weight_decay: Decay of the network's parameters.
        clip: Largest norm of the gradient of a group of parameters.
        draws: Imputations of each incomplete validation sample.
        temperature: By what rate an epoch the weight of the objective ``likelihood`` falls.
        monitor: What early stopping and the choice of the epoch look at: the least ``"val_loss"``
            or the largest ``"val_auroc"``, averaged over classes or labels.
        accumulate: Batches whose gradients are averaged before a step.
        precision: ``"bf16"`` computes networks in bfloat16; the joint stays in float32.
        devices: Devices, or processes on a CPU, that train side by side.
        workers: Processes that read batches ahead.
        compiled: Whether to compile the encoders with ``torch.compile``.
        run_dir: Folder for ``metrics.csv`` and the checkpoints ``best.ckpt`` and ``last.ckpt``.
        resume: Whether to go on from ``last.ckpt``, if it is there.
        progress: Whether to show a progress bar where the output is a terminal. The log has a line
            an epoch in any case.
        accelerator: Lightning's name of the hardware.

    Returns:
        The same model, in evaluation mode.

    Raises:
        FloatingPointError: If a loss is not finite; the message names the term.
        ValueError: If there are no training or no validation samples, or validation samples of one
            outcome only where ``monitor`` ranks them.
    """
    check(locals())
    for name, data in (("training", training), ("validation", validation)):
        if len(data) == 0 or data.target is None:
            raise ValueError(f"the {name} data need samples and a target")
    if resume and run_dir is None:
        raise ValueError("a run without a folder cannot be resumed; give run_dir")
    if monitor == "val_auroc" and validation.target is not None:
        check_ranked(task, validation.target)
    learner = Learner(
        model,
        task,
        weights=weights,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        clip=clip,
        draws=draws,
        start=_start(training, min(START_ROWS, START_BATCHES * batch_size), seed),
        diagnose=run_dir is not None,
        seed=seed,
        temperature=temperature,
        monitor=monitor,
    )
    if compiled:
        for part in model.modules():
            if isinstance(part, Encoder):
                part.compile()
    # Seeds, warning filters, log levels and the environment belong to the process, not the thread.
    with ALONE, interruptible(), quiet(), isolated(seed), folder(run_dir) as directory:
        last = directory / "last.ckpt"
        trainer = lightning.Trainer(
            accelerator=accelerator,
            devices=devices,
            strategy="ddp_find_unused_parameters_true" if devices > 1 else "auto",
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            max_epochs=max_epochs,
            accumulate_grad_batches=accumulate,
            callbacks=_callbacks(directory, patience, monitor, keep=run_dir is not None),
            logger=False,
            default_root_dir=directory,
            use_distributed_sampler=False,
            enable_progress_bar=progress and sys.stdout.isatty(),
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        go_on = resume and last.exists()
        if not (go_on and finished(_load(last), max_epochs, patience)):
            loaders = Loaders(
                training, validation, (batch_size, validation_batch_size), seed, workers
            )
            trainer.fit(learner, loaders, ckpt_path=last if go_on else None, weights_only=True)
        model.load_state_dict(best(directory))
    return model.eval()


def best(directory: Path) -> dict[str, torch.Tensor]:
    """The state of the model at its best epoch so far, as its training keeps it in a folder."""
    state: dict[str, torch.Tensor] = _load(directory / "best.ckpt")["state_dict"]
    return {name.removeprefix("model."): value for name, value in state.items()}


def _start(training: Rows, rows: int, seed: int) -> Batch:
    """A batch from which the joint is started."""
    generator = torch.Generator("cpu").manual_seed(seed)
    order = torch.randperm(len(training), generator=generator, device="cpu")
    return training[order[:rows]]


def _callbacks(directory: Path, patience: int, monitor: Monitor, *, keep: bool) -> list[Callback]:
    """Log, early stopping, the weights of the best epoch and, to be kept, the whole last state."""
    mode = "max" if monitor == "val_auroc" else "min"
    best = _Checkpoint(
        directory,
        filename="best",
        monitor=monitor,
        mode=mode,
        save_weights_only=True,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    last = _Checkpoint(
        directory, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    history = History(directory / "metrics.csv" if keep else None)
    stop = EarlyStopping(monitor, mode=mode, patience=patience, check_on_train_epoch_end=False)
    return [history, Progress(monitor), stop, best, *([last] if keep else [])]


class _Checkpoint(ModelCheckpoint):
    """Goes on in a folder that was moved: Lightning forgets the best epoch of another place."""

    @property
    def state_key(self) -> str:
        """That of Lightning's own, by which checkpoints had it before."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {name: here(state_dict[name]) for name in paths if name in state_dict}
        kept = {here(path): value for path, value in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict(
            {**state_dict, **moved, "dirpath": self.dirpath, "best_k_models": kept}
        )


def _load(path: Path) -> dict[str, Any]:
    """Reads a checkpoint without running code."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
