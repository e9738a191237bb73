"""The paper's head: networks, cross-fitted, whose probabilities are averaged.

One network a fold is trained without the fold's rows. Its predictions there are out of fold, and
the head predicts new rows with the average of all networks: one training serves both. Labels that
may hold together are learned by one network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from joblib import Parallel, delayed
from numpy import ndarray
from sklearn.base import clone

from cm2.estimators.heads.base import Held, register, strata, stratified_folds
from cm2.estimators.heads.encoding import try_encoder
from cm2.estimators.heads.networks import Networks
from cm2.networks.models import Model
from cm2.networks.training import VALIDATION_ROWS, train
from cm2.samples.batches import ArrayDataset, Rows
from cm2.samples.inputs import Blocks
from cm2.samples.targets import row_weights

INNER_FOLDS = 6
"""One part of this many of a network's rows is kept for early stopping."""

ACCELERATORS = {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}
"""Lightning's names of devices."""

MODEL = {
    "kind": "cm2",
    "copula": "factor",
    "components": 1,
    "coupling": "shared-components",
    "imputation": "conditional-mean",
    "fusion": "concat",
    "dropout": 0.3,
}
"""The network, where none is named: what won on development data (``docs/benchmarks.md``)."""

TRAINING = {
    "max_epochs": 60,
    "patience": 8,
    "lr": 4e-3,
    "batch_size": 256,
    "progress": False,
    "accelerator": "cpu",
}
"""How it is trained, where nothing else is said."""


class Course(NamedTuple):
    """Where the training of a single network is kept while it lasts.

    Attributes:
        folder: For its log and its states.
        resume: Whether it goes on from a state that is there.
        begin: Called once the network is built, before its first step.
        rows: What stands in the place of the training rows, and of those that stop the training.
    """

    folder: Path
    resume: bool
    begin: Callable[[], None]
    rows: Callable[[Rows], Rows] = lambda rows: rows


