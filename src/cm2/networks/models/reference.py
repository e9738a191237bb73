"""Embeddings of training rows that prediction compares with, for models that read other patients.

They are the one thing of single training rows that a model keeps: at most ``MOST`` embeddings, as
buffers, without outcomes and without order in time. They stay the same at prediction, so that a row
has the same company whatever cohort it comes in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

MOST = 512
"""Most embeddings that a model keeps."""


class Patients(NamedTuple):
    """Embeddings of rows.

    Attributes:
        z: Zeros where a modality is absent.
        present: Which modalities each row has.
    """

    z: Float[Tensor, "row modality dim"]
    present: Bool[Tensor, "row modality"]


class Reference(nn.Module):
    """A place for the embeddings of training rows; all rows are empty until it is filled.

    An empty row has no modality, so that nobody resembles it.

    Args:
        rows: How many there is place for, at most ``MOST``.
        modalities: Number of modalities.
        dim: Width of an embedding.
    """

    z: Tensor
    present: Tensor

    def __init__(self, rows: int, modalities: int, dim: int) -> None:
        if not 1 <= rows <= MOST:
            raise ValueError(f"a reference has 1 to {MOST} rows, but reference is {rows}")
        super().__init__()
        self.register_buffer("z", torch.zeros(rows, modalities, dim))
        self.register_buffer("present", torch.zeros(rows, modalities, dtype=torch.bool))

    def __len__(self) -> int:
        return len(self.present)

    @property
    def rows(self) -> int:
        """How many rows are not empty."""
        return int(self.present.any(dim=1).sum())

    def fill(self, patients: Patients) -> None:
        """Keeps the first of these rows in place of what was there."""
        self.clear()
        rows = min(len(self), len(patients.present))
        self.z[:rows] = patients.z[:rows].to(self.z)
        self.present[:rows] = patients.present[:rows]

    def clear(self) -> None:
        """Forgets all rows."""
        self.z.zero_()
        self.present.fill_(False)

    def forward(self) -> Patients:
        """Returns the rows."""
        return Patients(self.z, self.present)
