"""CM² as a scikit-learn classifier.

It reads samples of any kinds of modalities, trains the heads and pools them. See the design page,
"Prediction heads".
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy import ndarray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from cm2.core import persistence
from cm2.core.fitting import whole
from cm2.estimators import assembly
from cm2.estimators.heads import Head, encoding
from cm2.estimators.heads.base import class_prior, probabilities
from cm2.estimators.heads.networks import keep_reference
from cm2.networks.models import Model
from cm2.samples import targets
from cm2.samples.container import Samples
from cm2.samples.inputs import Blocks, Groups, Reader, check_any
from cm2.samples.tables import check_dimensions, is_dict


class CM2Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifies samples that may lack modalities.

    ``X`` is a dict of modalities, or :class:`~cm2.samples.container.Samples`, which says what a
    modality may be: a table, series, texts, images or embeddings. A two-dimensional ``X`` works
    with ``modalities`` naming its columns. scikit-learn's searches take that, and ``Samples``.
    Sparse matrices are made dense, one modality at a time; dates are refused.

    Args:
        copula: Family that couples the modalities. ``"factor"``, a Gaussian copula of all
            coordinates of all modalities; ``"gaussian"``, ``"gumbel"``, ``"frank"``, .., which
            couple coordinates of the same number; or ``"independence"``. The scores of experts are
            coupled by a Gaussian copula unless it is ``"independence"``.
        n_components: Components of each marginal mixture in the network. The joint head, which
            works on principal components, uses one.
        embedding_dim: Coordinates of an embedding.
        coupling: ``"shared-components"``, ``"rosenblatt"`` or ``"multivariate-cdf"``. With the
            first the network draws what is missing in closed form.
        imputation: How the network fills missing embeddings: ``"conditional-mean"``,
            ``"conditional"`` (draws), ``"marginal"`` (draws), ``"mean"`` or ``"zero"``. ``"auto"``
            is the first where it has a closed form, as by default, and else the second.
        n_imputations: Draws over which predictions are averaged if the imputation draws, and
            from which :meth:`predict_spread` comes.
        head: ``"pooled"``, or one head alone: ``"fusion"`` (the paper's network), ``"joint"``
            (Bayes' rule with class-conditional joints), ``"experts"`` (a copula of experts),
            ``"linear"`` or ``"boosting"`` (all features together). Or a head, of which a clone is
            fitted, such as ``Fusion(model={"kind": "mmtm"}, training={"precision": "bf16"})``; it
            has seeds of its own, and ``random_state`` is not its.
        rank: Factors of ``copula="factor"`` in the joint head, where there are too many coordinates
            for a full covariance.
        modalities: Columns of each modality when ``X`` is one array: slices, positions or names.
        class_weight: ``None``, ``"balanced"`` or a weight for each class.
        fusion: ``"concat"``, ``"lstm"`` (the paper's) or another of ``cm2.networks.fusions``.
        posterior: Encoder posterior, ``"point"`` or ``"gaussian"``.
        objective: ``"alignment"`` or ``"elbo"``.
        n_networks: Networks of the fusion head; each is trained without one fold, and all are
            averaged. With texts or images whose encoders are trained the other heads learn from
            what a network did not see, so that at least two are; a pool's heads share them.
        max_epochs: Largest number of passes over the training data.
        patience: Epochs without improvement on validation rows before training stops.
        learning_rate: Of AdamW.
        batch_size: Rows of a training batch.
        encoders: Of each modality its ``kind`` and arguments, as in an experiment's file, or an
            ``Encoder``, which is copied for each network. The others get small ones that start at
            random; weights are loaded only if they are named here.
        reading: Of each modality how it is read, beside what its encoder says: ``scaling``
            (``"robust"`` or, with mean and deviation, ``"standard"``); of texts ``tokenizer``,
            ``tokens`` of a chunk, ``chunks`` of a sample and ``chunks_per_document``.
        network: Name of the network; ``"cm2"``, or a rival such as ``"medfuse"``, of which options
            of copula, imputation and fusion say nothing.
        presence: Whether it tells of the class that a modality is there at all, shrunk and as far
            as held-out rows bear it out; for data in which modalities are missing for the same
            reasons as in training.
        device: Where networks are trained: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        n_jobs: Heads, or networks of one, that are fitted side by side, in processes.
        run_dir: Folder for training logs, with a folder for each network; of several labels, with
            one for each label. Nothing is written without one.
        verbose: Whether to show progress.
        random_state: Seed; the same seed gives the same result on the same machine.

    Attributes:
        classes_: Class labels; for multilabel targets, 0 and 1.
        head_: The fitted head; for multilabel targets a list, one a label, unless one network
            learned all of them.
        prior_: Class frequencies in training, by weight; a row a label for multilabel targets.
        reader_: What turns tables into standardised blocks.
        frozen_: What adds numbers by frozen encoders.
        modalities_: Names of the modalities.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(2, size=120)
        >>> X = {m: rng.normal(size=(120, 3)) + y[:, None] for m in ("labs", "notes")}
        >>> X["notes"][::3] = np.nan  # no note for every third patient
        >>> CM2Classifier(head="experts", random_state=0).fit(X, y).predict_proba(X).shape
        (120, 2)
    """

    def __init__(
        self,
        copula: str = "factor",
        n_components: int = 1,
        embedding_dim: int = 16,
        coupling: str = "shared-components",
        imputation: str = "auto",
        n_imputations: int = 10,
        head: str | Head = "pooled",
        *,
        rank: int = 24,
        modalities: Groups | None = None,
        class_weight: str | dict[Any, float] | None = None,
        fusion: str = "concat",
        posterior: str = "point",
        objective: str = "alignment",
        n_networks: int = 3,
        max_epochs: int = 60,
        patience: int = 8,
        learning_rate: float = 4e-3,
        batch_size: int = 256,
        encoders: dict[str, Any] | None = None,
        reading: dict[str, dict[str, Any]] | None = None,
        network: str = "cm2",
        presence: bool = False,
        device: str = "auto",
        n_jobs: int | None = None,
        run_dir: str | Path | None = None,
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.copula = copula
        self.n_components = n_components
        self.embedding_dim = embedding_dim
        self.coupling = coupling
        self.imputation = imputation
        self.n_imputations = n_imputations
        self.head = head
        self.rank = rank
        self.modalities = modalities
        self.class_weight = class_weight
        self.fusion = fusion
        self.posterior = posterior
        self.objective = objective
        self.n_networks = n_networks
        self.max_epochs = max_epochs
        self.patience = patience
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.encoders = encoders
        self.reading = reading
        self.network = network
        self.presence = presence
        self.device = device
        self.n_jobs = n_jobs
        self.run_dir = run_dir
        self.verbose = verbose
        self.random_state = random_state

    @whole
    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        present: Any = None,
        groups: Any = None,
        validation: Any = None,
        reader: Reader | None = None,
    ) -> Self:
        """Trains on samples and their labels.

        Time grows with rows, modalities and networks; of the experts also with the number of
        classes. Several labels are learned by one network with ``head="fusion"``, unless
        ``class_weight`` or ``presence`` are of each; by other heads one after the other, so that
        time grows with their number too. The log says how many there are before any is fitted, as
        a warning where it will take long.

        Args:
            X: Modalities, or one array with the columns of ``modalities``.
            y: Labels ``(n,)``, or a 0/1 matrix ``(n, L)`` of several labels; those of ``Samples``
                if not given. So with groups.
            sample_weight: Weight of each sample.
            present: Which modalities each sample has, beyond what NaN rows say: ``(n,)`` by name of
                a modality, or ``(n, M)`` in the order of ``X``, which must be that of training.
            groups: Patient of each sample, if some have several; kept together in all
                folds and in the rows that stop the training.
            validation: Samples with ``y`` that stop the training of networks, and from which
                nothing else is learned; without them a part of each network's rows does.
            reader: What reads the samples, if scales and vocabularies were learned before.

        Raises:
            ValueError: Before any training, if the input is bad; the error says which modality or
                rows. What was learned before stays.
        """
        params = self.get_params(deep=False)
        assembly.check(params)
        self._check_array(X, reset=True)
        options = encoding.reading(self.encoders or {}, self.reading or {})
        self.reader_ = reader or Reader(persistence.plain(self.modalities), options)
        X = self.reader_.samples(X) if reader is None else reader.check(X)
        together = assembly.learns_together(params)
        learned = X.to_learn(
            y, sample_weight, groups, class_weight=self.class_weight, constant=together
        )
        kept, codes, self.classes_, weight, groups = learned
        if reader is None:
            some = kept if len(kept) < len(X) else None  # all of them need no copy
            blocks = self.reader_.fit_blocks(X, present, some, weight, groups)
        else:
            blocks = reader.blocks(X, present, trained=True)
            check_any(blocks.present, kept)
            blocks = blocks.take(kept)
        self.modalities_ = list(self.reader_.names_)
        assembly.check_sizes(params, blocks)
        if groups is not None:
            least = 3 if assembly.holds_out(params, blocks) else 2
            targets.check_patients(groups, least, f"head={self.head!r}")
        assembly.announce(params, blocks, len(self.classes_), codes.size // len(codes))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        build = partial(assembly.build, params, seed, blocks)
        held = assembly.held(validation, self.reader_, self.classes_, codes.shape[1:])
        parts, by_class = [(codes, weight)], (self.classes_, self.class_weight)
        if codes.ndim > 1:
            parts = [(one, targets.weighted(weight, one, *by_class)) for one in codes.T]
        priors = [class_prior(*part, len(self.classes_)) for part in parts]
        self.prior_ = np.stack(priors) if codes.ndim > 1 else priors[0]
        self.head_: Head | list[Head]
        if codes.ndim == 1 or together:
            held = assembly.weighed(held, codes, *by_class)
            self.head_, parts = build(held), [(codes, weight)]
        else:
            each = [assembly.weighed(held, one, *by_class, k) for k, one in enumerate(codes.T)]
            self.head_ = [build(one, f"label_{k}") for k, one in enumerate(each)]
        self.frozen_ = assembly.frozen(params, blocks, seed)
        assembly.fit(self._heads, self.frozen_, blocks, parts, weight, groups)
        return self

    def predict_proba(
        self, X: Any, *, present: Any = None, draws: int | None = None
    ) -> Float[ndarray, "n label"]:
        """Probabilities of the classes; for multilabel targets, of each label being 1.

        A modality that ``X`` does not have counts as missing for every sample. A sample without any
        gets the class frequencies of the training.

        With ``draws``, networks draw what is missing so often and average over it, whatever
        ``imputation`` and ``n_imputations`` say; without one that imputes that is an error.
        """
        blocks = self._blocks(X, present)
        if draws is not None:
            blocks = assembly.drawn(self._heads, self.head, blocks, draws)
        if isinstance(self.head_, list):
            pairs = zip(self.head_, self.prior_, strict=True)
            return np.stack([probabilities(*pair, blocks)[:, 1] for pair in pairs], axis=1)
        if self.prior_.ndim == 2:
            return probabilities(self.head_, self.prior_[:, 1], blocks, exclusive=False)
        return probabilities(self.head_, self.prior_, blocks)

    def predict_log_proba(self, X: Any, **options: Any) -> Float[ndarray, "n label"]:
        """Logarithms of :meth:`predict_proba`."""
        with np.errstate(divide="ignore"):  # a probability may be too small for a number
            return np.log(self.predict_proba(X, **options))

    def predict_spread(self, X: Any, *, present: Any = None) -> Float[ndarray, "n label"]:
        """How much the network's probabilities depend on what is missing.

        Their standard deviation over ``n_imputations`` draws from the law of what is missing, in
        the shape of :meth:`predict_proba`; zero where nothing is missing, and where all is.

        Raises:
            ValueError: If the head (``"joint"`` need not) or its network does not impute.
        """
        blocks = self._blocks(X, present, networks=True)
        known = np.asarray(blocks.present.any(axis=1))[:, None]
        spreads = [
            assembly.network_head(head, self.head).spread(blocks) * known for head in self._heads
        ]
        each = isinstance(self.head_, list)
        return np.stack([one[:, 1] for one in spreads], axis=1) if each else spreads[0]

    def predict(self, X: Any, *, present: Any = None) -> ndarray:
        """The most probable class; for multilabel targets, the labels above one half."""
        proba = self.predict_proba(X, present=present)
        if self.prior_.ndim == 2:
            return (proba > 0.5).astype(np.int64)
        return np.asarray(self.classes_[proba.argmax(axis=1)])

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Accuracy (of all labels of a sample together, for multilabel targets).

        Labels are those of ``Samples`` if not given.
        """
        y = X.y if y is None and isinstance(X, Samples) else y
        return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))

    def embed(self, X: Any, *, present: Any = None) -> Float[ndarray, "n modality dim"]:
        """Embeddings of the modalities, NaN where missing.

        Raises:
            ValueError: If the head has no embeddings (``head="experts"``).
        """
        blocks = self._blocks(X, present)
        z = assembly.embedding_head(self._heads[0], self.head).embed(blocks)
        return np.where(blocks.present[..., None], z, np.nan)

    def impute(
        self, X: Any, *, present: Any = None, draws: int | None = None
    ) -> Float[ndarray, "*draw n modality dim"]:
        """Embeddings with missing ones filled in; those of a sample are the same in any company.

        Args:
            X: Samples.
            present: As in ``fit``.
            draws: How many draws from the law of what is missing given what is present, as a first
                dimension; without that dimension if ``None``, and then as the network itself
                fills in, by default the mean of that law. Draws are spread evenly together, so the
                first of many are not those of fewer.

        Raises:
            ValueError: If the head does not impute (``"joint"`` and ``"experts"`` need not).
        """
        blocks = self._blocks(X, present, networks=True)
        drawn = assembly.network_head(self._heads[0], self.head).impute(blocks, draws)
        return np.asarray(drawn[0]) if draws is None else drawn

    def save(
        self, path: str | Path, *, reference: bool = True, facts: Mapping[str, Any] | None = None
    ) -> Path:
        """Writes the fitted model to one file, without any of the training data.

        With ``reference``, networks that read other patients (``"m3care"``, ``"muse"``) keep
        theirs, at most 512 embeddings of training rows each, the one exception, of which
        ``persistence.facts`` says how many there are; without, they predict each row from itself.
        It also says ``facts``, such as where the data are from.
        """
        check_is_fitted(self, "head_")
        model = self if reference else copy.deepcopy(self)
        kept = keep_reference(model.head_, keep=reference)
        return persistence.save(model, path, {**(facts or {}), **kept})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a saved model; no code from the file is run.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged or not a saved classifier.
        """
        model: Self = persistence.load(path, cls)
        return model

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_label = True
        return tags

    @property
    def networks_(self) -> list[Model]:
        """The networks; of several labels with one head each those of the first."""
        return assembly.network_head(self._heads[0], self.head).networks_

    @property
    def _heads(self) -> list[Head]:
        return self.head_ if isinstance(self.head_, list) else [self.head_]

    def _check_array(self, X: Any, reset: bool) -> None:
        """Lets scikit-learn record or compare columns of a two-dimensional ``X``."""
        if not is_dict(X) and not isinstance(X, Samples):
            check_dimensions(X, "X")
            checks: dict[str, Any] = {"skip_check_array": True}
            if not isinstance(X, pd.DataFrame):  # the reader checks frames column by column
                checks = {"ensure_all_finite": False, "dtype": None, "accept_sparse": True}
            validate_data(self, X, reset=reset, **checks)

    def _blocks(self, X: Any, present: Any, *, networks: bool = False) -> Blocks:
        """What heads see; if only networks are asked, without numbers by frozen encoders."""
        check_is_fitted(self, "head_")
        self._check_array(X, reset=False)
        blocks = self.reader_.blocks(X, present)
        return blocks if networks else self.frozen_.read(blocks)
