"""Simulated worlds in which it is known what a joint model of the modalities can gain.

Four modalities of six features; class s = +-1. Each modality shows one latent view t_m through
monotone and cubic transforms with noise. "shared": views share two nuisance factors beyond the
class; "independent": views are independent given the class; "xor": two views tell the class only
together; "cross-rank": each modality has two views, and the second of one depends on the first of
the one before.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from cm2.core.removal import hidden
from cm2.samples.tables import present

WORLDS = ("shared", "independent", "xor", "cross-rank")
MODALITIES = ("a", "b", "c", "d")

_ANGLE = np.deg2rad([0.0, 50.0, 100.0, 150.0])
_LOADING = np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], axis=1)
_SHARED_EFFECT, _SHARED_NOISE = 0.45, 0.15
_INDEPENDENT_EFFECT = 0.42
_XOR_STRENGTH, _XOR_EFFECT = 0.9, np.array([0.0, 0.0, 0.23, 0.23])
_CROSS_EFFECT, _CROSS_NOISE = 0.25, 0.15
_FEATURE_NOISE = 0.3


def make_world(
    name: str, n: int = 2400, seed: int = 0
) -> tuple[dict[str, Float[ndarray, "n 6"]], Int[ndarray, " n"]]:
    """Draws samples of a world, complete.

    Args:
        name: "shared" (t_m = b . w_m + a s + noise with b standard normal in the plane),
            "independent" (t_m = a s + noise), "xor" (t_1 and t_2 show two signs whose product
            is s; t_3 and t_4 show s itself, weakly) or "cross-rank" (t_m = b_m in four features
            and t'_m = b_(m-1) + a s + noise in two, with b standard normal: the class shows where
            a modality's second component is seen beside the first one of the modality before).
        n: Number of samples.
        seed: Same seed, same samples.

    Returns:
        The modalities by name, and the class of each sample (0 or 1, equally likely).

    Example:
        >>> X, y = make_world("shared", n=10, seed=0)
        >>> {name: block.shape for name, block in X.items()}
        {'a': (10, 6), 'b': (10, 6), 'c': (10, 6), 'd': (10, 6)}
    """
    if name not in WORLDS:
        raise ValueError(f"unknown world {name!r}; there are {', '.join(WORLDS)}")
    rng = np.random.default_rng(seed)
    sign = rng.choice([-1.0, 1.0], size=n)
    noise = rng.standard_normal((n, len(MODALITIES)))
    second = None
    if name == "shared":
        nuisance = rng.standard_normal((n, 2)) @ _LOADING.T
        view = nuisance + _SHARED_EFFECT * sign[:, None] + _SHARED_NOISE * noise
    elif name == "independent":
        view = _INDEPENDENT_EFFECT * sign[:, None] + noise
    elif name == "xor":
        first = rng.choice([-1.0, 1.0], size=n)
        hidden = np.stack([first, sign * first, 0 * first, 0 * first], axis=1)
        view = _XOR_STRENGTH * hidden + _XOR_EFFECT * sign[:, None] + noise
    else:
        view = rng.standard_normal(noise.shape)
        second = np.roll(view, 1, axis=1) + _CROSS_EFFECT * sign[:, None] + _CROSS_NOISE * noise
    X = {
        m: _features(view[:, i], None if second is None else second[:, i], rng)
        for i, m in enumerate(MODALITIES)
    }
    return X, (sign > 0).astype(np.int64)


def remove(
    X: Mapping[str, Float[ndarray, "n _"]],
    rate: float | Float[ndarray, "n modality"],
    seed: int | np.random.Generator = 0,
) -> dict[str, Float[ndarray, "n _"]]:
    """Drops each modality of each sample with probability ``rate``; at least one stays.

    A dropped modality is a row of NaN. Where all would be dropped, one, drawn evenly, is kept; a
    modality that was missing before stays missing, and is not the one that is kept.

    Example:
        >>> X, _ = make_world("xor", n=1000)
        >>> float(np.isnan(remove(X, 0.5)["a"][:, 0]).mean().round(1))
        0.5
    """
    keep = hidden(present(X), rate, np.random.default_rng(seed))
    return {
        name: np.where(keep[:, [i]], block, np.nan) for i, (name, block) in enumerate(X.items())
    }


def _features(
    view: Float[ndarray, " n"], second: Float[ndarray, " n"] | None, rng: np.random.Generator
) -> Float[ndarray, "n 6"]:
    """Six noisy transforms of one view, five monotone and one cubic; or four and two of two."""
    clean = [view, -view, np.tanh(view), np.exp(view / 2) - 1, np.cbrt(view), view - view**3 / 3]
    if second is not None:
        clean[4:] = [second, -second]
    stacked = np.stack(clean, axis=1)
    return stacked + _FEATURE_NOISE * rng.standard_normal(stacked.shape)
