"""Removing modalities at random, such that what is removed of a stay depends on that stay alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

__all__ = ["hidden", "kept", "luck"]


def luck(stays: Int[ndarray, " stay"], name: str, seed: int) -> Float[ndarray, " stay"]:
    """Draws a number in [0, 1) for each stay that depends on stay, modality and seed only.

    It is a hash of the identifier, SplitMix64 (Steele, Lea and Flood 2014, Fast splittable
    pseudorandom number generators), so that it is the same whatever else is in the data.

    Args:
        stays: Identifiers.
        name: The modality.
        seed: Another seed gives other numbers.
    """
    key = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    x = stays.astype(np.uint64) ^ np.frombuffer(key[:8], "<u8")
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        x = (x ^ (x >> np.uint64(shift))) * np.array([factor], np.uint64)
    return (x >> np.uint64(11)) * 2.0**-53


def kept(
    has: Bool[ndarray, "stay modality"],
    stays: Int[ndarray, " stay"],
    names: Sequence[str],
    rate: int | float,
    removable: str,
    seed: int,
) -> Bool[ndarray, "stay modality"]:
    """Says what is left after removal; at least one modality of a stay that has any.

    What is removed at a rate is removed at every higher one.

    Args:
        has: Which modalities each stay has.
        stays: Identifiers.
        names: The modalities, the one that is never removed first.
        rate: Share that is removed.
        removable: ``"others"`` never removes the first, ``"any"`` leaves at least one.
        seed: Of the removal.
    """
    chance = np.stack([luck(stays, name, seed) for name in names], axis=1)
    chance = np.where(has, chance, -1.0)
    spared = np.zeros(len(stays), np.int64) if removable == "others" else chance.argmax(axis=1)
    return _left(chance, has, rate, spared)


def hidden(
    present: Bool[ndarray, "n modality"],
    rate: float | int | Float[ndarray, "n modality"],
    rng: np.random.Generator,
) -> Bool[ndarray, "n modality"]:
    """What is left when each modality of each sample is hidden with probability ``rate``.

    At least one stays: where all would be hidden, one is kept, that of the least chance, and drawn
    evenly of such. A modality that was missing before stays missing, and is not the one that is
    kept.

    Args:
        present: Which modalities each sample has.
        rate: Below 1 if it is one number; or the chance of each modality of each sample.
        rng: Draws.
    """
    if np.ndim(rate) == 0 and not 0 <= float(rate) < 1:
        raise ValueError(f"rate should be in [0, 1), got {rate}")
    luck = np.where(present, rng.random(present.shape), -1.0)
    spared = np.where(present, luck - rate, -2.0).argmax(axis=1)
    return _left(luck, present, rate, spared)


def _left(
    chance: Float[ndarray, "n modality"],
    has: Bool[ndarray, "n modality"],
    rate: float | int | Float[ndarray, "n modality"],
    spared: Int[ndarray, " n"],
) -> Bool[ndarray, "n modality"]:
    """What has a chance of at least the rate, and in each row one modality that is spared."""
    left = chance >= rate
    left[np.arange(len(left)), spared] = True
    return left & has
