r"""Finite mixtures of copulas: :math:`C = \sum_k w_k C_k` is a copula again.

A completion draws its component from the posterior given the present coordinates, and conditional
laws are averages over that posterior (McLachlan and Peel 2000, "Finite mixture models").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import constraints
from torch.types import _size

from cm2.copulas.base import Copula
from cm2.copulas.measures import kendall_from_rosenblatt
from cm2.copulas.points import as_float
from cm2.core.numerics import normal_quantile
from cm2.core.records import Base, Unit

# Normal scores of whatever float64 can tell from 0 and 1, and halvings that bring these together.
_FAR, _HALVINGS = 40.0, 60


class Mixture(Copula):
    """A mixture of copulas of the same number of coordinates.

    Its parameters are the weights and those of the components, named ``alpha_0``, ``theta_1``, ...
    after their component.

    Args:
        copulas: The components.
        weights: Their weights, of shape ``(*batch, component)``; equal if neither is given.
        logits: Instead of ``weights``, their logarithms up to a constant.
        validate_args: Whether to check parameters and arguments.
        parameters: Values in the place of the components' own, by name.

    Raises:
        ValueError: If there is no component, if sizes differ or weights do not sum to one.

    Example:
        >>> from cm2 import copulas
        >>> parts = [copulas.Gumbel(dim=2, alpha=2.0), copulas.Clayton(dim=2, theta=2.0)]
        >>> mixture = copulas.Mixture(parts, weights=torch.tensor([0.25, 0.75]))
        >>> sorted(mixture.parameters)
        ['alpha_0', 'theta_1', 'weights']
    """

    # The choice of a component has no derivative.
    has_rsample = False

    def __init__(
        self,
        copulas: Sequence[Copula],
        weights: Tensor | None = None,
        logits: Tensor | None = None,
        validate_args: bool | None = None,
        **parameters: Tensor,
    ) -> None:
        dims = sorted({copula.dim for copula in copulas})
        if len(dims) != 1:
            raise ValueError(
                f"Mixture: components must have the same number of coordinates, got {dims}"
            )
        if weights is not None and logits is not None:
            raise ValueError("Mixture: give weights or logits, not both")
        if weights is None:
            like = next((c for c in copulas if c.parameters), copulas[0])._like_parameters()
            logits = like.new_zeros(len(copulas)) if logits is None else as_float(logits)
            weights = logits.softmax(-1)
        weights = as_float(weights)
        if weights.shape[-1:] != (len(copulas),):
            raise ValueError(
                f"Mixture: {len(copulas)} components need as many weights, "
                f"got shape {tuple(weights.shape)}"
            )
        values = [
            {n: as_float(parameters.get(f"{n}_{k}", v)) for n, v in copula.parameters.items()}
            for k, copula in enumerate(copulas)
        ]
        every = [weights, *(value for part in values for value in part.values())]
        dtype = reduce(torch.promote_types, (value.dtype for value in every))
        weights = weights.to(dtype)
        copulas = [
            copula._like({n: v.to(dtype) for n, v in part.items()}) if part else copula
            for copula, part in zip(copulas, values, strict=True)
        ]
        shape = torch.broadcast_shapes(weights.shape[:-1], *(c.batch_shape for c in copulas))
        self.copulas = tuple(copula.expand(shape) for copula in copulas)
        self.weights = weights.expand(*shape, -1)
        self.arg_constraints = {"weights": constraints.simplex}
        for k, copula in enumerate(self.copulas):
            for name, value in copula.parameters.items():
                self.arg_constraints[f"{name}_{k}"] = copula.arg_constraints[name]
                setattr(self, f"{name}_{k}", value)
        super().__init__(dims[0], batch_shape=shape, validate_args=validate_args)

    @classmethod
    def start(cls, dim: int, batch_shape: _size = ()) -> dict[str, Any]:
        raise ValueError("Mixture: it starts from copulas; give Mixture(copulas)")

    @classmethod
    def from_kendall_tau(cls, tau: float | Tensor, dim: int = 2) -> Self:
        raise ValueError("Mixture: mix copulas that have the Kendall's tau")

    def _like(self, parameters: dict[str, Tensor]) -> Self:
        return type(self)(self.copulas, validate_args=False, **parameters)

    def expand(self, batch_shape: _size, _instance: Any = None) -> Self:
        copulas = [copula.expand(batch_shape) for copula in self.copulas]
        weights = self.weights.expand(*batch_shape, -1)
        return type(self)(copulas, weights, validate_args=False)

    @property
    def redundant(self) -> int:
        return sum(copula.redundant for copula in self.copulas)

    def marginal(self, present: Bool[Tensor, " dim"]) -> Self:
        parts = [copula.marginal(present) for copula in self.copulas]
        return type(self)(parts, self.weights, validate_args=False)

    # Laws --------------------------------------------------------------------------------------

    def _log_joint(self, unit: Unit, present: Tensor | None) -> Tensor:
        """Log densities of the components, each with its weight; the last dimension is theirs."""
        parts = [copula._log_prob(unit, present) for copula in self.copulas]
        return torch.stack(torch.broadcast_tensors(*parts), -1) + self.weights.log()

    def _log_prob(self, unit: Unit, present: Tensor | None) -> Tensor:
        return torch.logsumexp(self._log_joint(unit, present), -1)

    def _cdf(self, unit: Unit) -> Tensor:
        return self._average(lambda copula: copula._cdf(unit))

    def _complete(self, unit: Unit, present: Tensor, base: Base | None) -> Unit:
        if base is not None:
            return self._quantile(unit, present, base.coordinate)
        posterior = self._log_joint(unit, present).detach()
        chosen = torch.distributions.Categorical(logits=posterior, validate_args=False).sample()
        drawn = [copula._complete(unit, present, None) for copula in self.copulas]
        index = chosen[..., None, None]
        return Unit(
            *(
                torch.stack(torch.broadcast_tensors(*parts), -1)
                .take_along_dim(index, -1)
                .squeeze(-1)
                for parts in zip(*drawn, strict=True)
            )
        )

    @torch.no_grad()
    def _quantile(self, unit: Unit, present: Tensor, u: Tensor) -> Unit:
        """The inverse of :meth:`_conditional_cdf` by bisection, one coordinate after the other."""
        shape = torch.broadcast_shapes(unit.log_u.shape, present.shape, u.shape)
        target = normal_quantile(*Unit.from_u(u.expand(shape)))
        x = normal_quantile(*unit).expand(shape).clone()
        for m in range(self.dim):
            given = x[..., m].clone()
            low, high = torch.full_like(given, -_FAR), torch.full_like(given, _FAR)
            for _ in range(_HALVINGS):
                x[..., m] = torch.where(present[..., m], given, (low + high) / 2)
                value = normal_quantile(*self._conditional_cdf(Unit.from_normal(x), present))
                below = value[..., m] < target[..., m]
                low = torch.where(below, x[..., m], low)
                high = torch.where(below, high, x[..., m])
        return Unit.from_normal(x)

    def _conditional_cdf(self, unit: Unit, present: Tensor) -> Unit:
        inside = [copula._conditional_cdf(unit, present) for copula in self.copulas]
        columns = [torch.stack(torch.broadcast_tensors(*p), -1) for p in zip(*inside, strict=True)]
        before = torch.ones(self.dim, self.dim, dtype=torch.bool, device=present.device).tril(-1)
        parts = []
        for m in range(self.dim):
            # The posterior of the components given what this coordinate is conditioned on.
            log_posterior = self._log_joint(unit, present | before[m]).log_softmax(-1)
            parts.append([torch.logsumexp(c[..., m, :] + log_posterior, -1) for c in columns])
        log_u, log_1mu = (torch.stack(part, -1) for part in zip(*parts, strict=True))
        return Unit(log_u.clamp_max(0.0), log_1mu.clamp_max(0.0))

    # Measures ------------------------------------------------------------------------------------

    def kendall_tau(self) -> Float[Tensor, "*batch dim dim"]:
        r"""Kendall's tau, by quadrature to about 1e-4 where dependence is not extreme.

        .. math:: \tau = 1 - 4 \int\!\!\int \partial_u C \, \partial_v C \,du\,dv
        """
        like = self.weights
        tau = torch.ones(*self.batch_shape, self.dim, self.dim, dtype=like.dtype)
        tau = tau.to(like.device)
        for i in range(self.dim):
            for j in range(i):
                pair = torch.zeros(self.dim, dtype=torch.bool, device=like.device)
                pair[[i, j]] = True
                margin = self.marginal(pair) if self.dim > 2 else self
                value = kendall_from_rosenblatt(margin.conditional_cdf, like=tau)
                tau[..., i, j] = tau[..., j, i] = value
        return tau

    def spearman_rho(self) -> Float[Tensor, "*batch dim dim"]:
        return self._average(lambda copula: copula.spearman_rho(), 2)

    def lower_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        return self._average(lambda copula: copula.lower_tail_dependence(), 2)

    def upper_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        return self._average(lambda copula: copula.upper_tail_dependence(), 2)

    def mixed_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        return self._average(lambda copula: copula.mixed_tail_dependence(), 2)

    def _average(self, law: Callable[[Copula], Tensor], extra: int = 0) -> Tensor:
        """The weighted sum of what is linear in the copula, with extra dimensions at the end."""
        values = torch.stack(torch.broadcast_tensors(*map(law, self.copulas)), -1)
        weights = self.weights.view(*self.batch_shape, *[1] * extra, -1)
        return (weights * values).sum(-1)
