"""The paper's head: CM2 networks, cross-fitted, whose probabilities are averaged.

One network a fold is trained without the fold's rows. Its predictions there are out of fold, and
the head predicts new rows with the average of all networks: one training serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from joblib import Parallel, delayed
from numpy import ndarray
from sklearn.base import clone

from cm2.core.numerics import seeded
from cm2.estimators.heads.base import Held, register, stratified_folds
from cm2.estimators.heads.encoding import start, try_encoder
from cm2.estimators.heads.networks import Networks
from cm2.networks import models
from cm2.networks.models import Model
from cm2.networks.tasks import Multiclass
from cm2.networks.training import VALIDATION_ROWS, train
from cm2.samples.batches import ArrayDataset
from cm2.samples.inputs import Blocks
from cm2.samples.targets import row_weights

INNER_FOLDS = 6
"""One part of this many of a network's rows is kept for early stopping."""

OF_CM2 = (
    "copula",
    "components",
    "coupling",
    "rank",
    "imputation",
    "fusion",
    "posterior",
    "objective",
    "hide",
)
"""Arguments that the paper's network knows, and rivals do not."""

ACCELERATORS = {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}
"""Lightning's names of devices."""


@register("fusion")
class Fusion(Networks):
    """Averages CM2 networks that are each trained without one fold of the rows.

    Early stopping looks at the rows that are held for it, or else at a stratified part of a
    network's own training rows; never at the fold that it is to predict.

    Args:
        copula: Name of the copula family.
        components: Number of components of each marginal mixture.
        embedding_dim: Width of an embedding.
        coupling: Name of the way in which the copula couples the marginals.
        rank: Number of factors of a copula that has some; its own default if ``None``.
        imputation: Name of the imputer.
        imputations: Imputations of each incomplete row at prediction.
        fusion: Name of the fusion.
        posterior: ``"point"`` or ``"gaussian"``.
        objective: ``"alignment"`` or ``"elbo"``.
        alignment: Weight of the objective's pull on the encoders.
        auxiliary: Weight of each modality's own classification loss.
        hide: Probability of hiding a present modality in training.
        folds: Number of networks; with one, ``out_of_fold`` trains further networks.
        max_epochs: Largest number of passes over the training rows.
        patience: Epochs without improvement before training stops.
        lr: Learning rate.
        batch_size: Rows in a training batch.
        seed: Same seed, same result.
        run_dir: Folder for the log of each network; nothing is written without one.
        progress: Whether to show a progress bar.
        network: Name of the model; of others than ``"cm2"`` the options of copula, imputation,
            fusion and posterior say nothing.
        encoders: Of each modality its ``kind`` and arguments, or an encoder that is copied for each
            network. The others get small ones that start at random.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``, on which networks are trained.
        n_jobs: Networks that are trained side by side, in processes.
    """

    begun_: bool = False

    def __init__(
        self,
        copula: str = "factor",
        components: int = 1,
        embedding_dim: int = 16,
        coupling: str = "shared-components",
        imputation: str = "conditional-mean",
        imputations: int = 10,
        *,
        rank: int | None = None,
        fusion: str = "lstm",
        posterior: str = "point",
        objective: str = "alignment",
        alignment: float = 0.1,
        auxiliary: float = 0.5,
        hide: float = 0.2,
        folds: int = 3,
        max_epochs: int = 60,
        patience: int = 8,
        lr: float = 4e-3,
        batch_size: int = 256,
        seed: int = 0,
        run_dir: str | None = None,
        progress: bool = False,
        network: str = "cm2",
        encoders: dict[str, Any] | None = None,
        device: str = "cpu",
        n_jobs: int | None = None,
    ) -> None:
        self.copula = copula
        self.components = components
        self.embedding_dim = embedding_dim
        self.coupling = coupling
        self.rank = rank
        self.imputation = imputation
        self.imputations = imputations
        self.fusion = fusion
        self.posterior = posterior
        self.objective = objective
        self.alignment = alignment
        self.auxiliary = auxiliary
        self.hide = hide
        self.folds = folds
        self.max_epochs = max_epochs
        self.patience = patience
        self.lr = lr
        self.batch_size = batch_size
        self.seed = seed
        self.run_dir = run_dir
        self.progress = progress
        self.network = network
        self.encoders = encoders
        self.device = device
        self.n_jobs = n_jobs

    def fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None = None,
        groups: ndarray | None = None,
    ) -> Self:
        """Trains the networks."""
        if self.folds < 1:
            raise ValueError(f"the fusion head needs at least one network, got folds={self.folds}")
        if self.folds == 1:
            rows = np.arange(len(y))
            weight = row_weights(sample_weight, len(y))
            self._prepare(blocks, y)
            self.networks_ = [self._train(blocks, y, weight, groups, rows, 0, self.held)]
        else:
            folds = stratified_folds(y, min(self.folds, len(y)), self.seed, groups)
            self.cross_fit(blocks, y, sample_weight, folds, groups)
        return self

    def cross_fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
        views: Sequence[Bool[ndarray, "n modality"]] = (),
    ) -> Float[ndarray, "view n label"]:
        """Trains one network a fold, predicts the fold with it, and keeps the networks.

        If there are more folds than networks, folds are merged; a multiple of their number keeps
        the parts equal.
        """
        if self.folds == 1:
            return super().cross_fit(blocks, y, sample_weight, folds, groups, views)
        weight = row_weights(sample_weight, len(y))
        numbers = self.numbers(folds)
        self._prepare(blocks, y)
        begun = self.networks_ if self.begun_ else []
        self.begun_ = False
        self.networks_ = begun + Parallel(n_jobs=self.n_jobs)(
            delayed(self._train)(
                blocks, y, weight, groups, np.flatnonzero(numbers != number), number, self.held
            )
            for number in range(len(begun), numbers.max() + 1)
        )
        return self._held_out(blocks, int(y.max()) + 1, numbers, views)

    def begin(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
        views: Sequence[Bool[ndarray, "n modality"]] = (),
    ) -> tuple[Int[ndarray, " row"], Float[ndarray, "view row label"]]:
        """Trains the first network; :meth:`cross_fit` with the same rows trains the others.

        Returns:
            The rows that it did not see, and what it says of them.
        """
        numbers = np.minimum(self.numbers(folds), 1)
        inside = np.flatnonzero(numbers)
        self._prepare(blocks, y)
        weight = row_weights(sample_weight, len(y))
        self.networks_ = [self._train(blocks, y, weight, groups, inside, 0, self.held)]
        self.begun_ = True
        outside = np.flatnonzero(numbers == 0)
        return outside, self._held_out(blocks, int(y.max()) + 1, numbers, views)[:, outside]

    def numbers(self, folds: Int[ndarray, " n"]) -> Int[ndarray, " n"]:
        """Which network does not see each row in training."""
        merged = np.unique(folds, return_inverse=True)[1] % self.folds
        return np.unique(merged, return_inverse=True)[1]

    def out_of_fold(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
        views: Sequence[Bool[ndarray, "n modality"]] = (),
    ) -> Float[ndarray, "view n label"]:
        """Trains one network a fold and predicts the fold with it; this head stays as it is."""
        count = len(np.unique(folds)) if self.folds == 1 else self.folds
        head: Self = clone(self).set_params(folds=count)
        if self.run_dir is not None:  # the networks that are kept have the folder for themselves
            head.run_dir = str(Path(self.run_dir) / "held_out")
        return head.cross_fit(blocks, y, sample_weight, folds, groups, views)

    def _train(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        weight: Float[ndarray, " n"],
        groups: ndarray | None,
        rows: Int[ndarray, " row"],
        number: int,
        held: Held | None,
    ) -> Model:
        """Trains a network on some of the rows, until it is no longer better on others."""
        rows = rows[weight[rows] > 0]

        def dataset(chosen: Int[ndarray, " row"]) -> ArrayDataset:
            part = blocks.take(chosen)
            return ArrayDataset(part.raw, part.present, y[chosen], weight[chosen])

        if held is not None:
            stop = ArrayDataset(held.blocks.raw, held.blocks.present, held.y)
        else:
            inside = None if groups is None else groups[rows]
            inner = stratified_folds(y[rows], INNER_FOLDS, self.seed + number, inside) == 0
            if inner.all() or not inner.any():
                raise ValueError(
                    "a network needs rows to learn from and rows to stop by, but has "
                    f"{len(rows)} rows"
                )
            rows, stop = rows[~inner], dataset(rows[inner])
        at_once = self.batch_size if blocks.inputs else VALIDATION_ROWS
        return train(
            self._network(self.seed + number),
            Multiclass(self.labels_),
            dataset(rows),
            stop,
            max_epochs=self.max_epochs,
            patience=self.patience,
            lr=self.lr,
            batch_size=self.batch_size,
            seed=self.seed + number,
            weights={
                "alignment": self.alignment,
                "kl": self.alignment,
                "auxiliary": self.auxiliary,
            },
            run_dir=None if self.run_dir is None else Path(self.run_dir) / f"network_{number}",
            progress=self.progress,
            accelerator=ACCELERATORS[self.device],
            validation_batch_size=at_once,
        ).cpu()

    def _prepare(self, blocks: Blocks, y: Int[ndarray, " n"]) -> None:
        """Notes what the networks are built of."""
        self.labels_ = int(y.max()) + 1
        self.shapes_ = blocks.shapes
        self.sections_ = blocks.defaults | (self.encoders or {})
        for name in self.encoders or {}:
            try_encoder(self.sections_[name], self.embedding_dim, blocks, name, self.seed)

    def _network(self, seed: int) -> Model:
        """A network at the start of its training."""
        with seeded(seed):
            encoders = {
                name: start(section, self.embedding_dim, self.shapes_[name])
                for name, section in self.sections_.items()
            }
            options = {name: getattr(self, name) for name in OF_CM2}
            architecture: Any = models.REGISTRY[self.network]
            made: Model = architecture(
                encoders, self.labels_, **(options if self.network == "cm2" else {})
            )
            return made
