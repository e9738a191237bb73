"""Studies of stays that ``cm2 prepare`` made ready."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cm2.benchmark.studies.base import Given
from cm2.samples.stays import Stays


class Prepared(Given):
    """Stays of a folder that ``cm2 prepare`` wrote."""

    def read(self, root: Path, flow: Sequence[Any], **options: Any) -> Stays:
        """Takes rows, target and patients from a folder.

        Args:
            root: The folder; it is read whole.
            flow: How its stays came about.
            options: Of :meth:`.Stays.open`.

        Returns:
            The stays, which need the folder where they hold pictures or documents.
        """
        found = Stays.open(root, **options)
        self._read(found.samples)
        self.y = found.stays["label"].to_numpy(np.int64)
        self.labels = ("survived", "died")
        self.groups = pd.factorize(found.stays["subject_id"])[0].astype(np.int64)
        self.score = np.full(len(self.y), np.nan)
        self.flow = [(str(step), int(count)) for step, count in flow]
        self.flow.append(("deaths in hospital", int(self.y.sum())))
        return found
