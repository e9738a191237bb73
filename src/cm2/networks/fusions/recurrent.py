"""The paper's fusion: a two-layer LSTM that reads the modalities as a sequence.

Source: Wu et al. (2025), Cross-modal alignment via variational copula modelling, section 4.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from cm2.networks import recurrent
from cm2.networks.fusions.base import Fusion, register


@register("lstm")
class LSTM(Fusion):
    """Reads all modalities in their fixed order; the last state is the fused vector.

    The sequence has always all steps: an incomplete sample is completed, never shortened.

    Args:
        modalities: Number of modalities.
        dim: Width of an embedding.
        width: Width of the hidden state.
        layers: Number of recurrent layers.

    Example:
        >>> import torch
        >>> present = torch.tensor([[True, False]])
        >>> LSTM(modalities=2, dim=3)(torch.zeros(1, 2, 3), present).shape
        torch.Size([1, 64])
    """

    def __init__(self, modalities: int, dim: int, *, width: int = 64, layers: int = 2) -> None:
        super().__init__(modalities, dim, width)
        self.recurrent = recurrent.LSTM(dim, width, num_layers=layers, batch_first=True)

    def forward(
        self, z: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
    ) -> Float[Tensor, "batch width"]:
        """Returns the last state of the upper layer."""
        states, _ = self.recurrent(self.typed(z, present))
        last: Tensor = states[:, -1]
        return last
