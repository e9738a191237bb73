"""What a joint law of vectors asks of a copula: what it couples at once, and its normal scores.

A family of coordinates couples coordinate j of every vector; one of vectors, all coordinates. Where
a point is known by its standard normal scores, going through the unit cube would cost time and
digits; a Gaussian family does without.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.types import _size

from cm2.copulas.orthant import sequence
from cm2.core.numerics import normal_quantile
from cm2.core.records import Base, Unit

_LAUTUM_POINTS = 128


class VectorCoupling(ABC):
    """The part of a copula that couplings of vectors use."""

    # Whether the family couples vectors as such, or coordinates one by one.
    couples_vectors: ClassVar[bool] = False
    # Whether normal scores are jointly Gaussian, so that their conditional means are closed form.
    gaussian_scores: ClassVar[bool] = False
    # Coordinates that come from one vector; they are next to each other.
    block: int = 1
    # Shape of the uniforms that a completion takes beside one for each coordinate.
    factor_shape: torch.Size = torch.Size()

    @classmethod
    def start_vectors(
        cls, modalities: int, dim: int, batch_shape: _size, rank: int | None = None
    ) -> dict[str, Any]:
        """All arguments from which to train a copula of vectors.

        Coordinate by coordinate, unless a family says otherwise.

        Args:
            modalities: Number of vectors.
            dim: Number of coordinates of each.
            batch_shape: Shape of the batch of a family of coordinates.
            rank: Number of factors of a family that has some.

        Raises:
            ValueError: If the family has no factors and a rank is given.
        """
        if rank is not None:
            raise ValueError(f"{cls.__name__} couples coordinate by coordinate: it has no rank")
        return {"dim": modalities, **cls.start(modalities, batch_shape)}

    def near(self, correlation: Float[Tensor, "dim dim"]) -> dict[str, Tensor]:
        """Parameters from which to fit data whose normal scores have these correlations.

        Those that the copula has, unless a family knows better.
        """
        return {}

    def lautum_information(self) -> Float[Tensor, "*batch"]:
        r"""The mean of :math:`-\log c(U)` for independent U, in nats.

        The divergence of independence from the copula, which has no bound where dependence becomes
        perfect (Palomar and Verdú 2008, "Lautum information"). Over a fixed sequence of points,
        unless a family has a closed form.
        """
        like = self._like_parameters()
        points = sequence(self.dim)[:_LAUTUM_POINTS].to(like)
        points = points.view(-1, *[1] * len(self.batch_shape), self.dim)
        points = points.expand(-1, *self.batch_shape, -1)
        return -self._log_prob(Unit.from_u(points), None).mean(0)

    def canonical_correlations(self) -> Float[Tensor, "*batch block block least"]:
        """Canonical correlations of every two vectors, descending.

        Raises:
            ValueError: If the family does not couple vectors.
        """
        raise ValueError(
            f"{type(self).__name__} couples coordinate by coordinate: canonical correlations are "
            "those of a copula of vectors, such as 'factor'"
        )

    def log_prob_normal(
        self, x: Float[Tensor, "*#shape dim"], present: Bool[Tensor, "*#shape dim"] | None = None
    ) -> Float[Tensor, "*shape"]:
        """:meth:`log_prob` at the point whose standard normal scores are ``x``."""
        copula, x = self._promoted(x)
        if present is not None:
            self._check_present(present)
            x = torch.where(present, x, 0.0)
        return copula._log_prob_normal(x, present)

    def complete_normal(
        self,
        x: Float[Tensor, "*#shape dim"],
        present: Bool[Tensor, "*#shape dim"],
        base: Base | None = None,
    ) -> Float[Tensor, "*shape dim"]:
        """:meth:`complete` from and to standard normal scores."""
        copula, x = self._promoted(x)
        self._check_present(present)
        x = torch.where(present, x, 0.0)
        drawn = copula._complete_normal(x, present, self._based(base, x))
        return torch.where(present, x, drawn)

    def mean_normal(
        self, x: Float[Tensor, "*#shape dim"], present: Bool[Tensor, "*#shape dim"]
    ) -> Float[Tensor, "*shape dim"]:
        """The means of missing standard normal scores given the present ones.

        Raises:
            ValueError: If they have no closed form (see ``gaussian_scores``).
        """
        copula, x = self._promoted(x)
        self._check_present(present)
        x = torch.where(present, x, 0.0)
        return torch.where(present, x, copula._mean_normal(x, present))

    def _log_prob_normal(self, x: Tensor, present: Tensor | None) -> Tensor:
        return self._log_prob(Unit.from_normal(x), present)

    def _complete_normal(self, x: Tensor, present: Tensor, base: Base | None) -> Tensor:
        return normal_quantile(*self._complete(Unit.from_normal(x), present, base))

    def _mean_normal(self, x: Tensor, present: Tensor) -> Tensor:
        raise ValueError(
            f"{type(self).__name__}: the mean of normal scores has no closed form; average draws"
        )

    def _based(self, base: Base | None, like: Tensor) -> Base | None:
        """Base points in the dtype of what they complete.

        Raises:
            ValueError: If they are not those of this copula.
        """
        if base is None:
            return None
        name, shape = type(self).__name__, self.factor_shape
        if base.coordinate.shape[-1:] != (self.dim,):
            raise ValueError(
                f"{name}: base.coordinate must have shape (*, {self.dim}), "
                f"got {tuple(base.coordinate.shape)}"
            )
        given = None if base.factor is None else base.factor.shape
        if shape and (given is None or given[-len(shape) :] != shape):
            wanted = ", ".join(map(str, shape))
            got = "none" if given is None else tuple(given)
            raise ValueError(f"{name}: base.factor must have shape (*, {wanted}), got {got}")
        return base.map(lambda part: part.to(like))

    # What the copula has ------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def start(cls, dim: int, batch_shape: _size = ()) -> dict[str, Any]: ...

    dim: int
    batch_shape: torch.Size

    @abstractmethod
    def _like_parameters(self) -> Tensor: ...

    @abstractmethod
    def _promoted(self, value: Any) -> tuple[Any, Any]: ...

    @abstractmethod
    def _check_present(self, present: Tensor) -> None: ...

    @abstractmethod
    def _log_prob(self, unit: Unit, present: Tensor | None) -> Tensor: ...

    @abstractmethod
    def _complete(self, unit: Unit, present: Tensor, base: Base | None) -> Unit: ...
