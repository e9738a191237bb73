"""What a step of training does: the Lightning module for every model.

The validation loss is that of the task only, and so is the AUROC that may stand in its place; the
joint has its own terms. Each step draws from a
seed of its own, so that a run that was interrupted goes on as if it had not been. No test data ever
come here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.models import Model
from cm2.networks.models.base import pieces
from cm2.networks.ranking import Ranking
from cm2.networks.tasks import Task

WEIGHTS: dict[str, float] = {
    "joint_nll": 1.0,
    "alignment": 0.1,
    "kl": 0.1,
    "auxiliary": 0.5,
    "likelihood": 1e-6,
}
"""Weights of the penalties; a term that is not named counts once."""

LARGEST = 1e8
"""A term of the loss beyond this size means that training has run away."""

COLDEST = 1e-3
"""The least that the weight of the likelihood falls to, as a share of what it begins with."""

Monitor = Literal["val_loss", "val_auroc"]

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def weighted(loss: Tensor, weight: Tensor | None) -> Tensor:
    """Averages losses over samples, the last dimension; zero where all weights are zero."""
    if weight is None:
        return loss.mean(dim=-1)
    total = weight.sum(dim=-1).clamp_min(torch.finfo(loss.dtype).tiny)
    return (loss * weight).sum(dim=-1) / total


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
        seed: What the draws of every step (dropout, hiding, imputation) are derived from.
        temperature: By what rate an epoch the weight of ``likelihood`` falls, down to
            ``COLDEST``. The paper divides the loss of the task by that factor instead; the two
            differ by a factor of the whole loss, which Adam does not see.
        monitor: ``"val_auroc"`` computes the AUROC of the validation samples too.
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
        seed: int = 0,
        temperature: float = 0.0,
        monitor: Monitor = "val_loss",
    ) -> None:
        super().__init__()
        if temperature < 0:
            raise ValueError(f"temperature is a rate, not negative, but is {temperature}")
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {optimizer!r}; there are {sorted(OPTIMIZERS)}")
        unknown = set(weights or ()) - set(WEIGHTS)
        if unknown:
            raise ValueError(f"there are no terms {sorted(unknown)}; there are {sorted(WEIGHTS)}")
        self.model = model
        self.task = task
        model.exclusive.fill_(task.exclusive)
        self.weights = WEIGHTS | dict(weights or {})
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.clip = clip
        self.draws = draws
        self.start = start
        self.warmup = warmup
        self.diagnose = diagnose
        self.seed = seed
        self.temperature = temperature
        self._ranking = Ranking(task) if monitor == "val_auroc" else None
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
            nn.utils.clip_grad_norm_(group["params"], self.clip, foreach=True)

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
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices, enabled=self.current_epoch > 0):
            if self.current_epoch > 0:  # a resumed run has another state of the generator here
                torch.manual_seed(self._seed_of(self.current_epoch))  # alike in all processes
            self.model.initialize(start)
        optimizer = self.optimizers(use_pl_optimizer=False)
        for parameter in self.model.restarted():
            optimizer.state.pop(parameter, None)  # type: ignore[union-attr]

    def on_validation_epoch_start(self) -> None:
        """Lets a model that reads other patients meet training rows as it predicts."""
        if self.start is not None and self.model.reference is not None:
            first = next(pieces(self.start, len(self.model.reference)))
            self.model.refer(self.transfer_batch_to_device(first, self.device, 0))

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
        """Averages the losses of each modality's own head over the samples that have it.

        A head of what modalities share counts where a sample has any.
        """
        logits = torch.stack(list(output.logits_by_modality.values()))
        columns = dict(zip(self.model.modalities, batch.present.T, strict=True))
        some = batch.present.any(dim=1)
        there = torch.stack([columns.get(name, some) for name in output.logits_by_modality])
        weight = there.to(logits.dtype)
        if batch.weight is not None:
            weight = weight * batch.weight
        loss = self.task.loss(logits, target.expand(len(logits), *target.shape))
        return weighted(loss, weight).mean()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the weighted sum of all terms, and adds them up for the log."""
        torch.manual_seed(self._step_seed(batch_idx))
        try:
            terms = self.terms(batch)
        except ValueError as error:
            # The joint refuses embeddings that are not finite before there is a loss to look at.
            if not self.model.broken_terms(batch):
                raise
            raise FloatingPointError(self.blame({}, batch)) from error
        loss = torch.stack([self.weight(name) * term for name, term in terms.items()])
        total = loss.sum()
        if not loss.detach().abs().max().item() <= LARGEST:
            raise FloatingPointError(self.blame(terms, batch))
        self._training.add({**terms, "loss": total})
        return total

    def weight(self, name: str) -> float:
        """Returns the weight of a term of the loss in this epoch."""
        weight = self.weights.get(name, 1.0)
        if name == "likelihood":
            weight *= max(math.exp(-self.temperature * self.current_epoch), COLDEST)
        return weight

    def _step_seed(self, batch_idx: int) -> int:
        """A seed for each step of each epoch and process, far from all others."""
        return self._seed_of(self.current_epoch, batch_idx, self.global_rank)

    def _seed_of(self, *place: int) -> int:
        return int(np.random.SeedSequence([self.seed, *place]).generate_state(1)[0])

    @torch.no_grad()
    def blame(self, terms: Mapping[str, Tensor], batch: Batch) -> str:
        """Says which term of the loss is wrong, where, and which part of the model is behind it."""
        wrong = {
            name: float(term)
            for name, term in terms.items()
            if not abs(self.weight(name) * float(term)) <= LARGEST
        }
        finite = bool(wrong) and all(math.isfinite(value) for value in wrong.values())
        what = f"is out of range (beyond {LARGEST:g})" if finite else "is not finite"
        parts = self.model.broken_terms(batch)
        behind = f"; not finite: {', '.join(parts)}" if parts else ""
        named = f"term {', '.join(wrong)}" if wrong else "there is no value for any term"
        rows = "" if batch.rows is None else f"; rows {batch.rows.tolist()} of the training data"
        return (
            f"the loss {what} in epoch {self.current_epoch}, step {self.global_step}: "
            f"{named}{behind}{rows}; try a smaller learning rate"
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
            mean = self.model.predict(batch, self.draws).mean
            diagnostics = self.model.diagnostics(batch) if self.diagnose else {}
        loss = self.task.loss(self.task.logits(mean), batch.target)
        weight = torch.ones_like(loss) if batch.weight is None else batch.weight
        self._validation.add({"loss": (loss * weight).sum(), "weight": weight.sum()})
        if self._ranking is not None:
            self._ranking.add(mean, batch.target, weight)
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
        # Every process has trained on its share of the rows, and validated on all of them.
        training = {
            f"train_{name}": float(
                self.trainer.strategy.reduce(
                    torch.tensor(value, device=self.device), reduce_op="mean"
                )
            )
            for name, value in self._training.means().items()
        }
        if self._ranking is not None:
            means["val_auroc"] = self._ranking.auroc()
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
