"""Copula densities as contours and surfaces, on the unit square and with normal margins.

`families` is Figure 2 of Wu, Chan, Wang, Yin and Yu (2025). With normal margins (the lower row of
`contours`) tails and symmetry are easier to see: a Gaussian copula has ellipses, Gumbel a point in
the upper right, Frank none in either corner.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.special import ndtr

from cm2.copulas.base import REGISTRY, Copula
from cm2.core.numerics import log_normal_density
from cm2.evaluation.figures import style

LEVELS = (0.01, 0.02, 0.04, 0.07, 0.1, 0.13, 0.16, 0.2, 0.25)

Copulas = Mapping[str, Copula] | Copula


def _bivariate(copulas: Copulas, figure: str) -> dict[str, Copula]:
    """Copulas by title, each of two coordinates."""
    if isinstance(copulas, Copula):
        copulas = {type(copulas).__name__: copulas}
    wide = [
        name
        for name, copula in copulas.items()
        if tuple(copula.event_shape) != (2,) or copula.batch_shape
    ]
    if wide:
        raise ValueError(
            f"{figure} need copulas of 2 coordinates; these have others: {wide} "
            "(or a batch; `marginal` gives the copula of two coordinates)"
        )
    return dict(copulas)


def grid(copula: Copula, u: torch.Tensor, pair: tuple[int, int] = (0, 1)) -> np.ndarray:
    """Log density of two coordinates at every pair of points.

    Args:
        copula: Of any number of coordinates, without a batch.
        u: Points in (0, 1), the same for both coordinates.
        pair: Which coordinates.

    Returns:
        A matrix with rows along the second coordinate.
    """
    first, second = torch.meshgrid(u, u, indexing="xy")
    points = torch.full((*first.shape, copula.dim), 0.5, dtype=u.dtype)
    points[..., pair[0]], points[..., pair[1]] = first, second
    present = torch.zeros(copula.dim, dtype=torch.bool)
    present[list(pair)] = True
    with torch.no_grad():
        return copula.log_prob(points, present.expand(points.shape)).numpy()


def normal_grid(copula: Copula, x: torch.Tensor, pair: tuple[int, int] = (0, 1)) -> np.ndarray:
    """Density of two coordinates with standard normal margins; arguments as of :func:`grid`."""
    log_normal = log_normal_density(x).numpy()
    return np.exp(grid(copula, ndtr(x), pair) + log_normal[:, None] + log_normal[None, :])


def _unit_square(ax: Axes, copula: Copula, points: int) -> None:
    u = torch.linspace(0.0, 1.0, points + 2, dtype=torch.float64)[1:-1]
    density = np.exp(grid(copula, u))
    levels = np.geomspace(0.1, 10.0, 15)
    ax.contourf(u, u, np.clip(density, levels[0], levels[-1]), levels, cmap="Blues", norm="log")
    ax.contour(u, u, density, levels, colors="#333333", linewidths=0.5)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="$u_1$", ylabel="$u_2$")


def _normal_margins(ax: Axes, copula: Copula, points: int) -> None:
    x = torch.linspace(-3.0, 3.0, points, dtype=torch.float64)
    ax.contour(x, x, normal_grid(copula, x), LEVELS, cmap="viridis", linewidths=1.0)
    ax.set(aspect="equal", xlabel=r"$\Phi^{-1}(u_1)$", ylabel=r"$\Phi^{-1}(u_2)$")


@style.styled
def contours(copulas: Copulas, *, points: int = 121) -> Figure:
    """Draws bivariate copula densities side by side.

    Args:
        copulas: A bivariate copula, or several by the title of their panel.
        points: Grid points along each axis.

    Returns:
        One column a copula: on the unit square above, with standard normal margins below.

    Raises:
        ValueError: If a copula does not couple exactly two coordinates.
    """
    named = _bivariate(copulas, "contours")
    figure = style.blank(2.7 * len(named), 5.2)
    axes = figure.subplots(2, len(named), squeeze=False)
    for column, (name, copula) in enumerate(named.items()):
        _unit_square(axes[0, column], copula, points)
        _normal_margins(axes[1, column], copula, points)
        axes[0, column].set_title(name)
    return figure


@style.styled
def surfaces(copulas: Copulas, *, points: int = 61, highest: float = 6.0) -> Figure:
    """Draws bivariate copula densities as surfaces over the unit square, side by side.

    Args:
        copulas: A bivariate copula, or several by the title of their panel.
        points: Grid points along each axis.
        highest: Where to cut peaks in the corners, in which densities may have no bound.

    Returns:
        One panel a copula, all on one scale.

    Raises:
        ValueError: If a copula does not couple exactly two coordinates.
    """
    named = _bivariate(copulas, "surfaces")
    figure = style.blank(3.4 * len(named), 3.2)
    u = torch.linspace(0.0, 1.0, points + 2, dtype=torch.float64)[1:-1]
    first, second = np.meshgrid(u, u)
    for column, (name, copula) in enumerate(named.items()):
        ax: Any = figure.add_subplot(1, len(named), column + 1, projection="3d")
        density = np.exp(grid(copula, u)).clip(max=highest)
        ax.plot_surface(first, second, density, cmap="viridis", vmin=0, vmax=highest, linewidth=0)
        ax.set(zlim=(0, highest), xlabel="$u_1$", ylabel="$u_2$", title=name)
        ax.view_init(elev=30, azim=-60)
    return figure


def families(
    names: Sequence[str] = ("gumbel", "gaussian", "frank"), *, tau: float = 0.5, points: int = 121
) -> Figure:
    """Draws families of the same Kendall's tau side by side: the paper's Figure 2.

    Args:
        names: Of registered families.
        tau: Kendall's tau of all of them.
        points: Grid points along each axis.

    Returns:
        One column a family, as of :func:`contours`.

    Raises:
        ValueError: If a family is unknown or does not reach ``tau``.
    """
    value = torch.tensor(tau, dtype=torch.float64)
    chosen = {
        name.capitalize(): REGISTRY[name].from_kendall_tau(value, dim=2).expand(())
        for name in names
    }
    figure: Figure = contours(chosen, points=points)
    return figure
