"""What joins encoders and joint in training: alignment of point embeddings, or the ELBO.

All terms are means over samples and divided by the number of embedding coordinates, so that their
weights mean the same at every width; but for the paper's own, ``likelihood``, whose weight is in
the paper's units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.registry import Registry
from cm2.couplings import Joint
from cm2.couplings.joint import CopulaJoint
from cm2.networks import penalties
from cm2.networks.models.matching import Matching
from cm2.networks.models.posteriors import Encoded

Law = Callable[..., Joint]
"""The joint law of the samples at hand, of constant parameters where it is called with ``frozen``:
a ``CopulaJoint`` is one."""


class Objective(nn.Module, ABC):
    """Penalties that tie the encoders' embeddings to the joint.

    Args:
        joint: The joint, for its sizes and its copula; it is not kept.
    """

    def __init__(self, joint: CopulaJoint) -> None:
        super().__init__()

    def initialize(
        self,
        joint: CopulaJoint,
        z: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
    ) -> None:
        """Starts what it remembers of embeddings from some; nothing, unless overridden."""

    @abstractmethod
    def penalties(
        self,
        joint: Law,
        encoded: Encoded,
        present: Bool[Tensor, "batch modality"],
        weight: Float[Tensor, " batch"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Returns the terms by name.

        Args:
            joint: The joint law to be fitted.
            encoded: Embeddings of what is present.
            present: What was observed, before any was hidden from the classifier.
            weight: Weights of the samples, of sum one.
        """


REGISTRY: Registry[Objective] = Registry("objective")
register = REGISTRY.register


def joint_nll(
    joint: Law,
    encoded: Encoded,
    present: Bool[Tensor, "batch modality"],
    weight: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    r"""Returns :math:`-\log p(z_O)` of embeddings without gradient, which fits the joint alone."""
    log_prob = joint().log_prob(encoded.z.detach(), present)
    return -(weight * log_prob).sum() / (encoded.z.shape[-1] * encoded.z.shape[-2])


@register("alignment")
class Alignment(Objective):
    r"""Fits the joint to detached embeddings and aligns encoders by the copula term alone.

    ``joint_nll`` is :math:`-\log p(z_O)` of embeddings without gradient: the joint follows the
    encoders. ``alignment`` is :math:`-\log c(u_O)` with the joint held fixed: the encoders raise
    the information that modalities share. Without the second stop encoders could win by shrinking,
    since a density has no upper bound; log c does not change under monotone maps of a coordinate.

    Nor can they win by running ahead of the marginals, into a tail that two modalities share, where
    log c grows without end: before the copula sees it, each coordinate is moved and scaled such
    that its mean and deviation are those of its marginal (see
    :mod:`cm2.networks.models.matching`). Shared
    information does not change under such maps, and marginals that lag behind give no gradient
    along them. Nor, with a copula of vectors, by coordinates of one modality that repeat each
    other: they are made uncorrelated.
    """

    def __init__(self, joint: CopulaJoint) -> None:
        super().__init__(joint)
        self.matching = Matching(joint.modalities, joint.dim, joint.copula().block)

    def initialize(
        self,
        joint: CopulaJoint,
        z: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
    ) -> None:
        """Starts from the moments of some embeddings, and forgets those before."""
        self.matching.initialize(z, present, joint.marginals(frozen=True))

    def penalties(
        self,
        joint: Law,
        encoded: Encoded,
        present: Bool[Tensor, "batch modality"],
        weight: Float[Tensor, " batch"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Returns ``joint_nll`` for the joint and ``alignment`` for the encoders."""
        terms = {"joint_nll": joint_nll(joint, encoded, present, weight)}
        if torch.is_grad_enabled() and encoded.z.requires_grad:
            fixed = joint(frozen=True)
            z = self.matching(encoded.z, present, weight, fixed.marginals)
            copula = fixed.log_prob_terms(z, present)["copula"]
            coordinates = encoded.z.shape[-1] * encoded.z.shape[-2]
            terms["alignment"] = -(weight * copula).sum() / coordinates
        return terms


@register("elbo")
class ELBO(Objective):
    r"""The divergence of the encoders' posterior from the joint.

    .. math:: \mathrm{KL} = E_q\Big[\sum_{m \in O} \log q(z_m | x_m) - \log p(z_O)\Big]

    with the entropy of q in closed form. A weight of ``modalities * dim`` undoes the division by
    the number of coordinates and gives the evidence lower bound itself; less is a tempered one.
    """

    def penalties(
        self,
        joint: Law,
        encoded: Encoded,
        present: Bool[Tensor, "batch modality"],
        weight: Float[Tensor, " batch"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Returns ``kl``, which has gradients for encoders and joint."""
        if encoded.entropy is None:
            raise ValueError(
                "the objective 'elbo' needs posterior='gaussian': a point has no entropy, "
                "and without it the bound can be won by shrinking the embeddings"
            )
        coordinates = encoded.z.shape[-1] * encoded.z.shape[-2]
        divergence = -encoded.entropy.sum(dim=-1) - joint().log_prob(encoded.z, present)
        return {"kl": (weight * divergence).sum() / coordinates}


@register("likelihood")
class Likelihood(Objective):
    r"""The paper's objective as printed: the negative log joint, with its gradient into everything.

    ``likelihood`` is :math:`-\log p(z_O)` a sample, not divided by the number of coordinates. It
    trains encoders, mixtures and copula alike, beside a cross-entropy of weight one and with a
    weight of 1e-6 to 1e-5 in the paper.

    It is **not bounded**. Encoders that send all samples to a point, and components that shrink
    onto it, raise a density without end; embeddings of length one (``normalize``) do not change
    that, and a larger weight or longer training finds it. ``alignment`` is what to use.
    """

    def penalties(
        self,
        joint: Law,
        encoded: Encoded,
        present: Bool[Tensor, "batch modality"],
        weight: Float[Tensor, " batch"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Returns ``likelihood``, which has gradients for encoders, mixtures and copula."""
        return {"likelihood": -(weight * joint().log_prob(encoded.z, present)).sum()}


class Replaced(Objective, ABC):
    """The paper's ablations: another alignment, or none, in place of the copula's.

    The joint is still fitted to detached embeddings, since imputation needs it.
    """

    penalty: ClassVar[penalties.Penalty]

    def penalties(
        self,
        joint: Law,
        encoded: Encoded,
        present: Bool[Tensor, "batch modality"],
        weight: Float[Tensor, " batch"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Returns ``joint_nll`` for the joint and ``alignment`` for the encoders."""
        return {
            "joint_nll": joint_nll(joint, encoded, present, weight),
            "alignment": self.penalty(encoded.z, present, weight),
        }


@register("none")
class Unaligned(Replaced):
    """No alignment."""

    penalty = penalties.Free()


@register("cosine")
class Cosine(Replaced):
    """Embeddings of a sample point in one direction."""

    penalty = penalties.Cosine()


@register("kl")
class KL(Replaced):
    """Embeddings of a sample, read as log-odds of classes, have a small divergence."""

    penalty = penalties.KL()
