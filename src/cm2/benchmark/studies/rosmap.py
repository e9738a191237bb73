"""ROSMAP: Alzheimer's disease from three omics, as MOGONET's authors published it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cm2.benchmark.studies.base import Given, Split, register
from cm2.core.errors import InputError

OMICS = {"mRNA": 1, "methylation": 2, "miRNA": 3}
"""The modalities, and the number of each one's files."""


class Rosmap(Given):
    """Samples of the parts that are named."""

    folder = "rosmap"
    parts: tuple[str, ...]

    def __init__(self, folder: Path | None = None) -> None:
        if folder is None:
            raise InputError("rosmap needs a folder of files such as 1_tr.csv and labels_tr.csv")
        sizes, y = [], []
        blocks: dict[str, list[pd.DataFrame]] = {name: [] for name in OMICS}
        for part in self.parts:
            labels = _read(folder, f"labels_{part}.csv").iloc[:, 0].to_numpy(np.int64)
            for name, number in OMICS.items():
                frame = _read(folder, f"{number}_{part}.csv")
                if len(frame) != len(labels):
                    raise InputError(
                        f"{folder}: {number}_{part}.csv has {len(frame)} rows and "
                        f"labels_{part}.csv {len(labels)}"
                    )
                blocks[name].append(frame)
            sizes.append(len(labels))
            y.append(labels)
        super().__init__(
            {name: np.concatenate([frame.to_numpy() for frame in f]) for name, f in blocks.items()},
            np.concatenate(y),
            title="Alzheimer's disease from three omics",
            source=f"ROSMAP as MOGONET published it, {' and '.join(self.parts)}",
        )
        self._part = np.repeat(self.parts, sizes)
        self.labels = ("control", "Alzheimer's disease")


@register("rosmap")
class Inside(Rosmap):
    """Splits of the training part, for whatever has to be developed."""

    parts = ("tr",)


@register("rosmap-published")
class Published(Rosmap):
    """The published split; for final figures alone."""

    parts = ("tr", "te")
    test_to_train = 0.0

    def split(self, seed: int) -> Split:
        """Returns the published split, whatever the seed."""
        return Split(*(np.flatnonzero(self._part == part) for part in self.parts))


def _read(folder: Path, name: str) -> pd.DataFrame:
    path = folder / name
    if not path.is_file():
        raise InputError(f"{folder}: has no file {name}")
    return pd.read_csv(path, header=None)
