"""Deterministic imputation by the mean given what was observed, beyond the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Bool, Float
from torch import Tensor

from cm2.networks.imputers.base import Imputer, register
from cm2.networks.imputers.conditional import Conditional

if TYPE_CHECKING:
    from cm2.core.records import Base
    from cm2.couplings import Joint


@register("conditional-mean")
class ConditionalMean(Imputer):
    """Fills missing embeddings with their mean given the present ones of the same sample."""

    draws = False
    conditions = True

    def sampler(self) -> Imputer:
        """Draws from the law whose mean this is."""
        return Conditional()

    def values(
        self,
        z: Float[Tensor, "row modality dim"],
        present: Bool[Tensor, "row modality"],
        joint: Joint,
        base: Base | None = None,
    ) -> Float[Tensor, "row modality dim"]:
        """Returns the conditional means."""
        return joint.conditional_mean(z, present)
