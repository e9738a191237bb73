"""M3Care: what is missing is taken from patients who are alike in what both have.

Source: Zhang, Chu, Ma, Zhu, Wang, Wang, Zhao (2022), M3Care: learning with missing modalities in
multimodal healthcare data, KDD, section 4, https://arxiv.org/abs/2210.17292, and its code,
https://github.com/choczhang/M3Care.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.attention import Block, hidden
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, register, single_precision
from cm2.networks.models.reference import MOST, Patients, Reference

KERNELS = (0.5, 1.0, 2.0)
"""Bandwidths of the kernel, in mean squared distances."""


@register("m3care")
class M3Care(Model):
    r"""Fills in from similar patients, in proportion to a learned similarity, and classifies.

    Two patients are as similar as their embeddings are on average over the modalities that both
    have, by a kernel of what a network makes of an embedding, blended with one of the embedding
    itself (task-guided, modality-adaptive):

    .. math:: s_{ij} = \mathrm{mean}_{m \in i \cap j} \, (1 - \beta_m)\, k(f_m(z_{im}), f_m(z_{jm}))
        + \beta_m\, k(z_{im}, z_{jm})

    Similarities below a learned threshold count as none. Two graph convolutions for each modality
    gather it from those who have it. What is missing is what has been gathered; what is there is
    mixed with it, by learned shares. A Transformer lets the filled modalities attend to each other,
    and all of them side by side are classified. A penalty keeps :math:`f_m` near to the size of
    what it reads (``stable``).

    In training the others are the rows of the batch, as in the source. At prediction they are a
    fixed ``reference`` of training rows, where the source takes the test batch: so a row is
    predicted alone as in a cohort. Without reference (``CM2Classifier.save(reference=False)``) a
    row has nobody but itself, and what is missing has a learned value.

    The similarities are those of the authors' code from the same weights, in training mode, to
    1e-5. Unlike it: a patient who lacks a modality gathers it, as the paper says; the code masks
    the graph in both directions, so that nothing reaches what is missing. Weights of a patient's
    neighbours are divided by their sum, since a reference has not as many rows as a batch. The
    batch normalisation before a kernel has the statistics of those who are compared with, counts
    those who have the modality, and has no scale of its own. Each modality is one token.

    Args:
        encoders: Encoder of each modality, all of one ``dim``.
        labels: Number of logits.
        depth: Number of blocks of the Transformer.
        heads: Number of its attention heads.
        stable: Weight of the penalty of its name; 1e-7 and 1e-8 in the source.
        reference: Training rows that prediction compares with, at most 512.
        dropout: Probability of dropping an attention weight or a hidden unit.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = M3Care({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    reference: Reference

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        depth: int = 2,
        heads: int = 4,
        stable: float = 1e-7,
        reference: int = MOST,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, but is {depth}")
        count, dim = len(encoders), self.dim
        self.stable = stable
        self.reference = Reference(reference, count, dim)
        self.guides = nn.ModuleList(
            nn.Sequential(
                *(nn.Linear(dim, dim), nn.SELU(), nn.Linear(dim, dim), nn.SELU()),
                nn.Linear(dim, dim),
            )
            for _ in encoders
        )
        self.blend = nn.Parameter(torch.full((count,), -0.3))
        self.threshold = nn.Parameter(torch.zeros(()))
        self.first, self.second = (
            nn.ModuleList(nn.Linear(dim, dim) for _ in encoders) for _ in range(2)
        )
        self.gathered, self.own = (
            nn.ModuleList(nn.Linear(dim, 1) for _ in encoders) for _ in range(2)
        )
        self.which = nn.Parameter(torch.randn(count, dim) * 0.02)
        self.blocks = nn.ModuleList(
            Block(dim, heads=heads, then=hidden(dim, 4 * dim, nn.SELU(), dropout), dropout=dropout)
            for _ in range(depth)
        )
        self.classifier = nn.Sequential(
            nn.Linear(count * dim, 2 * dim),
            nn.SELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * dim, labels),
        )

    def forward(self, batch: Batch) -> Output:
        """Returns logits of filled modalities, and how far similarity is from the embeddings."""
        rows = Patients(self.raw(batch), batch.present)
        with single_precision(rows.z):
            gathered = self.gather(rows, rows if self.training else self.reference())
        x = self.filled(rows, gathered) + self.which
        everything = torch.ones_like(rows.present)
        for block in self.blocks:
            x = block(x, everything)
        return Output(self.classifier(x.flatten(1)), {"stable": self.stable * self.drift(rows)}, {})

    def filled(
        self, rows: Patients, gathered: Float[Tensor, "row modality dim"]
    ) -> Float[Tensor, "row modality dim"]:
        """Returns what was gathered where a modality is missing, and a mixture where it is not."""
        score = torch.stack([each(self.gathered, gathered), each(self.own, rows.z)]).sigmoid()
        share = score[0] / score.sum(dim=0)
        mixed = share * gathered + (1 - share) * rows.z
        return torch.where(rows.present.unsqueeze(-1), mixed, gathered)

    def gather(self, rows: Patients, pool: Patients) -> Float[Tensor, "row modality dim"]:
        """Returns each modality of each row after two convolutions over who has it."""
        graph = self.graph(rows, pool)
        first = F.selu(each(self.first, mixed(graph, rows, rows.z, pool.z)))
        # In training a row's neighbours are rows as it is; those of the reference have their own.
        others = first
        if pool is not rows:
            inside = self.graph(pool, pool)
            others = F.selu(each(self.first, mixed(inside, pool, pool.z, pool.z)))
        return F.selu(each(self.second, mixed(graph, rows, first, others)))

    def graph(self, rows: Patients, pool: Patients) -> Float[Tensor, "row modality other"]:
        """Returns the weight of each of the pool for each modality that it has.

        A row is not among its own neighbours; it counts as itself, once.
        """
        similar = self.similarity(rows, pool)
        least = self.threshold.sigmoid()
        over = (similar - least).relu()
        weight = over + (over > 0) * least.detach()
        if rows is pool:
            weight = weight * ~torch.eye(len(weight), dtype=torch.bool, device=weight.device)
        return weight.unsqueeze(1) * pool.present.T

    def similarity(self, rows: Patients, pool: Patients) -> Float[Tensor, "row other"]:
        """Returns the mean similarity over the modalities that two patients have."""
        both = rows.present.unsqueeze(1) & pool.present
        total = torch.zeros_like(both[..., 0], dtype=rows.z.dtype)
        for column, (guide, blend) in enumerate(
            zip(self.guides, self.blend.sigmoid(), strict=True)
        ):
            x, y, there = rows.z[:, column], pool.z[:, column], pool.present[:, column]
            guided, plain = kernel(guide(x), guide(y), there), kernel(x, y, there)
            total = total + both[..., column] * ((1 - blend) * guided + blend * plain)
        return total / both.sum(dim=-1).clamp_min(1)

    def drift(self, rows: Patients) -> Float[Tensor, ""]:
        """Returns how far what is compared is from the embeddings in size, over modalities."""
        there = rows.present.unsqueeze(-1)
        sizes = (
            torch.linalg.vector_norm(z.float() * there, dim=(0, 2))
            for z in (each(self.guides, rows.z), rows.z)
        )
        guided, plain = sizes
        return (guided - plain).abs().sum()


def each(
    maps: nn.ModuleList, z: Float[Tensor, "row modality dim"]
) -> Float[Tensor, "row modality feature"]:
    """Applies to each modality its own map."""
    return torch.stack([f(z[:, column]) for column, f in enumerate(maps)], dim=1)


def mixed(
    graph: Float[Tensor, "row modality other"],
    rows: Patients,
    mine: Float[Tensor, "row modality dim"],
    theirs: Float[Tensor, "other modality dim"],
) -> Float[Tensor, "row modality dim"]:
    """Averages over neighbours by their weights, and over the row itself if it has the modality."""
    own = rows.present.unsqueeze(-1).to(graph.dtype)
    total = graph.sum(dim=-1, keepdim=True) + own
    summed = torch.einsum("bmr,rmd->bmd", graph, theirs) + own * mine
    return summed / torch.where(total > 0, total, 1.0)


def kernel(
    x: Float[Tensor, "row dim"], y: Float[Tensor, "other dim"], there: Bool[Tensor, " other"]
) -> Float[Tensor, "row other"]:
    """Mean of Gaussian kernels whose bandwidths follow from distances among the others.

    Args:
        x: Rows.
        y: Whom they are compared with, which also says what is near and how coordinates scale.
        there: Which of those are to be counted for that.
    """
    share = there.to(y.dtype).unsqueeze(-1)
    count = share.sum()
    mean = (y * share).sum(dim=0) / count.clamp_min(1)
    variance = ((y - mean).square() * share).sum(dim=0) / count.clamp_min(1)
    scale = (variance + 1e-5).rsqrt()
    x, y = (x - mean) * scale, (y - mean) * scale
    among = (distance(y, y).detach() * share * share.T).sum() / (count * (count - 1)).clamp_min(1)
    among = torch.where(among > 0, among, 1.0)
    apart = distance(x, y)
    return torch.stack([(-apart / (among * width)).exp() for width in KERNELS]).mean(dim=0)


def distance(
    x: Float[Tensor, "row dim"], y: Float[Tensor, "other dim"]
) -> Float[Tensor, "row other"]:
    """Squared distances."""
    squares = x.square().sum(dim=1, keepdim=True) + y.square().sum(dim=1)
    return (squares - 2 * x @ y.T).clamp_min(0.0)
