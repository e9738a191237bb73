"""The default imputation: a draw from the joint given what was observed, beyond the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Bool, Float
from torch import Tensor

from cm2.networks.imputers.base import Imputer, register

if TYPE_CHECKING:
    from cm2.core.records import Base
    from cm2.couplings import Joint


@register("conditional")
class Conditional(Imputer):
    """Draws missing embeddings given the present ones of the same sample."""

    conditions = True

    def values(
        self,
        z: Float[Tensor, "row modality dim"],
        present: Bool[Tensor, "row modality"],
        joint: Joint,
        base: Base | None = None,
    ) -> Float[Tensor, "row modality dim"]:
        """Draws from the conditional law of the missing modalities."""
        return joint.complete(z, present, base)
