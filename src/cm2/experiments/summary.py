"""Scores over several runs, with intervals and differences that are paired.

Intervals are percentiles of a bootstrap: one draw counts a row (or all rows of a patient) alike in
every run and for every method, so that differences between methods are paired. Efron and Tibshirani
(1993), An Introduction to the Bootstrap, chapters 13 and 16.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray

from cm2 import metrics

METRICS = {"auroc": "AUROC", "aupr": "AUPR", "brier": "Brier", "log_loss": "log loss"}
"""Names in `cm2.metrics` and in tables."""

TOGETHER = {"auroc_micro": "micro AUROC", "aupr_micro": "micro AUPR"}
"""Those of several labels beside their means."""

LOWER = frozenset({"Brier", "log loss"})
"""Metrics of which less is better."""

LEVEL = 0.95


def draws(groups: int, replicates: int, seed: int = 0) -> Float[ndarray, "replicate group"]:
    """Counts how often each group is drawn; the first row is ones, the data as they are."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=replicates)
    return np.concatenate([np.ones((1, groups)), drawn]).astype(float)


def scores(
    y: Int[ndarray, n * label],
    probability: Float[ndarray, "n label"],
    weight: Float[ndarray, "replicate n"],
) -> dict[str, Float[ndarray, " replicate"]]:
    """Computes all metrics under each row of weights.

    Args:
        y: Class codes, or one column a label.
        probability: Of each class or label.
        weight: A row of weights of the samples for each replicate.

    Returns:
        Values by the name that tables show, that of one label with its column, such as
        ``"AUROC 3"``. NaN where a replicate lacks a class.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        values = metrics.measure(y, probability, weight)
    return {_shown(name): value for name, value in values.items()}


def _shown(name: str) -> str:
    measured, column = metrics.of_label(name)
    shown = (METRICS | TOGETHER)[measured]
    return shown if column is None else f"{shown} {column}"


def interval(values: Float[ndarray, " replicate"]) -> tuple[float, float]:
    """The middle 95% of the replicates that are defined."""
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def p_value(gap: Float[ndarray, " replicate"]) -> float:
    """Two-sided bootstrap p-value of no difference, from replicates of the difference.

    Twice the share of replicates on the rarer side of zero, with one added so that it is never
    zero: Davison and Hinkley (1997), Bootstrap Methods, section 4.4.

    Example:
        >>> round(p_value(np.arange(-4.0, 95.0)), 2)
        0.12
    """
    gap = gap[~np.isnan(gap)]
    if not len(gap):
        return float("nan")
    rarer = min((gap <= 0).sum(), (gap >= 0).sum())
    return float(min(1.0, 2 * (1 + rarer) / (len(gap) + 1)))


class Cell(NamedTuple):
    """What one method scored in one run at one rate.

    Attributes:
        method: Its name.
        seed: Of the run.
        rate: Share of modalities removed.
        rows: Tested.
        positives: Rows of class 1 among them.
        seconds: Fit and prediction; NaN if not known.
        scores: Replicates by metric; the first is the value itself.
    """

    method: str
    seed: int
    rate: float
    rows: int
    positives: int
    seconds: float
    scores: Mapping[str, Float[ndarray, " replicate"]]


def summarise(cells: Sequence[Cell], rivals: Collection[str]) -> pd.DataFrame:
    """Averages over runs and adds intervals, also of the difference to the best rival.

    Args:
        cells: All methods, runs and rates.
        rivals: Names of the methods among which the best one, in the mean of the metric at the
            rate, is what each other method is compared with. It is chosen on the test data, which
            favours the rivals.

    Returns:
        A row a method, rate and metric: `value` (mean over runs), `sd` over runs, 95% interval
        `low` to `high`; the `rival`, the `difference` to it with `difference_low` and
        `difference_high`, `p_rows` from the bootstrap (other rows, the same runs) and `p_runs` from
        a paired t-test over seeds (other runs, the same rows; NaN with one); and how many `splits`,
        `rows` and `positives` a run.
    """
    found: dict[tuple[str, float], dict[int, Cell]] = {}
    for cell in cells:
        found.setdefault((cell.method, cell.rate), {})[cell.seed] = cell
    rows = []
    for (method, rate), several in found.items():
        for metric in next(iter(several.values())).scores:
            mean = np.mean([cell.scores[metric] for cell in several.values()], axis=0)
            single = [cell.scores[metric][0] for cell in several.values()]
            low, high = interval(mean[1:])
            others = {
                name: found[name, rate]
                for name in rivals
                if name != method and (name, rate) in found
            }
            rows.append(
                {
                    "method": method,
                    "rate": rate,
                    "metric": metric,
                    "value": float(mean[0]),
                    "sd": float(np.std(single, ddof=1)) if len(single) > 1 else float("nan"),
                    "low": low,
                    "high": high,
                    **_difference(several, others, metric),
                    "splits": len(several),
                    "rows": round(float(np.mean([cell.rows for cell in several.values()]))),
                    "positives": round(
                        float(np.mean([cell.positives for cell in several.values()]))
                    ),
                    "seconds": float(np.mean([cell.seconds for cell in several.values()])),
                }
            )
    return pd.DataFrame(rows)


def _difference(
    own: Mapping[int, Cell], others: Mapping[str, Mapping[int, Cell]], metric: str
) -> dict[str, Any]:
    """The difference to the best of others over the seeds that both have."""
    sign = -1.0 if metric in LOWER else 1.0
    ranked = sorted(
        others,
        key=lambda name: -sign * np.mean([c.scores[metric][0] for c in others[name].values()]),
    )
    seeds = [seed for seed in own if ranked and seed in others[ranked[0]]]
    nothing = float("nan")
    if not seeds:
        lacking = ("difference", "difference_low", "difference_high", "p_rows", "p_runs")
        return {"rival": "", **dict.fromkeys(lacking, nothing)}
    rival = others[ranked[0]]
    gaps = np.stack([own[s].scores[metric] - rival[s].scores[metric] for s in seeds])
    gap = gaps.mean(axis=0)
    low, high = interval(gap[1:])
    zero = np.zeros(len(seeds))
    return {
        "rival": ranked[0],
        "difference": float(gap[0]),
        "difference_low": low,
        "difference_high": high,
        "p_rows": p_value(gap[1:]),
        "p_runs": metrics.paired(gaps[:, 0], zero).t_test if len(seeds) > 1 else nothing,
    }
