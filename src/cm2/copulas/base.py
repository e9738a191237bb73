"""What every copula is: a distribution on the unit cube with uniform margins.

The conventions are those of torch.distributions: immutable objects built from tensors, batched over
a leading shape. Nelsen (2006), "An Introduction to Copulas", is the general reference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from cm2.records import Unit
from cm2.registry import Registry


class Copula(Distribution, ABC):
    """A copula of ``dim`` coordinates.

    Points of the cube are given as a tensor in [0, 1] or, where an end of the interval matters, as
    :class:`~cm2.records.Unit`. Coordinates whose ``present`` is False are not read and may hold
    anything; densities are then those of the margin on the present ones.

    Args:
        dim: Number of coordinates.
        batch_shape: Shape of the batch of copulas.
        validate_args: Whether to check parameters and arguments; torch's default if ``None``.
    """

    has_rsample = True
    arg_constraints: Any = {}

    def __init__(
        self, dim: int, *, batch_shape: _size = (), validate_args: bool | None = None
    ) -> None:
        name = type(self).__name__
        if not isinstance(dim, int) or dim < 1:
            raise ValueError(f"{name}: dim must be a positive whole number, got {dim!r}")
        self.dim = dim
        try:
            super().__init__(Size(batch_shape), Size((dim,)), validate_args=validate_args)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """The unit cube."""
        return constraints.independent(constraints.unit_interval, 1)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The tensors that determine the copula, by the names of the constructor's arguments."""
        return {name: getattr(self, name) for name in self.arg_constraints}

    # Construction ----------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def start(cls, dim: int, batch_shape: _size = ()) -> dict[str, Any]:
        """Arguments of mild dependence from which to train."""

    @classmethod
    @abstractmethod
    def from_kendall_tau(cls, tau: float | Tensor, dim: int = 2) -> Self:
        """The member with this Kendall's tau between every two coordinates.

        Raises:
            ValueError: If the family does not reach ``tau``.
        """

    @abstractmethod
    def marginal(self, present: Bool[Tensor, " dim"]) -> Copula:
        """The copula of a subset of at least two coordinates."""

    def expand(self, batch_shape: _size, _instance: Any = None) -> Self:
        """The same copula with its parameters expanded to ``batch_shape``."""
        constraint = self.arg_constraints
        return self._like(
            {
                name: value.expand(
                    *batch_shape, *value.shape[value.dim() - constraint[name].event_dim :]
                )
                for name, value in self.parameters.items()
            }
        )

    def _like(self, parameters: dict[str, Tensor]) -> Self:
        arguments: dict[str, Any] = {**parameters, "validate_args": False}
        return type(self)(self.dim, **arguments)

    # Laws ------------------------------------------------------------------------------------

    @abstractmethod
    def kendall_tau(self) -> Float[Tensor, "*batch dim dim"]:
        """Kendall's tau of every two coordinates."""

    def log_prob(
        self,
        value: Float[Tensor, "*#shape dim"] | Unit,
        present: Bool[Tensor, "*#shape dim"] | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Log density; with ``present``, of the margin on the present coordinates.

        Raises:
            ValueError: If a present coordinate is NaN or outside [0, 1].
        """
        unit, present = self._prepare(value, present)
        return self._log_prob(unit, present)

    def cdf(self, value: Float[Tensor, "*#shape dim"] | Unit) -> Float[Tensor, "*shape"]:
        """Probability of the box below ``value``."""
        unit, _ = self._prepare(value, None)
        return self._cdf(unit)

    def complete(
        self, value: Float[Tensor, "*#shape dim"], present: Bool[Tensor, "*#shape dim"]
    ) -> Float[Tensor, "*shape dim"]:
        """Draws the missing coordinates given the present ones, reparameterised.

        Present coordinates are returned unchanged, bit for bit.
        """
        unit, _ = self._prepare(value, present)
        return torch.where(present, value, self._complete(unit, present).u)

    def complete_unit(self, unit: Unit, present: Bool[Tensor, "*#shape dim"]) -> Unit:
        """:meth:`complete` from and to :class:`~cm2.records.Unit`."""
        unit, _ = self._prepare(unit, present)
        drawn = self._complete(unit, present)
        return unit.map(lambda given, new: torch.where(present, given, new), drawn)

    def sample_unit(self, sample_shape: _size = ()) -> Unit:
        """Draws points, as :class:`~cm2.records.Unit`."""
        shape = self._extended_shape(Size(sample_shape))
        like = next(iter(self.parameters.values()), torch.empty(()))
        half = like.new_full((), 0.5).log().expand(shape)
        return self._complete(
            Unit(half, half), torch.zeros(shape, dtype=torch.bool, device=half.device)
        )

    def rsample(self, sample_shape: _size = Size()) -> Float[Tensor, "*shape dim"]:
        """Draws points, reparameterised."""
        return self.sample_unit(sample_shape).u

    @abstractmethod
    def _log_prob(self, unit: Unit, present: Tensor | None) -> Tensor: ...

    @abstractmethod
    def _cdf(self, unit: Unit) -> Tensor: ...

    @abstractmethod
    def _complete(self, unit: Unit, present: Tensor) -> Unit: ...

    def _prepare(self, value: Tensor | Unit, present: Tensor | None) -> tuple[Unit, Tensor | None]:
        """Checks the arguments and puts 1/2 where nothing is present."""
        name = type(self).__name__
        given = value.log_u if isinstance(value, Unit) else value
        if given.shape[-1:] != (self.dim,):
            raise ValueError(
                f"{name}: the last dimension of value is {tuple(given.shape)[-1:]}, "
                f"the copula has {self.dim} coordinates"
            )
        if present is not None:
            if present.shape[-1] != self.dim or present.dtype != torch.bool:
                raise ValueError(
                    f"{name}: present must be boolean with {self.dim} columns, "
                    f"got {present.dtype} with shape {tuple(present.shape)}"
                )
            half = given.new_full((), 0.5)
            if isinstance(value, Unit):
                value = value.map(lambda part: torch.where(present, part, half.log()))
            else:
                value = torch.where(present, value, half)
        if isinstance(value, Unit):
            return value, present
        if self._validate_args and not ((value >= 0) & (value <= 1)).all():
            raise ValueError(f"{name}: value must lie in [0, 1] and not be NaN where it is present")
        return Unit.from_u(value), present


REGISTRY = Registry[Copula]("copula")
register = REGISTRY.register


def check_tau(family: str, tau: float | Tensor, low: float, high: float) -> Tensor:
    """Kendall's tau as a tensor, if it lies in ``[low, high)``.

    Raises:
        ValueError: Naming the family, the value and the range.
    """
    value = torch.as_tensor(tau)
    value = value if value.is_floating_point() else value.to(torch.get_default_dtype())
    if not ((value >= low) & (value < high)).all():
        raise ValueError(f"{family}: Kendall's tau must be in [{low}, {high}), got {tau}")
    return value
