"""The paper's imputation: a draw from the marginal mixture, whatever else was observed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Bool, Float
from torch import Tensor

from cm2.networks.imputers.base import Imputer, register

if TYPE_CHECKING:
    from cm2.core.records import Base
    from cm2.couplings import Joint


@register("marginal")
class Marginal(Imputer):
    """Draws missing embeddings from their own marginal, without looking at the present ones."""

    def values(
        self,
        z: Float[Tensor, "row modality dim"],
        present: Bool[Tensor, "row modality"],
        joint: Joint,
        base: Base | None = None,
    ) -> Float[Tensor, "row modality dim"]:
        """Draws from the marginal law of the missing modalities."""
        return joint.marginal_complete(z, present, base)
