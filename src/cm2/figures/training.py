"""Training curves: the terms of the loss, and the dependence that is being learned.

The second is the paper's figure of alpha and (alpha - 1) / alpha over training, the latter being
Kendall's tau of a Gumbel copula.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cm2.figures import style


def _lines(ax: Axes, history: pd.DataFrame, columns: Sequence[str], label: str) -> None:
    for column in columns:
        known = history[["epoch", column]].dropna()
        ax.plot(known["epoch"], known[column], label=column)
    ax.set(xlabel="epoch", ylabel=label)
    if len(columns) > 1:
        ax.legend()


@style.styled
def curves(history: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> Figure:
    """Draws columns of a training log over epochs, one panel a group.

    Args:
        history: A log with a column `epoch`; a row may lack some of the other values.
        groups: Columns to draw by the label of their panel; those the log lacks are left out, and
            so is a panel none of whose columns are there.

    Returns:
        A row of panels.

    Raises:
        ValueError: If the log has no column `epoch`, or none of the columns.
    """
    if "epoch" not in history.columns:
        raise ValueError(f"the log needs a column 'epoch'; it has {list(history.columns)}")
    there = {
        label: [column for column in columns if column in history.columns]
        for label, columns in groups.items()
    }
    there = {label: columns for label, columns in there.items() if columns}
    if not there:
        wanted = [column for columns in groups.values() for column in columns]
        raise ValueError(f"the log has none of {wanted}; it has {list(history.columns)}")
    figure, axes = style.panels(len(there))
    for ax, (label, columns) in zip(axes, there.items(), strict=True):
        _lines(ax, history, columns, label)
    return figure
