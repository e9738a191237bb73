"""The paper's p-values of each rival against CM2, and beside them those of tests that are some."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int
from numpy import ndarray

from cm2.evaluation import bootstrap, metrics, significance
from cm2.evaluation.report import Table
from cm2.experiments.results import Cell, Run

__all__ = ["TEXT", "table"]

MEASURES = {"auroc": "AUROC", "aupr": "AUPR"}

TEXT = [
    "Each rival against CM2 on the same test patients, over the seeds that both have. p (patients) "
    "is from the paired bootstrap by patient, p (DeLong) from the test of DeLong et al. (1988), "
    "which is for AUROC alone, with the rows of a patient together as Obuchowski (1997) has it. "
    "Both ask whether other patients would change the sign; neither is corrected for the number of "
    "comparisons.",
    "p (replicates) is what the paper reports. " + significance.WHY_NOT,
]
"""What has to stand above the tables."""


def table(cell: Cell, *, replicates: int = 1000) -> Table | None:
    """Compares each method of another kind with the first of kind ``cm2``.

    Args:
        cell: An experiment of two classes.
        replicates: Bootstrap samples of the test patients.

    Returns:
        A row a rival and measure; None where there is no rival, no CM2, or other than two classes.
    """
    is_own = {run.label: run.is_own for run in cell.runs}
    own = next((label for label, ours in is_own.items() if ours), None)
    rivals = [label for label, ours in is_own.items() if not ours]
    first = cell.runs[0].predictions
    if own is None or not rivals or first.target.ndim > 1 or first.probability.shape[1] != 2:
        return None
    patient = bootstrap.numbered(cell.patient, len(first.target))
    counts = bootstrap.draws(int(patient.max()) + 1, replicates)
    runs = {label: _by_seed(cell, label) for label in (own, *rivals)}
    rows: list[dict[str, Any]] = []
    for rival in rivals:
        seeds = [seed for seed in runs[own] if seed in runs[rival]]
        if seeds:
            ours, theirs = ([runs[label][seed] for seed in seeds] for label in (own, rival))
            compared = _compared(ours, theirs, counts, patient)
            rows += [{"method": rival, **row} for row in compared]
    if not rows:
        return None
    return Table(f"{cell.title}: {own} against each rival", pd.DataFrame(rows))


def _by_seed(cell: Cell, label: str) -> dict[int, Run]:
    return {run.experiment.seed: run for run in cell.runs if run.label == label}


def _compared(
    own: list[Run],
    rival: list[Run],
    counts: Int[ndarray, "replicate patient"],
    patient: Int[ndarray, " n"],
) -> list[dict[str, Any]]:
    """A row a measure, first minus second, in means over runs."""
    target = own[0].predictions.target
    scores = [[run.predictions.probability for run in runs] for runs in (own, rival)]
    drawn = [[metrics.replicate(target, each, counts, patient) for each in one] for one in scores]
    first, second = (np.stack([each[:, 1] for each in one]) for one in scores)
    tested = significance.delong(target == 1, first, second, patient)
    rows = []
    for name, shown in MEASURES.items():
        means = [np.mean([one[name] for one in each], axis=0) for each in drawn]
        gap = means[0] - means[1]
        spread = bootstrap.interval(gap)
        rows.append(
            {
                "measure": shown,
                "difference": f"{spread.value:+.3f}",
                "95% interval": f"{spread.low:+.3f} to {spread.high:+.3f}",
                "p (patients)": _shown(bootstrap.p_value(gap[1:])),
                "p (DeLong)": _shown(tested.p) if name == "auroc" else "",
                "p (replicates)": _shown(significance.over_replicates(*(m[1:] for m in means))),
            }
        )
    return rows


def _shown(p: float) -> str:
    return "" if np.isnan(p) else f"{p:.2g}"
