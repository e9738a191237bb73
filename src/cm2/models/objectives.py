"""What joins encoders and joint in training: alignment of point embeddings, or the ELBO.

All terms are means over samples and divided by the number of embedding coordinates, so that their
weights mean the same at every width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional
from jaxtyping import Bool, Float
from torch import Tensor

from cm2 import penalties
from cm2.joint import CopulaJoint
from cm2.marginals import GaussianMixture
from cm2.models.posteriors import Encoded
from cm2.registry import Registry


class Objective(ABC):
    """Penalties that tie the encoders' embeddings to the joint."""

    @abstractmethod
    def penalties(
        self,
        joint: CopulaJoint,
        encoded: Encoded,
        present: Bool[Tensor, "batch modality"],
        weight: Float[Tensor, " batch"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Returns the terms by name.

        Args:
            joint: The joint to be fitted.
            encoded: Embeddings of what is present.
            present: What was observed, before any was hidden from the classifier.
            weight: Weights of the samples, of sum one.
        """


REGISTRY: Registry[Objective] = Registry("objective")
register = REGISTRY.register


def joint_nll(
    joint: CopulaJoint,
    encoded: Encoded,
    present: Bool[Tensor, "batch modality"],
    weight: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    r"""Returns :math:`-\log p(z_O)` of embeddings without gradient, which fits the joint alone."""
    log_prob = joint().log_prob(encoded.z.detach(), present)
    return -(weight * log_prob).sum() / (encoded.z.shape[-1] * encoded.z.shape[-2])


def matched(
    z: Float[Tensor, "batch modality dim"],
    present: Bool[Tensor, "batch modality"],
    weight: Float[Tensor, " batch"],
    marginals: GaussianMixture,
) -> Float[Tensor, "batch modality dim"]:
    """Gives each coordinate of a batch the mean and the deviation of its marginal.

    Statistics are those of the present rows of all processes, and carry gradients. A modality of
    fewer than two rows has no deviation; it is left as it is, without a gradient.
    """
    share = (present * weight.unsqueeze(-1)).unsqueeze(-1).to(z.dtype)
    share = share / over_processes(share.sum(dim=0)).clamp_min(torch.finfo(z.dtype).tiny)
    mean = over_processes((share * z).sum(dim=0))
    variance = over_processes((share * (z - mean).square()).sum(dim=0))
    rows = over_processes((share > 0).to(z.dtype).sum(dim=0))
    several = (rows > 1) & (variance > torch.finfo(z.dtype).eps)
    deviation = torch.where(several, variance, 1.0).sqrt()
    with torch.no_grad():
        wanted, spread = marginals.mean, marginals.variance.sqrt()
    return torch.where(several, (z - mean) / deviation * spread + wanted, z.detach())


def over_processes(part: Tensor) -> Tensor:
    """Sums a tensor over the processes that train side by side, and its gradient too."""
    if not (dist.is_available() and dist.is_initialized()):
        return part
    total: Tensor = dist.nn.functional.all_reduce(part)
    return total


@register("alignment")
class Alignment(Objective):
    r"""Fits the joint to detached embeddings and aligns encoders by the copula term alone.

    ``joint_nll`` is :math:`-\log p(z_O)` of embeddings without gradient: the joint follows the
    encoders. ``alignment`` is :math:`-\log c(u_O)` with the joint held fixed: the encoders raise
    the information that modalities share. Without the second stop encoders could win by shrinking,
    since a density has no upper bound; log c does not change under monotone maps of a coordinate.

    Nor can they win by running ahead of the marginals, into a tail that two modalities share, where
    log c grows without end: before the copula sees it, each coordinate is moved and scaled such
    that its mean and deviation over the batch are those of its marginal. Shared information does
    not change under such maps, and marginals that lag behind give no gradient along them.
    """

    def penalties(
        self,
        joint: CopulaJoint,
        encoded: Encoded,
        present: Bool[Tensor, "batch modality"],
        weight: Float[Tensor, " batch"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Returns ``joint_nll`` for the joint and ``alignment`` for the encoders."""
        terms = {"joint_nll": joint_nll(joint, encoded, present, weight)}
        if torch.is_grad_enabled() and encoded.z.requires_grad:
            fixed = joint(frozen=True)
            z = matched(encoded.z, present, weight, fixed.marginals)
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
        joint: CopulaJoint,
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


class Replaced(Objective, ABC):
    """The paper's ablations: another alignment, or none, in place of the copula's.

    The joint is still fitted to detached embeddings, since imputation needs it.
    """

    penalty: ClassVar[penalties.Penalty]

    def penalties(
        self,
        joint: CopulaJoint,
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
