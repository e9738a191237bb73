r"""Standardising embeddings before a copula sees them, by moments that outlast a batch.

Moments are those of the last few hundred rows and of the batch, so that a batch of two is
standardised as well as one of a thousand. The gradient is that of all rows being standardised
together: nothing is won by moving or scaling them all. What one row wins by moving the moments is
counted on the other rows of its batch, since they stand for all rows and it stands for itself; a
batch of two then has a gradient, and the right one on average.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.nn.functional
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.numerics import draw_index
from cm2.marginals import GaussianMixture

WINDOW = 512
"""Rows that moments remember, besides those of the batch; more for wide blocks."""

WINDOW_OF_COORDINATE = 8
"""Rows that they remember at least for each coordinate of a block: a covariance needs several."""


class Moments(NamedTuple):
    """Number of rows, and their mean and covariance by block of coordinates."""

    rows: Float[Tensor, " modality"]
    mean: Float[Tensor, "modality block coordinate"]
    covariance: Float[Tensor, "modality block coordinate coordinate"]


class Whitening(nn.Module):
    """Gives blocks of coordinates of each modality mean zero and covariance one.

    Blocks of one coordinate get a deviation of one and keep their correlations.

    Args:
        modalities: Number of modalities.
        dim: Width of an embedding.
        block: Coordinates of a block; it divides ``dim``.
    """

    rows: Tensor
    mean: Tensor
    covariance: Tensor

    def __init__(self, modalities: int, dim: int, block: int) -> None:
        super().__init__()
        shape = (modalities, dim // block, block)
        self.window = max(WINDOW, WINDOW_OF_COORDINATE * block)
        # How a batch's sums become those of all processes; see Matching.initialize.
        self.reduce: Callable[[Tensor], Tensor] = over_processes
        self.register_buffer("rows", torch.zeros(modalities))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("covariance", torch.zeros(*shape, block))

    def reset(self) -> None:
        """Forgets all rows."""
        self.rows.zero_()

    def forward(
        self, x: Float[Tensor, "batch modality dim"], share: Float[Tensor, "batch modality"]
    ) -> Float[Tensor, "batch modality dim"]:
        """Returns whitened rows, by the moments of the rows remembered and of these.

        A coordinate that has no deviation, or one row only, becomes zero without a gradient.

        Args:
            x: The rows, finite where absent.
            share: Weight of each row, zero where absent; of sum one over the rows of all processes.
        """
        x = x.unflatten(-1, self.mean.shape[1:])
        moments = self._moments(x.detach(), share)
        if self.training:
            for name, value in moments._asdict().items():
                getattr(self, name).copy_(value)
            self.rows.clamp_max_(self.window)
        some, root = _root(moments)
        deviation = torch.where(some, x - moments.mean, 0.0)
        e = _times(root, deviation)
        return (e - _of_moments(e, share)).flatten(-2)

    @torch.no_grad()
    def _moments(self, x: Tensor, share: Tensor) -> Moments:
        """The moments of the rows remembered and those of a batch together, of all processes."""
        rows = self.reduce((share > 0).to(x.dtype).sum(dim=0))
        mean = self.reduce(torch.einsum("bm,bmnc->mnc", share, x))
        inside = self.reduce(_outer(share[..., None, None] * (x - mean), x - mean))
        count = self.rows + rows
        new = (rows / count.clamp_min(1))[:, None, None]
        step = mean - self.mean
        between = new * (1 - new) * step
        covariance = torch.lerp(self.covariance, inside, new[..., None])
        covariance = covariance + between.unsqueeze(-1) * step.unsqueeze(-2)
        return Moments(count, self.mean + new * step, covariance)


def _root(moments: Moments) -> tuple[Tensor, Tensor]:
    """Coordinates that have a deviation, and what whitens: the inverse root of the covariance.

    Deviations first, then the root of correlations, which keeps whitened coordinates as close to
    the given ones as can be (Kessy, Lewin and Strimmer 2018, "Optimal whitening"). Correlations are
    shrunk, as few rows know little of many. No gradient runs through it.
    """
    variance = moments.covariance.diagonal(dim1=-2, dim2=-1)
    some = (moments.rows > 1)[:, None, None] & (variance > torch.finfo(variance.dtype).eps)
    scale = torch.where(some, variance, 1.0).rsqrt()
    correlation = moments.covariance * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    block = variance.shape[-1]
    if block == 1:
        return some, scale.unsqueeze(-1)
    known = (moments.rows / (moments.rows + block))[:, None, None, None]
    shrunk = (known * correlation).diagonal_scatter(torch.ones_like(variance), dim1=-2, dim2=-1)
    values, vectors = torch.linalg.eigh(shrunk)
    least = torch.finfo(values.dtype).eps
    root = vectors * values.clamp_min(least).rsqrt().unsqueeze(-2) @ vectors.mT
    return some, root * scale.unsqueeze(-2)


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """Outer products of the blocks of two batches, summed over rows."""
    if left.shape[-1] == 1:  # for which a product of matrices would be slow
        return (left * right).sum(dim=0).unsqueeze(-1)
    return left.movedim(0, -1) @ right.movedim(0, -2)


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    """A matrix of each block times the rows of a batch."""
    if x.shape[-1] == 1:
        return matrix.squeeze(-1) * x
    return torch.einsum("mnce,bmne->bmnc", matrix, x)


def _of_moments(e: Tensor, share: Tensor) -> Tensor:
    r"""Zero, with the gradient that whitened rows have through the moments of the other rows.

    Where a mean of zero becomes :math:`a` and a covariance of one becomes :math:`I + C`, rows
    become :math:`e - a - C e / 2`.
    """
    fixed = e.detach()
    change, weight = e - fixed, share[..., None, None]
    mean = over_processes((weight * change).sum(dim=0))
    half = over_processes(_outer(weight * change, fixed))
    every = mean + 0.5 * _times(half + half.mT, fixed)
    # The part that a row has in it, without a matrix for each row.
    square, product = ((part * fixed).sum(-1, keepdim=True) for part in (fixed, change))
    own = change + 0.5 * (change * square + fixed * product)
    others = 1 - weight
    alone = others <= torch.finfo(e.dtype).eps
    return torch.where(alone, every, (every - weight * own) / torch.where(alone, 1.0, others))


class Matching(nn.Module):
    """Gives embeddings the moments that their marginals have.

    Each coordinate gets the mean and the deviation of its marginal. A copula that couples blocks of
    coordinates would also be paid for coordinates of one modality that repeat each other; for it
    they are made uncorrelated within the component of the mixture that they come from, which is
    drawn, as the marginal says that they are.

    Args:
        modalities: Number of modalities.
        dim: Width of an embedding.
        block: Coordinates of an embedding that the copula couples at once.
    """

    def __init__(self, modalities: int, dim: int, block: int) -> None:
        super().__init__()
        self.each = Whitening(modalities, dim, 1)
        self.inside = Whitening(modalities, dim, block) if block > 1 else None

    def initialize(
        self,
        z: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
        marginals: GaussianMixture,
    ) -> None:
        """Starts from the moments of some rows, and forgets those before.

        All processes are given the same rows, which must not count once for each.
        """
        training = self.training
        self.train()
        for part in self._parts():
            part.reset()
            part.reduce = _alone
        self(z.detach(), present, z.new_ones(len(z)), marginals)
        for part in self._parts():
            part.reduce = over_processes
        self.train(training)

    def _parts(self) -> list[Whitening]:
        return [part for part in (self.each, self.inside) if part is not None]

    def forward(
        self,
        z: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
        weight: Float[Tensor, " batch"],
        marginals: GaussianMixture,
    ) -> Float[Tensor, "batch modality dim"]:
        """Returns embeddings at the moments of their marginals; training remembers theirs."""
        z = torch.where(present.unsqueeze(-1), z, 0.0)
        share = (present * weight.unsqueeze(-1)).to(z.dtype)
        share = share / self.each.reduce(share.sum(dim=0)).clamp_min(torch.finfo(z.dtype).tiny)
        with torch.no_grad():
            mean, deviation = marginals.mean, marginals.variance.sqrt()
        z = mean + deviation * self.each(z, share)
        if self.inside is None:
            return z
        loc, scale = _component(z, marginals)
        return loc + scale * self.inside((z - loc) / scale, share)


@torch.no_grad()
def _component(z: Tensor, marginals: GaussianMixture) -> tuple[Tensor, Tensor]:
    """Mean and deviation of a component drawn for each embedding from its posterior.

    Only where it is drawn do places within components have covariance one if the marginal is right.
    Each modality draws by itself, whatever the coupling: what it becomes must not tell more of the
    others than it did.
    """
    square = marginals.standardize(z).square().sum(dim=-1)
    logits = marginals.logits.log_softmax(dim=-1) + marginals.log_density_at(square)
    drawn = draw_index(logits)
    which = torch.arange(z.shape[1], device=z.device)
    return marginals.loc[which, drawn], marginals.scale[which, drawn]


def _alone(part: Tensor) -> Tensor:
    return part


def over_processes(part: Tensor) -> Tensor:
    """Sums a tensor over the processes that train side by side, and its gradient too."""
    if not (dist.is_available() and dist.is_initialized()):
        return part
    total: Tensor = dist.nn.functional.all_reduce(part)
    return total
