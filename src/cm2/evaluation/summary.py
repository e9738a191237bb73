"""Scores over several runs, with intervals and differences that are paired.

Patients are drawn alike in every run and for every method (:mod:`cm2.evaluation.bootstrap`), so
that differences between methods are paired.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray

from cm2.evaluation import bootstrap, metrics

METRICS = {"auroc": "AUROC", "aupr": "AUPR", "brier": "Brier", "log_loss": "log loss"}
"""Names in `cm2.evaluation.metrics` and in tables."""

TOGETHER = {"auroc_micro": "micro AUROC", "aupr_micro": "micro AUPR"}
"""Those of several labels beside their means."""

LOWER = frozenset(METRICS[name] for name in metrics.LOWER)
"""Metrics of which less is better."""

COMPARISON = (
    "rival",
    "difference",
    "difference_low",
    "difference_high",
    "p_patients",
    "p_runs",
)
"""Columns of the difference to the best rival."""


class Cell(NamedTuple):
    """What one method scored in one run at one rate.

    Attributes:
        method: Its name.
        seed: Of the run.
        rate: Share of modalities removed.
        rows: Tested.
        positives: Rows of another class than 0 among them, or with any label.
        patients: Whose rows they are.
        seconds: Fit and prediction; NaN if not known.
        scores: Replicates by metric; the first is the value itself.
        rarest: Patients with the rarest outcome by metric.
    """

    method: str
    seed: int
    rate: float
    rows: int
    positives: int
    patients: int
    seconds: float
    scores: Mapping[str, Float[ndarray, " replicate"]]
    rarest: Mapping[str, int]


def score(
    method: str,
    seed: int,
    rate: float,
    y: Int[ndarray, n * label],
    probability: Float[ndarray, "n label"],
    counts: Int[ndarray, "replicate patient"],
    groups: Int[ndarray, " n"],
    seconds: float = float("nan"),
) -> Cell:
    """Scores what one method predicted in one run under each draw of patients.

    Args:
        method: Its name.
        seed: Of the run.
        rate: Share of modalities removed.
        y: Class codes, or one column a label.
        probability: Of each class or label.
        counts: How often each patient is drawn.
        groups: The column of ``counts`` of each row's patient.
        seconds: Fit and prediction.

    Returns:
        Scores by the name that tables show, that of one label with its column, such as
        ``"AUROC 3"``. NaN where a replicate lacks a class (AUPR: a positive).
    """
    values = metrics.replicate(y, probability, counts, groups)
    return Cell(
        method,
        seed,
        rate,
        len(y),
        int((y.reshape(len(y), -1) > 0).any(axis=1).sum()),
        len(np.unique(groups)),
        seconds,
        {_shown(name): value for name, value in values.items()},
        {_shown(name): metrics.rarest(name, y, groups) for name in values},
    )


def _shown(name: str) -> str:
    measured, column = metrics.of_label(name)
    shown = (METRICS | TOGETHER)[measured]
    return shown if column is None else f"{shown} {column}"


def sign(metric: str) -> int:
    """1 if more of a metric is better, -1 if less is, 0 of one that is best in the middle.

    Args:
        metric: As tables show it.

    Example:
        >>> sign("AUROC 3"), sign("log loss"), sign("calibration slope")
        (1, -1, 0)
    """
    shown = metrics.of_label(metric)[0]
    if shown in LOWER:
        return -1
    return int(shown in {*METRICS.values(), *TOGETHER.values()})


def summarise(
    cells: Sequence[Cell], rivals: Collection[str], *, test_to_train: float = 0.0
) -> pd.DataFrame:
    """Averages over runs and adds intervals, also of the difference to the best rival.

    A rival without a value is not the best, and of a metric that is best in the middle none is. One
    that lacks runs is compared over those that it has, since these may be the easy ones.

    Args:
        cells: All methods, runs and rates.
        rivals: Names of the methods among which the best one is what each other method is compared
            with: that of the greatest mean difference of the metric at the rate over the runs that
            both have. It is chosen on the test data, which favours the rivals.
        test_to_train: Test rows a training row where each seed splits the data anew; 0 where all
            seeds share their test rows. See :func:`~cm2.evaluation.metrics.paired`.

    Returns:
        A row a method, rate and metric: `value` (mean over runs), `sd` over runs, 95% interval
        `low` to `high`; the `rival`, the `difference` to it with `difference_low` and
        `difference_high`, `p_patients` from the bootstrap (other patients, the same runs) and
        `p_runs` from a paired t-test over seeds (other runs; NaN with one); how many `splits`,
        and `rows`, `positives` and `patients` a run; and in `notes` what makes the interval less
        sure than it says, or that runs are lacking.
    """
    found: dict[tuple[str, float], dict[int, Cell]] = {}
    every: dict[float, set[int]] = {}
    for cell in cells:
        found.setdefault((cell.method, cell.rate), {})[cell.seed] = cell
        every.setdefault(cell.rate, set()).add(cell.seed)
    rows = []
    for (method, rate), several in found.items():
        for metric in next(iter(several.values())).scores:
            mean = np.mean([cell.scores[metric] for cell in several.values()], axis=0)
            single = [cell.scores[metric][0] for cell in several.values()]
            least = min(cell.rarest[metric] for cell in several.values())
            spread = bootstrap.interval(mean, rarest=least)
            others = {
                name: found[name, rate]
                for name in rivals
                if name != method and (name, rate) in found
            }
            difference = _difference(several, others, metric, test_to_train)
            notes = [*spread.notes, *_lacking("", several.keys(), every[rate])]
            if rival := difference["rival"]:
                notes += _lacking(f"{rival}: ", others[rival].keys(), several.keys())
            rows.append(
                {
                    "method": method,
                    "rate": rate,
                    "metric": metric,
                    "value": spread.value,
                    "sd": float(np.std(single, ddof=1)) if len(single) > 1 else float("nan"),
                    "low": spread.low,
                    "high": spread.high,
                    **difference,
                    "splits": len(several),
                    "rows": round(np.mean([cell.rows for cell in several.values()])),
                    "positives": round(np.mean([cell.positives for cell in several.values()])),
                    "patients": round(np.mean([cell.patients for cell in several.values()])),
                    "seconds": float(np.mean([cell.seconds for cell in several.values()])),
                    "notes": "; ".join(notes),
                }
            )
    return pd.DataFrame(rows)


def _lacking(name: str, runs: Collection[int], every: Collection[int]) -> list[str]:
    there = len(set(runs) & set(every))
    return [] if there == len(every) else [f"{name}{there} of {len(every)} runs"]


def _difference(
    own: Mapping[int, Cell],
    others: Mapping[str, Mapping[int, Cell]],
    metric: str,
    test_to_train: float,
) -> dict[str, Any]:
    """The difference to the best of others over the seeds that both have."""
    shared = {name: [seed for seed in own if seed in theirs] for name, theirs in others.items()}
    means = {
        name: sign(metric)
        * np.mean([own[s].scores[metric][0] - others[name][s].scores[metric][0] for s in seeds])
        for name, seeds in shared.items()
        if seeds
    }
    means = {name: mean for name, mean in means.items() if not np.isnan(mean)}
    nothing = float("nan")
    if not means or not sign(metric):
        return {**dict.fromkeys(COMPARISON, nothing), "rival": ""}
    best = min(means, key=lambda name: means[name])
    rival = others[best]
    # Of all replicates for the best alone, which are many.
    gaps = np.stack([own[s].scores[metric] - rival[s].scores[metric] for s in shared[best]])
    gap = gaps.mean(axis=0)
    spread = bootstrap.interval(gap)
    t_test = nothing
    if len(gaps) > 1:
        t_test = metrics.paired(gaps[:, 0], np.zeros(len(gaps)), test_to_train=test_to_train).t_test
    return {
        "rival": best,
        "difference": float(gap[0]),
        "difference_low": spread.low,
        "difference_high": spread.high,
        "p_patients": bootstrap.p_value(gap[1:]),
        "p_runs": t_test,
    }
