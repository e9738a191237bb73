"""Sequences of different lengths in one array, padded when a batch takes them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from numpy import ndarray

__all__ = ["NEVER", "Ragged"]

NEVER = np.float32(0.0)
"""The hour of what is not there, at the end of all hours, which row ``-1`` reads."""


class Ragged:
    """Arrays of different lengths, end to end, and a last one of length zero.

    Args:
        flat: Steps of all sequences, one after the other.
        lengths: Steps of each sequence.
    """

    def __init__(self, flat: ndarray, lengths: Int[ndarray, " sequence"]) -> None:
        self.lengths = np.append(lengths, 0)
        self.starts = np.append(np.cumsum(lengths) - lengths, 0)
        self.flat = np.concatenate([flat, np.zeros((1, *flat.shape[1:]), flat.dtype)])

    def keep_last(self, number: int) -> None:
        """Leaves out the first steps of sequences that have more than so many."""
        self.starts += np.maximum(self.lengths - number, 0)
        self.lengths = np.minimum(self.lengths, number)

    def take(self, rows: Int[ndarray, "*batch"]) -> tuple[ndarray, ndarray]:
        """Returns the sequences padded with zeros to one length, and what is no padding."""
        lengths = self.lengths[rows][..., None]
        steps = np.arange(max(1, int(lengths.max(initial=0))))
        mask = steps < lengths
        return self.flat[np.where(mask, self.starts[rows][..., None] + steps, -1)], mask
