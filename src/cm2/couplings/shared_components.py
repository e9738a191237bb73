r"""A second exact coupling: one component of the mixture for the whole sample.

:math:`p(z) = \sum_k \pi_k \prod_j [ c_j(\Phi_{1kj}, .., \Phi_{Mkj}) \prod_m N(z_{mj}; \mu_{mkj},
\sigma_{mkj}^2) ]`: modalities depend on one another through the component and, inside it, through
the copula. Its conditional laws are closed: a posterior over components, then the copula's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.types import _size

from cm2.copulas import Copula, Estimate
from cm2.core.numerics import draw_index
from cm2.core.records import Base, Unit
from cm2.couplings.base import Joint, fixed_seed, register
from cm2.marginals import GaussianMixture
from cm2.marginals.standard import standardize


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

    @classmethod
    def mean_is_closed(cls, copula: type[Copula], components: int) -> bool:
        return copula.gaussian_scores

    def log_prob_terms(self, value: Tensor, present: Tensor | None = None) -> dict[str, Tensor]:
        z, present = self._prepare(value, present)
        log_marginal, log_copula = self._by_component(z, present)
        if log_copula.shape[-1] == 1:
            return {"marginal": log_marginal.squeeze(-1), "copula": log_copula.squeeze(-1)}
        log_weights = self._log_weights()
        joint = torch.logsumexp(log_weights + log_marginal.sum(-2) + log_copula, -1)
        marginal = torch.where(present, torch.logsumexp(log_weights + log_marginal, -1), 0.0)
        return {"marginal": marginal, "copula": joint - marginal.sum(-1)}

    def _log_weights(self) -> Tensor:
        return self.marginals.logits[0].log_softmax(-1)

    def _by_component(self, z: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities by component: of each modality (*, M, K), and of the copula (*, K)."""
        x, square = self._scores(z)
        log_marginal = self.marginals.log_density_at(square.mT)
        log_marginal = torch.where(present[..., None], log_marginal, 0.0)
        mask = None if present.all() else self._mask(present).unsqueeze(-3)
        by_copula = self.copula.log_prob_normal(self._points(x), mask)
        shape = (*z.shape[:-2], x.shape[-3], x.shape[-1] // self.copula.block)
        return log_marginal, by_copula.expand(shape).sum(-1)

    def _scores(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Positions within the components, (*, K, M, d), and their squared lengths (*, K, M)."""
        loc, scale = (part.movedim(-2, -3) for part in (self.marginals.loc, self.marginals.scale))
        return standardize(z, loc, scale)

    def copula_arguments(self, value: Tensor, present: Tensor | None = None) -> Unit:
        """Positions within a component that is drawn given all that is present."""
        z, present = self._prepare(value, present)
        loc, scale = self._drawn_component(z, present, None)
        return Unit.from_normal((z - loc) / scale)

    def _log_posterior(self, z: Tensor, present: Tensor) -> Tensor:
        """Log probabilities (*, K) of the components given what is present."""
        if self.marginals.logits.shape[-1] == 1:
            return z.new_zeros(*z.shape[:-2], 1)
        log_marginal, log_copula = self._by_component(z, present)
        return (self._log_weights() + log_marginal.sum(-2) + log_copula).log_softmax(-1)

    def _drawn_component(
        self, z: Tensor, present: Tensor, base: Base | None
    ) -> tuple[Tensor, Tensor]:
        """Means and scales (*, M, d) of a component drawn from its posterior."""
        if base is not None and base.component is None:
            raise ValueError("base.component must say which component is drawn, got none")
        component = draw_index(self._log_posterior(z, present), base and base.component)
        loc, scale = (part.movedim(-2, 0) for part in (self.marginals.loc, self.marginals.scale))
        return loc[component], scale[component]

    def _draw(self, z: Tensor, present: Tensor, base: Base | None) -> Tensor:
        loc, scale = self._drawn_component(z, present, base)
        points, mask = self._points((z - loc) / scale), self._mask(present)
        drawn = self._vectors(self.copula.complete_normal(points, mask, self._copula_base(base)))
        return loc + scale * drawn

    def _conditional_mean(self, z: Tensor, present: Tensor) -> Tensor:
        if not self.mean_is_closed(type(self.copula), self.marginals.logits.shape[-1]):
            return super()._conditional_mean(z, present)
        points = self._points(self._scores(z)[0])
        scores = self.copula.mean_normal(points, self._mask(present).unsqueeze(-3))
        inside = self._vectors(scores).movedim(-3, -2)  # (*, M, K, d)
        weight = self._log_posterior(z, present).exp()[..., None, :, None]
        return (weight * (self.marginals.loc + self.marginals.scale * inside)).sum(-2)

    @torch.no_grad()
    def _total_correlation(self, samples: int) -> Estimate:
        if self.marginals.logits.shape[-1] == 1:
            return super()._total_correlation(samples)
        if samples < 2:
            raise ValueError(f"samples must be at least 2, got {samples}")
        with fixed_seed(self.marginals.loc):
            return Estimate.of_mean(self.log_prob_terms(self.sample((samples,)))["copula"])
