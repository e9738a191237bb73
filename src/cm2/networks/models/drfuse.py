"""DrFuse: shared and distinct parts of each modality, and attention by each label.

Source: Yao, Yin, Yang, Wong, Ching (2024), DrFuse: learning disentangled representation for
clinical multi-modal fusion with missing modality and modal inconsistency, AAAI,
https://arxiv.org/abs/2403.06197.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.attention import mean_of, readable
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, register

POOLED = "shared part"
"""Name under which the pooled shared part's own logits stand beside those of modalities."""


@register("drfuse")
class DrFuse(Model):
    r"""Splits each embedding into a shared and a distinct part, and attends to them by label.

    Shared parts h_m are pooled over what is present as :math:`\mathrm{logit}` of the mean of
    :math:`\sigma(h_m)`. Penalties: the Jensen-Shannon divergence between the :math:`\sigma(h_m)` of
    two modalities (``shared``), the size of the cosine between a modality's two parts
    (``distinct``), and attention that prefers the part whose own classifier is worse (``ranking``).
    Each label has its own key: the attention of label c to the distinct parts that are present and
    to the pooled shared part gives the feature from which label c is predicted. The pooled part has
    a classifier of its own too, as a distinct part has.

    Simplified: two linear maps of one embedding take the place of two networks a modality, so that
    encoders stay exchangeable. Where classes exclude each other, all labels of a row have one loss
    to rank by. Beyond the source: any number of modalities, any of them absent.

    Args:
        encoders: Encoder of each modality, all of one ``dim``.
        labels: Number of logits.
        disentangle: Weight of the penalties ``shared`` and ``distinct``; 1 in the source.
        ranking: Weight of the penalty ``ranking``, which needs a target; 1 in the source.
        dropout: Probability of dropping a coordinate of an embedding.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = DrFuse({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        disentangle: float = 1.0,
        ranking: float = 1.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        if POOLED in encoders:
            raise ValueError(f"DrFuse calls what modalities share {POOLED!r}; name yours otherwise")
        self.disentangle = disentangle
        self.ranking = ranking
        self.dropout = nn.Dropout(dropout)
        self.shared = nn.ModuleList(nn.Linear(self.dim, self.dim) for _ in encoders)
        self.distinct = nn.ModuleList(nn.Linear(self.dim, self.dim) for _ in encoders)
        self.common = nn.Sequential(
            nn.Linear(self.dim, self.dim), nn.ReLU(), nn.Linear(self.dim, self.dim)
        )
        self.classifiers = nn.ModuleList(nn.Linear(self.dim, labels) for _ in encoders)
        self.pooled = nn.Linear(self.dim, labels)
        self.attention = nn.Linear(self.dim, (2 + labels) * self.dim)
        self.final = nn.Linear(self.dim, labels)

    def forward(self, batch: Batch) -> Output:
        """Returns logits, penalties, and logits of each distinct part and of the pooled one."""
        z: Tensor = self.dropout(self.raw(batch))
        there = readable(batch.present)
        shared = self.common(torch.stack([f(z[:, i]) for i, f in enumerate(self.shared)], dim=1))
        distinct = torch.stack([f(z[:, i]) for i, f in enumerate(self.distinct)], dim=1)
        absent = torch.where(there, 0.0, -torch.inf).unsqueeze(-1)
        up, down = F.logsigmoid(shared) + absent, F.logsigmoid(-shared) + absent
        pooled = up.logsumexp(dim=1) - down.logsumexp(dim=1)
        parts = torch.cat([distinct, pooled.unsqueeze(1)], dim=1)
        votes = [head(distinct[:, i]) for i, head in enumerate(self.classifiers)]
        votes.append(self.pooled(pooled))
        logits, attention = self.attend(parts, F.pad(there, (0, 1), value=True))
        penalties = self.penalties(shared.float(), distinct.float(), batch.present)
        if batch.target is not None:
            losses = part_losses(torch.stack(votes, dim=1).detach().float(), batch.target)
            penalties["ranking"] = self.ranking * ranked(attention.float(), losses, batch.present)
        return Output(logits, penalties, dict(zip((*self.modalities, POOLED), votes, strict=True)))

    def attend(
        self, parts: Float[Tensor, "batch part dim"], there: Bool[Tensor, "batch part"]
    ) -> tuple[Float[Tensor, "batch label"], Float[Tensor, "batch part label"]]:
        """Predicts each label from the parts to which its key attends, and says to which."""
        query, value, *keys = self.attention(parts).chunk(2 + self.labels, dim=-1)
        score = torch.einsum(
            "bd,bpcd->bpc", mean_of(query, there), torch.stack(keys, dim=2)
        ) / math.sqrt(self.dim)
        attention = score.masked_fill(~there.unsqueeze(-1), -torch.inf).softmax(dim=1)
        features = torch.einsum("bpc,bpd->bcd", attention, value)
        logits = torch.einsum("bcd,cd->bc", features, self.final.weight) + self.final.bias
        return logits, attention

    def penalties(
        self,
        shared: Float[Tensor, "batch modality dim"],
        distinct: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Returns the means over present pairs, and over present modalities."""
        log_p = F.logsigmoid(shared)
        left, right = log_p.unsqueeze(2), log_p.unsqueeze(1)
        middle = torch.logaddexp(left, right) - math.log(2)
        # The two directions of the divergence stand at (a, b) and (b, a); their mean is taken.
        gap = (left.exp() * (left - middle)).sum(dim=-1)
        pairs = present.unsqueeze(1) & present.unsqueeze(2)
        pairs = pairs & ~torch.eye(len(self.modalities), dtype=torch.bool, device=pairs.device)
        cosine = F.cosine_similarity(shared, distinct, dim=-1).abs()
        return {
            "shared": self.disentangle * (gap * pairs).sum() / pairs.sum().clamp_min(1),
            "distinct": self.disentangle * (cosine * present).sum() / present.sum().clamp_min(1),
        }


