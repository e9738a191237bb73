"""SMIL: features of what is missing as weighted sums of priors, by Bayesian meta-learning.

Source: Ma, Ren, Zhao, Tulyakov, Wu, Peng (2021), SMIL: multimodal learning with severely missing
modality, AAAI, https://arxiv.org/abs/2103.05677, and its code, https://github.com/mengmenm/SMIL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.marginals.em import fit_mixtures
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, evaluating, part_of, pieces, register, single_precision
from cm2.networks.models.drfuse import part_losses

PIECE = 256
"""Rows that are embedded at once where priors are started."""


class Features(NamedTuple):
    """What the layers after the encoders make of rows.

    Attributes:
        together: All embeddings side by side, after regularisation.
        hidden: The hidden layer, after regularisation.
        logits: Scores of the labels.
    """

    together: Float[Tensor, "row width"]
    hidden: Float[Tensor, "row hidden"]
    logits: Float[Tensor, "row label"]


class Weights(NamedTuple):
    """Weights of the layers that the inner step of meta-learning changes."""

    fuse: Tensor
    fuse_bias: Tensor
    classify: Tensor
    classify_bias: Tensor


@register("smil")
class SMIL(Model):
    r"""Classifies embeddings side by side, those that are missing as weighted sums of priors.

    Of each modality there are learned priors, which start as the centres of clusters of its
    embeddings. What is missing is their sum with weights that a network finds in what is there
    (feature reconstruction). Features of incomplete rows, side by side and in the hidden layer, are
    multiplied by :math:`\mathrm{softplus}(r)` (feature regularisation), where r is predicted from
    what is there; in training it is drawn from a Gaussian around that.

    Training is a meta-learning step, all within the loss. An inner step of gradient descent on the
    incomplete rows changes the layers after the encoders. Rows with two modalities or more are then
    seen twice by the changed layers: as they are, and with modalities hidden and reconstructed. The
    penalty ``meta`` is the loss of the second view and how far its features are from those of the
    first, differentiated through the inner step.

    From the same weights, priors and draws, features, logits, the penalty and its gradient are
    those of the authors' code for two modalities, to 1e-5, but for one thing: in its network for
    images and sounds the softplus is added, here it multiplies, as in the paper and in the code's
    other network. Unlike it: any number of modalities, any of them missing; networks see
    which are there; a row need not be complete to be seen twice; encoders are trained along, not
    kept from training on complete rows, so priors are parameters and complete rows have their loss
    too; the inner step leaves encoders as they are. Within the penalty all rows count alike.

    Args:
        encoders: Encoder of each modality, all of one ``dim``.
        labels: Number of logits.
        priors: Number of priors of each modality.
        width: Width of the hidden layer.
        inner: Size of the inner step.
        alignment: Weight of the distances between features of both views.
        meta: Weight of the penalty of its name.
        dropout: Probability of dropping a unit of the hidden layer; 0.5 in the source.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = SMIL({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        priors: int = 10,
        width: int = 64,
        inner: float = 1e-3,
        alignment: float = 0.01,
        meta: float = 1.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        if min(priors, width) < 1:
            raise ValueError(f"priors and width must be at least 1, but are {priors} and {width}")
        count, together = len(encoders), len(encoders) * self.dim
        self.inner = inner
        self.alignment = alignment
        self.meta = meta
        self.priors = nn.Parameter(torch.randn(count, priors, self.dim) * 0.1)
        self.weigh = nn.Linear(together + count, count * priors)
        self.first = nn.Linear(together + count, together)
        self.second = nn.Linear(together, width)
        self.fuse = nn.Linear(together, width)
        self.classifier = nn.Linear(width, labels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: Batch) -> Output:
        """Returns logits, and in training with a target the loss of meta-learning."""
        z, present = self.raw(batch), batch.present
        with single_precision(z):
            found = self.read(z, present, self.weights(), 1.0 if self.training else 0.0)
            if not self.training or batch.target is None or not torch.is_grad_enabled():
                return Output(found.logits, {}, {})
            loss = self.meta_loss(z, present, found.logits, batch.target)
        return Output(found.logits, {"meta": self.meta * loss}, {})

    def weights(self) -> Weights:
        """Returns the weights that the inner step changes, as they are."""
        fuse, classify = self.fuse, self.classifier
        return Weights(fuse.weight, fuse.bias, classify.weight, classify.bias)

    def read(
        self,
        z: Float[Tensor, "row modality dim"],
        present: Bool[Tensor, "row modality"],
        weights: Weights,
        noise: float,
    ) -> Features:
        """Returns the features of rows, regularised where they are incomplete.

        Args:
            z: Embeddings; what stands at absent ones is not read.
            present: Which modalities each row has.
            weights: Those of the layers after the encoders.
            noise: Deviation of what regularises features from its mean.
        """
        z = torch.where(present.unsqueeze(-1), z, 0.0)
        known = torch.cat([z.flatten(1), present.to(z)], dim=1)
        filled = torch.where(present.unsqueeze(-1), z, self.reconstruct(known))
        whole = present.all(dim=1, keepdim=True)
        together = filled.flatten(1)
        together = torch.where(whole, together, together * factor(self.first(known), noise))
        hidden = F.relu(F.linear(together, weights.fuse, weights.fuse_bias))
        hidden = torch.where(whole, hidden, hidden * factor(self.second(together), noise))
        logits = F.linear(self.dropout(hidden), weights.classify, weights.classify_bias)
        return Features(together, hidden, logits)

    def reconstruct(self, known: Float[Tensor, "row known"]) -> Float[Tensor, "row modality dim"]:
        """Returns for each modality the sum of its priors with weights found in what is known."""
        share = F.softplus(self.weigh(known).unflatten(1, self.priors.shape[:2]))
        share = share / share.sum(dim=-1, keepdim=True)
        return torch.einsum("bmk,mkd->bmd", share, self.priors)

    def meta_loss(
        self,
        z: Float[Tensor, "row modality dim"],
        present: Bool[Tensor, "row modality"],
        logits: Float[Tensor, "row label"],
        target: Tensor,
    ) -> Float[Tensor, ""]:
        """Returns the loss after an inner step, of rows of which modalities are hidden."""
        incomplete, several = ~present.all(dim=1), present.sum(dim=1) > 1
        weights = self.weights()
        if bool(incomplete.any()):
            before = loss_of(logits[incomplete], target[incomplete])
            steps = torch.autograd.grad(before, weights, create_graph=True)
            pairs = zip(weights, steps, strict=True)
            weights = Weights(*(value - self.inner * step for value, step in pairs))
        if not bool(several.any()):
            return logits.sum() * 0.0
        whole = self.read(z[several], present[several], weights, 0.0)
        hidden = self.read(z[several], part_of(present[several]), weights, 0.0)
        apart = F.mse_loss(hidden.together, whole.together)
        apart = apart + F.mse_loss(hidden.hidden, whole.hidden)
        return loss_of(hidden.logits, target[several]) + self.alignment * apart

    def initialize(self, batch: Batch) -> None:
        """Starts the priors of each modality at the centres of clusters of its embeddings.

        Those of a modality with fewer rows than priors stay as they are.
        """
        with evaluating(self), torch.no_grad():
            z = torch.cat([self.raw(piece) for piece in pieces(batch, PIECE)])
            count = self.priors.shape[1]
            common = batch.present.sum(dim=0) >= count
            if bool(common.any()):
                found = fit_mixtures(z[:, common], batch.present[:, common], count)
                self.priors[common] = found.loc

    def restarted(self) -> list[nn.Parameter]:
        """Returns the priors."""
        return [self.priors]


def factor(mean: Float[Tensor, "row width"], noise: float) -> Float[Tensor, "row width"]:
    """Returns the softplus of a Gaussian draw around a mean, or of the mean without noise."""
    return F.softplus(mean + noise * torch.randn_like(mean) if noise else mean)


def loss_of(logits: Float[Tensor, "row label"], target: Tensor) -> Float[Tensor, ""]:
    """Returns the mean loss over rows, of classes or of labels."""
    return part_losses(logits.unsqueeze(1), target).mean()
