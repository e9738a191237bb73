"""Encoder posteriors: what is made of an encoder's output, a point or a diagonal Gaussian.

Reparameterisation: Kingma and Welling (2014), Auto-encoding variational Bayes,
https://arxiv.org/abs/1312.6114.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.registry import Registry

LOG_SCALE = (-6.0, 2.0)
"""Limits of a posterior's log standard deviation, reached smoothly."""


class Encoded(NamedTuple):
    """Embeddings drawn from the encoders' posterior.

    Attributes:
        z: Embeddings, zeros where absent.
        entropy: Entropy of the posterior of each embedding in nats; ``None`` for points.
    """

    z: Float[Tensor, "batch modality dim"]
    entropy: Float[Tensor, "batch modality"] | None


class Posterior(nn.Module, ABC):
    """Turns the encoders' output into embeddings.

    Args:
        modalities: Number of modalities.
        dim: Width of an embedding.
    """

    def __init__(self, modalities: int, dim: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.dim = dim

    @abstractmethod
    def forward(
        self, z: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
    ) -> Encoded:
        """Returns embeddings, and the entropy of their distribution if they have one."""


REGISTRY: Registry[Posterior] = Registry("posterior")
register = REGISTRY.register


@register("point")
class Point(Posterior):
    """The paper's posterior: the embedding is the encoder's output."""

    def forward(
        self, z: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
    ) -> Encoded:
        """Returns the encoders' output as it is."""
        return Encoded(z, None)


@register("gaussian")
class Gaussian(Posterior):
    """A diagonal Gaussian around each embedding; its mean and log variance are linear in it.

    In training an embedding is a reparameterised draw, in evaluation the mean.

    Args:
        modalities: Number of modalities.
        dim: Width of an embedding.
    """

    def __init__(self, modalities: int, dim: int) -> None:
        super().__init__(modalities, dim)
        self.mean = nn.Parameter(torch.eye(dim).expand(modalities, dim, dim).clone())
        self.shift = nn.Parameter(torch.zeros(modalities, dim))
        self.spread = nn.Parameter(0.1 * torch.randn(modalities, dim, dim) / math.sqrt(dim))
        self.log_scale = nn.Parameter(torch.full((modalities, dim), -1.5))

    def forward(
        self, z: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
    ) -> Encoded:
        """Returns a draw (in evaluation the mean) and the entropy of the posterior."""
        low, high = LOG_SCALE
        loc = torch.einsum("bmi,mij->bmj", z, self.mean) + self.shift
        free = torch.einsum("bmi,mij->bmj", z, self.spread) + self.log_scale
        middle, half = (high + low) / 2, (high - low) / 2
        log_scale = middle + half * torch.tanh((free - middle) / half)
        if self.training:
            loc = loc + log_scale.exp() * torch.randn_like(loc)
        entropy = (log_scale + 0.5 * math.log(2 * math.pi * math.e)).sum(dim=-1)
        return Encoded(loc * present.unsqueeze(-1), entropy * present)
