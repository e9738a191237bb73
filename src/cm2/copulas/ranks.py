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
        ValueError: If it has not two dimensions and at least two columns.
    """
    if isinstance(x, Tensor):
        rows = x.detach().double()
    else:
        rows = torch.from_numpy(np.array(x, dtype=np.float64))
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


def kendall_matrix(u: Float[Tensor, "row dim"], rows: int = 500) -> Float[Tensor, "dim dim"]:
    """Kendall's tau of every two columns over the rows that have both; NaN where none has.

    Args:
        u: Data, NaN where missing.
        rows: How many rows to use at most: time and memory grow with their square.
    """
    u = u[:: -(-len(u) // rows)] if len(u) > rows else u
    i, j = torch.triu_indices(len(u), len(u), 1, device=u.device)
    sign = (u[i] - u[j]).sign().nan_to_num()
    given = sign.abs()
    # Ties count half in each margin (tau-b).
    pairs = given.mT @ given
    return (sign.mT @ sign) / torch.where(pairs > 0, pairs, torch.nan)
