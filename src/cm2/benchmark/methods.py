"""The methods that are compared: CM² and its rivals, by the name under which they are shown.

All networks, CM²'s own among them, get what :data:`ALIKE` says. What is their own has the sizes of
their classes' defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from numpy import ndarray

from cm2.estimators.baselines import Concatenated, Imputed, LateFusion, Stacking
from cm2.estimators.classifier import CM2Classifier
from cm2.estimators.copula_imputation import CopulaImputed
from cm2.estimators.multimodal_vae import MultimodalVAE


@runtime_checkable
class Fits(Protocol):
    """What a method is: a classifier of scikit-learn's that takes a dict of modalities.

    One that :attr:`Method.encodes` takes ``Samples`` in place of the dict, and ``present`` in both
    methods, where a study has modalities that are more than numbers.
    """

    def fit(self, X: dict[str, Any], y: Int[ndarray, " n"], *, groups: Int[ndarray, " n"]) -> Any:
        """Learns from rows, NaN where a modality is missing."""

    def predict_proba(self, X: dict[str, Any]) -> Float[ndarray, "n label"]:
        """Probabilities of the classes."""


class Budget(NamedTuple):
    """What a fit may use.

    Attributes:
        seed: Of all that is random in a method.
        epochs: Largest number of passes of a network over the training rows.
        log: Folder for the log of training; None for none.
    """

    seed: int
    epochs: int
    log: str | None = None


class Method(NamedTuple):
    """A method of the table.

    Attributes:
        build: Makes it, unfitted.
        about: One line on it.
        ours: Whether it is CM², and no rival.
        encodes: Whether it has encoders, so that it reads series, pictures and texts themselves
            where a study has them; see :class:`Fits`.
        seconds: Of a fit on a thousand rows of seven modalities on one thread: as measured, in the
            mean of the digits and eICU.
    """

    build: Callable[[Budget], Fits]
    about: str
    ours: bool = False
    encodes: bool = False
    seconds: float = 1.0


def _cm2(**options: Any) -> Callable[[Budget], Fits]:
    """CM2Classifier with some options."""

    def build(budget: Budget) -> Fits:
        common: dict[str, Any] = {"max_epochs": budget.epochs, "random_state": budget.seed}
        made: Fits = CM2Classifier(**common, run_dir=budget.log, **options)
        return made

    return build


def _network(name: str) -> Callable[[Budget], Fits]:
    return _cm2(head="fusion", network=name)


ALIKE = (
    "Every network has the same encoders (a small one a modality, started at random), embeddings "
    "of 16 coordinates, optimiser, rate, batches, largest number of passes and patience on "
    "held-out training rows, and is the mean of three, each trained without a third of the rows. "
    "None is searched over: how CM² joins embeddings, and its dropout and the encoders', were "
    "settled on set a of PhysioNet 2012, with a look at the folds of eICU. Whatever is no network "
    "picks its strength by cross-validated log loss. Of generated MIMIC-IV, and of a user's own "
    "series, pictures and texts, the networks, CM²'s pool and its joint head read the modalities "
    "themselves; all else, and of other data sets all methods, read numbers made of them."
)
"""What methods have in common, for the page."""

NETWORKS = (
    ("MedFuse", "medfuse", "Hayat et al. 2022: an LSTM over the embeddings that are there", 5),
    ("MMTM", "mmtm", "Joze et al. 2020: embeddings rescale each other", 4),
    ("DAFT", "daft", "Poelsterl et al. 2021: the others shift and scale the first modality", 3),
    ("Unified", "unified", "Hayat et al. 2021: one classifier for complete rows, else one each", 4),
    ("DrFuse", "drfuse", "Yao et al. 2024: shared and distinct parts, attention by class", 7),
    ("LSMT", "lsmt", "Khader et al. 2023: one Transformer over all that is there", 10),
    (
        "Interleaved",
        "interleaved",
        "Zhang et al. 2023: modalities attend to themselves and to the others in turn",
        14,
    ),
    (
        "missing token",
        "missing-token",
        "a Transformer over modalities, with a learned token where one is missing",
        7,
    ),
    (
        "modality dropout",
        "modality-dropout",
        "Neverova et al. 2016: a hidden layer, of which training hides whole modalities",
        3,
    ),
    (
        "M3Care",
        "m3care",
        "Zhang et al. 2022: what is missing is gathered from similar patients",
        17,
    ),
    ("SMIL", "smil", "Ma et al. 2021: priors for what is missing, by meta-learning", 7),
    (
        "ShaSpec",
        "shaspec",
        "Wang et al. 2023: features shared by modalities, and specific ones",
        4,
    ),
    ("MUSE", "muse", "Wu et al. 2024: a graph of patients and modalities", 11),
    ("HEALNet", "healnet", "Hemker et al. 2024: latent vectors read what is there in turn", 51),
    ("Flex-MoE", "flex-moe", "Yun et al. 2024: experts for each combination of modalities", 18),
    ("UMSE", "umse", "Lee et al. 2023: layers a modality that share a few bottlenecks", 29),
)
"""Networks of others: name, that of ``CM2Classifier(network=..)``, what, and seconds."""

POOLED = "CM², pooled heads"
LATE_FUSION = "late fusion"

METHODS: dict[str, Method] = {
    POOLED: Method(
        _cm2(),
        "the estimator's default: linear, boosting, joint, expert and network heads, pooled",
        ours=True,
        encodes=True,
        seconds=32,
    ),
    "CM², joint": Method(
        _cm2(head="joint"),
        "Bayes' rule with class-conditional joint laws of all coordinates of all modalities",
        ours=True,
        encodes=True,
        seconds=3,
    ),
    "CM², network": Method(
        _cm2(head="fusion"),
        "the fusion head alone; missing embeddings are their means given the others",
        ours=True,
        encodes=True,
        seconds=8,
    ),
    "CM², conditional": Method(
        _cm2(head="fusion", imputation="conditional"),
        "the same; missing embeddings drawn given the others",
        ours=True,
        encodes=True,
        seconds=9,
    ),
    "CM², marginal": Method(
        _cm2(head="fusion", imputation="marginal"),
        "the same, drawn without looking at the others, as in the paper",
        ours=True,
        encodes=True,
        seconds=9,
    ),
    "CM², zero-filled": Method(
        _cm2(head="fusion", imputation="zero"),
        "the same, missing embeddings are zero",
        ours=True,
        encodes=True,
        seconds=7,
    ),
    "LR + dropout": Method(
        _cm2(head="linear"),
        "logistic regression on all features, clipped, with flags, trained on copies of the rows "
        "with modalities removed (the pool's linear head alone)",
        seconds=1,
    ),
    "boosting + dropout": Method(
        _cm2(head="boosting"),
        "gradient boosting on all features, trained on such copies (the pool's head alone)",
        seconds=7,
    ),
    "concat. LR": Method(
        lambda budget: Concatenated("linear", random_state=budget.seed),
        "logistic regression on all features side by side, gaps filled and flagged",
        seconds=1,
    ),
    "concat. boosting": Method(
        lambda budget: Concatenated("boosting", random_state=budget.seed),
        "gradient boosting on all features side by side, gaps as they are",
        seconds=22,
    ),
    "imputed LR": Method(
        lambda budget: Imputed(random_state=budget.seed),
        "logistic regression on all features, gaps filled by chained ridge regressions",
        seconds=10,
    ),
    "stacking": Method(
        lambda budget: Stacking(random_state=budget.seed),
        "logistic regression on the log odds of one logistic regression a modality",
        seconds=2,
    ),
    LATE_FUSION: Method(
        lambda budget: LateFusion("linear", random_state=budget.seed),
        "a logistic regression each modality, mean probability of those present",
        seconds=2,
    ),
    "late fusion, log": Method(
        lambda budget: LateFusion("linear", "log", random_state=budget.seed),
        "the same, geometric mean",
        seconds=2,
    ),
    "late fusion, forests": Method(
        lambda budget: LateFusion("forest", random_state=budget.seed),
        "a random forest each modality, mean probability of those present",
        seconds=17,
    ),
    "late fusion, forests, log": Method(
        lambda budget: LateFusion("forest", "log", random_state=budget.seed),
        "the same, geometric mean",
        seconds=17,
    ),
    "copula-imputed boosting": Method(
        lambda budget: CopulaImputed(random_state=budget.seed),
        "gradient boosting on all features, gaps filled by a Gaussian copula of all columns "
        "(Zhao and Udell 2020)",
        seconds=30,
    ),
    "multimodal VAE": Method(
        lambda budget: MultimodalVAE(max_epochs=budget.epochs, random_state=budget.seed),
        "Wu and Goodman 2018: logistic regression on the posterior mean of one autoencoder, of 16 "
        "coordinates and as many passes as the networks, whose experts are multiplied",
        seconds=8,
    ),
    **{
        name: Method(_network(network), about, encodes=True, seconds=seconds)
        for name, network, about, seconds in NETWORKS
    },
}
"""Every method; a new one is one entry."""
