"""The figures of finished runs, from their folders: those of Wu et al. (2025), and a few more.

Each function below takes runs and returns the figures that they give, or says by ``LackingError``
what is not there.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray

from cm2 import copulas
from cm2.copulas import Gumbel
from cm2.core.errors import InputError
from cm2.core.files import slug
from cm2.estimators.heads.encoding import batches
from cm2.evaluation.figures import (
    availability,
    calibration,
    comparison,
    density,
    embeddings,
    style,
    training,
)
from cm2.experiments import heads, results
from cm2.experiments.results import OWN, Cell, Run
from cm2.experiments.trained import Trained
from cm2.networks.models import Model
from cm2.samples.inputs import Blocks

__all__ = ["Drawing", "LackingError", "draw"]

PAPER = ("gumbel", "gaussian", "frank")
EPOCHS = (5, 50, 100)
SHOWN = ("AUROC", "AUPR")
PANELS = 4
"""Most methods in a figure with a panel each."""
SMALLEST = 20
"""Fewest rows behind a point of a calibration curve."""
ROWS = 2000
"""Most stays whose embeddings are computed."""


class Drawing(NamedTuple):
    """A figure with the name of its files and its caption."""

    name: str
    caption: str
    figure: Figure


class LackingError(Exception):
    """Runs do not give a figure; the message says what would."""


def draw(cells: Sequence[Cell], table: pd.DataFrame) -> tuple[list[Drawing], dict[str, str]]:
    """Draws all figures that runs give.

    Args:
        cells: What :func:`~cm2.experiments.results.cells` returned.
        table: What :func:`~cm2.experiments.results.tables` made of them.

    Returns:
        The figures, and the reason for each that is left out.
    """
    table = table[table["label"] == ""]
    made: list[Drawing] = []
    left_out: dict[str, str] = {}
    for name, function in FIGURES.items():
        try:
            found = list(function(cells, table))
        except LackingError as reason:
            left_out[name] = str(reason)
            continue
        several = len(found) > 1
        made += [
            Drawing(f"{name}-{slug(title)}" if several else name, caption, figure)
            for title, caption, figure in found
        ]
    return made, left_out


Found = Iterator[tuple[str, str, Figure]]


def copula_density(cells: Sequence[Cell], table: pd.DataFrame) -> Found:
    """The learned copula of the first run of each family."""
    del table
    first: dict[str, Run] = {}
    for one in _own(cells):
        if len(one.modalities) > 1:
            first.setdefault(one.experiment.model["copula"], one)
    order = [name for name in (*PAPER, *first) if name in first]
    chosen = {}
    for family in dict.fromkeys(order):
        if family == "independence" or family == "student":
            continue
        tau = _model(first[family]).joint().kendall_tau()[..., 0, 1].detach().double().mean()
        law = copulas.REGISTRY[family].from_kendall_tau(tau, dim=2)
        chosen[f"{family}, $\\tau$ = {float(tau):.2f}"] = law.expand(())
    if not chosen:
        raise LackingError(
            "it needs a run of kind cm2 of two modalities with a copula such as gumbel or frank"
        )
    chosen = dict(list(chosen.items())[:PANELS])
    yield (
        "",
        "Learned copula densities of the first two modalities, at the mean Kendall's tau over "
        "coordinates; on the unit square above, with normal margins below.",
        density.contours(chosen),
    )


def alpha(cells: Sequence[Cell], table: pd.DataFrame) -> Found:
    """The parameter of Gumbel copulas over training."""
    del table
    for title, histories in _gumbel(cells).items():
        yield (
            title,
            f"{title}: the learned alpha of the Gumbel copula and (alpha - 1) / alpha, its "
            "Kendall's tau, over training; a line a seed.",
            training.gumbel(histories),
        )


def density_by_epoch(cells: Sequence[Cell], table: pd.DataFrame) -> Found:
    """Densities of the first Gumbel run at several epochs."""
    del table
    for title, histories in _gumbel(cells).items():
        history = next(iter(histories.values()))[0].dropna(subset="alpha")
        values = dict(zip(history["epoch"] + 1, history["alpha"], strict=True))
        epochs = [epoch for epoch in EPOCHS if epoch in values]
        if len(epochs) < 2:
            known = sorted(values)
            epochs = list(dict.fromkeys([known[0], known[len(known) // 2], known[-1]]))
        chosen = {
            f"epoch {epoch:.0f}, $\\alpha$ = {values[epoch]:.3f}": Gumbel(
                dim=2, alpha=torch.tensor(values[epoch], dtype=torch.float64)
            )
            for epoch in epochs
        }
        yield (
            title,
            f"{title}: densities of the Gumbel copula that one run has learned by these epochs.",
            density.contours(chosen),
        )
        return


def components(cells: Sequence[Cell], table: pd.DataFrame) -> Found:
    """AUROC and AUPR against the number of mixture components."""
    done = False
    for cell in cells:
        groups: dict[str, dict[str, int]] = {}
        for one in _own([cell]):
            tree = results.flat(one.experiment)
            number = tree.pop("model.components")
            rest = repr({key: v for key, v in tree.items() if key not in ("seed", "data.root")})
            groups.setdefault(rest, {}).setdefault(one.label, number)
        parts = []
        for number_of in groups.values():
            if len(set(number_of.values())) < 2:
                continue
            part = table[(table["experiment"] == cell.title) & table["method"].isin(number_of)]
            name = re.sub(r"\s*\b(components|K)\s*=\s*\d+", "", next(iter(number_of))).strip()
            parts.append(part.assign(K=part["method"].map(number_of), method=name or OWN))
        if parts:
            done = True
            yield (
                cell.title,
                f"{cell.title}: measures against the number K of mixture components of each "
                "marginal, with 95% intervals.",
                comparison.comparison(pd.concat(parts), SHOWN, axis="K", label="components K"),
            )
    if not done:
        raise LackingError("it needs runs that differ in model.components and in nothing else")


def missing_rate(cells: Sequence[Cell], table: pd.DataFrame) -> Found:
    """AUROC and AUPR against the share of modalities removed."""
    studies: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        studies.setdefault((cell.runs[0].experiment.name, cell.study), []).append(cell)
    done = False
    for (name, _), several in studies.items():
        if len(several) > 1:
            part = table[table["experiment"].isin([cell.title for cell in several])]
            rates = part.groupby("method")["rate"].transform("nunique")
            part = part[rates > 1]
            if part.empty:
                continue
            done = True
            yield (
                name,
                f"{name}: measures against the share of modalities removed at random, in training "
                "and test alike, with 95% intervals.",
                comparison.comparison(part, SHOWN),
            )
    if not done:
        raise LackingError("it needs runs of one method that differ in data.missing_rate")


def available(cells: Sequence[Cell], table: pd.DataFrame) -> Found:
    """Which modalities the test rows have together."""
    del table
    done = False
    for cell in cells:
        widest = max(cell.runs, key=lambda one: len(one.modalities))
        if len(widest.modalities) > 1:
            done = True
            yield (
                cell.title,
                f"{cell.title}: which modalities the test rows have together.",
                availability.availability(widest.predictions.present, widest.modalities),
            )
    if not done:
        raise LackingError("it needs a run with at least two modalities")


def calibrated(cells: Sequence[Cell], table: pd.DataFrame) -> Found:
    """Predicted and observed frequencies, all seeds of a method together."""
    for cell in cells:
        ranked = table[(table["experiment"] == cell.title) & (table["metric"] == SHOWN[0])]
        order = ranked.sort_values("value", ascending=False, kind="stable")["method"]
        made = {}
        for label in list(order)[:PANELS]:
            several = [one.predictions for one in cell.runs if one.label == label]
            happened, predicted = zip(*map(_outcome, several), strict=True)
            bins = int(np.clip(len(several[0].target) // SMALLEST, 1, 10))
            made[textwrap.fill(label, 24)] = calibration.reliability(
                np.concatenate(happened), np.concatenate(predicted), bins=bins
            )
        yield (
            cell.title,
            f"{cell.title}: observed frequency by predicted probability in bins of equal size, all "
            f"seeds together; the {len(made)} methods of highest AUROC.",
            calibration.calibration(made),
        )


def aligned(cells: Sequence[Cell], table: pd.DataFrame) -> Found:
    """Where embeddings lie before and after training, in one run of each study."""
    del table
    reasons, done = [], set()
    for cell in sorted(cells, key=lambda one: one.rate):
        own = next(iter(_own([cell])), None)
        if own is None or cell.study in done:
            continue
        try:
            figure = embeddings.embeddings(_before_and_after(own))
        except ValueError as error:  # InputError among them: the data may be elsewhere
            reasons.append(str(error))
            continue
        done.add(cell.study)
        yield (
            cell.title,
            f"{cell.title}: embeddings of validation stays by {own.label} before and after "
            "training, in the plane of the first two principal components. Smoothed regions that "
            "hold 25, 50 and 75% of the stays; no single stay is shown.",
            figure,
        )
    if not done:
        raise LackingError("; ".join(reasons) or "it needs a run of kind cm2")


FIGURES: dict[str, Callable[[Sequence[Cell], pd.DataFrame], Found]] = {
    "copula-density": copula_density,
    "alpha": alpha,
    "density-by-epoch": density_by_epoch,
    "components": components,
    "missing-rate": missing_rate,
    "availability": available,
    "embeddings": aligned,
    "calibration": calibrated,
}
"""All figures by the name of their files."""


def _own(cells: Sequence[Cell]) -> list[Run]:
    """Runs of CM2 itself, one network each."""
    return [one for cell in cells for one in cell.runs if one.experiment.method == OWN]


def _model(one: Run) -> Any:
    try:
        return Trained(one.folder).network
    except InputError as reason:
        raise LackingError(str(reason)) from None


def _gumbel(cells: Sequence[Cell]) -> dict[str, dict[str, list[pd.DataFrame]]]:
    """Logs of runs with a Gumbel copula, by experiment and method."""
    found: dict[str, dict[str, list[pd.DataFrame]]] = {}
    for cell in cells:
        for one in _own([cell]):
            path = one.folder / "metrics.csv"
            if one.experiment.model["copula"] == "gumbel" and path.is_file():
                history = pd.read_csv(path)
                if "alpha" in history and history["alpha"].notna().any():
                    found.setdefault(cell.title, {}).setdefault(one.label, []).append(history)
    if not found:
        raise LackingError(
            "it needs a run of kind cm2 with model.copula=gumbel and its metrics.csv"
        )
    return found


def _outcome(found: Any) -> tuple[ndarray, ndarray]:
    """What happened and its probability: class 1, each label, or of classes the most probable."""
    if found.target.ndim == 2:
        return found.target.ravel() == 1, found.probability.ravel()
    if found.probability.shape[1] == 2:
        return found.target == 1, found.probability[:, 1]
    return found.probability.argmax(axis=1) == found.target, found.probability.max(axis=1)


def _before_and_after(one: Run) -> dict[str, dict[str, Float[ndarray, "sample dim"]]]:
    kept = Trained(one.folder)
    data = kept.data("validation")
    if data.checksum != kept.facts["checksum"]:
        raise ValueError("the prepared folder is not the one that the run was trained on")
    blocks = kept.model.reader_.blocks(data.samples).take(np.arange(min(len(data), ROWS)))
    start = heads.build(one.experiment, blocks.shapes, data.classes, data.labels)
    return {
        "before training": _embedded(start.eval(), blocks),
        "after training": _embedded(kept.network, blocks),
    }


@torch.no_grad()
def _embedded(model: Model, blocks: Blocks) -> dict[str, Float[ndarray, "sample dim"]]:
    """Embeddings of each modality where it is there."""
    z = torch.cat([model.raw(batch) for batch in batches(blocks)])
    present = torch.from_numpy(blocks.present)
    return {
        name: z[present[:, column], column].numpy() for column, name in enumerate(model.modalities)
    }


def save(drawings: Sequence[Drawing], folder: Path) -> list[Path]:
    """Writes figures as PNG and PDF, and returns the paths."""
    return [path for one in drawings for path in style.save(one.figure, folder, one.name)]
