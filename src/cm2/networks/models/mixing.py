"""Where the weights of the marginal mixtures come from: one set for all samples, or a network.

The paper's text has a multilayer perceptron with a softmax, its code learned constants.
Source: Wu et al. (2025), https://arxiv.org/abs/2511.03196, appendix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.registry import Registry
from cm2.couplings import Joint
from cm2.marginals import GaussianMixture


class Mixing(nn.Module, ABC):
    """Sets the weights of the components of each modality's mixture.

    ``by_row`` is true where each sample has weights of its own: then there is no law of what is
    missing given what is present, and no density.

    Args:
        modalities: Number of modalities.
        dim: Width of an embedding.
        components: Number of components of each mixture.
    """

    by_row: ClassVar[bool] = False

    def __init__(self, modalities: int, dim: int, components: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(
        self,
        joint: Joint,
        z: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
        *,
        frozen: bool = False,
    ) -> Joint:
        """Returns the joint law of these samples.

        Args:
            joint: The law with its own weights.
            z: Embeddings; those of absent modalities are not read.
            present: Which modalities each sample has.
            frozen: Whether the weights are constants to the optimiser.
        """


REGISTRY: Registry[Mixing] = Registry("mixing")
register = REGISTRY.register


@register("constant")
class Constant(Mixing):
    """The joint's own weights, the same for all samples; they are learned."""

    def forward(
        self,
        joint: Joint,
        z: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
        *,
        frozen: bool = False,
    ) -> Joint:
        """Returns the joint as it is."""
        return joint


@register("network")
class Network(Mixing):
    r"""A perceptron with one hidden layer and a softmax over the components, as the paper says.

    It reads the mean of the embeddings that a sample has, so that a missing modality has weights
    too, and moves the log weights of the joint by what it finds. The weights depend on the point
    that they weigh: what is called the joint's likelihood is no density then.
    """

    by_row = True

    def __init__(self, modalities: int, dim: int, components: int) -> None:
        super().__init__(modalities, dim, components)
        self.components = components
        self.body = nn.Sequential(
            nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, modalities * components)
        )

    def forward(
        self,
        joint: Joint,
        z: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
        *,
        frozen: bool = False,
    ) -> Joint:
        """Returns the joint with mixtures of each sample's own weights."""
        there = present.unsqueeze(-1)
        mean = torch.where(there, z, 0.0).sum(dim=1) / there.sum(dim=1).clamp_min(1)
        moved = self.body(mean).unflatten(-1, (-1, self.components))
        law = joint.marginals.expand(z.shape[:-1])
        logits = law.logits + (moved.detach() if frozen else moved)
        mixture = GaussianMixture(logits, law.loc, law.scale, validate_args=False)
        return type(joint)(joint.copula, mixture)
