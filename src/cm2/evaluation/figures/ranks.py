"""Mean ranks on a line, with bars over methods that cannot be told apart (Demšar 2006)."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from cm2.evaluation.figures import style


@style.styled
def ranks(mean: Mapping[str, float], critical: float) -> Figure:
    """Draws a critical-difference diagram.

    Args:
        mean: The mean rank of each method, 1 being the best.
        critical: By how much two must differ.

    Returns:
        One panel: a dot and a name a method, best at the top, and grey bars that join methods which
        differ by less.

    Raises:
        ValueError: If there is no method, or a rank or the difference is not finite.
    """
    if not mean or not np.isfinite([critical, *mean.values()]).all():
        raise ValueError("ranks needs a finite mean rank of each of some methods, and a finite gap")
    ordered = sorted(mean.items(), key=lambda item: item[1])
    figure, (ax,) = style.panels(1, width=6.0, height=0.8 + 0.24 * len(ordered))
    values = [value for _, value in ordered]
    last = -1
    for first, start in enumerate(values):
        end = max(place for place, value in enumerate(values) if value <= start + critical)
        if end > last and end > first:  # bars that lie in an earlier one say nothing
            ax.plot([start, start], [first, end], color="#bbbbbb", linewidth=4, zorder=1)
            last = end
    ax.plot(values, range(len(values)), "o", color=style.COLOURS[0], markersize=5, zorder=2)
    for place, (name, value) in enumerate(ordered):
        ax.annotate(
            f"{name} ({value:.1f})",
            (value, place),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    ax.set(xlabel=f"mean rank (critical difference {critical:.1f})", yticks=[])
    ax.set_ylim(len(values) - 0.4, -0.6)
    ax.set_xlim(min(values) - 0.5, max(values) + 4)
    ax.grid(visible=False, axis="y")
    return figure
