"""DAFT: the other modalities shift and scale the features of the main one.

Source: Poelsterl, Wolf, Wachinger (2021), Combining 3D image and tabular data via the dynamic
affine feature map transform, equations 1 and 2, https://arxiv.org/abs/2107.05990.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from cm2.core.records import Batch, Output
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import Model, register


@register("daft")
class DAFT(Model):
    r"""A linear classifier on the main modality's embedding after an affine map.

    .. math:: (\alpha, \beta) = W_2\,\mathrm{relu}(W_1 [z_1, z_2, .., z_M]), \quad
        \tilde z_1 = \alpha \odot z_1 + \beta

    Modalities that are absent are zeros there. W_1 and W_2 have no intercept, as in the source,
    so that a row without any modality gets the classifier's intercept.

    Simplified: the source places the map inside the main modality's network, before its last
    block; here it stands on the embedding, so that encoders stay exchangeable. Beyond the source:
    more than one conditioning modality, and any of them absent, the main one included.

    Args:
        encoders: Encoder of each modality, all of one ``dim``; the first is the main one.
        labels: Number of logits.
        bottleneck: Width of the hidden layer; a seventh of all embeddings' if ``None``, as in the
            source, but at least 4.
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
        dropout: float = 0.1,
    ) -> None:
        super().__init__(encoders, labels)
        together = self.dim * len(encoders)
        width = max(4, together // 7) if bottleneck is None else bottleneck
        if width < 1:
            raise ValueError(f"bottleneck must be at least 1, but is {width}")
        self.auxiliary = nn.Sequential(
            nn.Linear(together, width, bias=False),
            nn.ReLU(),
            nn.Linear(width, 2 * self.dim, bias=False),
        )
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.dim, labels))

    def forward(self, batch: Batch) -> Output:
        """Returns logits of the mapped embedding of the first modality."""
        z = self.raw(batch)
        maps: Tensor = self.auxiliary(z.flatten(1))
        scale, shift = maps.chunk(2, dim=-1)
        return Output(self.classifier(scale * z[:, 0] + shift), {}, {})
