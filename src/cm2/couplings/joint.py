"""The trainable joint model of embeddings: marginals, a copula and the coupling between them.

Parameters are fitted by maximum likelihood on what is present, after Joe and Xu (1996): first the
marginals, then the copula, then all together.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cm2 import copulas, couplings
from cm2.copulas import Copula
from cm2.core.learnable import Learnable, minimize
from cm2.core.numerics import normal_quantile
from cm2.couplings import Joint
from cm2.couplings.base import checked_present, fixed_seed
from cm2.marginals import GaussianMixture
from cm2.marginals.em import PSEUDO_OBSERVATIONS, fit_mixtures

_CHUNK_ELEMENTS = 2_000_000
_FOLDS = 3


class CopulaJoint(nn.Module):
    """A joint law of M embeddings of d coordinates, with trainable parameters.

    Args:
        modalities: Number M of modalities.
        dim: Number d of coordinates of an embedding.
        copula: Name of the copula family. ``"factor"`` couples all coordinates at once, the others
            coordinate j of one modality with coordinate j of the others.
        components: Number K of components of each marginal mixture.
        coupling: ``"rosenblatt"`` (exact, the default), ``"shared-components"`` (exact) or
            ``"multivariate-cdf"`` (the paper's literal form, not a density).
        rank: Number of factors of a family that has factors, 8 if ``None``; ``"auto"`` lets
            :meth:`fit` choose it by held-out likelihood.
        shared: Whether all coordinates share one copula, as in the paper, or each has its own.

    Attributes:
        rank: Number of factors that was asked for or settled; ``None`` for the family's own.

    Raises:
        ValueError: If a name is unknown, a size is not positive, or the family has no rank.

    Example:
        >>> joint = CopulaJoint(modalities=2, dim=4, copula="gaussian", components=1)
        >>> joint().log_prob(torch.zeros(3, 2, 4)).shape
        torch.Size([3])
    """

    settled_rank: Tensor

    def __init__(
        self,
        modalities: int,
        dim: int,
        copula: str = "gumbel",
        components: int = 3,
        coupling: str = "rosenblatt",
        *,
        rank: int | Literal["auto"] | None = None,
        shared: bool = False,
    ) -> None:
        super().__init__()
        for name, size in (("modalities", modalities), ("dim", dim), ("components", components)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        self.modalities, self.dim, self.components = modalities, dim, components
        self.coupling = couplings.REGISTRY[coupling]
        self.family, self.shared = copulas.REGISTRY[copula], shared
        self.rank: int | None = None
        if rank is not None and rank != "auto" and not isinstance(rank, int):
            raise ValueError(f"rank must be a whole number or 'auto', got {rank!r}")
        self._automatic = rank == "auto"
        if self._automatic:
            # What fit settles; 0 until then.
            self.register_buffer("settled_rank", torch.tensor(0))
        self._set_rank(1 if rank == "auto" else rank)
        if self._automatic:
            self.rank = None
        # Components that start equal would stay equal; fit and initialize put them where the data
        # are.
        self.marginals = Learnable(
            GaussianMixture,
            logits=torch.zeros(modalities, components),
            loc=torch.randn(modalities, components, dim),
            scale=torch.ones(modalities, components, dim),
        )

    def forward(self, frozen: bool = False) -> Joint:
        """The joint law.

        Args:
            frozen: Whether its parameters are constants, so that gradients pass to embeddings only.
        """
        if not self.settled:
            raise ValueError("the rank is 'auto' and not settled yet: call fit first")
        return self._joint(frozen)

    @property
    def settled(self) -> bool:
        """Whether the rank is known."""
        return not self._automatic or int(self.settled_rank) > 0

    def _joint(self, frozen: bool = False) -> Joint:
        return self.coupling(self.copula(frozen), self.marginals(frozen))

    def _set_rank(self, rank: int | None) -> None:
        """Puts a copula of this rank in place, at its start."""
        arguments = self.coupling.start(
            self.family, self.modalities, self.dim, shared=self.shared, rank=rank
        )
        self.copula: Learnable[Copula] = Learnable(self.family, **arguments)
        self.rank = rank

    def _load_from_state_dict(self, state: Any, prefix: str, *others: Any) -> None:
        settled = state.get(f"{prefix}settled_rank")
        if self._automatic and settled is not None:
            self._set_rank(max(1, int(settled)))
            self.copula.to(next(self.marginals.parameters()))
        super()._load_from_state_dict(state, prefix, *others)

    @torch.no_grad()
    def initialize(
        self,
        z: Float[Tensor, "row modality dim"],
        present: Bool[Tensor, "row modality"] | None = None,
        *,
        weights: Float[Tensor, " row"] | None = None,
        seed: int = 0,
    ) -> Self:
        """Fits the marginals by EM, each by itself, and starts the copula.

        A copula of vectors starts from the correlations between modalities in the rows that have
        both; a family of coordinates is left as it is.

        Raises:
            ValueError: If embeddings or weights do not fit the model or are not finite, or if a
                modality is present in fewer rows of positive weight than there are components.
        """
        z, present, weights = self._check(z, present, weights)
        parameters = fit_mixtures(
            z.double(),
            present,
            self.components,
            weights=weights,
            shared=self.coupling.shares_components(),
            seed=seed,
        )
        like = next(self.marginals.parameters())
        self.marginals.set(**{key: v.to(like) for key, v in parameters._asdict().items()})
        self._start_copula(z, present, weights, seed)
        return self

    def _start_copula(self, z: Tensor, present: Tensor, weights: Tensor, seed: int) -> None:
        """Starts a copula of vectors from correlations between modalities."""
        joint = self._joint()
        if not joint.copula.couples_vectors:
            return
        with fixed_seed(z, seed):
            unit = joint.copula_arguments(z.to(joint.marginals.loc), present)
        scores = normal_quantile(*unit).double() * present[..., None]
        shared = torch.einsum("nma,nkb,n->makb", scores, scores, weights.double())
        rows = torch.einsum("nm,nk,n->mk", *2 * [present.double()], weights.double())
        # As many rows of independence as an embedding has coordinates.
        correlation = shared / (rows + self.dim)[:, None, :, None]
        size = self.modalities * self.dim
        self.copula.set(**joint.copula.near(correlation.reshape(size, size)))

    def fit(
        self,
        z: Float[Tensor, "row modality dim"],
        present: Bool[Tensor, "row modality"] | None = None,
        *,
        weights: Float[Tensor, " row"] | None = None,
        seed: int = 0,
        steps: int = 20,
        quiet: bool = False,
    ) -> Self:
        """Maximum likelihood on what is present.

        Args:
            z: Embeddings; entries of absent modalities are not read.
            present: Which modalities each row has; all if ``None``.
            weights: Weight of each row, not negative; a row of weight zero counts as absent.
            seed: Seed of the marginals' start.
            steps: The most iterations over all parameters together, after the two stages; 0 leaves
                the two-stage estimate.
            quiet: Whether to say nothing of dependence whose sign the family lacks, as where the
                signs of coordinates are arbitrary.

        Raises:
            ValueError: If embeddings or weights do not fit the model or are not finite, or if a
                modality is present in fewer rows of positive weight than there are components.
        """
        dtype = next(self.marginals.parameters()).dtype
        self.double()
        try:
            z, present, weights = self._check(z.detach().double(), present, weights)
            some = present.any(-1) & (weights > 0)
            z, present, weights = z[some], present[some], weights[some]
            weights = weights / weights.sum()
            if self._automatic:
                self._settle_rank(z, present, weights, seed)
            self.initialize(z, present, weights=weights * len(z), seed=seed)
            minimize(self.copula.parameters(), self._loss(z, present, weights, True), 50)
            minimize(self.parameters(), self._loss(z, present, weights, False), steps)
            if not quiet:
                self._check_signs(z, present, weights)
        finally:
            self.to(dtype)
        return self

    def _check_signs(self, z: Tensor, present: Tensor, weights: Tensor) -> None:
        """Warns of dependence whose sign the family cannot have."""
        joint = self._joint()
        missing = [s for s in (-1, 1) if not joint.copula.reaches(0.1 * s, self.modalities)]
        if not missing or not joint.copula.parameters:
            return
        with fixed_seed(z), torch.no_grad():
            scores = normal_quantile(*joint.copula_arguments(z, present))
        scores = torch.where(present[..., None], scores, 0.0)
        both = torch.einsum("nm,nk,n->nmk", *2 * [present.to(z)], weights)
        total = both.sum(0).clamp_min(torch.finfo(z.dtype).tiny)
        mean = torch.einsum("nmd,nkd,n->mkd", scores, scores, weights) / total[..., None]
        error = both.square().sum(0).sqrt() / total
        off = ~torch.eye(self.modalities, dtype=torch.bool, device=z.device)[..., None]
        for sign, name in zip((-1, 1), ("negative", "positive"), strict=True):
            found = ((sign * mean > 4 * error[..., None]) & off).flatten(0, 1).any(0)
            if sign in missing and found.any():
                warnings.warn(
                    f"{self.family.__name__} has no {name} dependence between {self.modalities} "
                    f"modalities, but coordinates {found.nonzero().flatten().tolist()} have some, "
                    "which stays unseen; 'factor' and 'gaussian' have both signs",
                    UserWarning,
                    stacklevel=3,
                )

    def _settle_rank(self, z: Tensor, present: Tensor, weights: Tensor, seed: int) -> None:
        """Raises the rank for as long as held-out rows gain by more than a standard error.

        From one factor on; that is all where a fold would leave too few rows of a modality.
        """
        fold = _folds(present, seed)
        parts = [(fold != k, fold == k) for k in range(_FOLDS)]
        settled = 1
        if all((present[train].sum(0) >= self.components).all() for train, _ in parts):
            marginals = []
            for train, _ in parts:
                share = weights[train] / weights[train].sum()
                count = share * len(share)
                self.initialize(z[train], present[train], weights=count, seed=seed)
                marginals.append(copy.deepcopy(self.marginals))
            best, settled = z.new_zeros(len(z)), 0
            for rank in _ranks(max(1, (self.modalities - 1) * self.dim)):
                terms = z.new_zeros(len(z))
                for (train, test), law in zip(parts, marginals, strict=True):
                    self.marginals = law
                    self._fit_rank(z[train], present[train], weights[train], rank, seed)
                    with torch.no_grad():
                        given = self._joint().log_prob_terms(z[test], present[test])
                    terms[test] = given["copula"]
                gain = terms - best
                mean = (weights * gain).sum()
                error = (weights * (gain - mean)).square().sum().sqrt()
                if settled and mean <= error:
                    break
                best, settled = terms, rank
        self._set_rank(settled)
        self.to(z)
        self.settled_rank.fill_(settled)

    def _fit_rank(self, z: Tensor, present: Tensor, weights: Tensor, rank: int, seed: int) -> None:
        """Fits a copula of this rank, and leaves the marginals."""
        self._set_rank(rank)
        self.to(z)
        weights = weights / weights.sum()
        with torch.no_grad():
            self._start_copula(z, present, weights * len(z), seed)
        minimize(self.copula.parameters(), self._loss(z, present, weights, True), 30)

    def _loss(
        self, z: Tensor, present: Tensor, weights: Tensor, frozen: bool
    ) -> Callable[[], float]:
        """Evaluates the mean negative log posterior and its gradient, in chunks that bound memory.

        Args:
            z: Embeddings.
            present: Which modalities each row has.
            weights: Weight of each row; they sum to one.
            frozen: Whether the marginals are constants.
        """
        chunk = max(1, _CHUNK_ELEMENTS // (self.modalities * self.dim * self.components))
        start = self.marginals(frozen=True)
        inside = (start.weights[..., None] * start.scale.square()).sum(-2, keepdim=True)
        strength = PSEUDO_OBSERVATIONS / len(z)
        # Alone, a copula is fitted by the rows that have two modalities: the search must not end
        # early where these are few.
        share = len(z) / (present.sum(-1) > 1).sum().clamp_min(1).item() if frozen else 1.0

        def evaluate() -> float:
            # A pseudo-observation of independence: it bounds the likelihood where the rows could
            # be explained by perfect dependence, and speaks where they say nothing.
            copula = self.copula()
            independence = share * strength * copula.lautum_information().sum()
            if independence.requires_grad:
                independence.backward()
            total = independence.item()
            for rows in torch.arange(len(z), device=z.device).split(chunk):
                joint = self.coupling(self.copula(), self.marginals(frozen))
                part = -share * (weights[rows] * joint.log_prob(z[rows], present[rows])).sum()
                part.backward()
                total += part.item()
            if frozen:
                return total
            # The pseudo-observations of EM, so that no component shrinks onto a point.
            scale = self.marginals().scale
            prior = strength * (scale.log() + 0.5 * inside / scale.square()).sum()
            prior.backward()
            return total + prior.item()

        return evaluate

    def _check(
        self, z: Tensor, present: Tensor | None, weights: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Checks the arguments and fills in what was left out."""
        if z.dim() != 3 or z.shape[1:] != (self.modalities, self.dim):
            raise ValueError(
                f"embeddings must have shape (rows, {self.modalities}, {self.dim}), "
                f"got {tuple(z.shape)}"
            )
        present = checked_present(z, present)
        if weights is None:
            weights = torch.ones(len(z), device=z.device)
        if weights.shape != z.shape[:1]:
            raise ValueError(
                f"weights should have shape {tuple(z.shape[:1])}, got {tuple(weights.shape)}"
            )
        wrong = ((weights < 0) | ~weights.isfinite()).nonzero().flatten()
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                "weights of rows should be finite and not negative, "
                f"but row {row} has {float(weights[row]):g}"
            )
        if len(z) and not (weights.to(z.device)[present.any(-1)] > 0).any():
            raise ValueError("the weights of all rows that have a modality are zero")
        return z, present, weights.to(z)


def _folds(present: Tensor, seed: int) -> Int[Tensor, " row"]:
    """The fold of each row; the rows of each pattern of presence are dealt evenly."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(present), generator=generator, device="cpu").to(present.device)
    _, pattern = torch.unique(present[shuffled], dim=0, return_inverse=True)
    order = shuffled[pattern.argsort(stable=True)]
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order), device=order.device) % _FOLDS
    return fold


def _ranks(most: int) -> list[int]:
    """Numbers of factors to try: 1, 2, 3, 4, 6, 8, 12, 16, .. up to the most."""
    steps = [2**k for k in range(12)] + [3 * 2**k for k in range(11)]
    return [*sorted(rank for rank in steps if rank < most), most]
