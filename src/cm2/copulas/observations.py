"""Data for estimation: checked, and reduced to the rows that say something about dependence."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cm2.copulas.ranks import as_rows, kendall_matrix, pseudo_observations
from cm2.core.records import Unit

# Two columns of fewer rows may rise together by chance: of 7, with a probability of 1 in 2,520.
_FEW = 7
# Columns that never disagree are the same thing, rounded differently, from this tau on.
_SAME = 0.95
# Ranks that were kept in single precision are still ranks.
_RANK_ERROR = 1e-6


class Data(NamedTuple):
    """The rows that say something about dependence.

    Attributes:
        unit: Points, 1/2 where nothing is present.
        present: What they have; ``None`` if that is everything.
        tau: Kendall's tau of every two columns; NaN where no two rows tell it.
        together: How many rows have both of every two columns.
        observations: Rows with at least two entries.
        ranked: Whether the points are the ranks of their columns, so that margins were estimated;
            then rows with one entry are here too.
    """

    unit: Unit
    present: Bool[Tensor, "row dim"] | None
    tau: Float[Tensor, "dim dim"]
    together: Float[Tensor, "dim dim"]
    observations: int
    ranked: bool


def read(u: Any) -> Data:
    """Checks data and keeps the rows with at least two entries, of ranks those with one.

    Raises:
        ValueError: Naming what is wrong with ``u``.
    """
    rows = as_rows(u, "u")
    present = ~rows.isnan()
    wrong = present & ~((rows > 0) & (rows < 1))
    if wrong.any():
        where = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(
            f"u must lie inside (0, 1), or be NaN where missing; {int(wrong.sum())} entries do "
            f"not, the first at {where}. pseudo_observations maps any data inside"
        )
    useful = present.sum(-1) >= 2
    observations = int(useful.sum())
    if observations < 2:
        raise ValueError(
            f"u has {observations} rows with two entries or more (of {len(useful)}); "
            "dependence needs at least 2"
        )
    ranks = pseudo_observations(rows)
    ranked = torch.allclose(ranks, rows, rtol=0, atol=_RANK_ERROR, equal_nan=True)
    kept = present.any(-1) if ranked else useful
    rows, present = rows[kept], present[kept]
    tau = kendall_matrix(rows)
    together = present.double().mT @ present.double()
    _check_columns(rows, tau, ranked)
    everything = bool(present.all())
    unit = Unit.from_u(torch.where(present, rows, 0.5))
    return Data(unit, None if everything else present, tau, together, observations, ranked)


def mean_tau(tau: Float[Tensor, "dim dim"]) -> float:
    """The mean over the pairs that have one."""
    off = tau[~torch.eye(len(tau), dtype=torch.bool, device=tau.device)]
    return float(off.nanmean().nan_to_num())


def check_pairs(data: Data, family: str) -> None:
    """Checks that every two columns tell a correlation of their own.

    Raises:
        ValueError: If there are fewer rows than columns, or naming two columns that do not.
    """
    if data.observations < len(data.tau):
        raise ValueError(
            f"u has {data.observations} rows for {len(data.tau)} columns: {family} needs as many "
            "for a correlation of every two (exchangeable=True does not)"
        )
    untold = data.tau.isnan().triu(1)
    if not untold.any():
        return
    i, j = untold.nonzero()[0].tolist()
    shared = int(data.together[i, j])
    said = (
        f"have {('no row', 'one row')[shared]} in common"
        if shared < 2
        else f"have {shared} rows in common, on which one of them is constant"
    )
    raise ValueError(
        f"columns {i} and {j} of u {said}: {family} cannot know their "
        "correlation (exchangeable=True can)"
    )


def _check_columns(rows: Tensor, tau: Tensor, ranked: bool) -> None:
    columns = [column.numpy() for column in rows.cpu().unbind(-1)]
    for j, column in enumerate(columns):
        given = column[~np.isnan(column)]
        if len(given) > 1 and (given == given[0]).all():
            raise ValueError(f"column {j} of u is constant: it says nothing about dependence")
    for i, j in (tau.abs() >= _SAME).triu(1).nonzero().tolist():
        pair = columns[i], columns[j] if tau[i, j] > 0 else 1 - columns[j]
        # Of known margins, very strong dependence orders rows alike and still is a density.
        if _never_disagree(*pair) if ranked else _equal(*pair):
            raise ValueError(
                f"columns {i} and {j} of u determine each other, but for ties (Kendall's tau "
                f"{tau[i, j]:.4g}): no density describes that"
            )


def _equal(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the rows that have both have the same in both."""
    gap = np.abs(x - y)
    return bool((gap[~np.isnan(gap)] < _RANK_ERROR**2).all())


def _never_disagree(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether no two rows are ordered one way in x and the other way in y."""
    both = ~np.isnan(x) & ~np.isnan(y)
    x, y = x[both], y[both]
    return len(x) >= _FEW and bool((np.diff(y[np.lexsort((y, x))]) >= 0).all())
