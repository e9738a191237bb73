"""How modalities go missing: at random, whole, or by a rule, in training, in test, or in both.

What is removed of the rows depends on pattern and seed alone, so that all methods see the same.
Rubin (1976), Inference and missing data: at random given what is seen (MAR), or not (MNAR).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import rankdata

from cm2.samples.worlds import remove

Blocks: TypeAlias = Mapping[str, Float[ndarray, "n _"]]
Chance: TypeAlias = Float[ndarray, "n modality"]


class Pattern(NamedTuple):
    """A way in which modalities are removed.

    Attributes:
        rule: ``"random"``, each modality of a row alone; ``"whole"``, the same modalities of all
            rows; ``"sensors"``, as many of each row, drawn for it, but never the first;
            ``"seen"``, by the level of the first modality, which stays (missing at random);
            ``"unseen"``, by the level of the modality that goes (missing not at random).
        rate: Expected share of the modalities, of those that may go.
        where: Which rows: ``"test"``, ``"train"`` or ``"both"``.
    """

    rule: Literal["random", "whole", "sensors", "seen", "unseen"] = "random"
    rate: float = 0.0
    where: Literal["test", "train", "both"] = "test"

    @property
    def name(self) -> str:
        """As tables show it."""
        if self.rate == 0:
            return "as observed"
        how = {
            "random": "at random",
            "whole": "whole modalities",
            "sensors": "of the sensors left out",
            "seen": "by what is seen (MAR)",
            "unseen": "by what goes (MNAR)",
        }[self.rule]
        place = {"test": "test only", "train": "training only", "both": "both"}[self.where]
        return f"{100 * self.rate:g}% {how}, {place}"

    @property
    def learned(self) -> str:
        """What its training rows are, as a part of a file's name; patterns that agree share it."""
        trained = self.at("train")
        return "observed" if trained.rate == 0 else f"{trained.rule}-{trained.rate:g}"

    def removed_from(self, X: Blocks, seed: int) -> dict[str, Float[ndarray, "n _"]]:
        """Rows with modalities removed; at least one of each row stays.

        Args:
            X: Modalities, NaN throughout where one is missing.
            seed: Of the removal.
        """
        if self.rule not in RULES:
            raise ValueError(f"rule should be one of {RULES}, got {self.rule!r}")
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate should be in [0, 1), got {self.rate}")
        if self.rate == 0:
            return dict(X)
        rng = np.random.default_rng(seed)
        return remove(X, _CHANCES[self.rule](X, self.rate, rng), rng)

    def at(self, place: Literal["test", "train"]) -> Pattern:
        """What is left of the pattern for one kind of rows; equal where the same is removed."""
        if self.rate == 0 or self.where not in (place, "both"):
            return Pattern()
        return self._replace(where=place)


OBSERVED = Pattern()


def _random(X: Blocks, rate: float, rng: np.random.Generator) -> Chance:
    return np.full((_rows(X), len(X)), rate)


def _whole(X: Blocks, rate: float, rng: np.random.Generator) -> Chance:
    """Ones for a share of the modalities, at least one and never all."""
    number = int(np.clip(round(rate * len(X)), 1, len(X) - 1))
    gone = np.zeros(len(X))
    gone[rng.permutation(len(X))[:number]] = 1.0
    return np.tile(gone, (_rows(X), 1))


def _sensors(X: Blocks, rate: float, rng: np.random.Generator) -> Chance:
    """Ones for a share of the modalities after the first, other ones in each row."""
    order = rng.random((_rows(X), len(X) - 1)).argsort(axis=1)
    gone = order.argsort(axis=1) < round(rate * order.shape[1])
    return np.concatenate([np.zeros((len(gone), 1)), gone], axis=1)


def _seen(X: Blocks, rate: float, rng: np.random.Generator) -> Chance:
    """The higher the first modality is, the likelier the others go."""
    chance = np.tile(_likelier(_level(next(iter(X.values()))), rate)[:, None], (1, len(X)))
    chance[:, 0] = 0.0
    return chance


def _unseen(X: Blocks, rate: float, rng: np.random.Generator) -> Chance:
    """The higher a modality is, the likelier it goes."""
    return np.stack([_likelier(_level(block), rate) for block in X.values()], axis=1)


_CHANCES: dict[str, Callable[[Blocks, float, np.random.Generator], Chance]] = {
    "random": _random,
    "whole": _whole,
    "sensors": _sensors,
    "seen": _seen,
    "unseen": _unseen,
}


RULES = tuple(_CHANCES)


def _rows(X: Blocks) -> int:
    return len(next(iter(X.values())))


def _level(block: Float[ndarray, "n _"]) -> Float[ndarray, " n"]:
    """The first principal score of the rows that are there, between 0 and 1 by rank; else NaN."""
    there = ~np.isnan(block).all(axis=1)
    found = np.full(len(block), np.nan)
    if not there.any():
        return found
    seen = block[there]
    seen = seen[:, ~np.isnan(seen).all(axis=0)]
    mean, deviation = np.nanmean(seen, axis=0), np.nanstd(seen, axis=0)
    apart = np.nan_to_num((seen - mean) / np.where(deviation > 0, deviation, np.inf))
    direction = np.linalg.svd(apart.T @ apart)[0][:, 0]
    score = apart @ direction * np.sign(direction.sum() or 1.0)
    found[there] = (rankdata(score) - 0.5) / len(score)
    return found


def _likelier(level: Float[ndarray, " n"], rate: float) -> Float[ndarray, " n"]:
    """Chances that rise with the level, ``rate`` on average."""
    chance = np.clip(rate + 2 * min(rate, 1 - rate) * (level - 0.5), 0, 1)
    return np.where(np.isnan(level), rate, chance)


def seeds(seed: int) -> dict[str, int]:
    """Of the removal from training and from test rows."""
    return {"train": 2 * seed, "test": 2 * seed + 1}


def apply(
    pattern: Pattern, place: Literal["test", "train"], X: Blocks, seed: int
) -> dict[str, Float[ndarray, "n _"]]:
    """Rows of one kind, with what the pattern removes of them.

    Whole modalities that go from both kinds are the same of both.
    """
    drawn = "train" if (pattern.rule, pattern.where) == ("whole", "both") else place
    return pattern.at(place).removed_from(X, seeds(seed)[drawn])
