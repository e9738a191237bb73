"""Scores over several splits, with intervals that know that splits share patients.

Intervals are percentiles of a cluster bootstrap: patients, not rows, are drawn, and one draw
counts a patient alike in every split and for every method, so that differences between methods are
paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray

from cm2 import metrics

METRICS = {"AUROC": "auroc", "AUPR": "aupr", "Brier": "brier", "log loss": "log_loss"}
"""Names in tables and in `cm2.metrics`."""

LEVEL = 0.95


def draws(groups: int, replicates: int, seed: int = 0) -> Float[ndarray, "replicate group"]:
    """Counts how often each group is drawn; the first row is ones, the data as they are."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=replicates)
    return np.concatenate([np.ones((1, groups)), drawn]).astype(float)


def scores(
    y: Int[ndarray, " n"],
    probability: Float[ndarray, "n label"],
    weight: Float[ndarray, "replicate n"],
) -> dict[str, Float[ndarray, " replicate"]]:
    """Computes the metrics of the demo under each row of weights.

    Args:
        y: Class codes.
        probability: Of each class.
        weight: A row of weights of the samples for each replicate.

    Returns:
        Values by the name that tables show. NaN where a replicate lacks a class.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        values = metrics.measure(y, probability, weight)
    return {name: values[key] for name, key in METRICS.items()}


def interval(values: Float[ndarray, " replicate"]) -> tuple[float, float]:
    """The middle 95% of the replicates that are defined."""
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


class Cell(NamedTuple):
    """What one method scored in one split at one rate.

    Attributes:
        method: Its name.
        seed: Of the split.
        rate: Share of modalities removed.
        rows: Tested.
        positives: Rows of class 1 among them.
        seconds: Fit and prediction.
        scores: Replicates by metric; the first is the value itself.
    """

    method: str
    seed: int
    rate: float
    rows: int
    positives: int
    seconds: float
    scores: Mapping[str, Float[ndarray, " replicate"]]


def summarise(cells: list[Cell], rival: str) -> pd.DataFrame:
    """Averages over splits and adds intervals, also of the difference to a rival.

    Args:
        cells: All methods, splits and rates.
        rival: Name of the method that the others are compared with.

    Returns:
        A row a method, rate and metric: `value` (mean over splits), `sd` over splits, 95% interval
        `low` to `high`, `difference` to the rival with `difference_low` and `difference_high`, and
        how many `splits`, `rows` and `positives` a split.
    """
    found: dict[tuple[str, float], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.method, cell.rate), []).append(cell)
    mean = {
        key: {
            metric: np.mean([cell.scores[metric] for cell in several], axis=0)
            for metric in several[0].scores
        }
        for key, several in found.items()
    }
    rows = []
    for (method, rate), several in found.items():
        for metric, replicates in mean[method, rate].items():
            single = [cell.scores[metric][0] for cell in several]
            low, high = interval(replicates[1:])
            row = {
                "method": method,
                "rate": rate,
                "metric": metric,
                "value": float(replicates[0]),
                "sd": float(np.std(single, ddof=1)) if len(single) > 1 else float("nan"),
                "low": low,
                "high": high,
            }
            if method != rival and (rival, rate) in mean:
                gap = replicates - mean[rival, rate][metric]
                low, high = interval(gap[1:])
                row |= {
                    "difference": float(gap[0]),
                    "difference_low": low,
                    "difference_high": high,
                }
            row |= {
                "splits": len(several),
                "rows": round(float(np.mean([cell.rows for cell in several]))),
                "positives": round(float(np.mean([cell.positives for cell in several]))),
                "seconds": float(np.mean([cell.seconds for cell in several])),
            }
            rows.append(row)
    return pd.DataFrame(rows)
