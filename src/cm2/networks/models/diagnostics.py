"""Numbers that tell in training whether the joint fits: dependence, and how uniform u is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cm2.couplings import Joint


def uniformity(
    u: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
) -> Float[Tensor, "modality dim"]:
    """Kolmogorov-Smirnov distance of each coordinate to the uniform law, over present rows.

    Returns:
        Distances; NaN for a modality that no row has.
    """
    count = present.sum(dim=0).unsqueeze(-1)
    ordered = torch.where(present.unsqueeze(-1), u, torch.inf).sort(dim=0).values
    rank = torch.arange(len(u), device=u.device).reshape(-1, 1, 1)
    above = (rank + 1) / count - ordered
    below = ordered - rank / count
    gap = torch.where(rank < count, torch.maximum(above, below), 0.0)
    return torch.where(count > 0, gap.amax(dim=0), torch.nan)


@torch.no_grad()
def dependence(
    joint: Joint, z: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
) -> dict[str, float]:
    """Summarises a joint on embeddings.

    Returns:
        ``kendall_tau``, the mean over pairs of modalities and coordinates, and ``strength``, the
        mean of its size; ``correlation``, the mean correlation of a Gaussian copula with these tau;
        each scalar parameter of the copula by name, averaged; ``log_copula_density``, its mean over
        these embeddings in nats a sample, which is negative where the joint does not fit them;
        ``total_correlation``, what it would be for the joint's own draws: the information that
        modalities share by the joint, where that is in closed form; ``ks`` and ``ks_max``, the mean
        and largest Kolmogorov-Smirnov distance to uniform of what the copula is given.
    """
    tau = joint.kendall_tau()
    size = tau.shape[-1]
    pairs = tau[..., *torch.triu_indices(size, size, 1, device=tau.device)]
    distance = uniformity(joint.copula_arguments(z, present).u, present)
    distance = distance[distance.isfinite()]
    summary = {
        "kendall_tau": pairs.mean(),
        "strength": pairs.abs().mean(),
        "correlation": (pairs * torch.pi / 2).sin().mean(),
        "log_copula_density": joint.log_prob_terms(z, present)["copula"].mean(),
        "ks": distance.mean(),
        "ks_max": distance.max() if len(distance) > 0 else distance.mean(),
    }
    if joint.is_density and joint.total_correlation_error(samples=2) == 0:
        summary["total_correlation"] = joint.total_correlation(samples=2)
    for name, constraint in joint.copula.arg_constraints.items():
        if constraint.event_dim == 0:
            summary[name] = getattr(joint.copula, name).mean()
    return {name: float(value) for name, value in summary.items()}


@torch.no_grad()
def broken(
    law: Callable[..., Joint],
    z: Float[Tensor, "batch modality dim"],
    present: Bool[Tensor, "batch modality"],
    modalities: Sequence[str],
) -> list[str]:
    """Names encoders whose embeddings are not finite; if there is none, such terms of the joint.

    Args:
        law: What makes the joint law of embeddings, which refuses those that are not finite.
        z: Embeddings.
        present: Which of them are there.
        modalities: Their names.
    """
    encoders = [
        f"the embedding of modality {name!r}"
        for column, name in enumerate(modalities)
        if not bool(z[:, column].isfinite().all())
    ]
    if encoders:
        return encoders
    terms = law(z, present).log_prob_terms(z, present)
    marginals = [
        f"the marginal of modality {name!r}"
        for column, name in enumerate(modalities)
        if not bool(terms["marginal"][:, column].isfinite().all())
    ]
    if not bool(terms["copula"].isfinite().all()):
        marginals.append("the copula")
    return marginals
