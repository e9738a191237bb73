"""CM2: encoders, a copula joint over their embeddings, imputation, fusion and a classifier.

Source: Wu, Chan, Wang, Yin, Yu (2025), Cross-modal alignment via variational copula modelling,
ICML, https://arxiv.org/abs/2511.03196; the joint is exact here (see ``cm2.couplings.joint``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cm2.core.numerics import seeded
from cm2.core.records import Base, Batch, Output
from cm2.couplings import Joint
from cm2.couplings.joint import CopulaJoint
from cm2.networks import fusions, imputers
from cm2.networks.encoders import Encoder
from cm2.networks.models import classifiers, diagnostics, objectives, posteriors
from cm2.networks.models import mixing as mixtures
from cm2.networks.models.auxiliary import Auxiliary
from cm2.networks.models.base import (
    Model,
    Prediction,
    evaluating,
    hide,
    pieces,
    register,
    single,
    single_precision,
)
from cm2.networks.models.posteriors import Encoded

JOINT_SPEED = 5.0
"""Learning rate of the joint relative to the network's; it has to follow moving embeddings."""

PIECE = 32
"""Rows that encoders take at once where a batch may hold thousands."""

LEAST_SCALE = 0.05
"""Least scale from which a component starts. Embeddings are on the scale of one, but those of an
encoder at its random start may hardly differ; one step would take them out of any sight of a
marginal that fits them closely."""

FILLER_ROWS = 100
"""Standard normal rows from which the marginal of a hardly ever observed modality starts."""


