"""ShaSpec: what all modalities share stands in for those that are missing.

Source: Wang, Chen, Ma, Avery, Hull, Carneiro (2023), Multi-modal learning with missing modality via
shared-specific feature modelling, CVPR, section 3, https://arxiv.org/abs/2307.14126, and its code,
https://github.com/billhhh/ShaSpec.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, average, hide, register


@register("shaspec")
class ShaSpec(Model):
    r"""Classifies shared features that a residual of specific ones completes.

    One network for all modalities makes of each embedding its shared feature :math:`r_m`, and a
    network of each modality's own its specific feature :math:`s_m`. A modality that is there is

    .. math:: f_m = r_m + g([r_m, s_m]),

    and one that is missing the mean of the shared features of those that are there. All of them
    side by side are classified. Penalties: the mean absolute difference between the shared features
    of two modalities (``shared``), and the loss of a classifier that tells from which
    modality a specific feature is (``domain``). In training, modalities are hidden at random, as in
    the source.

    The residual fusion and both penalties are those of the authors' code from the same weights, to
    1e-5, on complete rows. Unlike it: shared and specific networks read the embedding of an
    encoder, so that encoders stay exchangeable, and a linear classifier takes the place of the
    segmentation; penalties count what is there only, not features of images of zeros, and all
    pairs, as the paper, where the code counts neighbours in a circle; what is missing is the mean,
    as in the paper, where the code takes the first that is there; each modality is hidden with the
    same probability, where the code draws how many are left.

    Args:
        encoders: Encoder of each modality, all of one ``dim``.
        labels: Number of logits.
        alignment: Weight of the difference between shared features; 0.1 in the source.
        domain: Weight of the classification of specific features; 0.02 in the source.
        rate: Probability of hiding a modality in training.
        dropout: Probability of dropping a coordinate of a fused feature.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = ShaSpec({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        alignment: float = 0.1,
        domain: float = 0.02,
        rate: float = 0.2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        if not 0 <= rate < 1:
            raise ValueError(f"rate is a probability below one, but is {rate}")
        count, dim = len(encoders), self.dim
        self.alignment = alignment
        self.domain = domain
        self.rate = rate
        self.shared = features(dim)
        self.specific = nn.ModuleList(features(dim) for _ in encoders)
        self.compose = nn.Linear(2 * dim, dim, bias=False)
        self.domains = nn.Linear(dim, count)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(count * dim, labels))

    def forward(self, batch: Batch) -> Output:
        """Returns logits of fused features, and both penalties."""
        z: Tensor = self.raw(batch)
        shared = self.shared(z)
        specific = torch.stack([f(z[:, i]) for i, f in enumerate(self.specific)], dim=1)
        left = hide(batch.present, self.rate) if self.training else batch.present
        logits = self.classifier(self.fuse(shared, specific, left).flatten(1))
        penalties = {
            "shared": self.alignment * apart(shared.float(), batch.present),
            "domain": self.domain * self.told_apart(specific, batch.present),
        }
        return Output(logits, penalties, {})

    def fuse(
        self,
        shared: Float[Tensor, "batch modality dim"],
        specific: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
    ) -> Float[Tensor, "batch modality dim"]:
        """Returns completed shared features, and their mean where a modality is missing."""
        residual = self.compose(torch.cat([shared, specific], dim=-1))
        mean = average(shared, present).unsqueeze(1)
        return torch.where(present.unsqueeze(-1), shared + residual, mean)

    def told_apart(
        self,
        specific: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
    ) -> Float[Tensor, ""]:
        """Returns the mean loss of telling from which modality a specific feature is."""
        which = torch.arange(present.shape[1], device=present.device).expand_as(present)
        scores = self.domains(specific).float().movedim(-1, 1)
        loss = F.cross_entropy(scores, which, reduction="none")
        return (loss * present).sum() / present.sum().clamp_min(1)


def features(dim: int) -> nn.Sequential:
    """A network that makes features of embeddings."""
    return nn.Sequential(nn.Linear(dim, dim), nn.LeakyReLU(), nn.Linear(dim, dim))


def apart(
    shared: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
) -> Float[Tensor, ""]:
    """The mean absolute difference between two modalities, over pairs that are there."""
    others = ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    pairs = present.unsqueeze(1) & present.unsqueeze(2) & others
    gap = (shared.unsqueeze(1) - shared.unsqueeze(2)).abs().mean(dim=-1)
    return (gap * pairs).sum() / pairs.sum().clamp_min(1)
