"""Draws of a copula with their margins, and a fitted copula against data, pair by pair.

Data are shown as counts in cells, and cells of few rows are left out: no figure shows one patient.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.special import ndtri

from cm2.copulas.base import Copula
from cm2.copulas.ranks import as_rows, kendall_matrix
from cm2.core.numerics import seeded
from cm2.evaluation.figures import density, style

_END = 3.0  # of the axes, in normal scores


def _draw(copula: Copula, n: int, seed: int) -> torch.Tensor:
    """Draws that leave the global random state as it was."""
    with seeded(seed):
        return copula.sample((n,)).double()


@style.styled
def samples(
    copula: Copula, *, n: int = 1000, pair: tuple[int, int] = (0, 1), seed: int = 0
) -> Figure:
    """Draws points of a copula with histograms of their margins.

    Args:
        copula: Of any number of coordinates, without a batch.
        n: Number of points.
        pair: Which two coordinates.
        seed: Of the draws.

    Returns:
        A scatter plot on the unit square, with a histogram above and one at its right.

    Raises:
        ValueError: If the copula has a batch or lacks a coordinate of the pair.
    """
    _check(copula, pair)
    u = _draw(copula, n, seed)[:, list(pair)].numpy()
    figure = style.blank(3.8, 3.8)
    axes = figure.subplots(
        2, 2, gridspec_kw={"width_ratios": [4, 1], "height_ratios": [1, 4]}, squeeze=False
    )
    axes[0, 1].remove()
    above, main, right = axes[0, 0], axes[1, 0], axes[1, 1]
    main.scatter(u[:, 0], u[:, 1], s=5, alpha=0.5, color=style.COLOURS[0], linewidths=0)
    main.set(xlim=(0, 1), ylim=(0, 1))
    main.set(xlabel=f"$u_{{{pair[0] + 1}}}$", ylabel=f"$u_{{{pair[1] + 1}}}$")
    bins = np.linspace(0, 1, 21).tolist()
    above.hist(u[:, 0], bins, color=style.COLOURS[5])
    right.hist(u[:, 1], bins, color=style.COLOURS[5], orientation="horizontal")
    above.set(xlim=(0, 1), xticklabels=[], yticks=[])
    right.set(ylim=(0, 1), yticklabels=[], xticks=[])
    above.set_title(type(copula).__name__)
    return figure


@style.styled
def pairs(
    copula: Copula,
    u: Any,
    *,
    names: Sequence[str] | None = None,
    cells: int = 24,
    smallest: int = 5,
    points: int = 61,
) -> Figure:
    """Draws a fitted copula against data, for every two coordinates.

    Args:
        copula: Of as many coordinates as ``u`` has columns, without a batch.
        u: Data in (0, 1), ``(row, dim)``, NaN where missing.
        names: Of the coordinates.
        cells: Cells along each axis of a histogram.
        smallest: Cells and bars with fewer rows are left out.
        points: Grid points along each axis of a contour.

    Returns:
        Below the diagonal the data as counts on the scale of normal scores, with contours of the
        copula's density over them. On the diagonal the histogram of each column. Above, Kendall's
        tau of the data and of the copula.

    Raises:
        ValueError: If ``u`` and the copula differ in their number of coordinates, the copula has a
            batch, or ``u`` has numbers beyond 0 and 1.
    """
    rows = as_rows(u, "u").cpu()
    dim = rows.shape[1]
    if copula.dim != dim or copula.batch_shape:
        raise ValueError(
            f"the copula must have {dim} coordinates, as u has, and no batch; "
            f"got {copula.dim} and batch shape {tuple(copula.batch_shape)}"
        )
    if ((rows < 0) | (rows > 1)).any():  # the axes would leave them out without a word
        raise ValueError("u should lie from 0 to 1; copulas.pseudo_observations makes it of data")
    labels = [f"$u_{{{i + 1}}}$" for i in range(dim)] if names is None else list(names)
    if len(labels) != dim:
        raise ValueError(f"there are {len(labels)} names for {dim} coordinates")
    of_data, of_copula = kendall_matrix(rows), copula.kendall_tau()
    figure = style.blank(1.9 * dim, 1.9 * dim)
    axes = figure.subplots(dim, dim, squeeze=False)
    for i in range(dim):
        for j in range(dim):
            ax = axes[i, j]
            if i == j:
                column = rows[:, i]
                counts, edges = np.histogram(column[~column.isnan()], np.linspace(0, 1, 21))
                ax.stairs(np.where(counts < smallest, 0, counts), edges, fill=True, color="#bbbbbb")
                ax.set(title=labels[i], yticks=[])
            elif i > j:
                _against(ax, copula, rows[:, [j, i]], (j, i), cells, smallest, points)
                ax.set(xlabel=labels[j], ylabel=labels[i])
            else:
                text = f"$\\tau$ data {of_data[i, j]:.2f}\ncopula {of_copula[i, j]:.2f}"
                ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
                ax.set_axis_off()
    return figure


def _against(
    ax: Axes,
    copula: Copula,
    rows: torch.Tensor,
    pair: tuple[int, int],
    cells: int,
    smallest: int,
    points: int,
) -> None:
    """One panel below the diagonal."""
    scores = ndtri(rows[~rows.isnan().any(-1)]).numpy()
    edges = np.linspace(-_END, _END, cells + 1)
    counts, _, _ = np.histogram2d(scores[:, 0], scores[:, 1], bins=[edges, edges])
    shown = np.ma.masked_less(counts.T, max(smallest, 1))
    ax.pcolormesh(edges, edges, shown, cmap="Blues", vmin=0)
    x = torch.linspace(-_END, _END, points, dtype=torch.float64)
    values = density.normal_grid(copula, x, pair)
    ax.contour(x, x, values, density.LEVELS[::2], colors=style.COLOURS[1], linewidths=0.8)
    ax.set(xlim=(-_END, _END), ylim=(-_END, _END), aspect="equal")


def _check(copula: Copula, pair: tuple[int, int]) -> None:
    if copula.batch_shape or not all(0 <= i < copula.dim for i in pair):
        raise ValueError(
            f"a copula without a batch and with coordinates {pair} is needed; got "
            f"{copula.dim} coordinates and batch shape {tuple(copula.batch_shape)}"
        )
