"""Embeddings in the plane, as outlines of where most of them lie, never as single points.

Outlines are highest density regions (Hyndman 1996, Computing and graphing highest density regions)
of a kernel estimate in the plane of the first two principal components. The outermost one holds
three in four: where single samples lie far out is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import ndarray
from scipy.stats import gaussian_kde
from sklearn.decomposition import PCA

from cm2.evaluation.figures import style

MASS = (0.75, 0.5, 0.25)
SMALLEST = 30
POINTS = 80
RIDGE = 1e-3
"""Noise, relative to the spread of all, that gives embeddings on a line a width."""


@style.styled
def embeddings(
    panels: Mapping[str, Mapping[str, Float[ndarray, "sample dim"]]], *, smallest: int = SMALLEST
) -> Figure:
    """Draws regions of the embeddings of each modality.

    Args:
        panels: By the title of the panel, the embeddings of each modality.
        smallest: Modalities with fewer samples are left out, so that no outline is about few
            people.

    Returns:
        A row of panels, each in its own plane; a colour a modality, with outlines around a quarter,
        half and three quarters of the samples.

    Raises:
        ValueError: If no modality has enough samples, or embeddings have one coordinate only.
    """
    large = {
        title: {name: z for name, z in several.items() if len(z) >= smallest}
        for title, several in panels.items()
    }
    if not large or not all(large.values()):
        raise ValueError(f"no modality has {smallest} samples")
    if min(z.shape[1] for several in large.values() for z in several.values()) < 2:
        raise ValueError("embeddings of one coordinate have no plane")
    figure, axes = style.panels(len(large), width=3.3, height=3.4)
    names = list(dict.fromkeys(name for several in large.values() for name in several))
    for ax, (title, several) in zip(axes, large.items(), strict=True):
        plane = PCA(2).fit(np.concatenate(list(several.values())).astype(np.float64))
        for name, z in several.items():
            x, y, density, levels = _regions(plane.transform(z.astype(np.float64)))
            colour = style.COLOURS[names.index(name) % len(style.COLOURS)]
            ax.contourf(x, y, density, [*levels, np.inf], colors=[colour], alpha=0.18)
            ax.contour(x, y, density, levels, colors=[colour], linewidths=0.9)
        ax.set(title=title, xlabel="first component", ylabel="second component")
        ax.grid(visible=False)
    handles = [
        Line2D([], [], color=style.COLOURS[k % len(style.COLOURS)]) for k in range(len(names))
    ]
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def _regions(
    points: Float[ndarray, "sample 2"],
) -> tuple[
    Float[ndarray, " x"], Float[ndarray, " y"], Float[ndarray, "y x"], Float[ndarray, " level"]
]:
    """A density on a grid, and its heights around each share of the points, in rising order."""
    spread = max(float(points.std()), 1e-12)
    noise = np.random.default_rng(0).normal(0, RIDGE * spread, points.shape)
    points = points + noise
    law = gaussian_kde(points.T)
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.15 * (high - low)
    x, y = (
        np.linspace(start, stop, POINTS)
        for start, stop in zip(low - margin, high + margin, strict=True)
    )
    grid = np.stack(np.meshgrid(x, y)).reshape(2, -1)
    density = law(grid).reshape(POINTS, POINTS)
    levels = np.quantile(law(points.T), [1 - mass for mass in MASS])
    return x, y, density, np.unique(levels)
