"""Deterministic imputation by the mean of the marginal mixture, an ablation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Bool, Float
from torch import Tensor

from cm2.networks.imputers.base import Imputer, register
from cm2.networks.imputers.marginal import Marginal

if TYPE_CHECKING:
    from cm2.core.records import Base
    from cm2.couplings import Joint


@register("mean")
class Mean(Imputer):
    """Fills missing embeddings with the mean of their marginal."""

    draws = False

    def sampler(self) -> Imputer:
        """Draws from the law whose mean this is."""
        return Marginal()

    def values(
        self,
        z: Float[Tensor, "row modality dim"],
        present: Bool[Tensor, "row modality"],
        joint: Joint,
        base: Base | None = None,
    ) -> Float[Tensor, "row modality dim"]:
        """Returns the marginal means."""
        return joint.mean_complete(z, present)
