r"""The default coupling: coordinate by coordinate after the Rosenblatt transform of each embedding.

:math:`\log p(z_1..z_M) = \sum_m \log f_m(z_m) + \sum_j \log c_j(u_{1j}, .., u_{Mj})` with
:math:`u_m` the Rosenblatt transform of :math:`z_m`. Exact for vectors (a linkage: Li, Scarsini and
Shaked 1996); for d = 1 it is Sklar's theorem.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.types import _size

from cm2.couplings.base import Joint, register
from cm2.records import Unit


@register("rosenblatt")
class RosenblattJoint(Joint):
    """One copula of M coordinates for each of the d coordinates, or one that all share."""

    @classmethod
    def copula_batch_shape(cls, dim: int, shared: bool) -> _size:
        return () if shared else (dim,)

    def log_prob_terms(self, value: Tensor, present: Tensor | None = None) -> dict[str, Tensor]:
        incomplete = present is not None and not present.all()
        z, present = self._prepare(value, present)
        log_prob, unit = self.marginals.evaluate(z)
        by_coordinate = self.copula.log_prob(
            unit.map(lambda part: part.mT), present[..., None, :] if incomplete else None
        )
        return {
            "marginal": torch.where(present, log_prob, 0.0) if incomplete else log_prob,
            "copula": by_coordinate.expand(*value.shape[:-2], value.shape[-1]).sum(-1),
        }

    def copula_arguments(self, value: Tensor, present: Tensor | None = None) -> Unit:
        z, _ = self._prepare(value, present)
        return self.marginals.to_uniform(z)

    def _draw(self, z: Tensor, present: Tensor) -> Tensor:
        unit = self.marginals.to_uniform(z).map(lambda part: part.mT)
        drawn = self.copula.complete_unit(unit, present[..., None, :])
        missing = ~present
        rows, modality = missing.nonzero(as_tuple=True)
        points = drawn.map(lambda part: part.mT.expand_as(z)[rows, modality])
        result = z.clone()
        result[rows, modality] = self.marginals[modality].from_uniform(points)
        return result
