"""Reflections of copulas: survival copulas, rotations of pairs, any coordinates turned round.

If U follows a copula, so does U with some coordinates replaced by 1 - U (Nelsen 2006, sections 2.6
and 2.7). Points are exact at both ends, so a reflection costs no precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.types import _size

from cm2.copulas.base import Copula, register
from cm2.copulas.clayton import Clayton
from cm2.copulas.gumbel import Gumbel
from cm2.copulas.joe import Joe
from cm2.copulas.points import as_tensor
from cm2.core.records import Base, Unit

# Which coordinates of a pair a rotation by so many degrees reflects; against the clock, as in
# pyvinecopulib and Nelsen.
_ROTATIONS = {0: (False, False), 90: (True, False), 180: (True, True), 270: (False, True)}


class Reflection(Copula):
    """A copula some of whose coordinates are reflected; every law is one of the copula inside."""

    copula: Copula
    flip: tuple[bool, ...]

    def _reflect(self, copula: Copula, flip: tuple[bool, ...], validate_args: bool | None) -> None:
        """Sets what a constructor was given."""
        self.copula, self.flip = copula, flip
        self.arg_constraints = copula.arg_constraints
        self.has_rsample = copula.has_rsample
        self.factor_shape = copula.factor_shape
        for name, value in copula.parameters.items():
            setattr(self, name, value)
        super().__init__(copula.dim, batch_shape=copula.batch_shape, validate_args=validate_args)

    @property
    def redundant(self) -> int:
        return self.copula.redundant

    def marginal(self, present: Bool[Tensor, " dim"]) -> Rotated:
        flip = [f for f, keep in zip(self.flip, present.tolist(), strict=True) if keep]
        return Rotated(self.copula.marginal(present), flip, validate_args=False)

    def _turn(self, unit: Unit) -> Unit:
        if not any(self.flip):
            return unit
        if all(self.flip):
            return unit.flip()
        flip = torch.tensor(self.flip, device=unit.log_u.device)
        return unit.map(lambda part, other: torch.where(flip, other, part), unit.flip())

    def _log_prob(self, unit: Unit, present: Tensor | None) -> Tensor:
        return self.copula._log_prob(self._turn(unit), present)

    def _complete(self, unit: Unit, present: Tensor, base: Base | None) -> Unit:
        if base is not None:
            base = base.flip(torch.tensor(self.flip, device=base.coordinate.device))
        return self._turn(self.copula._complete(self._turn(unit), present, base))

    def _conditional_cdf(self, unit: Unit, present: Tensor) -> Unit:
        return self._turn(self.copula._conditional_cdf(self._turn(unit), present))

    def _cdf(self, unit: Unit) -> Tensor:
        # Inclusion and exclusion: 1 - u < U' for a reflected coordinate is all less U' < 1 - u.
        turned = self._turn(unit)
        total = 0.0 * turned.log_u.sum(-1)
        for kept in product(*((True, False) if f else (True,) for f in self.flip)):
            sign = (-1) ** sum(k and f for k, f in zip(kept, self.flip, strict=True))
            total = total + sign * self._box(turned, kept)
        return total.clamp(0.0, 1.0)

    def _box(self, turned: Unit, kept: tuple[bool, ...]) -> Tensor:
        """Distribution function of the copula inside on the coordinates that are kept."""
        index = [i for i, keep in enumerate(kept) if keep]
        if not index:
            return torch.ones_like(turned.log_u[..., 0])
        if len(index) == 1:
            return turned.u[..., index[0]]
        keep = torch.tensor(kept, device=turned.log_u.device)
        margin = self.copula if all(kept) else self.copula.marginal(keep)
        return margin._cdf(turned.map(lambda part: part[..., index]))

    def kendall_tau(self) -> Float[Tensor, "*batch dim dim"]:
        tau = self.copula.kendall_tau()
        return tau * self._sign(tau)

    def spearman_rho(self) -> Float[Tensor, "*batch dim dim"]:
        rho = self.copula.spearman_rho()
        return rho * self._sign(rho)

    def _sign(self, like: Tensor) -> Tensor:
        flip = torch.tensor(self.flip, device=like.device)
        sign = 1 - 2 * flip.to(like.dtype)
        return sign[:, None] * sign

    def lower_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        return self._corner(False, False)

    def upper_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        return self._corner(True, True)

    def mixed_tail_dependence(self) -> Float[Tensor, "*batch dim dim"]:
        return self._corner(False, True)

    def _corner(self, first: bool, second: bool) -> Tensor:
        """Dependence of every two coordinates at a corner: low or high each."""
        mixed = self.copula.mixed_tail_dependence()
        corners = {
            (False, False): self.copula.lower_tail_dependence(),
            (True, True): self.copula.upper_tail_dependence(),
            (False, True): mixed,
            (True, False): mixed.mT,
        }
        flip = torch.tensor(self.flip, device=mixed.device)
        value = torch.zeros_like(mixed)
        for (a, b), matrix in corners.items():
            here = ((flip ^ first) == a)[:, None] & ((flip ^ second) == b)
            value = torch.where(here, matrix, value)
        return value


class Rotated(Reflection):
    """A copula with some of its coordinates reflected.

    Args:
        copula: The copula.
        flip: Which coordinates to reflect.
        validate_args: Whether to check arguments.
        parameters: Values in the place of the copula's own, by name.

    Raises:
        ValueError: If ``flip`` has another length than the copula.

    Example:
        >>> from cm2 import copulas
        >>> turned = copulas.Rotated(copulas.Clayton(dim=2, theta=2.0), flip=(True, False))
        >>> round(turned.kendall_tau()[0, 1].item(), 4)
        -0.5
    """

    def __init__(
        self,
        copula: Copula,
        flip: Sequence[bool],
        validate_args: bool | None = None,
        **parameters: Tensor,
    ) -> None:
        if len(flip) != copula.dim:
            raise ValueError(
                f"Rotated: flip must say for each of {copula.dim} coordinates whether it is "
                f"reflected, got {len(flip)} entries"
            )
        if parameters:
            copula = copula._like(copula.parameters | parameters)
        self._reflect(copula, tuple(bool(f) for f in flip), validate_args)

    @classmethod
    def survival(cls, copula: Copula) -> Self:
        """The survival copula: all coordinates reflected, so that the tails change places."""
        return cls(copula, (True,) * copula.dim)

    @classmethod
    def by_degrees(cls, copula: Copula, degrees: int) -> Self:
        """A copula of two coordinates, rotated by a multiple of 90 degrees.

        Raises:
            ValueError: If there are more coordinates, or the angle is another.
        """
        if copula.dim != 2 or degrees not in _ROTATIONS:
            raise ValueError(
                f"Rotated: two coordinates rotate by {', '.join(map(str, _ROTATIONS))} degrees; "
                f"got {copula.dim} coordinates and {degrees}"
            )
        return cls(copula, _ROTATIONS[degrees])

    @classmethod
    def start(cls, dim: int, batch_shape: _size = ()) -> dict[str, Any]:
        raise ValueError("Rotated: it starts from a copula; give Rotated(copula, flip)")

    @classmethod
    def from_kendall_tau(cls, tau: float | Tensor, dim: int = 2) -> Self:
        raise ValueError("Rotated: rotate a copula that has the Kendall's tau")

    def _like(self, parameters: dict[str, Tensor]) -> Self:
        return type(self)(self.copula._like(parameters), self.flip, validate_args=False)

    def expand(self, batch_shape: _size, _instance: Any = None) -> Self:
        return type(self)(self.copula.expand(batch_shape), self.flip, validate_args=False)


class Rotation(Reflection):
    """A family of reflected copulas, with the parameters of the family inside.

    Args:
        dim: Number of coordinates; 2 where one of them is reflected.
        validate_args: Whether to check parameters and arguments.
        parameters: Those of the family inside.
    """

    family: ClassVar[type[Copula]]
    degrees: ClassVar[int]

    def __init__(self, dim: int, validate_args: bool | None = None, **parameters: Any) -> None:
        inside = self.family(dim, **parameters, validate_args=validate_args)
        self._reflect(inside, self._flip(dim), validate_args)

    @classmethod
    def _flip(cls, dim: int) -> tuple[bool, ...]:
        if cls.degrees != 180 and dim != 2:
            raise ValueError(f"{cls.__name__}: dim must be 2, got {dim}")
        first, second = _ROTATIONS[cls.degrees]
        return (first, *[second] * (dim - 1))

    @classmethod
    def start(cls, dim: int, batch_shape: _size = ()) -> dict[str, Any]:
        cls._flip(dim)
        return cls.family.start(dim, batch_shape)

    @classmethod
    def from_kendall_tau(cls, tau: float | Tensor, dim: int = 2) -> Self:
        first, second, *_ = cls._flip(dim)
        value = as_tensor(tau)
        try:
            inside = cls.family.from_kendall_tau(value if first == second else -value, dim)
        except ValueError as error:
            raise ValueError(f"{cls.__name__} of Kendall's tau {tau}: inside, {error}") from None
        parameters: dict[str, Any] = dict(inside.parameters)
        return cls(dim, **parameters)


def _rotation(family: type[Copula], degrees: int) -> type[Rotation]:
    """Registers the rotation of a family, ``"survival-gumbel"`` or ``"rotated90-gumbel"``."""
    word = "survival" if degrees == 180 else f"rotated{degrees}"
    name = f"{word.capitalize()}{family.__name__}"
    body = {
        "__doc__": f"The {family.__name__} copula, rotated by {degrees} degrees.",
        "__module__": __name__,
        "family": family,
        "degrees": degrees,
        "arg_constraints": family.arg_constraints,
        "largest_dim": family.largest_dim if degrees == 180 else 2,
    }
    cls: type[Rotation] = type(name, (Rotation,), body)
    return register(f"{word}-{family.__name__.lower()}")(cls)


SurvivalGumbel = _rotation(Gumbel, 180)
SurvivalClayton = _rotation(Clayton, 180)
SurvivalJoe = _rotation(Joe, 180)
Rotated90Gumbel = _rotation(Gumbel, 90)
Rotated90Clayton = _rotation(Clayton, 90)
Rotated90Joe = _rotation(Joe, 90)
Rotated270Gumbel = _rotation(Gumbel, 270)
Rotated270Clayton = _rotation(Clayton, 270)
Rotated270Joe = _rotation(Joe, 270)
