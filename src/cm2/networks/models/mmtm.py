"""MMTM: modalities rescale each other's features.

Source: Joze, Shaban, Iuzzolino, Koishida (2020), MMTM: multimodal transfer module for CNN fusion,
equations 2 to 6, https://arxiv.org/abs/1911.08670.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, average, register
from cm2.networks.models.staged import (
    Run,
    check_missing,
    check_place,
    filled,
    shared_stages,
)


@register("mmtm")
class MMTM(Model):
    r"""Late fusion of embeddings that a joint squeeze has excited.

    .. math:: s = \mathrm{relu}(W [z_1, .., z_M] + b), \quad
        \tilde z_m = 2\,\sigma(W_m s + b_m) \odot z_m

    Modalities that are absent are zeros in the squeeze. Each modality has a linear classifier on
    its excited embedding; their logits are averaged over what is present.

    With ``place="inside"`` such modules stand between the layers of the encoders, as in the source:
    one after each of the last stages (``Encoder.staged``), as many as all encoders have, such as
    those of a ResNet and the layers of an LSTM. They squeeze the mean over places, and excite
    channels. With ``"embeddings"``, which is simpler, one stands on the embeddings. Beyond the
    source: any number of modalities, some absent; with ``missing="zeros"`` encoders read zeros for
    these, which squeeze and vote as what is there, as Wu et al. (2025) ran it. The code that they
    ran, that of MedFuse, has one module alone, between the last stage of a ResNet and the first of
    two layers of an LSTM, with gates of at most one, and a classifier of both embeddings beside;
    here stages meet that are equally far from the end, whatever encoders there are.

    Args:
        encoders: Encoder of each modality, all of one ``dim``.
        labels: Number of logits.
        ratio: Width of all embeddings together over that of the squeeze; 4 in the source.
        place: ``"embeddings"`` or ``"inside"``.
        missing: What encoders read where a modality is missing: ``"skipped"``, nothing, or
            ``"zeros"``.
        dropout: Probability of dropping a coordinate of an excited embedding.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = MMTM({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        ratio: float = 4.0,
        place: str = "embeddings",
        missing: str = "skipped",
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        together = self.dim * len(encoders)
        if not 0 < ratio <= together:
            raise ValueError(f"ratio must be positive and at most {together}, but is {ratio}")
        self.zeros = check_missing(missing) == "zeros"
        inside = check_place(place) == "inside"
        if not inside:
            self.squeeze = nn.Sequential(nn.Linear(together, int(together / ratio)), nn.ReLU())
            self.excite = nn.Linear(int(together / ratio), together)
        self.transfers = nn.ModuleList(
            Transfer(widths, ratio) for widths in (shared_stages(encoders) if inside else ())
        )
        self.dropout = nn.Dropout(dropout)
        self.classifiers = nn.ModuleList(nn.Linear(self.dim, labels) for _ in encoders)

    def forward(self, batch: Batch) -> Output:
        """Returns the average logits, and those of each modality."""
        if self.zeros:
            self._check(batch)
            batch = filled(batch, self.modalities)
        z = self.excited(batch) if len(self.transfers) == 0 else self.inside(batch)
        excited = self.dropout(z)
        votes = [head(excited[:, column]) for column, head in enumerate(self.classifiers)]
        logits = average(torch.stack(votes, dim=1), batch.present)
        return Output(logits, {}, dict(zip(self.modalities, votes, strict=True)))

    def excited(self, batch: Batch) -> Float[Tensor, "batch modality dim"]:
        """Returns embeddings that have been excited."""
        z = self.raw(batch)
        gates: Tensor = 2 * self.excite(self.squeeze(z.flatten(1))).sigmoid()
        return z * gates.view_as(z)

    def inside(self, batch: Batch) -> Float[Tensor, "batch modality dim"]:
        """Returns embeddings by encoders whose features have been excited on the way."""
        runs = [
            Run(encoder, name, batch, column, len(encoder.stages) - len(self.transfers))
            for column, (name, encoder) in enumerate(self.encoders.items())
        ]
        for transfer in self.transfers:
            for run, gate in zip(runs, transfer([run.mean() for run in runs]), strict=True):
                run.go(gate)
        return torch.stack([run.finish() for run in runs], dim=1)


class Transfer(nn.Module):
    """Gates of the channels of all modalities, given what each has on average.

    Args:
        widths: Number of channels of each modality.
        ratio: That of all together over the width of the squeeze.
    """

    def __init__(self, widths: Sequence[int], ratio: float) -> None:
        super().__init__()
        self.widths = list(widths)
        inner = max(1, int(sum(widths) / ratio))
        self.squeeze = nn.Sequential(nn.Linear(sum(widths), inner), nn.ReLU())
        self.excite = nn.Linear(inner, sum(widths))

    def forward(self, means: Sequence[Float[Tensor, "batch ..."]]) -> tuple[Tensor, ...]:
        """Returns a gate between zero and two for each channel."""
        gates: Tensor = 2 * self.excite(self.squeeze(torch.cat(list(means), dim=1))).sigmoid()
        return gates.split(self.widths, dim=1)
