"""Reliability: how often what is predicted with probability p happens.

Bins hold equally many samples; the intervals of their frequencies are Wilson's (1927).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cm2.evaluation import checked
from cm2.evaluation.figures import style


def reliability(outcome: Any, probability: Any, *, bins: int = 10) -> pd.DataFrame:
    """Compares predicted probabilities with observed frequencies.

    Args:
        outcome: What happened (n,), 0 or 1 or booleans; no index is looked at.
        probability: The predicted probability of 1, (n,).
        bins: How many bins of about equally many samples; fewer where predictions are tied.

    Returns:
        A row a bin: mean `predicted`, `observed` frequency, its 95% interval `low` to `high`, and
        `samples`.

    Raises:
        ValueError: If outcomes are not 0 and 1, probabilities not from 0 to 1 or not as many, or
            there is no bin.
    """
    observed = checked.outcomes(outcome, "outcome")
    predicted = checked.of_outcome(probability, len(observed))
    if bins < 1:
        raise ValueError(f"bins should be at least 1, got {bins}")
    frame = pd.DataFrame({"observed": observed.astype(float), "predicted": predicted})
    groups = pd.qcut(frame["predicted"], bins, labels=False, duplicates="drop")
    groups = groups.fillna(0)  # one single value everywhere: one bin
    table = frame.groupby(groups).mean()
    n = frame.groupby(groups).size().to_numpy()
    p, z = table["observed"].to_numpy(), 1.959963984540054
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return table.assign(low=centre - half, high=centre + half, samples=n).reset_index(drop=True)


@style.styled
def calibration(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draws observed frequencies against predicted probabilities.

    Args:
        tables: What `reliability` returned, by the name of the method.

    Returns:
        One panel a method, with the diagonal of perfect calibration.
    """
    figure, axes = style.panels(len(tables), width=2.6, height=2.9)
    top = max(
        float(max(table["high"].max(), table["predicted"].max())) for table in tables.values()
    )
    top = min(1.0, 1.05 * top)
    for place, (ax, (name, table)) in enumerate(zip(axes, tables.items(), strict=True)):
        ax.plot([0, top], [0, top], color="#999999", linewidth=0.8, linestyle="--")
        ax.errorbar(
            table["predicted"],
            table["observed"],
            yerr=[
                (table["observed"] - table["low"]).clip(lower=0),
                (table["high"] - table["observed"]).clip(lower=0),
            ],
            color=style.COLOURS[place % len(style.COLOURS)],
            marker="o",
            markersize=4,
            linewidth=1.0,
            elinewidth=0.8,
        )
        ax.set(xlim=(0, top), ylim=(0, top), aspect="equal", title=name, xlabel="predicted")
    axes[0].set_ylabel("observed")
    return figure
