"""The look that all figures share, and how they are written to files.

Colours are those of Okabe and Ito (2008), told apart with any colour vision.
"""

import base64
import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
RC: Any = {
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "pdf.fonttype": 42,
    "axes.prop_cycle": cycler(color=COLOURS),
}


P = ParamSpec("P")
R = TypeVar("R")


class _Drawing(Figure):
    """A figure that knows how a notebook shows it."""

    def _repr_png_(self) -> bytes:
        return _png(self, RC["figure.dpi"])


def blank(width: float, height: float) -> Figure:
    """An empty figure of a size in inches.

    A notebook shows it, also where nothing has imported ``matplotlib.pyplot``.
    """
    return _Drawing(figsize=(width, height), layout="constrained")


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Runs a figure function under the shared settings and leaves matplotlib's own alone."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(RC):
            return function(*args, **kwargs)

    return inner


def panels(count: int, *, width: float = 3.2, height: float = 2.8) -> tuple[Figure, list[Axes]]:
    """A figure with a row of panels, each of the given size in inches.

    Args:
        count: How many panels.
        width: Of one panel.
        height: Of one panel.

    Returns:
        The figure and its axes from left to right.
    """
    figure = blank(width * count, height)
    axes = figure.subplots(1, count, squeeze=False)[0]
    return figure, list(axes)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes a figure as `name.png` and `name.pdf`.

    Args:
        figure: What to write.
        folder: Where; made if it is absent.
        name: Of the files, without an ending.

    Returns:
        The paths of the two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    with mpl.rc_context(RC):
        figure.savefig(paths[0])
        figure.savefig(paths[1], metadata={"CreationDate": None})
    return paths


def embed(figure: Figure) -> str:
    """The figure as a PNG in a data URI, for a page that opens without a network."""
    return "data:image/png;base64," + base64.b64encode(_png(figure, 150)).decode("ascii")


def _png(figure: Figure, dpi: int) -> bytes:
    buffer = io.BytesIO()
    with mpl.rc_context(RC):
        figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
