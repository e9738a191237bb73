"""Training: the Lightning module for every model, and the function that runs it.

Early stopping and checkpoints look at the validation loss of the task only; the joint has its own
terms. No test data ever come here.
"""

from __future__ import annotations

import logging
import math
import os
import random
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lightning
import numpy as np
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from cm2.data.batches import ArrayDataset, loader
from cm2.models import Model
from cm2.records import Batch, Output
from cm2.tasks import Task

M = TypeVar("M", bound=Model)

WEIGHTS: dict[str, float] = {"joint_nll": 1.0, "alignment": 0.1, "kl": 0.1, "auxiliary": 0.5}
"""Weights of the penalties; a term that is not named counts once."""

START_ROWS = 2000
"""Rows from which a model's joint is started."""

VALIDATION_ROWS = 4096
"""Rows in a validation batch."""

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def weighted(loss: Tensor, weight: Tensor | None) -> Tensor:
    """Averages losses of samples; zero where all weights are zero."""
    if weight is None:
        return loss.mean()
    return (loss * weight).sum() / weight.sum().clamp_min(torch.finfo(loss.dtype).tiny)


class Learner(lightning.LightningModule):
    """Trains a model on a task.

    Args:
        model: What is trained.
        task: Its loss.
        weights: Weights of penalties by name, in place of ``WEIGHTS``.
        optimizer: ``"adamw"`` or ``"adam"``.
        lr: Learning rate of the network.
        weight_decay: Decay of the network's parameters.
        clip: Largest norm of the gradient, for each group of parameters by itself, so that a steep
            likelihood does not slow down the network.
        draws: Imputations of each validation sample.
        start: A batch from which the model starts its joint, before the first step, and again
            after ``warmup`` epochs: by then the encoders have left their random start, and
            clusters found there may have dissolved.
        warmup: Epochs until the second start.
        diagnose: Whether to compute the model's diagnostics on validation data for the log.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        *,
        weights: Mapping[str, float] | None = None,
        optimizer: str = "adamw",
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        clip: float = 1.0,
        draws: int = 3,
        start: Batch | None = None,
        warmup: int = 2,
        diagnose: bool = False,
    ) -> None:
        super().__init__()
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {optimizer!r}; there are {sorted(OPTIMIZERS)}")
        unknown = set(weights or ()) - set(WEIGHTS)
        if unknown:
            raise ValueError(f"there are no terms {sorted(unknown)}; there are {sorted(WEIGHTS)}")
        self.model = model
        self.task = task
        self.weights = WEIGHTS | dict(weights or {})
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.clip = clip
        self.draws = draws
        self.start = start
        self.warmup = warmup
        self.diagnose = diagnose
        self._training = Totals()
        self._validation = Totals()
        self._diagnostics: dict[str, list[float]] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns the optimiser over the model's groups of parameters."""
        groups = self.model.parameter_groups(self.lr, self.weight_decay)
        groups = [group for group in groups if group["params"]]
        return OPTIMIZERS[self.optimizer](groups, fused=True)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clips each group of parameters by its own norm."""
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self.clip)

    def on_train_epoch_start(self) -> None:
        """Starts the joint from data, before the first step and after the warm-up."""
        if self.start is None or self.current_epoch not in (0, self.warmup):
            return
        start = self.transfer_batch_to_device(self.start, self.device, 0)
        broken = self.model.broken_terms(start)
        if broken:
            raise FloatingPointError(
                f"before epoch {self.current_epoch} there are values that are not finite: "
                f"{', '.join(broken)}"
            )
        self.model.initialize(start)
        optimizer = self.optimizers(use_pl_optimizer=False)
        for parameter in self.model.restarted():
            optimizer.state.pop(parameter, None)  # type: ignore[union-attr]

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the task's loss and all penalties, before their weights."""
        if batch.target is None:
            raise ValueError("training needs a target, but the batch has none")
        output: Output = self.model(batch)
        task = weighted(self.task.loss(output.logits, batch.target), batch.weight)
        terms = {"task": task, **output.penalties}
        if output.logits_by_modality:
            terms["auxiliary"] = self.auxiliary(output, batch, batch.target)
        return terms

    def auxiliary(self, output: Output, batch: Batch, target: Tensor) -> Tensor:
        """Averages the losses of each modality's own head over the samples that have it."""
        losses = []
        for column, name in enumerate(self.model.modalities):
            logits = output.logits_by_modality[name]
            there = batch.present[:, column].to(logits.dtype)
            weight = there if batch.weight is None else there * batch.weight
            losses.append(weighted(self.task.loss(logits, target), weight))
        return torch.stack(losses).mean()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the weighted sum of all terms, and adds them up for the log."""
        terms = self.terms(batch)
        loss = torch.stack([self.weights.get(name, 1.0) * term for name, term in terms.items()])
        total = loss.sum()
        if not math.isfinite(total.item()):
            raise FloatingPointError(self.blame(terms, batch))
        self._training.add({**terms, "loss": total})
        return total

    @torch.no_grad()
    def blame(self, terms: Mapping[str, Tensor], batch: Batch) -> str:
        """Says which term of the loss is not finite, and which part of the model is behind it."""
        broken = [name for name, term in terms.items() if not bool(term.isfinite())]
        parts = self.model.broken_terms(batch)
        behind = f"; not finite: {', '.join(parts)}" if parts else ""
        return (
            f"the loss is not finite in epoch {self.current_epoch}, step {self.global_step}: "
            f"term {', '.join(broken)}{behind}; try a smaller learning rate"
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Predicts as after training, averaged over imputations.

        The imputations are the same in every epoch, so that epochs differ by their parameters only.
        """
        if batch.target is None:
            raise ValueError("validation needs a target, but the batch has none")
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(batch_idx)
            mean = self.model.predict(batch, self.draws, probability=self.task.probability).mean
            diagnostics = self.model.diagnostics(batch) if self.diagnose else {}
        loss = self.task.loss(self.task.logits(mean), batch.target)
        weight = torch.ones_like(loss) if batch.weight is None else batch.weight
        self._validation.add({"loss": (loss * weight).sum(), "weight": weight.sum()})
        for name, value in diagnostics.items():
            self._diagnostics.setdefault(name, []).append(value)

    def on_validation_epoch_end(self) -> None:
        """Logs one row: training terms since the last time, validation loss, diagnostics."""
        sums = self._validation.totals()
        loss = sums["loss"] / max(sums["weight"], 1e-12)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the validation loss is not finite in epoch {self.current_epoch}; "
                "try a smaller learning rate"
            )
        means = {name: sum(values) / len(values) for name, values in self._diagnostics.items()}
        self._diagnostics.clear()
        training = {f"train_{name}": value for name, value in self._training.means().items()}
        self.log_dict({"val_loss": loss, **training, **means})


