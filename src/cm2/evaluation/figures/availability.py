"""Which modalities are there together: counts of patterns, as in an UpSet plot.

Lex, Gehlenborg, Strobelt, Vuillemot and Pfister (2014), UpSet: Visualization of Intersecting Sets.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cm2.evaluation.figures import style


def patterns(present: Any, modalities: Sequence[str], *, smallest: int = 10) -> pd.DataFrame:
    """Counts the patterns of available modalities, most frequent first.

    Args:
        present: Which modalities each sample has, (samples, modalities).
        modalities: Their names.
        smallest: Patterns with fewer samples are left out, so that no row is about few people.

    Returns:
        A boolean column a modality and the column `samples`.

    Raises:
        ValueError: If the width of `present` is not the number of names, it is not boolean, or a
            modality is named `samples`.
    """
    found, counts = _counted(_flags(present, modalities), smallest)
    if "samples" in modalities:
        raise ValueError("no modality may be named 'samples', which is the column of counts")
    return pd.DataFrame(found, columns=list(modalities)).assign(samples=counts)


def _counted(
    present: NDArray[np.bool_], smallest: int
) -> tuple[NDArray[np.bool_], NDArray[np.int_]]:
    """The patterns of at least so many samples, most frequent first, and how often each is."""
    found, counts = np.unique(present, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] >= smallest]
    return found[order], counts[order]


@style.styled
def availability(present: Any, modalities: Sequence[str], *, smallest: int = 10) -> Figure:
    """Draws how often each combination of modalities is there.

    Args:
        present: Which modalities each sample has, (samples, modalities).
        modalities: Their names.
        smallest: Patterns with fewer samples are summed in the caption, not drawn.

    Returns:
        Bars of counts above a matrix of dots, a column a pattern; to its left how many samples have
        each modality.
    """
    present = _flags(present, modalities)
    found, counts = _counted(present, smallest)
    columns, names = np.arange(len(found)), list(modalities)
    width = 3.4 + 0.36 * len(found)
    figure = style.blank(width, 2.6 + 0.25 * len(names))
    grid = figure.add_gridspec(2, 2, width_ratios=(1.1, max(1.0, 0.3 * len(found))))
    bars = figure.add_subplot(grid[0, 1])
    dots = figure.add_subplot(grid[1, 1], sharex=bars)
    totals = figure.add_subplot(grid[1, 0], sharey=dots)

    bars.bar(columns, counts, color=style.COLOURS[0], width=0.7)
    for x, count in zip(columns, counts, strict=True):
        bars.annotate(str(count), (x, count), ha="center", va="bottom", fontsize=7)
    bars.set_ylabel("samples")
    bars.tick_params(bottom=False, labelbottom=False)
    bars.grid(visible=False, axis="x")
    for row, there in enumerate(found.T):
        dots.scatter(columns[~there], np.full((~there).sum(), row), color="#dddddd", s=26)
        dots.scatter(columns[there], np.full(there.sum(), row), color=style.COLOURS[0], s=26)
    dots.set(ylim=(len(names) - 0.5, -0.5))
    rest = len(present) - int(counts.sum())
    if rest:
        dots.set_xlabel(f"rarer patterns (under {smallest} samples each), not shown: {rest}")
    dots.tick_params(bottom=False, labelbottom=False, left=False, labelleft=False)
    dots.grid(visible=False)
    totals.barh(np.arange(len(names)), present.sum(axis=0), color="#888888", height=0.6)
    totals.invert_xaxis()
    totals.set_yticks(np.arange(len(names)), names)
    totals.set_xlabel("samples with it")
    return figure


def _flags(present: Any, modalities: Sequence[str]) -> NDArray[np.bool_]:
    """What is present as an array; of numbers, NaN would count as there."""
    flags = np.asarray(present)
    if flags.ndim != 2 or flags.shape[1] != len(modalities) or flags.dtype != bool:
        raise ValueError(
            f"present needs one column for each of {len(modalities)} modalities, of booleans; its "
            f"shape is {flags.shape} and its dtype {flags.dtype}"
        )
    return flags
