"""What frozen encoders make of texts and images, for heads that read numbers.

An encoder that no training changes makes the same of a row whoever learns from it, so that such
heads learn from all rows, and no network has to be trained for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from lightning.fabric.utilities import move_data_to_device
from numpy import ndarray
from sklearn.base import BaseEstimator
from torch import Tensor

from cm2.core.numerics import seeded
from cm2.core.pace import told
from cm2.core.persistence import load_module_arrays, module_arrays
from cm2.estimators.heads.encoding import CHUNK_OF_INPUTS, start, try_encoder
from cm2.estimators.heads.networks import placed
from cm2.networks.attention import mean_of
from cm2.networks.encoders import Encoder
from cm2.samples.batches import ArrayDataset, loader
from cm2.samples.inputs import Blocks
from cm2.samples.kinds import Inputs
from cm2.samples.kinds.table import standardised
from cm2.samples.scaling import Columns


class Frozen(BaseEstimator):  # type: ignore[misc]
    """Numbers by frozen encoders: the mean over chunks or patches, before any projection.

    Args:
        encoders: Of each modality the section of its encoder, or an encoder, which is copied.
        dim: Width of the embedding of encoders that have no features before it.
        seed: Of what starts at random in them.
        accelerator: Where they compute.

    Attributes:
        encoders_: The encoders.
        shapes_: What the data say of their modalities.
        scalers_: What standardises the numbers, learned from the training rows.
    """

    def __init__(
        self,
        encoders: Mapping[str, Any],
        dim: int = 16,
        seed: int = 0,
        accelerator: str = "cpu",
    ) -> None:
        self.encoders = encoders
        self.dim = dim
        self.seed = seed
        self.accelerator = accelerator

    def fit(self, blocks: Blocks, weight: Float[ndarray, " n"]) -> Blocks:
        """Learns scales from the training rows and returns them with the numbers."""
        self.shapes_ = {name: blocks.shapes[name] for name in self.encoders}
        self.encoders_ = {
            name: try_encoder(section, self.dim, blocks, name, self.seed)
            for name, section in self.encoders.items()
        }
        found = self._features(blocks)
        self.scalers_ = {}
        for name, values in found.items():
            here = np.flatnonzero(blocks.present[:, blocks.names.index(name)])
            known = here if len(here) else np.arange(1)  # zeros, whose scale lets nothing through
            self.scalers_[name] = Columns().fit(values[known], sample_weight=weight[known])
        return self._with(blocks, found)

    def read(self, blocks: Blocks) -> Blocks:
        """Returns rows with the numbers."""
        return self._with(blocks, self._features(blocks))

    def _with(self, blocks: Blocks, found: dict[str, ndarray]) -> Blocks:
        """Rows with numbers beside what encoders read."""
        values = {}
        for column, name in enumerate(blocks.names):  # in whose order heads go through them
            if name in found:
                here = blocks.present[:, column]
                values[name] = standardised(self.scalers_[name], found[name], here)
            elif name in blocks.values:
                values[name] = blocks.values[name]
        return blocks._replace(values=values, order=tuple(blocks.names))

    def _features(self, blocks: Blocks) -> dict[str, Float[ndarray, "n feature"]]:
        """What each encoder makes of its modality; zeros where that is missing."""
        found = {}
        encoders = list(self.encoders_.values())
        # As networks, by one thread at a time: another would move them off the device.
        with torch.no_grad(), seeded(self.seed), placed(encoders, self.accelerator) as device:
            for name, encoder in self.encoders_.items():
                there = blocks.present[:, blocks.names.index(name)]
                made = np.zeros((len(there), encoder.stages[-1]))
                if there.any():
                    inputs = blocks.inputs[name].select(np.flatnonzero(there))
                    made[there] = _read(encoder, inputs, int(there.sum()), device)
                found[name] = made
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Encoders as arrays and as what they are built of, for safe files."""
        state = dict(super().__getstate__())
        made: dict[str, Encoder] = state.get("encoders_", {})  # none yet where a fit has failed
        if made:
            state["encoders"] = {name: encoder.section() for name, encoder in made.items()}
            state["encoders_"] = {name: module_arrays(encoder) for name, encoder in made.items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuilds the encoders from arrays."""
        super().__setstate__(state)
        self.encoders_ = {}
        with seeded(self.seed):
            for name, arrays in state.get("encoders_", {}).items():
                built = start(self.encoders[name], self.dim, self.shapes_[name])
                self.encoders_[name] = load_module_arrays(built, arrays).eval()


def _read(
    encoder: Encoder, inputs: Inputs, rows: int, device: torch.device
) -> Float[ndarray, "n feature"]:
    """The features of rows that all have the modality."""
    parts = []
    loaded = loader(ArrayDataset({"one": inputs}, np.ones((rows, 1), bool)), CHUNK_OF_INPUTS)
    for batch in told(loaded, len(loaded), "batches that a frozen encoder reads"):
        x = move_data_to_device(batch.inputs["one"], device)
        parts.append(pooled(encoder, x).double().cpu())
    return torch.cat(parts).numpy()


def pooled(encoder: Encoder, x: Any) -> Float[Tensor, "row feature"]:
    """The mean over the places of an encoder's last stage, of those that are real."""
    stages = encoder.staged(x)
    values, real = next(stages)
    while True:
        try:
            values, real = stages.send(values)
        except StopIteration:
            break
    return mean_of(values, real)


def frozen(section: Any) -> bool:
    """Whether training leaves an encoder as it is, but for its projection."""
    return section.frozen if isinstance(section, Encoder) else bool(section.get("frozen"))
