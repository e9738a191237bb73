"""The simulated worlds; each seed draws its own samples."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from cm2.benchmark.studies.base import Given, Split, register
from cm2.samples.worlds import make_world

SEEDS, ROWS = 20, 2400
TRAIN = 1440


class World(Given):
    """A world whose rows of a seed are a part of all rows."""

    world: ClassVar[str]
    test_to_train = 0.0

    def __init__(self, folder: Path | None = None) -> None:
        drawn = [make_world(self.world, ROWS, seed) for seed in range(SEEDS)]
        X = {name: np.concatenate([one[name] for one, _ in drawn]) for name in drawn[0][0]}
        super().__init__(
            X,
            np.concatenate([y for _, y in drawn]),
            title=f"The simulated world {self.world!r}",
            source=f"cm2.samples.worlds, {ROWS} samples a seed",
        )

    def split(self, seed: int) -> Split:
        """Returns the first 60% of the samples of the seed, and the others."""
        if not 0 <= seed < SEEDS:
            raise ValueError(f"a world has seeds 0 to {SEEDS - 1}, got {seed}")
        rows: Int[ndarray, " n"] = seed * ROWS + np.arange(ROWS)
        return Split(rows[:TRAIN], rows[TRAIN:])


@register("shared")
class Shared(World):
    """Views share two nuisance factors beyond the class."""

    world = "shared"


@register("independent")
class Independent(World):
    """Views are independent given the class."""

    world = "independent"


@register("xor")
class Xor(World):
    """Two views tell the class only together."""

    world = "xor"


@register("cross-rank")
class CrossRank(World):
    """The class shows where a modality's second component is seen beside another's first."""

    world = "cross-rank"