@register("fusion")
class Fusion(Networks):
    """Averages networks that are each trained without one fold of the rows.

    Early stopping looks at the rows that are held for it, or else at a stratified part of a
    network's own training rows; never at the fold that it is to predict.

    Args:
        embedding_dim: Width of an embedding.
        imputations: Imputations of each incomplete row at prediction.
        model: The network's ``kind`` and arguments, as in the section ``model`` of an experiment;
            ``MODEL`` if ``None``.
        training: Arguments of :func:`~cm2.networks.training.train` that are others than there or in
            ``TRAINING``, as in the section ``training`` of an experiment.
        task: ``"multiclass"``, a logit a class, or ``"binary"``, one logit if there are two.
        folds: Number of networks; with one, ``out_of_fold`` trains further networks.
        seed: Same seed, same result.
        run_dir: Folder for the log of each network; nothing is written without one.
        encoders: Of each modality its ``kind`` and arguments, or an encoder that is copied for each
            network. The others get small ones that start at random.
        n_jobs: Networks that are trained side by side, in processes.

    Attributes:
        course: Where the training of one network can go on if it is interrupted, if anywhere.
    """

    beside: ClassVar[tuple[str, ...]] = (*Networks.beside, "course")
    course: Course | None = None

    def __init__(
        self,
        embedding_dim: int = 16,
        imputations: int = 10,
        *,
        model: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        task: str = "multiclass",
        folds: int = 3,
        seed: int = 0,
        run_dir: str | None = None,
        encoders: dict[str, Any] | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.embedding_dim = embedding_dim
        self.imputations = imputations
        self.model = model
        self.training = training
        self.task = task
        self.folds = folds
        self.seed = seed
        self.run_dir = run_dir
        self.encoders = encoders
        self.n_jobs = n_jobs

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of the training."""
        return TRAINING | dict(self.training or {})

    @property
    def accelerator(self) -> str:
        """Where the networks are trained, and predict."""
        return str(self.options["accelerator"])

    def fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n ..."],
        sample_weight: Float[ndarray, " n"] | None = None,
        groups: ndarray | None = None,
    ) -> Self:
        """Trains the networks.

        Args:
            blocks: The modalities.
            y: Class codes, or zeros and ones in a column a label.
            sample_weight: Weight of each row.
            groups: Patient of each row.
        """
        if self.folds < 1:
            raise ValueError(f"the fusion head needs at least one network, got folds={self.folds}")
        if self.folds == 1:
            rows = np.arange(len(y))
            weight = row_weights(sample_weight, len(y))
            self._prepare(blocks, y)
            self.networks_ = [self._train(blocks, y, weight, groups, rows, 0, self.held)]
        else:
            folds = stratified_folds(strata(y), min(self.folds, len(y)), self.seed, groups)
            self.cross_fit(blocks, y, sample_weight, folds, groups)
        return self

    def cross_fit(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n ..."],
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
        self._prepare(blocks, y)
        self.networks_ = []
        return self.finish(blocks, y, sample_weight, folds, groups, views)

    def begin(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n"],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
        views: Sequence[Bool[ndarray, "n modality"]] = (),
    ) -> tuple[Int[ndarray, " row"], Float[ndarray, "view row label"]]:
        """Trains the first network; :meth:`finish` with the same rows trains the others.

        Returns:
            The rows that it did not see, and what it says of them.
        """
        numbers = np.minimum(self.numbers(folds), 1)
        inside = np.flatnonzero(numbers)
        self._prepare(blocks, y)
        weight = row_weights(sample_weight, len(y))
        self.networks_ = [self._train(blocks, y, weight, groups, inside, 0, self.held)]
        outside = np.flatnonzero(numbers == 0)
        return outside, self._held_out(blocks, numbers, views)[:, outside]

    def finish(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n ..."],
        sample_weight: Float[ndarray, " n"] | None,
        folds: Int[ndarray, " n"],
        groups: ndarray | None = None,
        views: Sequence[Bool[ndarray, "n modality"]] = (),
    ) -> Float[ndarray, "view n label"]:
        """What :meth:`cross_fit` does, with the networks that have been trained already."""
        weight = row_weights(sample_weight, len(y))
        numbers = self.numbers(folds)
        self.networks_ = self.networks_ + Parallel(n_jobs=self.n_jobs)(
            delayed(self._train)(
                blocks, y, weight, groups, np.flatnonzero(numbers != number), number, self.held
            )
            for number in range(len(self.networks_), numbers.max() + 1)
        )
        return self._held_out(blocks, numbers, views)

    def numbers(self, folds: Int[ndarray, " n"]) -> Int[ndarray, " n"]:
        """Which network does not see each row in training."""
        merged = np.unique(folds, return_inverse=True)[1] % self.folds
        return np.unique(merged, return_inverse=True)[1]

    def out_of_fold(
        self,
        blocks: Blocks,
        y: Int[ndarray, " n ..."],
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
        y: Int[ndarray, " n ..."],
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
            stop = ArrayDataset(held.blocks.raw, held.blocks.present, held.y, held.weight)
        else:
            inside = None if groups is None else groups[rows]
            inner = stratified_folds(strata(y[rows]), INNER_FOLDS, self.seed + number, inside) == 0
            if inner.all() or not inner.any():
                raise ValueError(
                    "a network needs rows to learn from and rows to stop by, but has "
                    f"{len(rows)} rows"
                )
            rows, stop = rows[~inner], dataset(rows[inner])
        network = self.start(self.seed + number)
        place: dict[str, Any] = {}
        parts: list[Rows] = [dataset(rows), stop]
        if self.course is not None and self.folds == 1:
            self.networks_ = [network]
            self.course.begin()
            parts = [self.course.rows(part) for part in parts]
            place = {"run_dir": self.course.folder, "resume": self.course.resume}
        elif self.run_dir is not None:
            place = {"run_dir": Path(self.run_dir) / f"network_{number}"}
        at_once = self.options["batch_size"] if blocks.inputs else VALIDATION_ROWS
        options: dict[str, Any] = {"validation_batch_size": at_once} | self.options | place
        seed = self.seed + number
        return train(network, self._task, *parts, seed=seed, **options).cpu()

    def _prepare(self, blocks: Blocks, y: Int[ndarray, " n ..."]) -> None:
        """Notes what the networks are built of."""
        self.several_ = y.ndim > 1
        self.labels_ = y.shape[1] if self.several_ else int(y.max()) + 1
        self.shapes_ = blocks.shapes
        self.model_ = dict(self.model or MODEL)
        self.sections_ = blocks.defaults | (self.encoders or {})
        for name in self.encoders or {}:
            try_encoder(self.sections_[name], self.embedding_dim, blocks, name, self.seed)
