"""The drawing of the framework, as figure 1 of the paper, made when the documentation is built."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from cm2.evaluation.figures.style import COLOURS

ROWS = {5.0: ("time series", "LSTM"), 3.2: ("chest X-ray", "ResNet"), 1.4: ("notes", "text model")}
"""Modalities and their encoders, by height."""

MISSING = 1.4
INK, SOFT = "#222222", "#777777"
BLUE, ORANGE, GREEN = COLOURS[0], COLOURS[1], COLOURS[2]


def box(
    axes: Axes, x: float, y: float, text: str, width: float, *, height: float = 0.86,
    colour: str = INK, dashed: bool = False,
) -> None:  # fmt: skip
    """A box with its middle at a place."""
    corner = (x - width / 2, y - height / 2)
    style = {"edgecolor": colour, "linestyle": "--" if dashed else "-", "linewidth": 1.4}
    shape = FancyBboxPatch(corner, width, height, "round,pad=0.02", facecolor="white", **style)
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=11, linespacing=1.35)


def arrow(axes: Axes, start: tuple, end: tuple, *, colour: str = INK) -> None:
    """An arrow from one place to another."""
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=13, color=colour, linewidth=1.4,
            shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip


def mixture(axes: Axes, x: float, y: float) -> None:
    """The density of two components, small, in a box."""
    t = np.linspace(-3.2, 3.2, 120)
    parts = [0.6 * np.exp(-((t + 1.1) ** 2) / 0.9), 0.4 * np.exp(-((t - 1.2) ** 2) / 0.5)]
    for part in parts:
        axes.plot(x + t * 0.2, y - 0.3 + part, color=SOFT, linewidth=0.8)
    axes.plot(x + t * 0.2, y - 0.3 + sum(parts), color=BLUE, linewidth=1.6)


def draw(path: Path) -> None:
    """Writes the drawing as SVG, 1,300 pixels wide."""
    figure = Figure(figsize=(13, 6.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 13), ylim=(0, 6.1))
    axes.axis("off")
    for x, title in ((0.95, "input"), (2.75, "encoder"), (4.25, "embedding"), (5.85, "mixture")):
        axes.text(x, 5.82, title, ha="center", color=SOFT, fontsize=10)
    for m, (y, (name, encoder)) in enumerate(ROWS.items(), start=1):
        gone = y == MISSING
        box(axes, 0.95, y, name, 1.4, dashed=gone, colour=SOFT if gone else INK)
        box(axes, 2.75, y, encoder, 1.5, dashed=gone, colour=SOFT if gone else INK)
        box(axes, 4.25, y, f"$z_{m}$", 0.7, dashed=gone, colour=ORANGE if gone else INK)
        box(axes, 5.85, y, "", 1.5, colour=BLUE)
        mixture(axes, 5.85, y)
        if not gone:
            arrow(axes, (1.69, y), (1.96, y))
            arrow(axes, (3.54, y), (3.86, y))
            arrow(axes, (4.64, y), (5.06, y))
    axes.text(0.95, MISSING - 0.68, "missing", ha="center", color=SOFT, fontsize=10, style="italic")
    copula = "copula\n\n$c(u_1, u_2, u_3)$\n\n$u_m = F_m(z_m)$"
    box(axes, 8.05, 3.2, copula, 1.75, height=4.46, colour=BLUE)
    arrow(axes, (6.64, 5.0), (7.13, 5.0), colour=BLUE)
    arrow(axes, (6.64, 3.2), (7.13, 3.2), colour=BLUE)
    # What is missing is drawn the other way: from the copula, through the mixture.
    arrow(axes, (7.13, MISSING), (6.64, MISSING), colour=ORANGE)
    arrow(axes, (5.06, MISSING), (4.64, MISSING), colour=ORANGE)
    drawn = "drawn given the rest:  $u_3 \\sim c(\\cdot \\mid u_1, u_2)$,  $z_3 = F_3^{-1}(u_3)$"
    axes.text(4.5, 0.68, drawn, color=ORANGE, fontsize=11)
    box(axes, 10.25, 3.2, "fusion\n\n(LSTM)", 1.2, height=2.0)
    box(axes, 12.05, 3.2, "classifier\n\n$\\hat y$", 1.3, height=1.5)
    arrow(axes, (10.87, 3.2), (11.38, 3.2))
    axes.text(11.12, 3.32, "$h$", ha="center", color=INK, fontsize=11)
    # The completed embeddings pass behind the copula to the fusion.
    axes.plot([4.25, 4.25, 10.25], [0.93, 0.25, 0.25], color=INK, linewidth=1.4)
    arrow(axes, (10.25, 0.25), (10.25, 2.18))
    axes.text(8.0, 0.36, "$z_1, z_2$ and the completed $z_3$", ha="center", color=INK, fontsize=11)
    loss = "$-\\lambda\\,\\log p(z) = -\\lambda\\,[\\sum_m \\log f_m(z_m) + \\log c(u)]$"
    axes.text(11.25, 5.17, loss, ha="center", color=BLUE, fontsize=11)
    axes.text(11.25, 4.7, "of what is present", ha="center", color=BLUE, fontsize=10)
    arrow(axes, (8.95, 5.2), (9.4, 5.2), colour=BLUE)
    axes.text(12.05, 2.05, "cross-entropy", ha="center", color=GREEN, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
