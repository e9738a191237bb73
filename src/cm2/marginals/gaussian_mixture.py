r"""Gaussian mixtures with diagonal covariances, and their map to the unit cube.

The map is the Rosenblatt (1952) transform
:math:`u_j = F(z_j | z_1..z_{j-1}) = \sum_k w_{kj} \Phi((z_j - \mu_{kj}) / \sigma_{kj})` with
:math:`w_{kj} \propto \pi_k \prod_{i<j} N(z_i; \mu_{ki}, \sigma_{ki}^2)`: one cumulative sum and one
softmax for all coordinates at once.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from cm2.core.numerics import draw_index
from cm2.core.records import Unit
from cm2.marginals.inverse import invert
from cm2.marginals.rosenblatt import evaluate


class Evaluation(NamedTuple):
    """Log density and position of a point, which share their work."""

    log_prob: Float[Tensor, "*batch"]
    unit: Unit


class GaussianMixture(Distribution):
    """A mixture of K diagonal Gaussians over vectors of d coordinates.

    It is batched, usually over modalities.

    Args:
        logits: Unnormalised log weights of the components.
        loc: Means.
        scale: Standard deviations, positive.
        validate_args: Whether to check parameters and arguments.

    Raises:
        ValueError: If shapes do not agree or a scale is not positive.

    Example:
        >>> mixture = GaussianMixture(torch.zeros(2, 3), torch.randn(2, 3, 4), torch.ones(2, 3, 4))
        >>> mixture.batch_shape, mixture.event_shape
        (torch.Size([2]), torch.Size([4]))
    """

    has_rsample = True
    support = constraints.real_vector
    arg_constraints: ClassVar[dict[str, Any]] = {
        "logits": constraints.real_vector,
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
    }

    def __init__(
        self,
        logits: Float[Tensor, "*batch component"],
        loc: Float[Tensor, "*batch component dim"],
        scale: Float[Tensor, "*batch component dim"],
        validate_args: bool | None = None,
    ) -> None:
        if loc.shape != scale.shape or loc.shape[:-1] != logits.shape:
            raise ValueError(
                "GaussianMixture: logits (*batch, K), loc and scale (*batch, K, d) are needed, got "
                f"{tuple(logits.shape)}, {tuple(loc.shape)} and {tuple(scale.shape)}"
            )
        self.logits, self.loc, self.scale = logits, loc, scale
        super().__init__(logits.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: Any = None) -> Self:
        return type(self)(
            self.logits.expand(*batch_shape, *self.logits.shape[-1:]),
            self.loc.expand(*batch_shape, *self.loc.shape[-2:]),
            self.scale.expand(*batch_shape, *self.scale.shape[-2:]),
            validate_args=False,
        )

    def __getitem__(self, index: Any) -> GaussianMixture:
        """The mixtures at these places of the batch."""
        return GaussianMixture(
            self.logits[index], self.loc[index], self.scale[index], validate_args=False
        )

    @property
    def weights(self) -> Float[Tensor, "*batch component"]:
        """Probabilities of the components."""
        return self.logits.softmax(-1)

    @property
    def mean(self) -> Float[Tensor, "*batch dim"]:
        return (self.weights[..., None] * self.loc).sum(-2)

    @property
    def variance(self) -> Float[Tensor, "*batch dim"]:
        spread = self.scale.square() + (self.loc - self.mean[..., None, :]).square()
        return (self.weights[..., None] * spread).sum(-2)

    def standardize(
        self, value: Float[Tensor, "*shape dim"]
    ) -> Float[Tensor, "*shape component dim"]:
        """Distance from each component's mean in its standard deviations."""
        return (value[..., None, :] - self.loc) / self.scale

    def log_density_at(
        self, square: Float[Tensor, "*shape component"]
    ) -> Float[Tensor, "*shape component"]:
        """Log density under each component, at the squared length of standardized points."""
        constant = self.scale.log().sum(-1) + 0.5 * math.log(2 * math.pi) * self.scale.shape[-1]
        return -0.5 * square - constant

    def log_prob(self, value: Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape"]:
        """Log density."""
        self._check(value)
        log_components = self.log_density_at(self.standardize(value).square().sum(-1))
        return torch.logsumexp(self.logits.log_softmax(-1) + log_components, -1)

    def to_uniform(self, value: Float[Tensor, "*shape dim"]) -> Unit:
        """The Rosenblatt transform: uniform on the unit cube if ``value`` follows this law."""
        return self.evaluate(value).unit

    def evaluate(self, value: Float[Tensor, "*shape dim"]) -> Evaluation:
        """Log density and Rosenblatt transform in one pass."""
        self._check(value)
        return Evaluation(*evaluate(value, self.logits, self.loc, self.scale))

    def from_uniform(self, unit: Unit | Float[Tensor, "*shape dim"]) -> Float[Tensor, "*shape dim"]:
        """The inverse Rosenblatt transform, differentiable by the implicit function theorem."""
        unit = unit if isinstance(unit, Unit) else Unit.from_u(unit)
        return invert(self, unit)

    def rsample(self, sample_shape: _size = Size()) -> Float[Tensor, "*shape dim"]:
        """Draws through the inverse Rosenblatt transform, reparameterised."""
        shape = self._extended_shape(Size(sample_shape))
        return self.from_uniform(torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device))

    @torch.no_grad()
    def sample(self, sample_shape: _size = Size()) -> Float[Tensor, "*shape dim"]:
        """Draws a component for each point, then the point from it."""
        shape = self._extended_shape(Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        component = draw_index(self.logits.expand(*shape[:-1], -1))
        index = component[..., None, None].expand(*shape[:-1], 1, shape[-1])
        loc, scale = (
            part.expand(*shape[:-1], *part.shape[-2:]).gather(-2, index).squeeze(-2)
            for part in (self.loc, self.scale)
        )
        return loc + scale * noise

    def _check(self, value: Tensor) -> None:
        if value.shape[-1:] != self.event_shape:
            raise ValueError(
                f"GaussianMixture: value has {value.shape[-1]} coordinates, "
                f"the law {self.event_shape[0]}"
            )
