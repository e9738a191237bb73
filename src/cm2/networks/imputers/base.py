"""The interface of an imputer: embeddings with gaps in, embeddings without gaps out.

Imputed values are constants to the optimiser, unless the caller wants gradients through them. The
joint is fitted by the likelihood of what was observed and by nothing else; if the classifier can
move it through the draws, its dependence says what helps the classifier and no longer what the data
are like.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2.core.records import Base
from cm2.core.registry import Registry
from cm2.couplings.rebuilt import of_rows

if TYPE_CHECKING:
    from cm2.couplings import Joint


class Imputer(nn.Module, ABC):
    """Fills in the embeddings of missing modalities.

    ``draws`` is false for an imputer that returns the same values every time, so that a prediction
    need not be repeated. ``conditions`` is true for one that needs the law of what is missing given
    what is present.
    """

    draws: bool = True
    conditions: bool = False

    def forward(
        self,
        z: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
        joint: Joint,
        base: Base | None = None,
        *,
        through: bool = False,
    ) -> Float[Tensor, "batch modality dim"]:
        """Returns ``z`` with missing modalities filled in.

        Present entries come back bit for bit and keep their gradient; imputed entries carry one of
        the joint's parameters and of what they are conditioned on if ``through``, which needs
        ``base``, and else none. Only incomplete rows are computed. ``base`` has what to draw from,
        a point for each row; draws are random without it.
        """
        incomplete = ~present.all(dim=-1)
        if not bool(incomplete.any()):
            return z
        rows = incomplete.nonzero().squeeze(-1)
        with nullcontext() if through else torch.no_grad():
            gaps = present[rows]
            safe = torch.where(gaps.unsqueeze(-1), z[rows], 0.0)
            points = None if base is None else base.map(lambda part: part[rows])
            filled = self.values(safe, gaps, of_rows(joint, rows), points)
            values = torch.zeros_like(z).index_copy(0, rows, filled)
        return torch.where(present.unsqueeze(-1), z, values)

    def sampler(self) -> Imputer:
        """Returns the imputer that draws from the law whose mean this one fills in, or itself."""
        return self

    @abstractmethod
    def values(
        self,
        z: Float[Tensor, "row modality dim"],
        present: Bool[Tensor, "row modality"],
        joint: Joint,
        base: Base | None = None,
    ) -> Float[Tensor, "row modality dim"]:
        """Returns embeddings for all modalities; those at present ones are ignored.

        An imputer that draws does so from the joint, which takes ``base`` as it is.
        """


REGISTRY: Registry[Imputer] = Registry("imputer")
register = REGISTRY.register
