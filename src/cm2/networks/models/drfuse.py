"""DrFuse: shared and distinct parts of each modality, and attention by each label.

Source: Yao, Yin, Yang, Wong, Ching (2024), DrFuse: learning disentangled representation for
clinical multi-modal fusion with missing modality and modal inconsistency, AAAI,
https://arxiv.org/abs/2403.06197.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, register, shown


@register("drfuse")
class DrFuse(Model):
    r"""Splits each embedding into a shared and a distinct part, and attends to them by label.

    Shared parts h_m are pooled over what is present as :math:`\mathrm{logit}` of the mean of
    :math:`\sigma(h_m)`. Penalties: the Jensen-Shannon divergence between the :math:`\sigma(h_m)` of
    two modalities (``shared``), and the size of the cosine between a modality's two parts
    (``distinct``). Each label has its own key: the attention of label c to the distinct parts that
    are present and to the pooled shared part gives the feature from which label c is predicted.

    Simplified: two linear maps of one embedding take the place of two networks a modality, so that
    encoders stay exchangeable, and the losses of the shared part's own classifier and of the
    ranking of attention weights are left out: a model here has no part in the task's loss. Beyond
    the source: any number of modalities, any of them absent.

    Args:
        encoders: Encoder of each modality, all of one ``dim``.
        labels: Number of logits.
        disentangle: Weight of both penalties; 1 in the source.
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
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        self.disentangle = disentangle
        self.dropout = nn.Dropout(dropout)
        self.shared = nn.ModuleList(nn.Linear(self.dim, self.dim) for _ in encoders)
        self.distinct = nn.ModuleList(nn.Linear(self.dim, self.dim) for _ in encoders)
        self.common = nn.Sequential(
            nn.Linear(self.dim, self.dim), nn.ReLU(), nn.Linear(self.dim, self.dim)
        )
        self.classifiers = nn.ModuleList(nn.Linear(self.dim, labels) for _ in encoders)
        self.attention = nn.Linear(self.dim, (2 + labels) * self.dim)
        self.final = nn.Linear(self.dim, labels)

    def forward(self, batch: Batch) -> Output:
        """Returns logits, both penalties, and logits of each modality's distinct part."""
        z: Tensor = self.dropout(self.raw(batch))
        there = shown(batch.present)
        shared = self.common(torch.stack([f(z[:, i]) for i, f in enumerate(self.shared)], dim=1))
        distinct = torch.stack([f(z[:, i]) for i, f in enumerate(self.distinct)], dim=1)
        absent = torch.where(there, 0.0, -torch.inf).unsqueeze(-1)
        up, down = F.logsigmoid(shared) + absent, F.logsigmoid(-shared) + absent
        pooled = up.logsumexp(dim=1) - down.logsumexp(dim=1)
        parts = torch.cat([distinct, pooled.unsqueeze(1)], dim=1)
        votes = [head(distinct[:, i]) for i, head in enumerate(self.classifiers)]
        return Output(
            self.attend(parts, F.pad(there, (0, 1), value=True)),
            self.penalties(shared.float(), distinct.float(), batch.present),
            dict(zip(self.modalities, votes, strict=True)),
        )

    def attend(
        self, parts: Float[Tensor, "batch part dim"], there: Bool[Tensor, "batch part"]
    ) -> Float[Tensor, "batch label"]:
        """Predicts each label from the parts to which its key attends."""
        query, value, *keys = self.attention(parts).chunk(2 + self.labels, dim=-1)
        share = there.unsqueeze(-1).to(query.dtype)
        mean = (query * share).sum(dim=1) / share.sum(dim=1)
        score = torch.einsum("bd,bpcd->bcp", mean, torch.stack(keys, dim=2)) / math.sqrt(self.dim)
        attention = score.masked_fill(~there.unsqueeze(1), -torch.inf).softmax(dim=-1)
        features = torch.einsum("bcp,bpd->bcd", attention, value)
        return torch.einsum("bcd,cd->bc", features, self.final.weight) + self.final.bias

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
