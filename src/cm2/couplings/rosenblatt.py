r"""The copula after the Rosenblatt transform of each embedding.

:math:`\log p(z_1..z_M) = \sum_m \log f_m(z_m) + \log c(u_1, .., u_M)` with :math:`u_m` the
Rosenblatt transform of :math:`z_m` and c a copula of vectors, or coordinate by coordinate
:math:`\sum_j \log c_j(u_{1j}, .., u_{Mj})`. Exact for vectors (a linkage: Li, Scarsini and Shaked
1996; vector copulas: Fan and Henry 2023); for d = 1 it is Sklar's theorem.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.types import _size

from cm2.copulas import Copula
from cm2.core.records import Base, Unit
from cm2.couplings.base import Joint, register
from cm2.couplings.shared_components import SharedComponentsJoint


@register("rosenblatt")
class RosenblattJoint(Joint):
    """One copula of all vectors, or of M coordinates for each of the d, or one that all share."""

    @classmethod
    def copula_batch_shape(cls, dim: int, shared: bool) -> _size:
        return () if shared else (dim,)

    @classmethod
    def mean_is_closed(cls, copula: type[Copula], components: int) -> bool:
        return components == 1 and copula.gaussian_scores

    def log_prob_terms(self, value: Tensor, present: Tensor | None = None) -> dict[str, Tensor]:
        incomplete = present is not None and not present.all()
        z, present = self._prepare(value, present)
        log_prob, unit = self.marginals.evaluate(z)
        by_copula = self.copula.log_prob(
            unit.map(self._points), self._mask(present) if incomplete else None
        )
        copulas = value.shape[-1] // self.copula.block
        return {
            "marginal": torch.where(present, log_prob, 0.0) if incomplete else log_prob,
            "copula": by_copula.expand(*value.shape[:-2], copulas).sum(-1),
        }

    def copula_arguments(self, value: Tensor, present: Tensor | None = None) -> Unit:
        z, _ = self._prepare(value, present)
        return self.marginals.to_uniform(z)

    def _draw(self, z: Tensor, present: Tensor, base: Base | None) -> Tensor:
        unit = self.marginals.to_uniform(z).map(self._points)
        drawn = self.copula.complete_unit(unit, self._mask(present), self._copula_base(base))
        drawn = drawn.map(self._vectors)
        shape = torch.broadcast_shapes(drawn.log_u.shape, z.shape)
        rows, modality = (~present).nonzero(as_tuple=True)
        points = drawn.map(lambda part: part.expand(shape)[..., rows, modality, :])
        result = z.expand(shape).clone()
        result[..., rows, modality, :] = self.marginals[modality].from_uniform(points)
        return result

    def _conditional_mean(self, z: Tensor, present: Tensor) -> Tensor:
        if not self.mean_is_closed(type(self.copula), self.marginals.logits.shape[-1]):
            return super()._conditional_mean(z, present)
        return SharedComponentsJoint(self.copula, self.marginals)._conditional_mean(z, present)
