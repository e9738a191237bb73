"""What every joint law of embeddings is: a distribution over M embeddings of d coordinates.

A sample may lack modalities. Its likelihood is then that of the exact marginal law of what is
present, and nothing is imputed to compute it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from cm2.copulas import Copula, Estimate
from cm2.marginals import GaussianMixture
from cm2.numerics import seeded
from cm2.records import Unit
from cm2.registry import Registry

_MEAN_DRAWS = 64
_MEAN_ROWS = 4096
"""Rows that are drawn at once for a mean: several draws of a few rows, or one of many."""


class Joint(Distribution, ABC):
    """A copula and the marginal laws that it couples; a subclass says how.

    Args:
        copula: Of M coordinates, or of M vectors; its batch shape is the coupling's.
        marginals: M mixtures over d coordinates.
    """

    has_rsample = False
    # Whether the joint has a density that integrates to one, hence an information to speak of.
    is_density: ClassVar[bool] = True
    support = constraints.independent(constraints.real, 2)
    arg_constraints: Any = {}

    def __init__(self, copula: Copula, marginals: GaussianMixture) -> None:
        (modalities,) = marginals.batch_shape
        coupled, dim = copula.dim // copula.block, marginals.event_shape[0]
        if coupled != modalities:
            raise ValueError(
                f"the copula couples {coupled} modalities, but there are marginals for {modalities}"
            )
        if dim % copula.block:
            raise ValueError(
                f"the copula takes {copula.block} coordinates of a modality at once, "
                f"which does not divide the {dim} of an embedding"
            )
        self.copula, self.marginals = copula, marginals
        event_shape = Size((modalities, *marginals.event_shape))
        super().__init__(Size(), event_shape, validate_args=False)

    @classmethod
    @abstractmethod
    def copula_batch_shape(cls, dim: int, shared: bool) -> _size:
        """Batch shape of the copula: how many copulas couple embeddings of ``dim`` coordinates."""

    @classmethod
    def start(
        cls, family: type[Copula], modalities: int, dim: int, *, shared: bool, rank: int | None
    ) -> dict[str, Any]:
        """Arguments of the copula from which to train; the family knows what it takes at once.

        Raises:
            ValueError: If the family has no rank and one is given, or the coupling cannot use it.
        """
        return family.start_vectors(modalities, dim, cls.copula_batch_shape(dim, shared), rank)

    @classmethod
    def shares_components(cls) -> bool:
        """Whether one component of the mixture is drawn for the sample, not for each modality."""
        return False

    def log_prob(
        self,
        value: Float[Tensor, "*batch modality dim"],
        present: Bool[Tensor, "*batch modality"] | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Log density of the present embeddings; entries of absent ones are not read.

        Raises:
            ValueError: If the shapes do not fit or a present embedding is not finite.
        """
        terms = self.log_prob_terms(value, present)
        return terms["marginal"].sum(-1) + terms["copula"]

    @abstractmethod
    def log_prob_terms(
        self,
        value: Float[Tensor, "*batch modality dim"],
        present: Bool[Tensor, "*batch modality"] | None = None,
    ) -> dict[str, Tensor]:
        """Log densities ``"marginal"`` ``(*batch, M)``, 0 where absent, and ``"copula"``."""

    @abstractmethod
    def copula_arguments(
        self,
        value: Float[Tensor, "*batch modality dim"],
        present: Bool[Tensor, "*batch modality"] | None = None,
    ) -> Unit:
        """What the copula is given; every coordinate is uniform if the coupling is exact and fits.

        Returns:
            Points of shape ``(*batch, M, n)``, with n the number of copulas' coordinates of an
            embedding; they mean nothing where a modality is absent.
        """

    @abstractmethod
    def _draw(self, z: Tensor, present: Tensor) -> Tensor:
        """Embeddings given the present ones; at present places anything."""

    def complete(
        self,
        value: Float[Tensor, "*batch modality dim"],
        present: Bool[Tensor, "*batch modality"],
    ) -> Float[Tensor, "*batch modality dim"]:
        """Draws the missing embeddings given the present ones; these are returned bit for bit.

        Raises:
            ValueError: If the shapes do not fit or a present embedding is not finite.
        """
        return self._filled(value, present, self._draw)

    def marginal_complete(
        self,
        value: Float[Tensor, "*batch modality dim"],
        present: Bool[Tensor, "*batch modality"],
    ) -> Float[Tensor, "*batch modality dim"]:
        """Draws the missing embeddings from their own marginal laws (the paper's imputation)."""
        return self._filled(value, present, lambda z, _: self.marginals.sample(z.shape[:1]))

    def mean_complete(
        self,
        value: Float[Tensor, "*batch modality dim"],
        present: Bool[Tensor, "*batch modality"],
    ) -> Float[Tensor, "*batch modality dim"]:
        """Puts the marginal means in the place of the missing embeddings."""
        return self._filled(value, present, lambda z, _: self.marginals.mean.expand_as(z))

    def conditional_mean(
        self,
        value: Float[Tensor, "*batch modality dim"],
        present: Bool[Tensor, "*batch modality"],
    ) -> Float[Tensor, "*batch modality dim"]:
        """Puts the means given the present embeddings in the place of the missing ones.

        In closed form where normal scores are Gaussian and the marginals' components are shared or
        one; else it is the average of 64 draws from a fixed seed, whose error of an eighth of a
        conditional deviation depends on the rows beside it.

        Raises:
            ValueError: If the shapes do not fit or a present embedding is not finite.
        """
        return self._filled(value, present, self._conditional_mean)

    def _conditional_mean(self, z: Tensor, present: Tensor) -> Tensor:
        total, left = torch.zeros_like(z), _MEAN_DRAWS
        with fixed_seed(z):
            while left:
                count = min(left, max(1, _MEAN_ROWS // len(z)))
                drawn = self._draw(z.repeat(count, 1, 1), present.repeat(count, 1))
                total = total + drawn.unflatten(0, (count, len(z))).sum(0)
                left -= count
        return total / _MEAN_DRAWS

    def total_correlation(self, samples: int = 10_000) -> Float[Tensor, ""]:
        """The information that modalities share, in nats: the mean log copula term.

        The divergence of the joint from independent modalities; for two of them, their mutual
        information. In closed form where there is one, else by Monte Carlo from a fixed seed.

        Args:
            samples: Number of draws, where they are needed.
        """
        return self._total_correlation(samples).value

    def total_correlation_error(self, samples: int = 10_000) -> Float[Tensor, ""]:
        """The standard error of :meth:`total_correlation`; 0 where that is in closed form."""
        return self._total_correlation(samples).standard_error

    @torch.no_grad()
    def _total_correlation(self, samples: int) -> Estimate:
        """By default the sum over the copulas of the coupling."""
        with fixed_seed(self.marginals.loc):
            each = self.copula.mutual_information(samples)
        copulas = self.event_shape[1] // self.copula.block
        shared = copulas if not self.copula.batch_shape else 1
        return Estimate(
            (shared * each.value.sum()).to(self.marginals.loc),
            (shared * each.standard_error.square().sum().sqrt()).to(self.marginals.loc),
        )

    def canonical_correlations(self) -> Float[Tensor, "modality modality least"]:
        """Canonical correlations of every two modalities, descending; 1 on the diagonal.

        Those of the normal scores that the copula couples.

        Raises:
            ValueError: If the copula couples coordinate by coordinate.
        """
        correlations = self.copula.canonical_correlations()
        return correlations.reshape(correlations.shape[-3:])

    def _points(self, part: Tensor) -> Tensor:
        """From modalities and coordinates, (*, M, d), to points of the copulas, (*, n, M b)."""
        return part.unflatten(-1, (-1, self.copula.block)).movedim(-3, -2).flatten(-2)

    def _vectors(self, part: Tensor) -> Tensor:
        """Inverse of :meth:`_points`."""
        return part.unflatten(-1, (-1, self.copula.block)).movedim(-2, -3).flatten(-2)

    def _mask(self, present: Tensor) -> Tensor:
        """Which coordinates of the copulas' points are present, (*, 1, M b)."""
        return present.repeat_interleave(self.copula.block, -1).unsqueeze(-2)

    def _filled(self, value: Tensor, present: Tensor, draw: Any) -> Tensor:
        z, present = self._prepare(value, present)
        incomplete = ~present.all(-1)
        if not incomplete.any():
            return value
        drawn = z.clone()
        drawn[incomplete] = draw(z[incomplete], present[incomplete]).to(z.dtype)
        return torch.where(present[..., None], value, drawn)

    def to_uniform(self, value: Float[Tensor, "*batch modality dim"]) -> Unit:
        """The Rosenblatt transform of each embedding under its marginal law."""
        return self.marginals.to_uniform(value)

    def from_uniform(self, unit: Unit | Float[Tensor, "*batch modality dim"]) -> Tensor:
        """Inverse of :meth:`to_uniform`."""
        return self.marginals.from_uniform(unit)

    @torch.no_grad()
    def sample(self, sample_shape: _size = Size()) -> Float[Tensor, "*sample modality dim"]:
        """Draws embeddings of all modalities."""
        loc = self.marginals.loc
        size = Size(sample_shape).numel()
        if not size:
            return loc.new_zeros(self._extended_shape(Size(sample_shape)))
        z = torch.zeros(size, *self.event_shape, dtype=loc.dtype, device=loc.device)
        present = torch.zeros(z.shape[:2], dtype=torch.bool, device=z.device)
        return self._draw(z, present).view(self._extended_shape(Size(sample_shape)))

    def kendall_tau(self) -> Float[Tensor, "dim modality modality"]:
        """Kendall's tau of the coupled coordinates, on the scale where the copula couples them."""
        tau = self.copula.kendall_tau().to(self.marginals.loc)
        modalities, dim = self.event_shape
        block = self.copula.block
        # Of coordinate j of one modality with coordinate j of another.
        tau = tau.unflatten(-1, (modalities, block)).unflatten(-3, (modalities, block))
        tau = tau.diagonal(dim1=-3, dim2=-1).movedim(-1, -3).flatten(0, -3)
        return tau.expand(dim, modalities, modalities)

    def _prepare(self, value: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor]:
        """Checks the arguments and puts 0 where nothing is present."""
        modalities, dim = self.event_shape
        if value.shape[-2:] != self.event_shape:
            raise ValueError(
                f"embeddings must have shape (*, {modalities}, {dim}), got {tuple(value.shape)}"
            )
        if present is None:
            z, present = value, torch.ones(value.shape[:-1], dtype=torch.bool, device=value.device)
        elif present.shape != value.shape[:-1] or present.dtype != torch.bool:
            raise ValueError(
                f"present must be boolean of shape {tuple(value.shape[:-1])}, "
                f"got {present.dtype} of shape {tuple(present.shape)}"
            )
        else:
            z = torch.where(present[..., None], value, 0.0)
        if not z.isfinite().all():
            bad = (
                (~z.isfinite()).any(-1).reshape(-1, modalities).any(0).nonzero().flatten().tolist()
            )
            raise ValueError(f"present embeddings of modalities {bad} are not finite")
        return z, present


@contextmanager
def fixed_seed(like: Tensor, seed: int = 0) -> Iterator[None]:
    """Draws from a seed of their own, and leaves the process's generators as they were."""
    # A seed is set on all devices of its kind.
    devices = range(torch.cuda.device_count()) if like.device.type == "cuda" else ()
    with seeded(seed, devices):
        yield


REGISTRY = Registry[Joint]("coupling")
register = REGISTRY.register
