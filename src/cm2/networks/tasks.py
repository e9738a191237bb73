"""What is predicted: the loss of a sample and the probabilities that logits stand for.

Binary (one logit), multiclass (softmax) and multilabel (one logit a label) targets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional

from cm2.core.registry import Registry


class Task(ABC):
    """A kind of target.

    Args:
        labels: Number of logits a model has to return.

    Attributes:
        exclusive: Whether labels exclude each other, as classes do.
    """

    exclusive: ClassVar[bool] = False

    def __init__(self, labels: int) -> None:
        self.labels = labels

    @abstractmethod
    def loss(
        self, logits: Float[Tensor, "*batch label"], target: Shaped[Tensor, " ..."]
    ) -> Float[Tensor, "*batch"]:
        """Returns the loss of each sample."""

    @abstractmethod
    def probability(self, logits: Float[Tensor, "*batch label"]) -> Float[Tensor, "*batch label"]:
        """Returns the probabilities that logits stand for."""

    @abstractmethod
    def logits(self, probability: Float[Tensor, "*batch label"]) -> Float[Tensor, "*batch label"]:
        """Returns finite logits that stand for probabilities, such as averaged ones."""

    def outcomes(self, target: Shaped[Tensor, " ..."]) -> Bool[Tensor, "batch label"]:
        """Returns what came true, a column a logit."""
        return target.reshape(-1, self.labels) == 1


REGISTRY: Registry[Task] = Registry("task")
register = REGISTRY.register


def label_weights(weights: Tensor | None, labels: int) -> Tensor | None:
    """Checks that there is one finite weight, not negative, for each class or label."""
    if weights is None:
        return None
    weights = torch.as_tensor(weights, dtype=torch.get_default_dtype())
    if weights.shape != (labels,) or not bool((weights.isfinite() & (weights >= 0)).all()):
        raise ValueError(
            f"the task needs {labels} finite weights, none negative, but got {weights.tolist()}"
        )
    return weights


@register("binary")
class Binary(Task):
    """Two classes, one logit; the target is 0 or 1, of shape ``(batch,)`` or ``(batch, 1)``.

    Args:
        positive: Weight of the positive class relative to the negative one.

    Example:
        >>> Binary().loss(torch.zeros(2, 1), torch.tensor([0, 1]))
        tensor([0.6931, 0.6931])
    """

    def __init__(self, *, positive: float = 1.0) -> None:
        super().__init__(labels=1)
        if not 0 < positive < float("inf"):
            raise ValueError(f"the positive class needs a positive weight, but it is {positive}")
        self.positive = positive

    def loss(
        self, logits: Float[Tensor, "*batch label"], target: Shaped[Tensor, " ..."]
    ) -> Float[Tensor, "*batch"]:
        """Returns the cross-entropy of each sample."""
        truth = target.reshape(logits.shape).to(logits.dtype)
        weight = logits.new_tensor([self.positive])
        return functional.binary_cross_entropy_with_logits(
            logits, truth, pos_weight=weight, reduction="none"
        ).squeeze(-1)

    def probability(self, logits: Float[Tensor, "*batch label"]) -> Float[Tensor, "*batch label"]:
        """Returns the probability of the positive class."""
        return logits.sigmoid()

    def logits(self, probability: Float[Tensor, "*batch label"]) -> Float[Tensor, "*batch label"]:
        """Returns the log odds."""
        return probability.logit(eps=torch.finfo(probability.dtype).eps)


@register("multiclass")
class Multiclass(Task):
    """Classes that exclude each other; the target is a code from 0 to ``labels - 1``.

    Args:
        labels: Number of classes.
        weights: Weight of each class.

    Example:
        >>> Multiclass(4).loss(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor([1.3863, 1.3863])
    """

    exclusive = True

    def __init__(self, labels: int, *, weights: Tensor | None = None) -> None:
        if labels < 2:
            raise ValueError(f"a multiclass task needs two classes or more, but labels is {labels}")
        super().__init__(labels)
        self.weights = label_weights(weights, labels)

    def loss(
        self, logits: Float[Tensor, "*batch label"], target: Shaped[Tensor, " ..."]
    ) -> Float[Tensor, "*batch"]:
        """Returns the cross-entropy of each sample, times the weight of its class."""
        code = target.reshape(logits.shape[:-1]).long()
        loss = -logits.log_softmax(dim=-1).gather(-1, code.unsqueeze(-1)).squeeze(-1)
        return loss if self.weights is None else loss * self.weights.to(loss)[code]

    def probability(self, logits: Float[Tensor, "*batch label"]) -> Float[Tensor, "*batch label"]:
        """Returns the probabilities of the classes."""
        return logits.softmax(dim=-1)

    def logits(self, probability: Float[Tensor, "*batch label"]) -> Float[Tensor, "*batch label"]:
        """Returns log probabilities."""
        return probability.clamp_min(torch.finfo(probability.dtype).tiny).log()

    def outcomes(self, target: Shaped[Tensor, " ..."]) -> Bool[Tensor, "batch label"]:
        """Returns for each class whether it is the sample's."""
        classes = torch.arange(self.labels, device=target.device)
        return target.reshape(-1, 1) == classes


@register("multilabel")
class Multilabel(Task):
    """Labels that may hold together; the target is 0 or 1 for each.

    Args:
        labels: Number of labels.
        weights: Weight of each label in the loss.

    Example:
        >>> Multilabel(3).loss(torch.zeros(2, 3), torch.ones(2, 3))
        tensor([0.6931, 0.6931])
    """

    def __init__(self, labels: int, *, weights: Tensor | None = None) -> None:
        if labels < 1:
            raise ValueError(f"a multilabel task needs at least one label, but labels is {labels}")
        super().__init__(labels)
        self.weights = label_weights(weights, labels)

    def loss(
        self, logits: Float[Tensor, "*batch label"], target: Shaped[Tensor, " ..."]
    ) -> Float[Tensor, "*batch"]:
        """Returns the cross-entropy of each sample, averaged over labels."""
        truth = target.reshape(logits.shape).to(logits.dtype)
        loss = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        if self.weights is not None:
            loss = loss * self.weights.to(loss)
        return loss.mean(dim=-1)

    def probability(self, logits: Float[Tensor, "*batch label"]) -> Float[Tensor, "*batch label"]:
        """Returns the probability of each label."""
        return logits.sigmoid()

    def logits(self, probability: Float[Tensor, "*batch label"]) -> Float[Tensor, "*batch label"]:
        """Returns the log odds of each label."""
        return probability.logit(eps=torch.finfo(probability.dtype).eps)
