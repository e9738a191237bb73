"""DAFT: the other modalities shift and scale the features of the main one.

Source: Poelsterl, Wolf, Wachinger (2021), Combining 3D image and tabular data via the dynamic
affine feature map transform, equations 1 and 2, https://arxiv.org/abs/2107.05990.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, encode_present, register
from cm2.networks.models.staged import Run, check_missing, check_place, filled


@register("daft")
class DAFT(Model):
    r"""A linear classifier on the main modality's embedding after an affine map.

    .. math:: (\alpha, \beta) = W_2\,\mathrm{relu}(W_1 [z_1, z_2, .., z_M]), \quad
        \tilde z_1 = \alpha \odot z_1 + \beta

    Modalities that are absent are zeros there. W_1 and W_2 have no intercept, as in the source,
    so that a row without any modality gets the classifier's intercept.

    With ``place="inside"`` the map stands in the main modality's encoder, before its last stage, as
    in the source: it reads the mean of the main features over places beside the others' embeddings,
    and maps channels. With ``"embeddings"``, which is simpler, it stands on the embedding. Beyond
    the source: more than one conditioning modality, and any of them absent, the main one included.
    Inside, a row without the main modality gets the classifier's intercept. With
    ``missing="zeros"`` encoders read zeros for what is missing, as Wu et al. (2025) ran it.

    Args:
        encoders: Encoder of each modality, all of one ``dim``; the first is the main one.
        labels: Number of logits.
        bottleneck: Width of the hidden layer; a seventh of all embeddings' if ``None``, as in the
            source, but at least 4.
        place: ``"embeddings"`` or ``"inside"``.
        missing: What encoders read where a modality is missing: ``"skipped"``, nothing, or
            ``"zeros"``.
        dropout: Probability of dropping a coordinate of the mapped embedding.

    Example:
        >>> import torch
        >>> from cm2.networks.encoders import Dense
        >>> model = DAFT({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        bottleneck: int | None = None,
        place: str = "embeddings",
        missing: str = "skipped",
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        self.place = check_place(place)
        self.zeros = check_missing(missing) == "zeros"
        stages = next(iter(encoders.values())).stages
        self.stage = max(len(stages) - 2, 0)
        main = self.dim if place == "embeddings" else stages[self.stage]
        together = main + self.dim * (len(encoders) - 1)
        width = max(4, together // 7) if bottleneck is None else bottleneck
        if width < 1:
            raise ValueError(f"bottleneck must be at least 1, but is {width}")
        self.auxiliary = nn.Sequential(
            nn.Linear(together, width, bias=False),
            nn.ReLU(),
            nn.Linear(width, 2 * main, bias=False),
        )
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.dim, labels))

    def forward(self, batch: Batch) -> Output:
        """Returns logits of the mapped embedding of the first modality."""
        if self.zeros:
            self._check(batch)
            batch = filled(batch, self.modalities)
        if self.place == "inside":
            return Output(self.classifier(self.inside(batch)), {}, {})
        z = self.raw(batch)
        maps: Tensor = self.auxiliary(z.flatten(1))
        scale, shift = maps.chunk(2, dim=-1)
        return Output(self.classifier(scale * z[:, 0] + shift), {}, {})

    def inside(self, batch: Batch) -> Float[Tensor, "batch dim"]:
        """Returns the main embedding, whose features have been mapped on the way."""
        (name, encoder), *others = self.encoders.items()
        run = Run(encoder, name, batch, 0, self.stage)
        parts = [run.mean()]
        if others:
            parts.append(
                encode_present(dict(others), batch.inputs, batch.present[:, 1:]).flatten(1)
            )
        maps: Tensor = self.auxiliary(torch.cat(parts, dim=1))
        run.go(*maps.chunk(2, dim=-1))
        return run.finish()
