"""The trainable joint model of embeddings: marginals, a copula and the coupling between them.

Parameters are fitted by maximum likelihood on what is present, after Joe and Xu (1996): first the
marginals, then the copula, then all together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cm2 import copulas, couplings
from cm2.couplings import Joint
from cm2.learnable import Learnable
from cm2.marginals import GaussianMixture
from cm2.marginals.em import PSEUDO_OBSERVATIONS, fit_mixtures

_CHUNK_ELEMENTS = 2_000_000


class CopulaJoint(nn.Module):
    """A joint law of M embeddings of d coordinates, with trainable parameters.

    Args:
        modalities: Number M of modalities.
        dim: Number d of coordinates of an embedding.
        copula: Name of the copula family.
        components: Number K of components of each marginal mixture.
        coupling: ``"rosenblatt"`` (exact, the default), ``"shared-components"`` (exact) or
            ``"multivariate-cdf"`` (the paper's literal form, not a density).
        shared: Whether all coordinates share one copula, as in the paper, or each has its own.

    Raises:
        ValueError: If a name is unknown or a size is not positive.

    Example:
        >>> joint = CopulaJoint(modalities=2, dim=4, copula="gaussian", components=1)
        >>> joint().log_prob(torch.zeros(3, 2, 4)).shape
        torch.Size([3])
    """

    def __init__(
        self,
        modalities: int,
        dim: int,
        copula: str = "gumbel",
        components: int = 3,
        coupling: str = "rosenblatt",
        *,
        shared: bool = False,
    ) -> None:
        super().__init__()
        for name, size in (("modalities", modalities), ("dim", dim), ("components", components)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        self.modalities, self.dim, self.components = modalities, dim, components
        self.coupling = couplings.REGISTRY[coupling]
        family = copulas.REGISTRY[copula]
        batch_shape = self.coupling.copula_batch_shape(dim, shared)
        self.copula = Learnable(family, dim=modalities, **family.start(modalities, batch_shape))
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
        return self.coupling(self.copula(frozen), self.marginals(frozen))

    @torch.no_grad()
    def initialize(
        self,
        z: Float[Tensor, "row modality dim"],
        present: Bool[Tensor, "row modality"] | None = None,
        *,
        weights: Float[Tensor, " row"] | None = None,
        seed: int = 0,
    ) -> Self:
        """Fits the marginals by EM, each by itself, and leaves the copula as it is.

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
        return self

    def fit(
        self,
        z: Float[Tensor, "row modality dim"],
        present: Bool[Tensor, "row modality"] | None = None,
        *,
        weights: Float[Tensor, " row"] | None = None,
        seed: int = 0,
        steps: int = 20,
    ) -> Self:
        """Maximum likelihood on what is present.

        Args:
            z: Embeddings; entries of absent modalities are not read.
            present: Which modalities each row has; all if ``None``.
            weights: Weight of each row, not negative; a row of weight zero counts as absent.
            seed: Seed of the marginals' start.
            steps: The most iterations over all parameters together, after the two stages; 0 leaves
                the two-stage estimate.

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
            self.initialize(z, present, weights=weights * len(z), seed=seed)
            _minimize(self.copula.parameters(), self._loss(z, present, weights, True), 50)
            _minimize(self.parameters(), self._loss(z, present, weights, False), steps)
        finally:
            self.to(dtype)
        return self

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

        def evaluate() -> float:
            total = 0.0
            for rows in torch.arange(len(z)).split(chunk):
                joint = self.coupling(self.copula(), self.marginals(frozen))
                part = -(weights[rows] * joint.log_prob(z[rows], present[rows])).sum()
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
        if present is None:
            present = torch.ones(z.shape[:2], dtype=torch.bool, device=z.device)
        if present.shape != z.shape[:2] or present.dtype != torch.bool:
            raise ValueError(
                f"present must be boolean of shape {tuple(z.shape[:2])}, "
                f"got {present.dtype} of shape {tuple(present.shape)}"
            )
        finite = z.isfinite().all(-1) | ~present
        if not finite.all():
            bad = (~finite).any(0).nonzero().flatten().tolist()
            raise ValueError(f"present embeddings of modalities {bad} are not finite")
        if weights is None:
            weights = torch.ones(len(z))
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


def _minimize(parameters: Iterable[nn.Parameter], loss: Callable[[], float], steps: int) -> None:
    """L-BFGS with a line search; ends at the best point that it saw."""
    free = [p for p in parameters if p.numel()]
    if not free or steps == 0:
        return
    optimizer = torch.optim.LBFGS(
        free,
        max_iter=steps,
        tolerance_change=1e-8,
        tolerance_grad=1e-5,
        line_search_fn="strong_wolfe",
    )
    best, best_loss = [p.detach().clone() for p in free], float("inf")

    def closure() -> float:
        nonlocal best, best_loss
        optimizer.zero_grad()
        value = loss()
        if value < best_loss:
            best, best_loss = [p.detach().clone() for p in free], value
        return value

    optimizer.step(closure)
    with torch.no_grad():
        for parameter, value in zip(free, best, strict=True):
            parameter.copy_(value)
            parameter.grad = None