@register("cm2")
class CM2(Model):
    """Classifies samples whose modalities are dependent and partly missing.

    Args:
        encoders: Encoder of each modality, all of one ``dim``; the order fixes the columns of
            ``present`` and the order in which the fusion reads.
        labels: Number of logits.
        copula: Name of the copula family.
        components: Number of components of each marginal mixture.
        coupling: Name of the way in which the copula couples the marginals.
        rank: Number of factors of a copula that has some; its own default if ``None``.
        imputation: Name of an imputer, or one.
        fusion: Name of a fusion, or one.
        posterior: ``"point"`` or ``"gaussian"``.
        objective: ``"alignment"`` by the copula, ``"elbo"`` (which needs the Gaussian posterior),
            ``"likelihood"`` (the paper's as printed, which has no bound), or for comparison
            ``"cosine"``, ``"kl"`` or ``"none"`` (see ``cm2.networks.penalties``).
        hide: Probability with which training hides a modality that is there from the fusion, so
            that it meets imputed embeddings; at least one modality stays.
        shared: Whether all coordinates share one copula parameter.
        width: Width of the fused vector.
        dropout: Probability of dropping a fused or hidden unit of the classifier.
        normalize: Whether embeddings are brought to length one first.
        mixing: Where the mixtures' weights come from: ``"constant"``, learned and the same for all
            samples, or ``"network"``, which needs ``"likelihood"`` and draws from the marginals.
        through: Whether training sends gradients through the draws into the joint.
        marked: Whether the fusion is told which embeddings are imputed.
        classifier: ``"mlp"`` or ``"linear"``.
        auxiliary: Whether each encoder has a classifier of its own beside.
        seed: Seed of the parameters' start; ``None`` draws from torch's global state.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> model = CM2({"labs": Dense(6, 4), "notes": Dense(9, 4)}, labels=3)
        >>> inputs = {"labs": torch.zeros(2, 6), "notes": torch.zeros(2, 9)}
        >>> model(Batch(inputs, torch.tensor([[True, True], [True, False]]))).logits.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        labels: int,
        *,
        copula: str = "gaussian",
        components: int = 3,
        coupling: str = "rosenblatt",
        rank: int | None = None,
        imputation: str | imputers.Imputer = "conditional",
        fusion: str | fusions.Fusion = "lstm",
        posterior: str = "point",
        objective: str = "alignment",
        hide: float = 0.2,
        shared: bool = False,
        width: int = 32,
        dropout: float = 0.1,
        normalize: bool = False,
        mixing: str = "constant",
        through: bool = False,
        marked: bool = True,
        classifier: str = "mlp",
        auxiliary: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__(encoders, labels)
        if not 0 <= hide < 1:
            raise ValueError(f"hide is a probability below one, but is {hide}")
        self.hide, self.normalize, self.through, self.marked = hide, normalize, through, marked
        size = (len(self.modalities), self.dim)
        with nullcontext() if seed is None else seeded(seed):
            self.joint = CopulaJoint(*size, copula, components, coupling, rank=rank, shared=shared)
            self.posterior = posteriors.REGISTRY[posterior](*size)
            self.objective = objectives.REGISTRY[objective](self.joint)
            self.imputer = (
                imputers.REGISTRY[imputation]() if isinstance(imputation, str) else imputation
            )
            self.fusion = (
                fusions.REGISTRY[fusion](*size, width=width) if isinstance(fusion, str) else fusion
            )
            self.classifier = classifiers.REGISTRY[classifier](
                self.fusion.dim, labels, width=width, dropout=dropout
            )
            self.auxiliary = Auxiliary(*size, labels) if auxiliary else None
            self.mixing = mixtures.REGISTRY[mixing](*size, components)
        if self.imputer.conditions and not self.joint.coupling.is_density:
            raise ValueError(
                f"the coupling {coupling!r} has no law of what is missing given what is present; "
                "use imputation='marginal', as the paper does"
            )
        if posterior == "point" and objective == "elbo":
            raise ValueError("objective='elbo' needs posterior='gaussian', but it is 'point'")
        if self.mixing.by_row and (
            objective != "likelihood"
            or self.imputer.conditions
            or self.joint.coupling.shares_components()
        ):
            raise ValueError(
                f"with mixing={mixing!r} each sample has mixtures of its own, and there is no law "
                "of what is missing given what is present: use objective='likelihood', an "
                "imputation that does not condition, and no shared components"
            )

    def encode(self, batch: Batch) -> Encoded:
        """Embeds what is present; zeros elsewhere."""
        z = self.raw(batch)
        if self.normalize:
            z = F.normalize(z, dim=-1)
        with single_precision(z):
            encoded: Encoded = self.posterior(z, batch.present)
        return encoded

    def embed(self, batch: Batch) -> Float[Tensor, "batch modality dim"]:
        """Returns the embeddings of what is present, zeros elsewhere."""
        return self.encode(batch).z

    def law(
        self,
        z: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
        *,
        frozen: bool = False,
    ) -> Joint:
        """Returns the joint law of samples; of constant parameters if ``frozen``."""
        law: Joint = self.mixing(self.joint(frozen), z, present, frozen=frozen)
        return law

    def complete(
        self, batch: Batch, draws: int = 1, *, sampled: bool = False
    ) -> Float[Tensor, "draw batch modality dim"]:
        """Returns the embeddings with imputations of what is missing; see :meth:`impute`.

        They are made of fixed base points, so that a row is filled in the same alone and beside
        others. The first of many draws are not those of fewer: points are laid out together.
        """
        return self._draws(self.embed(batch), batch.present, draws, sampled=sampled)

    def impute(
        self,
        z: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
        base: Base | None = None,
        *,
        sampled: bool = False,
    ) -> Float[Tensor, "batch modality dim"]:
        """Fills in what is missing by the joint, whose parameters are constants here.

        In training with ``through`` they are not, and draws are reparameterised.

        Args:
            z: Embeddings.
            present: Which of them are there.
            base: Uniform numbers of which draws are made, as for ``Joint.complete``. If ``None``,
                drawn anew in training; in evaluation the first fixed point, for every row.
            sampled: Whether to draw from the law of what is missing although the imputer fills in
                its mean.
        """
        imputer = self.imputer.sampler() if sampled else self.imputer
        through = self.through and self.training
        if base is None and imputer.draws and (through or not self.training):
            base = self._base(1, len(z))
            base = base.map(torch.rand_like) if through else base
        with single_precision(z):
            law = self.law(z, present, frozen=not through)
            completed: Tensor = imputer(z, present, law, base, through=through)
        return completed

    def _base(self, draws: int, rows: int) -> Base:
        """The joint's fixed points, one draw of all rows after the other."""
        points = self.joint(frozen=True).base_points(draws)
        return points.map(lambda part: part.repeat_interleave(rows, 1).flatten(0, 1))

    def _draws(
        self,
        z: Float[Tensor, "batch modality dim"],
        present: Bool[Tensor, "batch modality"],
        draws: int,
        *,
        sampled: bool,
    ) -> Float[Tensor, "draw batch modality dim"]:
        """Fills in what is missing by fixed base points, ``draws`` times."""
        many, there = z.repeat(draws, 1, 1), present.repeat(draws, 1)
        completed = self.impute(many, there, self._base(draws, len(z)), sampled=sampled)
        return completed.unflatten(0, (draws, -1))

    def classify(
        self, z: Float[Tensor, "batch modality dim"], present: Bool[Tensor, "batch modality"]
    ) -> Float[Tensor, "batch label"]:
        """Returns logits of completed embeddings."""
        told = present if self.marked else torch.ones_like(present)
        logits: Tensor = self.classifier(self.fusion(z, told))
        return logits

    def hidden(self, present: Bool[Tensor, "batch modality"]) -> Bool[Tensor, "batch modality"]:
        """Hides present modalities at random; a row that has any keeps at least one."""
        return hide(present, self.hide)

    def forward(self, batch: Batch) -> Output:
        """Returns logits after one imputation, the objective's penalties, and auxiliary logits.

        In training, modalities are hidden from the fusion; the joint's likelihood sees what is
        there before hiding, and never an imputed embedding. In evaluation the imputation is the
        same whatever rows stand beside.
        """
        encoded = self.encode(batch)
        shown = self.hidden(batch.present) if self.training else batch.present
        completed = self.impute(encoded.z, shown)
        weight = batch.weight
        if weight is None:
            weight = encoded.z.new_ones(len(encoded.z))
        weight = weight / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
        law = partial(self.law, encoded.z, batch.present)
        with single_precision(encoded.z):
            penalties = self.objective.penalties(law, encoded, batch.present, weight)
        alone = {}
        if self.auxiliary is not None:
            each = self.auxiliary(encoded.z).unbind(dim=1)
            alone = dict(zip(self.modalities, each, strict=True))
        return Output(
            logits=self.classify(completed, shown),
            penalties=penalties,
            logits_by_modality=alone,
        )

    @torch.no_grad()
    def predict(
        self,
        batch: Batch,
        draws: int = 10,
        *,
        sampled: bool = False,
        probability: Callable[[Tensor], Tensor] | None = None,
    ) -> Prediction:
        """Averages probabilities over imputations (Rubin's multiple imputation).

        The imputations are made of fixed base points, the same for every row, so that the
        prediction of a row is the same alone and beside others. Complete rows, and imputers that
        always return the same values, are computed once.

        Args:
            batch: The samples.
            draws: Number of imputations of each incomplete row.
            sampled: As in :meth:`impute`.
            probability: What turns logits into probabilities; by default what the task was in
                training.

        Returns:
            Mean and standard deviation over the imputations, without dropout.
        """
        if draws < 1:
            raise ValueError(f"a prediction needs at least one imputation, but draws is {draws}")
        probability = probability or self.probability
        with evaluating(self):
            z, present = self.embed(batch), batch.present
            mean = probability(single(self.classify(z, present)))
            spread = torch.zeros_like(mean)
            rows = (~present.all(dim=-1)).nonzero().squeeze(-1)
            if len(rows) > 0:
                repeats = draws if sampled or self.imputer.draws else 1
                completed = self._draws(z[rows], present[rows], repeats, sampled=sampled)
                there = present[rows].repeat(repeats, 1)
                values = probability(single(self.classify(completed.flatten(0, 1), there)))
                values = values.unflatten(0, (repeats, -1))
                mean = mean.index_copy(0, rows, values.mean(dim=0))
                spread = spread.index_copy(0, rows, values.std(dim=0, correction=0))
        return Prediction(mean, spread)

    def initialize_joint(self, batch: Batch) -> None:
        """Starts the joint from the embeddings of a batch (clusters of each modality).

        Equal components get equal gradients and would never part. A modality with fewer rows than
        components starts near a standard normal law.
        """
        with evaluating(self), torch.no_grad():
            z, present = self.embed_in_pieces(batch), batch.present
            rare = present.sum(dim=0) < self.joint.components
            if bool(rare.any()):
                generator = torch.Generator("cpu").manual_seed(0)
                shape = (FILLER_ROWS, *z.shape[1:])
                filler = torch.randn(shape, generator=generator, device="cpu").to(z)
                z = torch.cat([z, filler])
                present = torch.cat([present, rare.expand(FILLER_ROWS, -1)])
            with single_precision(z):
                self.joint.initialize(z, present)
                scale = self.joint.marginals().scale
                self.joint.marginals.set(scale=scale.clamp_min(LEAST_SCALE))
                self.objective.initialize(self.joint, z, present)

    def embed_in_pieces(self, batch: Batch) -> Float[Tensor, "batch modality dim"]:
        """Returns the embeddings of a batch that may be too large for the encoders at once."""
        return torch.cat([self.embed(piece) for piece in pieces(batch, PIECE)])

    def initialize(self, batch: Batch) -> None:
        """Starts the joint from data.

        Batch normalisation that has not met any data embeds otherwise in evaluation than in
        training; where there is some, it meets them first, or the joint would start elsewhere.
        """
        if any(isinstance(part, _BatchNorm) and part.training for part in self.modules()):
            with torch.no_grad():
                self.embed_in_pieces(batch)
        self.initialize_joint(batch)

    def restarted(self) -> list[nn.Parameter]:
        """Returns the joint's parameters."""
        return list(self.joint.parameters())

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Returns the learned dependence and how uniform u is; see ``diagnostics``."""
        z = self.embed(batch)
        with single_precision(z):
            return diagnostics.dependence(self.law(z, batch.present), z, batch.present)

    @torch.no_grad()
    def broken_terms(self, batch: Batch) -> list[str]:
        """Names encoders and terms of the joint that are not finite on a batch."""
        with evaluating(self):
            z = self.embed_in_pieces(batch)
        with single_precision(z):
            return diagnostics.broken(self.law, z, batch.present, self.modalities)

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Returns the network, and the joint with a higher rate and no decay."""
        joint = list(self.joint.parameters())
        owned = {id(value) for value in joint}
        network = [value for value in self.parameters() if id(value) not in owned]
        return [
            {"params": network, "lr": lr, "weight_decay": weight_decay},
            {"params": joint, "lr": JOINT_SPEED * lr, "weight_decay": 0.0},
        ]
