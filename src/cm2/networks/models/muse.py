"""MUSE: a graph of patients and modalities that stays consistent when modalities go missing.

Source: Wu, Dadu, Tustison, Avants, Nalls, Sun, Faghri (2024), Multimodal patient representation
learning with missing modalities and labels, ICLR, section 3,
https://openreview.net/forum?id=Je5SHCKpPa, and its code, https://github.com/zzachw/MUSE.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, part_of, register, single_precision
from cm2.networks.models.reference import MOST, Patients, Reference

SHARPNESS = 1 / 0.07
"""What the contrast multiplies cosines by."""

Anchors = list[Float[Tensor, "modality dim"]]
"""The modality nodes before each layer."""


@register("muse")
class MUSE(Model):
    """Classifies patient nodes of a bipartite graph whose other nodes are modalities.

    An edge joins a patient to each modality that they have, and carries its embedding. In a layer
    every node takes the mean of what its edges and the nodes at their other ends tell it, and edges
    then take up both their ends. What is missing has no edge. In training the graph is seen twice,
    whole and with edges dropped at random, and two penalties keep both views alike: that a patient
    is nearer to their own other view than to others' (``agreement``), and that patients of one
    outcome are near to each other in both (``outcome``).

    In training the patients are the rows of the batch, as in the source. At prediction modality
    nodes hear a fixed ``reference`` of training rows only, where the source takes the test batch:
    so a row is predicted alone as in a cohort. Without reference
    (``CM2Classifier.save(reference=False)``) they are what they were learned to begin as.

    The graph network and both penalties are those of the authors' code from the same weights, to
    1e-5. Unlike it: edges are dropped with random numbers of their own; patients of several labels
    have one outcome where all labels are equal; every patient has a label here.

    Args:
        encoders: Encoder of each modality, all of one ``dim``.
        labels: Number of logits.
        depth: Number of layers.
        agreement: Weight of the penalty of its name.
        outcome: Weight of the penalty of its name.
        reference: Training rows that modality nodes hear at prediction, at most 512.
        dropout: Probability of dropping a coordinate of an embedding, a node or a hidden unit.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = MUSE({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
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
        agreement: float = 0.5,
        outcome: float = 0.5,
        reference: int = MOST,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, but is {depth}")
        dim = self.dim
        self.agreement = agreement
        self.outcome = outcome
        self.reference = Reference(reference, len(encoders), dim)
        self.nodes = nn.Parameter(torch.randn(len(encoders), dim))
        self.tell = nn.ModuleList(nn.Linear(2 * dim, dim) for _ in range(depth))
        self.hear = nn.ModuleList(nn.Linear(2 * dim, dim) for _ in range(depth))
        self.edge = nn.ModuleList(nn.Linear(3 * dim, dim) for _ in range(depth - 1))
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Sequential(nn.Linear(dim, dim), nn.Tanh())
        self.classifier = nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, labels)
        )

    def forward(self, batch: Batch) -> Output:
        """Returns logits of patient nodes, and in training both penalties."""
        rows = Patients(self.dropout(self.raw(batch)), batch.present)
        if not self.training:
            anchors = self.graph(self.reference())[1]
            return Output(self.classifier(self.graph(rows, anchors)[0]), {}, {})
        nodes, _ = self.graph(rows)
        other, _ = self.graph(rows._replace(present=dropped(rows.present)))
        with single_precision(nodes):
            first, second = (F.normalize(self.project(x.float()), dim=-1) for x in (nodes, other))
            penalties = {"agreement": self.agreement * agreement(first, second)}
            if batch.target is not None:
                penalties["outcome"] = self.outcome * outcome(first, second, batch.target)
        return Output(self.classifier(nodes), penalties, {})

    def graph(
        self, rows: Patients, anchors: Anchors | None = None
    ) -> tuple[Float[Tensor, "row dim"], Anchors]:
        """Returns patient nodes after all layers, and modality nodes before each.

        Args:
            rows: Patients, who tell modality nodes what they have.
            anchors: Modality nodes before each layer, where others have told them.
        """
        there = rows.present.unsqueeze(-1)
        patient = torch.ones_like(rows.z[:, 0])
        modality: Tensor = self.nodes
        up = down = rows.z  # from patient to modality, and back
        seen = [modality]
        for number, (tell, hear) in enumerate(zip(self.tell, self.hear, strict=True)):
            left = patient.unsqueeze(1).expand_as(up)
            right = modality.unsqueeze(0).expand_as(down)
            told = mean(F.relu(tell(torch.cat([right, down], dim=-1))), there, dim=1)
            heard = mean(F.relu(tell(torch.cat([left, up], dim=-1))), there, dim=0)
            patient = F.relu(hear(torch.cat([told, patient], dim=-1)))
            if number == len(self.edge):  # the last layer has no use for modality nodes
                break
            modality = F.relu(hear(torch.cat([heard, modality], dim=-1)))
            patient, modality = self.dropout(patient), self.dropout(modality)
            if anchors is not None:
                modality = anchors[number + 1]
            seen.append(modality)
            left = patient.unsqueeze(1).expand_as(up)
            right = modality.unsqueeze(0).expand_as(down)
            edge = self.edge[number]
            up = F.relu(edge(torch.cat([left, right, up], dim=-1)))
            down = F.relu(edge(torch.cat([right, left, down], dim=-1)))
        return patient, seen


def mean(
    values: Float[Tensor, "row modality dim"], there: Bool[Tensor, "row modality 1"], dim: int
) -> Float[Tensor, "node dim"]:
    """Averages over the edges of a node; zeros for one without edges."""
    return (values * there).sum(dim=dim) / there.sum(dim=dim).clamp_min(1)


def dropped(present: Bool[Tensor, "row modality"]) -> Bool[Tensor, "row modality"]:
    """Leaves out edges of every second patient, but never all that a patient has."""
    some = torch.rand(len(present), 1, device=present.device) < 0.5
    return torch.where(some, part_of(present), present)


def agreement(
    first: Float[Tensor, "row dim"], second: Float[Tensor, "row dim"]
) -> Float[Tensor, ""]:
    """Cross-entropy of finding a patient's other view among all, averaged over both directions."""
    score = SHARPNESS * first @ second.T
    own = torch.arange(len(score), device=score.device)
    return (F.cross_entropy(score, own) + F.cross_entropy(score.T, own)) / 2


def outcome(
    first: Float[Tensor, "row dim"], second: Float[Tensor, "row dim"], target: Tensor
) -> Float[Tensor, ""]:
    """Cross-entropy of whether two patients have one outcome, by how near they are."""
    label = target.reshape(len(first), -1)
    same = (label.unsqueeze(0) == label.unsqueeze(1)).all(dim=-1).to(first)
    within, between = (
        F.binary_cross_entropy_with_logits(SHARPNESS * first @ other.T, same)
        for other in (first, second)
    )
    # The term between views is the same in both directions.
    return (within + between) / 2
