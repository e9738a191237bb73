"""What every joint law of embeddings is: a distribution over M embeddings of d coordinates.

A sample may lack modalities. Its likelihood is then that of the exact marginal law of what is
present, and nothing is imputed to compute it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from cm2.copulas import Copula
from cm2.marginals import GaussianMixture
from cm2.records import Unit
from cm2.registry import Registry


class Joint(Distribution, ABC):
    """A copula and the marginal laws that it couples; a subclass says how.

    Args:
        copula: Of M coordinates; its batch shape is the coupling's.
        marginals: M mixtures over d coordinates.
    """

    has_rsample = False
    support = constraints.independent(constraints.real, 2)
    arg_constraints: Any = {}

    def __init__(self, copula: Copula, marginals: GaussianMixture) -> None:
        (modalities,) = marginals.batch_shape
        if copula.dim != modalities:
            raise ValueError(
                f"the copula couples {copula.dim} modalities, "
                f"but there are marginals for {modalities}"
            )
        self.copula, self.marginals = copula, marginals
        event_shape = Size((modalities, *marginals.event_shape))
        super().__init__(Size(), event_shape, validate_args=False)

    @classmethod
    @abstractmethod
    def copula_batch_shape(cls, dim: int, shared: bool) -> _size:
        """Batch shape of the copula: how many copulas couple embeddings of ``dim`` coordinates."""

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
        z = torch.zeros(size, *self.event_shape, dtype=loc.dtype, device=loc.device)
        present = torch.zeros(z.shape[:2], dtype=torch.bool, device=z.device)
        return self._draw(z, present).view(self._extended_shape(Size(sample_shape)))

    def kendall_tau(self) -> Float[Tensor, "dim modality modality"]:
        """Kendall's tau of the coupled coordinates, on the scale where the copula couples them."""
        tau = self.copula.kendall_tau().to(self.marginals.loc)
        return tau.expand(self.event_shape[1], *tau.shape[-2:])

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


REGISTRY = Registry[Joint]("coupling")
register = REGISTRY.register