class Totals:
    """Sums of named terms over steps, kept as tensors until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Adds the terms of a step."""
        for name, term in terms.items():
            value = term.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += 1

    def totals(self) -> dict[str, float]:
        """Returns the sums, and starts anew."""
        sums = {name: float(value) for name, value in self._sums.items()}
        self._sums.clear()
        self._steps = 0
        return sums

    def means(self) -> dict[str, float]:
        """Returns the sums divided by the number of steps, and starts anew."""
        steps = max(self._steps, 1)
        return {name: value / steps for name, value in self.totals().items()}


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seeds every generator inside, and leaves the caller's as they were."""
    names = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
    before = {name: os.environ.get(name) for name in names}
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  Lightning seeds it
    with torch.random.fork_rng():
        lightning.seed_everything(seed, verbose=False)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


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
def folder(run_dir: str | Path | None) -> Iterator[Path]:
    """Yields the run's folder, or a temporary one that is removed afterwards."""
    if run_dir is not None:
        Path(run_dir).mkdir(parents=True, exist_ok=True)
        yield Path(run_dir)
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def train(
    model: M,
    task: Task,
    training: ArrayDataset,
    validation: ArrayDataset,
    *,
    max_epochs: int = 100,
    patience: int = 10,
    lr: float = 3e-3,
    batch_size: int = 256,
    seed: int = 0,
    weights: Mapping[str, float] | None = None,
    optimizer: str = "adamw",
    weight_decay: float = 1e-2,
    clip: float = 1.0,
    draws: int = 3,
    run_dir: str | Path | None = None,
    progress: bool = False,
    accelerator: str = "auto",
) -> M:
    """Trains a model and leaves it with the weights of its best epoch.

    The caller's random state is left as it was. Without ``run_dir`` nothing stays on disk.

    Args:
        model: What is trained, in place.
        task: Its loss.
        training: What it learns from.
        validation: What early stopping and the choice of the epoch look at.
        max_epochs: Largest number of passes over the training data.
        patience: Epochs without a better validation loss before training stops.
        lr: Learning rate of the network.
        batch_size: Samples in a training batch.
        seed: Seed of the order of samples, dropout, hiding and imputation.
        weights: Weights of the loss terms by name, in place of ``WEIGHTS``.
        optimizer: ``"adamw"`` or ``"adam"``.
        weight_decay: Decay of the network's parameters.
        clip: Largest norm of the gradient of a group of parameters.
        draws: Imputations of each incomplete validation sample.
        run_dir: Folder for ``metrics.csv`` and the checkpoint ``best.ckpt``.
        progress: Whether to show a progress bar.
        accelerator: Lightning's name of the hardware.

    Returns:
        The same model, in evaluation mode.

    Raises:
        FloatingPointError: If a loss is not finite; the message names the term.
        ValueError: If there are no training or no validation samples.
    """
    for name, data in (("training", training), ("validation", validation)):
        if len(data) == 0 or data.target is None:
            raise ValueError(f"the {name} data need samples and a target")
    rows = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))
    learner = Learner(
        model,
        task,
        weights=weights,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        clip=clip,
        draws=draws,
        start=training[rows[:START_ROWS]],
        diagnose=run_dir is not None,
    )
    with quiet(), isolated(seed), folder(run_dir) as directory:
        best = ModelCheckpoint(
            directory,
            filename="best",
            monitor="val_loss",
            save_weights_only=True,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        stop = EarlyStopping("val_loss", patience=patience, check_on_train_epoch_end=False)
        trainer = lightning.Trainer(
            accelerator=accelerator,
            devices=1,
            max_epochs=max_epochs,
            callbacks=[best, stop],
            logger=False if run_dir is None else CSVLogger(directory, name="", version=""),
            default_root_dir=directory,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(
            learner,
            loader(training, batch_size, seed=seed),
            loader(validation, VALIDATION_ROWS),
        )
        state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
        learner.load_state_dict(state["state_dict"])
    return model.eval()
