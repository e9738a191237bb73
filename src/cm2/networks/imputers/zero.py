"""Zero filling, the ablation without any model of the missing modality."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cm2.networks.imputers.base import Imputer, register

if TYPE_CHECKING:
    from cm2.core.records import Base
    from cm2.couplings import Joint


@register("zero")
class Zero(Imputer):
    """Fills missing embeddings with zeros."""

    draws = False

    def values(
        self,
        z: Float[Tensor, "row modality dim"],
        present: Bool[Tensor, "row modality"],
        joint: Joint,
        base: Base | None = None,
    ) -> Float[Tensor, "row modality dim"]:
        """Returns zeros."""
        return torch.zeros_like(z)
