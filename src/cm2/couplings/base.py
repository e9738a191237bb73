"""What every joint law of embeddings is: a distribution over M embeddings of d coordinates.

A sample may lack modalities. Its likelihood is then that of the exact marginal law of what is
present, and nothing is imputed to compute it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from cm2.copulas import Copula, Estimate
from cm2.core.numerics import seeded
from cm2.core.records import Base, Unit
from cm2.core.registry import Registry
from cm2.couplings.points import fixed_points
from cm2.couplings.rebuilt import in_double, of_rows
from cm2.marginals import GaussianMixture

_MEAN_DRAWS = 64
# Numbers of the largest array that a conditional mean by draws works on.
_MEAN_ELEMENTS = 1 << 22


class Joint(Distribution, ABC):
    """A copula and the marginal laws that it couples; a subclass says how.

    Args:
        copula: Of M coordinates, or of M vectors; its batch shape is the coupling's.
        marginals: M mixtures over d coordinates, or as many for each row of a batch.
    """

    has_rsample = False
    # Whether the joint has a density that integrates to one, hence an information to speak of.
    is_density: ClassVar[bool] = True
    support = constraints.independent(constraints.real, 2)
    arg_constraints: Any = {}

    def __init__(self, copula: Copula, marginals: GaussianMixture) -> None:
        modalities = marginals.batch_shape[-1]
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
        self._kept: tuple[int, list[Tensor], Estimate] | None = None
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

    @classmethod
    def mean_is_closed(cls, copula: type[Copula], components: int) -> bool:
        """Whether :meth:`conditional_mean` takes no draws with a copula and as many components."""
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
    def _draw(self, z: Tensor, present: Tensor, base: Base | None) -> Tensor:
        """Embeddings of some rows given the present ones; at present places anything.

        Leading dimensions of the base points, beyond that of the rows, are kept.
        """

    def complete(
        self,
        value: Float[Tensor, "*batch modality dim"],
        present: Bool[Tensor, "*batch modality"],
        base: Base | None = None,
    ) -> Float[Tensor, "*shape modality dim"]:
        """Draws the missing embeddings given the present ones; these are returned bit for bit.

        Args:
            value: Embeddings; those of absent modalities are not read.
            present: Which modalities each row has.
            base: Uniform numbers of which to make the draws, such as :meth:`base_points`; drawn
                anew if ``None``. With them a row's completion depends on nothing but the row; it is
            computed in double precision, so that not even rounding shows what is beside it.

        Returns:
            Of the shape of the embeddings, broadcast to the leading shape of ``base``.

        Raises:
            ValueError: If the shapes do not fit or a present embedding is not finite.
        """
        return self._filled(value, present, type(self)._draw, base)

    def base_points(self, draws: int = _MEAN_DRAWS) -> Base:
        """Fixed base points of so many completions, the same for every row.

        One half is a Latin hypercube from seed 0, the other its mirror image: see
        ``couplings.points``. Their leading shape is ``(draws, 1)``, to be broadcast against rows.
        """
        modalities, dim = self.event_shape
        factor = (dim // self.copula.block, *self.copula.factor_shape)
        coordinates, factors = modalities * dim, math.prod(factor) * bool(self.copula.factor_shape)
        u = fixed_points(draws, coordinates + 1 + factors).to(self.marginals.loc)
        coordinate, component, rest = u.unsqueeze(1).split([coordinates, 1, factors], -1)
        return Base(
            coordinate.unflatten(-1, (modalities, dim)),
            component.squeeze(-1),
            rest.unflatten(-1, factor) if factors else None,
        )

    def marginal_complete(
        self,
        value: Float[Tensor, "*batch modality dim"],
        present: Bool[Tensor, "*batch modality"],
        base: Base | None = None,
    ) -> Float[Tensor, "*shape modality dim"]:
        """Draws the missing embeddings from their own marginal laws (the paper's imputation).

        Arguments are those of :meth:`complete`.
        """
        return self._filled(value, present, type(self)._draw_marginal, base)

    def _draw_marginal(self, z: Tensor, present: Tensor, base: Base | None) -> Tensor:
        if base is None:
            return self.marginals.expand(z.shape[:-1]).sample()
        return self.marginals.from_uniform(base.coordinate)

    def mean_complete(
        self,
        value: Float[Tensor, "*batch modality dim"],
        present: Bool[Tensor, "*batch modality"],
    ) -> Float[Tensor, "*batch modality dim"]:
        """Puts the marginal means in the place of the missing embeddings."""
        return self._filled(value, present, lambda law, z, *_: law.marginals.mean.expand_as(z))

    def conditional_mean(
        self,
        value: Float[Tensor, "*batch modality dim"],
        present: Bool[Tensor, "*batch modality"],
    ) -> Float[Tensor, "*batch modality dim"]:
        """Puts the means given the present embeddings in the place of the missing ones.

        In closed form where normal scores are Gaussian and the marginals' components are shared or
        one; else it is the average over 64 fixed draws, those of :meth:`base_points`: 32 of a Latin
        hypercube from seed 0 and their mirror images, the same for every row. Its error is less
        than an eighth of a conditional deviation.

        Raises:
            ValueError: If the shapes do not fit or a present embedding is not finite.
        """
        return self._filled(value, present, lambda law, *rows: law._conditional_mean(*rows[:2]))

    def _conditional_mean(self, z: Tensor, present: Tensor) -> Tensor:
        law, base = in_double(self), self.base_points()
        base, z = base.map(Tensor.double), z.double()
        modalities, components = self.marginals.logits.shape
        size = _MEAN_DRAWS * self.event_shape.numel() * max(modalities, components)
        count = max(1, _MEAN_ELEMENTS // size)
        parts = zip(z.split(count), present.split(count), strict=True)
        means = [law._draw(rows, there, base).mean(0) for rows, there in parts]
        return torch.cat(means)

    def total_correlation(self, samples: int = 10_000) -> Float[Tensor, ""]:
        """The information that modalities share, in nats: the mean log copula term.

        The divergence of the joint from independent modalities; for two of them, their mutual
        information. In closed form where there is one, else by Monte Carlo from a fixed seed.

        Args:
            samples: Number of draws, where they are needed.
        """
        return self._information(samples).value

    def total_correlation_error(self, samples: int = 10_000) -> Float[Tensor, ""]:
        """The standard error of :meth:`total_correlation`; 0 where that is in closed form."""
        return self._information(samples).standard_error

    def _information(self, samples: int) -> Estimate:
        """Value and error of one set of draws, kept for as long as parameters stay as they are."""
        tensors = [*self.copula.parameters.values(), *vars(self.marginals).values()]
        given = [part.detach() for part in tensors if isinstance(part, Tensor)]
        kept = self._kept
        if kept is None or kept[0] != samples or not all(map(torch.equal, kept[1], given)):
            estimate = self._total_correlation(samples)
            kept = self._kept = samples, [part.clone() for part in given], estimate
        return kept[2]

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

    def _copula_base(self, base: Base | None) -> Base | None:
        """The copulas' part of the base points."""
        if base is None:
            return None
        return Base(self._points(base.coordinate), factor=base.factor)

    def _filled(
        self, value: Tensor, present: Tensor, draw: Any, base: Base | None = None
    ) -> Tensor:
        z, present = self._prepare(value, present)
        batch, event = z.shape[:-2], z.shape[-2:]
        incomplete = (~present.all(-1)).reshape(-1).nonzero().squeeze(-1)
        law, lead = of_rows(self, incomplete), Size()
        if base is not None:
            law = in_double(law)
            base, lead = self._base_of_rows(base, batch, incomplete)
        if len(incomplete) == 0:
            return value.expand(*lead, *value.shape)
        rows, there = z.reshape(-1, *event), present.reshape(-1, event[0])
        seen = rows[incomplete] if base is None else rows[incomplete].double()
        drawn = draw(law, seen, there[incomplete], base).to(z.dtype)
        filled = rows.expand(*lead, *rows.shape).index_copy(len(lead), incomplete, drawn)
        return torch.where(present[..., None], value, filled.view(*lead, *z.shape))

    def _base_of_rows(self, base: Base, batch: Size, rows: Tensor) -> tuple[Base, Size]:
        """Base points of some of the rows of a flattened batch, and the shape that leads them.

        Raises:
            ValueError: If the base points are not those of this joint.
        """
        if base.coordinate.shape[-2:] != self.event_shape:
            raise ValueError(
                f"base.coordinate must have shape (*, {', '.join(map(str, self.event_shape))}), "
                f"got {tuple(base.coordinate.shape)}"
            )
        copulas = self.event_shape[1] // self.copula.block
        factor = Size((copulas, *self.copula.factor_shape))
        events = dict(zip(Base._fields, (self.event_shape, Size(), factor), strict=True))
        shape = torch.broadcast_shapes(base.coordinate.shape[:-2], batch)
        lead = shape[: len(shape) - len(batch)]

        def of_rows(part: Tensor, event: Size) -> Tensor:
            flat = part.expand(*lead, *batch, *event).reshape(*lead, -1, *event)
            return flat.index_select(len(lead), rows).to(self.marginals.loc.device, torch.double)

        given = {name: part for name, part in base._asdict().items() if part is not None}
        return Base(**{name: of_rows(part, events[name]) for name, part in given.items()}), lead

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
        return self._draw(z, present, None).view(self._extended_shape(Size(sample_shape)))

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
        if value.shape[-2:] != self.event_shape:
            wanted = ", ".join(map(str, ("*", *self.event_shape)))
            raise ValueError(f"embeddings must have shape ({wanted}), got {tuple(value.shape)}")
        present = checked_present(value, present)
        return torch.where(present[..., None], value, 0.0), present


def checked_present(
    z: Float[Tensor, "*batch modality dim"], present: Tensor | None
) -> Bool[Tensor, "*batch modality"]:
    """Which modalities are there; all of them, unless that is said.

    Raises:
        ValueError: If ``present`` is not boolean or of another shape, or what is there not finite.
    """
    if present is None:
        present = torch.ones(z.shape[:-1], dtype=torch.bool, device=z.device)
    if present.shape != z.shape[:-1] or present.dtype != torch.bool:
        raise ValueError(
            f"present must be boolean of shape {tuple(z.shape[:-1])}, "
            f"got {present.dtype} of shape {tuple(present.shape)}"
        )
    finite = z.isfinite().all(-1) | ~present
    if not finite.all():
        bad = (~finite).reshape(-1, finite.shape[-1]).any(0).nonzero().flatten().tolist()
        raise ValueError(f"present embeddings of modalities {bad} are not finite")
    return present


def fixed_seed(like: Tensor, seed: int = 0) -> AbstractContextManager[None]:
    """Draws from a seed of their own, and leaves the process's generators as they were."""
    # A seed is set on all devices of its kind.
    devices = range(torch.cuda.device_count()) if like.device.type == "cuda" else ()
    return seeded(seed, devices)


REGISTRY = Registry[Joint]("coupling")
register = REGISTRY.register
