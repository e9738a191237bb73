"""Methods beside each other over the missing rate or another number, with their intervals."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cm2.evaluation.figures import style

COLUMNS = ("method", "metric", "value", "low", "high")
SHIFT, SPAN = 0.012, 0.05
"""Between methods, and between the first and the last at most, as shares of the axis."""

LINES = ("-", "--", ":", "-.")


@style.styled
def comparison(
    table: pd.DataFrame,
    metrics: Sequence[str],
    *,
    axis: str = "rate",
    label: str = "share of modalities removed",
) -> Figure:
    """Draws each metric of each method against the rate of removed modalities, or another number.

    Args:
        table: One row a method, rate and metric, with columns `method`, `rate`, `metric`, `value`
            and the ends of its interval `low` and `high`.
        metrics: Which metrics, one panel each.
        axis: The column that is the horizontal axis.
        label: Of that axis.

    Returns:
        A row of panels with one line a method, the first drawn over the others; lines are shifted a
        little so that intervals can be told apart.

    Raises:
        ValueError: If the table lacks a column or a metric.
    """
    lacking = [column for column in (axis, *COLUMNS) if column not in table.columns]
    if lacking:
        raise ValueError(f"the table of results lacks columns {lacking}")
    unknown = sorted(set(metrics) - set(table["metric"]))
    if unknown:
        known = sorted(set(table["metric"]))
        raise ValueError(f"the table of results lacks metrics {unknown}; it has {known}")
    methods = list(dict.fromkeys(table["method"]))
    figure, axes = style.panels(len(metrics), width=3.4, height=3.6)
    width = max(float(table[axis].max() - table[axis].min()), 1e-9)
    step = width * min(SHIFT, SPAN / len(methods))
    for ax, metric in zip(axes, metrics, strict=True):
        for place, method in enumerate(methods):
            rows = table[(table["method"] == method) & (table["metric"] == metric)]
            rows = rows.sort_values(axis)
            ax.errorbar(
                rows[axis] + step * (place - (len(methods) - 1) / 2),
                rows["value"],
                # An interval of percentiles may lie beside its value; no error is negative.
                yerr=[
                    (rows["value"] - rows["low"]).clip(lower=0),
                    (rows["high"] - rows["value"]).clip(lower=0),
                ],
                label=method,
                **_look(place),
            )
        ax.set(xlabel=label, title=metric)
        ax.set_xticks(sorted(set(table[axis])))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _look(place: int) -> dict[str, Any]:
    """How a method is drawn: the first stands out, and no two are alike."""
    if place == 0:
        own = {"color": style.COLOURS[0], "marker": style.MARKERS[0]}
        return own | {"markersize": 5, "linewidth": 2.4, "elinewidth": 1.4, "zorder": 4}
    turn, other = divmod(place - 1, len(style.COLOURS) - 1)
    return {
        "color": style.COLOURS[1 + other],
        "marker": style.MARKERS[1 + (other + turn // len(LINES)) % (len(style.MARKERS) - 1)],
        "linestyle": LINES[turn % len(LINES)],
        "markersize": 4,
        "linewidth": 1.2,
        "elinewidth": 0.6,
    }
