"""What every copula is: a distribution on the unit cube with uniform margins.

The conventions are those of torch.distributions: immutable objects built from tensors, batched over
a leading shape. Nelsen (2006), "An Introduction to Copulas", is the general reference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from cm2.copulas.measures import Estimate, spearman_from_rosenblatt
from cm2.copulas.points import (
    Points,
    Presence,
    as_float,
    as_tensor,
    by_column,
    cast,
    check_range,
    described,
    dtype_of,
    to_point,
    to_unit,
)
from cm2.copulas.vectors import VectorCoupling
from cm2.core.records import Base, Unit
from cm2.core.registry import Registry

# Entries worked on at once: few enough to stay near the processor, and enough for torch to share
# them between threads (at 2^15 it uses one).
CHUNK = 2**18


class Copula(VectorCoupling, Distribution, ABC):
    """A copula of ``dim`` coordinates.

    Points of the cube are given as a tensor in [0, 1] or, where an end of the interval matters, as
    :class:`~cm2.core.records.Unit`; arrays and lists are read as tensors. Their dtype and that of
    the parameters promote as in :class:`torch.distributions.Normal`, whole numbers and half
    precision to torch's default at least. Coordinates whose ``present`` is False are not read and
    may hold anything; densities are then those of the margin on the present ones.

    Args:
        dim: Number of coordinates; with one it is the uniform law.
        batch_shape: Shape of the batch of copulas.
        validate_args: Whether to check parameters and arguments; torch's default if ``None``.
    """

    has_rsample = True
    arg_constraints: Any = {}
    # The most coordinates that the family can have; None if there is no limit.
    largest_dim: ClassVar[int | None] = None
    # Whether every two coordinates can have a correlation of their own, of either sign.
    free_correlations: ClassVar[bool] = False

    def __init__(
        self, dim: int, *, batch_shape: _size = (), validate_args: bool | None = None
    ) -> None:
        # One coordinate is the uniform law: a model of one modality needs no case of its own.
        if not isinstance(dim, int) or dim < 1:
            raise ValueError(
                f"{type(self).__name__}: dim must be a positive whole number, got {dim!r}"
            )
        if self.largest_dim is not None and dim > self.largest_dim:
            raise ValueError(
                f"{type(self).__name__}: dim must be at most {self.largest_dim}, got {dim}"
            )
        self.dim = dim
        super().__init__(Size(batch_shape), Size((dim,)), validate_args=False)
        self._validate_args = (
            Distribution._validate_args if validate_args is None else validate_args
        )
        if self._validate_args:
            self._check_parameters()

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """The unit cube."""
        return constraints.independent(constraints.unit_interval, 1)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The tensors that determine the copula, by the names of the constructor's arguments."""
        return {name: getattr(self, name) for name in self.arg_constraints}

    @property
    def redundant(self) -> int:
        """How many numbers of the parameters could be left out, as turns of factors could."""
        return 0

    @property
    def mean(self) -> Float[Tensor, "*batch dim"]:
        """The mean of every coordinate, 1/2."""
        return self._like_parameters().new_full(self._extended_shape(), 0.5)

    @property
    def variance(self) -> Float[Tensor, "*batch dim"]:
        """The variance of every coordinate, 1/12."""
        return self._like_parameters().new_full(self._extended_shape(), 1 / 12)

    # Construction ----------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def start(cls, dim: int, batch_shape: _size = ()) -> dict[str, Any]:
        """Arguments of mild dependence from which to train."""

    @classmethod
    def reaches(cls, tau: float, dim: int) -> bool:
        """Whether the family can have this Kendall's tau between coordinates."""
        try:
            return cls.free_correlations or bool(cls.from_kendall_tau(tau, dim))
        except ValueError:
            return False

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
        events = {name: law.event_dim for name, law in self.arg_constraints.items()}
        return self._like(
            {
                name: value.expand((*batch_shape, *value.shape[value.dim() - events[name] :]))
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

    def spearman_rho(self) -> Float[Tensor, "*batch dim dim"]:
        r"""Spearman's rho of every two coordinates, :math:`12 \int\!\!\int C(u, v)\,du\,dv - 3`."""
        rho = self._like_parameters().new_ones((*self.batch_shape, self.dim, self.dim))
        for i in range(self.dim):
            for j in range(i):
                pair = torch.zeros(self.dim, dtype=torch.bool, device=rho.device)
                pair[[i, j]] = True
                value = spearman_from_rosenblatt(self.marginal(pair).conditional_cdf, like=rho)
                rho[..., i, j] = rho[..., j, i] = value
        return rho

    @abstractmethod
    def lower_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        """Limit of the probability of ``U_j < q`` given ``U_i < q`` as q tends to 0."""

    @abstractmethod
    def upper_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        """Limit of the probability of ``U_j > q`` given ``U_i > q`` as q tends to 1."""

    def mixed_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        """Tail dependence of one coordinate's lower with another's upper end.

        Entry (i, j) is the limit of the probability of ``U_j > 1 - q`` given ``U_i < q`` as q tends
        to 0; 0 unless a family says otherwise.
        """
        shape = (*self.batch_shape, self.dim, self.dim)
        return self._like_parameters().new_zeros(shape)

    @torch.no_grad()
    def mutual_information(self, samples: int = 10_000) -> Estimate:
        r"""The total correlation :math:`E \log c(U)` in nats, by Monte Carlo.

        It is the divergence of the copula from independence; for two coordinates, their mutual
        information.

        Args:
            samples: Number of draws.

        Returns:
            The estimate and its standard error, each of the batch shape.

        Raises:
            ValueError: If there are fewer than two draws.
        """
        if samples < 2:
            raise ValueError(f"{type(self).__name__}: samples must be at least 2, got {samples}")
        return Estimate.of_mean(self._log_prob(self.sample_unit((samples,)), None))

    def log_prob(self, value: Points, present: Presence | None = None) -> Float[Tensor, "*shape"]:
        """Log density; with ``present``, of the margin on the present coordinates.

        Raises:
            ValueError: If a present coordinate is NaN or outside [0, 1].
        """
        copula, points = self._promoted(value)
        mask = None if present is None else as_tensor(present)
        # Piece by piece, so that what is computed on the way stays in the processor's cache.
        pieces = copula._pieces(*copula._check(points, mask))
        parts = [copula._log_prob(to_unit(piece), part) for piece, part in pieces]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def cdf(self, value: Points) -> Float[Tensor, "*shape"]:
        """Probability of the box below ``value``."""
        copula, points = self._promoted(value)
        unit, _ = copula._prepare(points, None)
        return copula._cdf(unit)

    def complete(
        self, value: Points, present: Presence, base: Base | None = None
    ) -> Float[Tensor, "*shape dim"]:
        """Draws the missing coordinates given the present ones, reparameterised.

        Present coordinates are returned unchanged, bit for bit. With ``base`` nothing is random:
        missing ones are conditional quantiles at these uniforms, or made of factors that are.
        """
        copula, points = self._promoted(value)
        mask = as_tensor(present)
        unit, _ = copula._prepare(points, mask)
        drawn = copula._complete(unit, mask, self._based(base, unit.log_u)).u
        return torch.where(mask, to_point(points), drawn)

    def conditional_cdf(self, value: Points, present: Presence) -> Float[Tensor, "*shape dim"]:
        """Distribution function of each missing coordinate, given the present and earlier ones.

        A coordinate that is not present is replaced by its distribution function given the present
        ones and the missing ones before it: with nothing present, the transform of Rosenblatt
        (1952); with one coordinate missing, the h-function. It is the inverse of
        :meth:`complete`: for draws of the copula the results are independent and uniform.

        Args:
            value: Points of which *every* coordinate is read.
            present: On which coordinates to condition; these are returned unchanged.

        Raises:
            ValueError: If a coordinate is NaN or outside [0, 1].
        """
        copula, points = self._promoted(value)
        mask = as_tensor(present)
        self._check_present(mask)
        unit, _ = copula._prepare(points, None)
        return torch.where(mask, to_point(points), copula._conditional_cdf(unit, mask).u)

    def complete_unit(self, unit: Unit, present: Presence, base: Base | None = None) -> Unit:
        """:meth:`complete` from and to :class:`~cm2.core.records.Unit`."""
        copula, unit = self._promoted(unit)
        mask = as_tensor(present)
        unit, _ = copula._prepare(unit, mask)
        drawn = copula._complete(unit, mask, self._based(base, unit.log_u))
        return unit.map(lambda given, new: torch.where(mask, given, new), drawn)

    def sample_unit(self, sample_shape: _size = ()) -> Unit:
        """Draws points, as :class:`~cm2.core.records.Unit`."""
        shape = self._extended_shape(Size(sample_shape))
        half = self._like_parameters().new_full((), 0.5).log().expand(shape)
        nothing = torch.zeros(shape, dtype=torch.bool, device=half.device)
        return self._complete(Unit(half, half), nothing, None)

    def rsample(self, sample_shape: _size = Size()) -> Float[Tensor, "*shape dim"]:
        """Draws points, reparameterised.

        Raises:
            ValueError: If the family has no reparameterised sampler.
        """
        if not self.has_rsample:
            raise ValueError(f"{type(self).__name__}: draws carry no gradients; use sample")
        return self.sample_unit(sample_shape).u

    @torch.no_grad()
    def sample(self, sample_shape: _size = Size()) -> Float[Tensor, "*shape dim"]:
        """Draws points, without gradients."""
        return self.sample_unit(sample_shape).u

    @abstractmethod
    def _log_prob(self, unit: Unit, present: Tensor | None) -> Tensor: ...

    @abstractmethod
    def _cdf(self, unit: Unit) -> Tensor: ...

    @abstractmethod
    def _complete(self, unit: Unit, present: Tensor, base: Base | None) -> Unit: ...

    @abstractmethod
    def _conditional_cdf(self, unit: Unit, present: Tensor) -> Unit: ...

    def _like_parameters(self) -> Tensor:
        """A tensor with the dtype and the device of the parameters."""
        return next(iter(self.parameters.values()), torch.empty(()))

    def _promoted(self, value: Any) -> tuple[Copula, Any]:
        """The copula and points in their common dtype."""
        value = value.map(as_float) if isinstance(value, Unit) else as_float(value)
        dtype = dtype_of(value)
        for part in filter(Tensor.dim, self.parameters.values()):  # single numbers follow tensors
            dtype = torch.promote_types(dtype, part.dtype)
        value = cast(value, dtype)
        if all(part.dtype == dtype for part in self.parameters.values()):
            return self, value
        copula = self._like({name: part.to(dtype) for name, part in self.parameters.items()})
        copula._validate_args = self._validate_args  # of points, if not of parameters again
        return copula, value

    def _prepare(self, value: Tensor | Unit, present: Tensor | None) -> tuple[Unit, Tensor | None]:
        """Checks the arguments and puts 1/2 where nothing is present."""
        value, present = self._check(value, present)
        return to_unit(value), present

    def _pieces(
        self, value: Tensor | Unit, present: Tensor | None
    ) -> list[tuple[Tensor | Unit, Tensor | None]]:
        """Splits many points along their first dimension, if that is no dimension of the batch."""
        given = value.log_u if isinstance(value, Unit) else value
        same = present is None or present.dim() < given.dim() or len(present) == len(given)
        if given.dim() <= len(self.batch_shape) + 1 or not same or given.numel() < 2 * CHUNK:
            return [(value, present)]
        entries = max(given[0].numel(), self.batch_shape.numel() * self.dim)
        rows = max(1, CHUNK // entries)
        points: list[Any] = (
            [Unit(*pair) for pair in zip(*(by_column(part, rows) for part in value), strict=True)]
            if isinstance(value, Unit)
            else by_column(value, rows)
        )
        if present is None or present.dim() < given.dim():
            return [(point, present) for point in points]
        return list(zip(points, present.split(rows), strict=True))

    def _check(
        self, value: Tensor | Unit, present: Tensor | None
    ) -> tuple[Tensor | Unit, Tensor | None]:
        name = type(self).__name__
        given = value.log_u if isinstance(value, Unit) else value
        if given.shape[-1:] != (self.dim,):
            raise ValueError(
                f"{name}: the last dimension of value is {tuple(given.shape)[-1:]}, "
                f"the copula has {self.dim} coordinates"
            )
        if present is not None:
            self._check_present(present)
            half = given.new_full((), 0.5)
            if isinstance(value, Unit):
                value = value.map(lambda part: torch.where(present, part, half.log()))
            else:
                value = torch.where(present, value, half)
        if isinstance(value, Unit):
            if self._validate_args:
                for part in ("log_u", "log_1mu"):
                    check_range(name, part, getattr(value, part), -torch.inf, 0.0)
            return value, present
        if self._validate_args:
            check_range(name, "value", value, 0.0, 1.0)
        return value, present

    def _check_present(self, present: Tensor) -> None:
        if present.shape[-1:] != (self.dim,) or present.dtype != torch.bool:
            raise ValueError(
                f"{type(self).__name__}: present must be boolean with {self.dim} columns, "
                f"got {present.dtype} with shape {tuple(present.shape)}"
            )

    def _check_parameters(self) -> None:
        for name, constraint in self.arg_constraints.items():
            value = getattr(self, name)
            event = value.dim() - constraint.event_dim
            finite = value.isfinite()[..., None].flatten(event).all(-1)
            laws = {described(constraint): constraint.check(value), "finite": finite}
            for wanted, valid in laws.items():
                if not valid.all():
                    bad = value[~valid][0]
                    text = f"{bad.item():g}" if bad.dim() == 0 else str(bad.tolist())
                    raise ValueError(f"{type(self).__name__}: {name} must be {wanted}, got {text}")


REGISTRY = Registry[Copula]("copula")
register = REGISTRY.register


def check_tau(family: str, tau: Any, low: float, high: float) -> Tensor:
    """Kendall's tau as a tensor, if it lies in ``[low, high)``.

    Raises:
        ValueError: Naming the family, the value and the range.
    """
    value = as_float(tau)
    if not ((value >= low) & (value < high)).all():
        raise ValueError(f"{family}: Kendall's tau must be in [{low}, {high}), got {tau}")
    return value