def part_losses(
    votes: Float[Tensor, "batch part label"], target: Tensor
) -> Float[Tensor, "batch part label"]:
    """The loss of each part's own classifier for each label.

    Args:
        votes: Logits.
        target: Zeros and ones of each label, or a number of classes that exclude each other.
    """
    labels = votes.shape[-1]
    if labels > 1 and target.numel() == len(votes):
        code = target.reshape(-1, 1, 1).long().expand(*votes.shape[:2], 1)
        return -votes.log_softmax(dim=-1).gather(-1, code).expand_as(votes)
    truth = target.reshape(-1, 1, labels).to(votes.dtype).expand_as(votes)
    return F.binary_cross_entropy_with_logits(votes, truth, reduction="none")


def ranked(
    attention: Float[Tensor, "batch part label"],
    losses: Float[Tensor, "batch part label"],
    present: Bool[Tensor, "batch modality"],
) -> Float[Tensor, ""]:
    """How far attention prefers the worse of two parts, averaged over pairs of parts.

    Of each pair it is the mean over the rows and labels in which the order is wrong. A distinct
    part counts where its modality is present, the pooled one (the last) beside it where another
    is too.
    """
    several = present & (present.sum(dim=1, keepdim=True) > 1)
    terms = [attention.sum() * 0.0]
    for first, second in itertools.combinations(range(attention.shape[1]), 2):
        both = several[:, first]
        if second < present.shape[1]:
            both = both & several[:, second]
        better = torch.where(losses[:, first] < losses[:, second], 1.0, -1.0)
        gap = better * (attention[:, second] - attention[:, first])
        wrong = gap.clamp_min(0) * both.unsqueeze(-1)
        terms.append(wrong.sum() / (wrong > 0).sum().clamp_min(1))
    return torch.stack(terms).sum() / max(len(terms) - 1, 1)
