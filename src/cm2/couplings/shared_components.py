r"""A second exact coupling: one component of the mixture for the whole sample.

:math:`p(z) = \sum_k \pi_k \prod_j [ c_j(\Phi_{1kj}, .., \Phi_{Mkj}) \prod_m N(z_{mj}; \mu_{mkj},
\sigma_{mkj}^2) ]`: modalities depend on one another through the component and, inside it, through
the copula. Its conditional laws are closed: a posterior over components, then the copula's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.types import _size

from cm2.copulas import Copula
from cm2.couplings.base import Joint, register
from cm2.marginals import GaussianMixture
from cm2.numerics import logsumexp, normal_quantile
from cm2.records import Unit


@register("shared-components")
class SharedComponentsJoint(Joint):
    """The components' weights are those of the first marginal, which all marginals then share."""

    def __init__(self, copula: Copula, marginals: GaussianMixture) -> None:
        logits = marginals.logits[:1].expand_as(marginals.logits)
        tied = GaussianMixture(logits, marginals.loc, marginals.scale, validate_args=False)
        super().__init__(copula, tied)

    @classmethod
    def copula_batch_shape(cls, dim: int, shared: bool) -> _size:
        return () if shared else (dim,)

    @classmethod
    def shares_components(cls) -> bool:
        return True

    def log_prob_terms(self, value: Tensor, present: Tensor | None = None) -> dict[str, Tensor]:
        z, present = self._prepare(value, present)
        log_marginal, log_copula = self._by_component(z, present)
        log_weights = self._log_weights()
        joint = logsumexp(log_weights + log_marginal.sum(-2) + log_copula, -1)
        marginal = torch.where(present, logsumexp(log_weights + log_marginal, -1), 0.0)
        return {"marginal": marginal, "copula": joint - marginal.sum(-1)}

    def _log_weights(self) -> Tensor:
        return self.marginals.logits[0].log_softmax(-1)

    def _by_component(self, z: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities by component: of each modality (*, M, K), and of the copula (*, K)."""
        x = self.marginals.standardize(z)
        log_marginal = self.marginals.log_components(x).sum(-1)
        log_marginal = torch.where(present[..., None], log_marginal, 0.0)
        mask = None if present.all() else present[..., None, None, :]
        by_coordinate = self.copula.log_prob(Unit.from_normal(x.movedim(-3, -1)), mask)
        shape = (*z.shape[:-2], x.shape[-2], x.shape[-1])
        return log_marginal, by_coordinate.expand(shape).sum(-1)

    def copula_arguments(self, value: Tensor, present: Tensor | None = None) -> Unit:
        """Positions within a component that is drawn given all that is present."""
        z, present = self._prepare(value, present)
        loc, scale = self._drawn_component(z, present)
        return Unit.from_normal((z - loc) / scale)

    def _drawn_component(self, z: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Means and scales (*, M, d) of a component drawn from its posterior."""
        log_marginal, log_copula = self._by_component(z, present)
        posterior = self._log_weights() + log_marginal.sum(-2) + log_copula
        component = torch.distributions.Categorical(logits=posterior).sample()
        index = component[..., None, None, None].expand(*z.shape[:-1], 1, z.shape[-1])
        loc, scale = (
            part.expand(*z.shape[:-2], *part.shape).gather(-2, index).squeeze(-2)
            for part in (self.marginals.loc, self.marginals.scale)
        )
        return loc, scale

    def _draw(self, z: Tensor, present: Tensor) -> Tensor:
        loc, scale = self._drawn_component(z, present)
        unit = Unit.from_normal(((z - loc) / scale).mT)
        drawn = self.copula.complete_unit(unit, present[:, None, :])
        return loc + scale * normal_quantile(*drawn).mT
