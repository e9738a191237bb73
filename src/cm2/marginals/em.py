"""Fitting Gaussian mixtures by expectation maximisation, where rows may be absent.

Dempster, Laird and Rubin (1977); started by k-means++ (Arthur and Vassilvitskii 2007), so that
components differ from the first step on. Every component has one pseudo-observation with the
average variance inside components, which keeps the likelihood bounded. (The variance of all rows
would be far too much where components lie apart: 60 of them of scale 0.15 would be fitted as 0.2.)

It runs on the CPU in double precision wherever the embeddings are: it is short, not every
accelerator has double precision, and a seed gives the same start on all of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

PSEUDO_OBSERVATIONS = 1.0
_SMALLEST_VARIANCE = 1e-4
_ROUNDING = 1e-12
_RESTARTS = 4
_START_ROWS = 2000


class MixtureParameters(NamedTuple):
    """Parameters of M mixtures."""

    logits: Float[Tensor, "modality component"]
    loc: Float[Tensor, "modality component dim"]
    scale: Float[Tensor, "modality component dim"]


class _Sample(NamedTuple):
    """Standardised embeddings, zeros where absent, and the weight of each row in each modality.

    What is made on the way follows their device: torch's default one may be another.
    """

    z: Tensor
    weights: Tensor


def fit_mixtures(
    z: Float[Tensor, "row modality dim"],
    present: Bool[Tensor, "row modality"],
    components: int,
    *,
    weights: Float[Tensor, " row"] | None = None,
    shared: bool = False,
    seed: int = 0,
    steps: int = 200,
) -> MixtureParameters:
    """Fits the mixture of each modality to the rows that have it.

    Args:
        z: Embeddings; rows that are not present are not read.
        present: Which rows have which modality.
        components: Number K of components.
        weights: Weight of each row; those of weight zero count as absent.
        shared: Whether a row has one component for all its modalities, or one for each.
        seed: Seed of the start.
        steps: The most steps of EM.

    Returns:
        Parameters of the dtype and on the device of ``z``.

    Raises:
        ValueError: If a modality is present in fewer rows of positive weight than there are
            components.
    """
    like, z, present = z, z.to("cpu", torch.float64), present.cpu()
    row_weights = z.new_ones(len(z)) if weights is None else weights.to(z)
    present = present & (row_weights > 0)[:, None]
    counts = present.sum(0)
    if (counts < components).any():
        m = int(counts.argmin())
        raise ValueError(
            f"modality {m} is present in {int(counts[m])} samples of positive weight; "
            f"{components} components need at least as many"
        )
    mask = present * row_weights[:, None]
    total = mask.sum(0)[:, None]
    z = torch.where(present[..., None], z, torch.zeros_like(z))
    center = (mask[..., None] * z).sum(0) / total
    deviation = torch.where(present[..., None], z - center, torch.zeros_like(z))
    spread = ((mask[..., None] * deviation.square()).sum(0) / total).sqrt()
    varies = spread > _ROUNDING * center.abs()  # the mean of equal numbers may be off by a digit
    spread = torch.where(varies, spread, torch.ones_like(spread))
    sample = _Sample(deviation / spread, mask)
    fitted = _climb(sample, _start(sample, components, shared, seed), shared, steps)
    return MixtureParameters(
        fitted.logits.to(like),
        (center[:, None] + spread[:, None] * fitted.loc).to(like),
        (spread[:, None] * fitted.scale).to(like),
    )


def _start(sample: _Sample, components: int, shared: bool, seed: int) -> MixtureParameters:
    """The best of a few short runs on a part of the rows."""
    device = sample.z.device
    generator = torch.Generator(device).manual_seed(seed)
    rows = torch.randperm(len(sample.z), generator=generator, device=device)[:_START_ROWS]
    if (sample.weights[rows] > 0).sum(0).min() < components:
        rows = torch.arange(len(sample.z), device=device)
    part = _Sample(sample.z[rows], sample.weights[rows])
    runs = [
        _climb(part, _seeded(part, components, shared, generator), shared, 20)
        for _ in range(1 if components == 1 else _RESTARTS)
    ]
    return max(runs, key=lambda run: _log_likelihood(part, run, shared))


def _seeded(
    sample: _Sample, components: int, shared: bool, generator: torch.Generator
) -> MixtureParameters:
    """k-means++: a centre is a row drawn with probability proportional to its squared distance."""
    _, modalities, _ = sample.z.shape
    centers: list[Tensor] = []
    distance = torch.ones_like(sample.weights)
    for _ in range(components):
        some = (sample.weights > 0).to(distance)  # rows may all coincide
        weight = sample.weights * distance + torch.finfo(distance.dtype).tiny * some
        if shared:
            weight = weight.sum(-1, keepdim=True).expand(-1, modalities)
        if shared:
            chosen = torch.multinomial(weight[:, 0], 1, generator=generator).expand(modalities)
        else:
            chosen = torch.multinomial(weight.T, 1, generator=generator).squeeze(-1)
        centers.append(sample.z[chosen, torch.arange(modalities, device=chosen.device)])
        nearest = torch.stack([(sample.z - c).square().sum(-1) for c in centers]).amin(0)
        distance = nearest / nearest.mean().clamp_min(torch.finfo(nearest.dtype).tiny)
    loc = torch.stack(centers, 1)
    return MixtureParameters(loc.new_zeros(modalities, components), loc, torch.ones_like(loc))


def _climb(
    sample: _Sample, start: MixtureParameters, shared: bool, steps: int
) -> MixtureParameters:
    """Steps of EM until the log likelihood of a row changes by less than 1e-6."""
    parameters, before = start, -math.inf
    for _ in range(steps):
        log_joint = _log_joint(sample, parameters, shared)
        after = _mean_log_likelihood(sample, log_joint, shared)
        if after - before < 1e-6:
            break
        before = after
        parameters = _maximize(sample, log_joint.softmax(-1), shared)
    return parameters


def _log_joint(sample: _Sample, parameters: MixtureParameters, shared: bool) -> Tensor:
    """Log weight plus log density by component, (N, M, K); summed over modalities if shared."""
    precision = parameters.scale.square().reciprocal()
    square = (
        torch.einsum("nmd,mkd->nmk", sample.z.square(), precision)
        - 2 * torch.einsum("nmd,mkd->nmk", sample.z, parameters.loc * precision)
        + (parameters.loc.square() * precision).sum(-1)
    )
    log_density = -0.5 * square - parameters.scale.log().sum(-1)
    if shared:
        here = (sample.weights > 0)[..., None]
        log_density = (
            torch.where(here, log_density, 0.0).sum(1, keepdim=True).expand_as(log_density)
        )
    return parameters.logits.log_softmax(-1) + log_density


def _mean_log_likelihood(sample: _Sample, log_joint: Tensor, shared: bool) -> float:
    log_likelihood = log_joint.logsumexp(-1)
    weights = sample.weights.amax(-1, keepdim=True) if shared else sample.weights
    log_likelihood = log_likelihood[:, :1] if shared else log_likelihood
    return float((weights * log_likelihood).sum() / weights.sum())


def _log_likelihood(sample: _Sample, parameters: MixtureParameters, shared: bool) -> float:
    return _mean_log_likelihood(sample, _log_joint(sample, parameters, shared), shared)


def _maximize(sample: _Sample, responsibility: Tensor, shared: bool) -> MixtureParameters:
    weighted = sample.weights[..., None] * responsibility
    count = weighted.sum(0)[..., None] + torch.finfo(weighted.dtype).tiny
    loc = torch.einsum("nmk,nmd->mkd", weighted, sample.z) / count
    square = torch.einsum("nmk,nmd->mkd", weighted, sample.z.square()) - count * loc.square()
    square = square.clamp_min(0)
    inside = square.sum(1, keepdim=True) / count.sum(1, keepdim=True)
    prior = PSEUDO_OBSERVATIONS * inside.clamp_min(_SMALLEST_VARIANCE)
    variance = (square + prior) / (count + PSEUDO_OBSERVATIONS)
    share = count.squeeze(-1)
    if shared:
        share = (sample.weights.amax(-1, keepdim=True)[..., None] * responsibility[:, :1]).sum(0)
        share = share.expand_as(count.squeeze(-1))
    logits = (share + PSEUDO_OBSERVATIONS).log().log_softmax(-1)
    return MixtureParameters(logits, loc, variance.sqrt())
