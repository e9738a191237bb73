"""Alignments of embeddings other than the copula, for comparison: cosine similarity and KL.

Sources: the losses that Hayat, Geras, Shamout (2022), MedFuse, https://arxiv.org/abs/2207.07027,
and Wu et al. (2025), https://arxiv.org/abs/2511.03196, compare with, there for two modalities; here
averaged over all pairs of modalities that a sample has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cm2.core.registry import Registry


class Penalty(ABC):
    """A number that is small where the embeddings of a sample agree."""

    def __call__(
        self,
        z: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
        weight: Float[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, ""]:
        """Averages the distance between modalities over all pairs that are present.

        Args:
            z: Embeddings; what stands at absent ones is not read.
            present: Which modalities each sample has.
            weight: Weight of each sample; all the same if ``None``.

        Returns:
            The mean, zero where no sample has two modalities.
        """
        z = torch.where(present.unsqueeze(-1), z, 0.0)
        others = ~torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
        share = (present.unsqueeze(2) & present.unsqueeze(1) & others).to(z.dtype)
        if weight is not None:
            share = share * weight.view(-1, 1, 1)
        total = share.sum().clamp_min(torch.finfo(z.dtype).tiny)
        return (share * self.distance(z)).sum() / total

    @abstractmethod
    def distance(
        self, z: Float[Tensor, "batch modality dim"]
    ) -> Float[Tensor, "batch modality modality"]:
        """Returns the distance of each pair of embeddings of a sample."""


REGISTRY: Registry[Penalty] = Registry("penalty")
register = REGISTRY.register


@register("none")
class Free(Penalty):
    """No alignment at all.

    Example:
        >>> Free()(torch.randn(5, 2, 3), torch.ones(5, 2, dtype=torch.bool))
        tensor(0.)
    """

    def distance(
        self, z: Float[Tensor, "batch modality dim"]
    ) -> Float[Tensor, "batch modality modality"]:
        """Returns zeros."""
        return z.new_zeros(*z.shape[:2], z.shape[1])


@register("cosine")
class Cosine(Penalty):
    r"""One less the cosine of the angle between two embeddings.

    Example:
        >>> z = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
        >>> Cosine()(z, torch.ones(1, 2, dtype=torch.bool))
        tensor(1.)
    """

    def distance(
        self, z: Float[Tensor, "batch modality dim"]
    ) -> Float[Tensor, "batch modality modality"]:
        r"""Returns :math:`1 - \cos(z_a, z_b)`."""
        direction = F.normalize(z, dim=-1)
        return 1 - direction @ direction.transpose(-1, -2)


@register("kl")
class KL(Penalty):
    r"""The Kullback-Leibler divergence of two embeddings read as log-odds of classes.

    .. math:: \mathrm{KL}(p_a \,\|\, p_b), \quad p_m = \mathrm{softmax}(z_m / T)

    with :math:`p_a` held fixed, as in the sources; both directions count, where they have one.

    Args:
        temperature: T.

    Example:
        >>> KL()(torch.ones(1, 2, 3), torch.ones(1, 2, dtype=torch.bool))
        tensor(0.)
    """

    def __init__(self, temperature: float = 0.2) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, but is {temperature}")
        self.temperature = temperature

    def distance(
        self, z: Float[Tensor, "batch modality dim"]
    ) -> Float[Tensor, "batch modality modality"]:
        """Returns the divergence of column b's distribution from row a's."""
        log_p = (z / self.temperature).log_softmax(dim=-1)
        target = log_p.detach()
        own = (target.exp() * target).sum(dim=-1, keepdim=True)
        return own - target.exp() @ log_p.transpose(-1, -2)
