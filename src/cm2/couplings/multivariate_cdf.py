r"""The paper's literal form, for comparison.

It is not a density for embeddings of more than one coordinate.

It puts :math:`u_m = F_m(z_m)`, the multivariate distribution function of the embedding, into the
copula. For d > 1 that number is not uniform, so the result does not integrate to one (Genest,
Quesada-Molina and Rodriguez-Lallena 1995).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.types import _size

from cm2.copulas import Copula, Estimate
from cm2.core.numerics import log_ndtr
from cm2.core.records import Base, Unit
from cm2.couplings.base import Joint, register


@register("multivariate-cdf")
class MultivariateCdfJoint(Joint):
    """One copula of M numbers. Its imputations are draws from the marginals, as in the paper."""

    is_density = False

    @classmethod
    def copula_batch_shape(cls, dim: int, shared: bool) -> _size:
        return ()

    @classmethod
    def start(
        cls, family: type[Copula], modalities: int, dim: int, *, shared: bool, rank: int | None
    ) -> dict[str, Any]:
        if family.couples_vectors:
            raise ValueError(
                f"the coupling 'multivariate-cdf' makes one number of an embedding, and "
                f"{family.__name__} couples vectors; use 'rosenblatt' or 'shared-components'"
            )
        return super().start(family, modalities, dim, shared=shared, rank=rank)

    def log_prob_terms(self, value: Tensor, present: Tensor | None = None) -> dict[str, Tensor]:
        z, present = self._prepare(value, present)
        log_prob = torch.where(present, self.marginals.log_prob(z), 0.0)
        return {"marginal": log_prob, "copula": self.copula.log_prob(self.to_scalar(z), present)}

    def to_scalar(self, value: Tensor) -> Unit:
        """The multivariate distribution function of each embedding."""
        log_cdf = log_ndtr(self.marginals.standardize(value)).sum(-1)
        log_weights = self.marginals.logits.log_softmax(-1)
        tiny = torch.finfo(value.dtype).tiny
        return Unit.from_log_u(torch.logsumexp(log_weights + log_cdf, -1).clamp_max(-tiny))

    def copula_arguments(self, value: Tensor, present: Tensor | None = None) -> Unit:
        """One number for each embedding; not uniform for d > 1."""
        z, _ = self._prepare(value, present)
        return self.to_scalar(z).map(lambda part: part.unsqueeze(-1))

    def _draw(self, z: Tensor, present: Tensor, base: Base | None) -> Tensor:
        if bool(present.any()):
            raise ValueError(
                "the coupling 'multivariate-cdf' has no law of what is missing given what is "
                "present; use imputation='marginal', as the paper does"
            )
        return self._draw_marginal(z, present, base)

    def _total_correlation(self, samples: int) -> Estimate:
        raise ValueError("the coupling 'multivariate-cdf' is no density: it has no information")
