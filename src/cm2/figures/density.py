"""Copula densities as contours, on the unit square and with standard normal margins.

The upper row is Figure 2 of Wu, Chan, Wang, Yin and Yu (2025). With normal margins (the lower
row) tails and symmetry are easier to see: a Gaussian copula has ellipses, Gumbel a point in the
upper right, Frank none in either corner.
"""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.special import ndtr

from cm2.copulas.base import Copula
from cm2.figures import style


def _grid(copula: Copula, u: torch.Tensor) -> np.ndarray:
    """Log density at every pair of the points `u`, rows along the second coordinate."""
    first, second = torch.meshgrid(u, u, indexing="xy")
    with torch.no_grad():
        log_density = copula.log_prob(torch.stack([first, second], dim=-1))
    return log_density.numpy()


def _unit_square(ax: Axes, copula: Copula, points: int) -> None:
    u = torch.linspace(0.0, 1.0, points + 2, dtype=torch.float64)[1:-1]
    density = np.exp(_grid(copula, u))
    levels = np.geomspace(0.1, 10.0, 15)
    ax.contourf(u, u, np.clip(density, levels[0], levels[-1]), levels, cmap="Blues", norm="log")
    ax.contour(u, u, density, levels, colors="#333333", linewidths=0.5)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="$u_1$", ylabel="$u_2$")


def _normal_margins(ax: Axes, copula: Copula, points: int) -> None:
    x = torch.linspace(-3.0, 3.0, points, dtype=torch.float64)
    log_normal = (-0.5 * x**2 - 0.5 * np.log(2 * np.pi)).numpy()
    density = np.exp(_grid(copula, ndtr(x)) + log_normal[:, None] + log_normal[None, :])
    levels = [0.01, 0.02, 0.04, 0.07, 0.1, 0.13, 0.16, 0.2, 0.25]
    ax.contour(x, x, density, levels, cmap="viridis", linewidths=1.0)
    ax.set(aspect="equal", xlabel=r"$\Phi^{-1}(u_1)$", ylabel=r"$\Phi^{-1}(u_2)$")


@style.styled
def contours(copulas: Mapping[str, Copula], *, points: int = 121) -> Figure:
    """Draws bivariate copula densities side by side.

    Args:
        copulas: Bivariate copulas by the title of their panel.
        points: Grid points along each axis.

    Returns:
        One column a copula: on the unit square above, with standard normal margins below.

    Raises:
        ValueError: If a copula does not couple exactly two coordinates.
    """
    wide = [name for name, copula in copulas.items() if tuple(copula.event_shape) != (2,)]
    if wide:
        raise ValueError(f"contours need copulas of 2 coordinates; these have others: {wide}")
    figure = Figure(figsize=(2.7 * len(copulas), 5.2), layout="constrained")
    axes = figure.subplots(2, len(copulas), squeeze=False)
    for column, (name, copula) in enumerate(copulas.items()):
        _unit_square(axes[0, column], copula, points)
        _normal_margins(axes[1, column], copula, points)
        axes[0, column].set_title(name)
    return figure
