"""How well predictions rank validation samples: the AUROC that an epoch may be chosen by."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from cm2.networks.tasks import Task


class Ranking:
    """Predictions of an epoch, kept until its AUROC is asked for.

    Args:
        task: Says what a target's outcomes are.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(
        self,
        probability: Float[Tensor, "batch label"],
        target: Shaped[Tensor, " ..."],
        weight: Float[Tensor, " batch"],
    ) -> None:
        """Keeps the predictions of a batch."""
        outcome = self.task.outcomes(target)
        self._parts.append((probability.cpu(), outcome.cpu(), weight.cpu()))

    def auroc(self) -> float:
        """Returns the mean AUROC of the labels, or classes against the rest, and starts anew.

        Labels of one outcome are left out; NaN if that are all.
        """
        parts = [torch.cat(part).numpy() for part in zip(*self._parts, strict=True)]
        self._parts.clear()
        probability, outcome, weight = parts
        there = _both(outcome[weight > 0])
        each = [
            roc_auc_score(outcome[:, column], probability[:, column], sample_weight=weight)
            for column in np.flatnonzero(there)
        ]
        return float(np.mean(each)) if each else float("nan")


def check_ranked(task: Task, target: Shaped[Tensor, " ..."]) -> None:
    """Raises a ``ValueError`` unless some label has both outcomes."""
    if not _both(task.outcomes(target).cpu().numpy()).any():
        raise ValueError(
            "monitor='val_auroc' needs both outcomes of a label among the validation samples, but "
            "there is one of each; use monitor='val_loss'"
        )


def _both(outcome: Bool[ndarray, "row label"]) -> Bool[ndarray, " label"]:
    """Says which labels have both outcomes."""
    return np.asarray(outcome.any(axis=0) & ~outcome.all(axis=0))
