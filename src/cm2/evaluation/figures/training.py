"""Training curves: the terms of the loss, and the dependence that is being learned.

The second is the paper's figure of alpha and (alpha - 1) / alpha over training, the latter being
Kendall's tau of a Gumbel copula.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cm2.evaluation.figures import style


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


@style.styled
def gumbel(histories: Mapping[str, Sequence[pd.DataFrame]]) -> Figure:
    """Draws a Gumbel copula's alpha, and its Kendall's tau (alpha - 1) / alpha, over epochs.

    Args:
        histories: The logs of the runs of each method, one a seed, with columns `epoch` and
            `alpha`.

    Returns:
        Two panels with a line a run, in the colour of its method.

    Raises:
        ValueError: If a log lacks a column, or there is none.
    """
    for history in (log for logs in histories.values() for log in logs):
        lacking = [column for column in ("epoch", "alpha") if column not in history.columns]
        if lacking:
            raise ValueError(f"the log lacks columns {lacking}")
    if not any(histories.values()):
        raise ValueError("there is no log of a Gumbel copula")
    figure, axes = style.panels(2)
    for place, (name, logs) in enumerate(histories.items()):
        for number, history in enumerate(logs):
            known = history[["epoch", "alpha"]].dropna()
            look: dict[str, Any] = {
                "color": style.COLOURS[place % len(style.COLOURS)],
                "linewidth": 1.0,
                "label": name if number == 0 else None,
            }
            epoch, alpha = known["epoch"] + 1, known["alpha"]
            axes[0].plot(epoch, alpha, **look)
            axes[1].plot(epoch, (alpha - 1) / alpha, **look)
    axes[0].set(xlabel="epoch", ylabel=r"$\alpha$")
    axes[1].set(xlabel="epoch", ylabel=r"$(\alpha - 1)\,/\,\alpha$")
    if len(histories) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
