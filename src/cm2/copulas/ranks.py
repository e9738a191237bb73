"""Ranks of data: pseudo-observations and Kendall's tau, with missing entries.

Genest, Ghoudi and Rivest (1995), "A semiparametric estimation procedure of dependence parameters
in multivariate families of distributions", is the source of estimation from ranks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def as_rows(x: Any, what: str) -> Float[Tensor, "row dim"]:
    """Data as a float64 tensor of rows.

    Args:
        x: A tensor, or anything that numpy reads as an array; not changed.
        what: Its name in errors.

    Raises:
        ValueError: If it is not of numbers, in two dimensions and at least two columns.
    """
    if isinstance(x, Tensor):
        rows = x.detach().double()
    else:
        try:
            array = np.array(np.ma.array(x, dtype=np.float64).filled(np.nan))
        except (TypeError, ValueError):  # which shows what is none
            raise ValueError(
                f"{what} should be numbers, NaN where one is missing, but holds something else"
            ) from None
        rows = torch.from_numpy(array)
    if rows.dim() != 2 or rows.shape[1] < 2:
        raise ValueError(
            f"{what} must have shape (rows, coordinates) with at least 2 coordinates, "
            f"got {tuple(rows.shape)}"
        )
    return rows


def pseudo_observations(x: Any) -> Float[Tensor, "row dim"]:
    """Ranks of each column over its number of entries plus one.

    They stand in for ``u`` where the margins are not known. Tied entries get the average of their
    ranks, missing ones (NaN) stay missing.

    Args:
        x: Data of shape ``(row, dim)``: a tensor, or anything that numpy reads as an array.

    Returns:
        Numbers inside (0, 1), float64, NaN where ``x`` is.

    Raises:
        ValueError: If ``x`` has not two dimensions and at least two columns.

    Example:
        >>> pseudo_observations([[10.0, 3.0], [30.0, 3.0], [20.0, float("nan")]])
        tensor([[0.2500, 0.5000],
                [0.7500, 0.5000],
                [0.5000,    nan]], dtype=torch.float64)
    """
    rows = as_rows(x, "x")
    u = torch.full_like(rows, torch.nan)
    for column, ranks in zip(rows.unbind(-1), u.unbind(-1), strict=True):
        given = ~column.isnan()
        _, place, count = column[given].unique(return_inverse=True, return_counts=True)
        last = count.cumsum(0)
        average = last - (count - 1) / 2
        ranks[given] = average.to(rows)[place] / (len(place) + 1)
    return u


def kendall_matrix(u: Float[Tensor, "row dim"]) -> Float[Tensor, "dim dim"]:
    """Kendall's tau of every two columns over the rows that have both.

    Ties count half in each margin (tau-b). It is NaN where fewer than two rows have both columns,
    or where one of them is constant on those. Knight (1966), "A computer method for calculating
    Kendall's tau with ungrouped data": n log n steps.

    Args:
        u: Data, NaN where missing.
    """
    # Here, so that importing cm2 stays light.
    from scipy.stats import kendalltau

    columns = u.cpu().numpy()
    tau = torch.eye(u.shape[1], dtype=torch.float64)
    for i, j in zip(*np.tril_indices(len(tau), -1), strict=True):
        pair = columns[:, [i, j]]
        pair = pair[~np.isnan(pair).any(1)]
        varies = len(pair) > 1 and (np.ptp(pair, axis=0) > 0).all()
        value = kendalltau(*pair.T).statistic if varies else np.nan
        tau[i, j] = tau[j, i] = float(value)
    return tau.to(u)
