"""Tables and figures of the paper that data give: which runs stand in each, and how called.

A row is a variant of a file of ``configs/ablations`` for an experiment of ``configs/reference``.
All else follows from ``PARTS``: a new table is an entry there, and a file of variants if there is
none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from cm2.core.errors import InputError

__all__ = ["PARTS", "SOURCES", "TASKS", "Block", "Entry", "Part", "chosen", "entries"]

SOURCES = {
    "mimic3": "MIMIC-III",
    "mimic4": "MIMIC-IV",
    "mimic4-trimodal": "MIMIC-IV, three modalities",
}
TASKS = {"in-hospital-mortality": "mortality", "readmission": "readmission"}
"""Tasks as ``cm2 prepare`` calls them, and as the names of experiments do."""

SETTINGS = {"matched": "paired", "partial": "partial"}
"""Settings as the paper calls them, and as ``data.setting`` does."""

ENCODERS = {
    "lstm": "LSTM",
    "transformer": "Transformer",
    "resnet34": "ResNet-34",
    "vit": "ViT",
    "tinybert": "TinyBERT",
}
USUAL = {
    "mimic3": ("lstm", "tinybert"),
    "mimic4": ("lstm", "resnet34"),
    "mimic4-trimodal": ("lstm", "resnet34"),
}
"""Encoders that the headings of the paper's tables name."""

METHODS = {
    "mmtm": "MMTM",
    "daft": "DAFT",
    "unified": "Unified",
    "medfuse": "MedFuse",
    "drfuse": "DrFuse",
    "lsmt": "LSMT",
    "interleaved": "Interleaved",
    "cm2": "CM2",
}
FIVE = {name: label for name, label in METHODS.items() if name not in ("lsmt", "interleaved")}
MORE = {name: METHODS[name] for name in ("lsmt", "interleaved", "cm2")}
FAMILIES = {"gumbel": "Gumbel", "frank": "Frank", "gaussian": "Gaussian"}


class Block(NamedTuple):
    """Rows of a table that have their settings in common.

    Attributes:
        variants: File of ``configs/ablations`` that has them.
        rows: What ``printed.csv`` calls a method, and the file.
        data: Sources.
        settings: ``"matched"``, ``"partial"``.
        encoders: Of series and of the other modality; None for those of the source.
        label: How the file calls a variant.
    """

    variants: str
    rows: Mapping[str, str]
    data: Sequence[str] = ("mimic4",)
    settings: Sequence[str] = ("matched",)
    encoders: Sequence[tuple[str, str]] | None = None
    label: str = "{row}"


class Part(NamedTuple):
    """A table or figure.

    Attributes:
        title: What it is about.
        blocks: Its rows.
        shown: What the page has of it: ``"measures"`` of each row, ``"tests"`` of CM2 against each
            row, ``"counts"`` of stays, or a figure of :mod:`cm2.experiments.figures`.
    """

    title: str
    blocks: Sequence[Block]
    shown: str = "measures"


class Entry(NamedTuple):
    """A row of a table for one task: what is trained for it, and what was printed."""

    part: str
    data: str
    setting: str
    method: str
    encoders: tuple[str, str]
    task: str
    variants: str
    label: str

    @property
    def prepared(self) -> str:
        """Name of the prepared folder that it reads."""
        return f"{self.data}-{TASKS[self.task]}"

    @property
    def experiment(self) -> str:
        """Its file below ``configs/reference``, without the ending."""
        return f"{self.data}/{TASKS[self.task]}-{SETTINGS[self.setting]}"


BOTH = ("matched", "partial")
GRID = tuple(itertools.product(("lstm", "transformer"), ("resnet34", "vit")))
COHORTS = Part(
    "Stays of each split, and how many are positive",
    (
        Block("paper-rivals", {}, ("mimic3", "mimic4"), BOTH),
        Block("paper-rivals", {}, ("mimic4-trimodal",)),
    ),
    "counts",
)
REMOVED = {"without-copula": "without copula", "without-fusion": "without fusion", "cm2": "full"}

PARTS: dict[str, Part] = {
    "T1": COHORTS,
    "T2": Part("Matched modalities", (Block("paper-rivals", FIVE, ("mimic3", "mimic4")),)),
    "T3": Part(
        "Partly missing modalities",
        (Block("paper-rivals", FIVE, ("mimic3", "mimic4"), ("partial",)),),
    ),
    "T4": Part(
        "What aligns the modalities",
        (Block("paper-alignment", {"cosine": "cosine", "kl": "KL", "copula": "copula"}),),
    ),
    "T5": Part(
        "Components removed",
        (
            Block(
                "paper-components",
                REMOVED | {"without-sampling": "without sampling"},
                settings=("partial",),
                label="{setting}, {row}",
            ),
            Block("paper-components", REMOVED, label="{setting}, {row}"),
        ),
    ),
    "T6": Part("Copula families", (Block("copulas", FAMILIES, settings=BOTH),)),
    "T7": Part("Three modalities", (Block("paper-rivals", FIVE, ("mimic4-trimodal",)),)),
    "T8": COHORTS,
    "T9": Part("Two more rivals", (Block("paper-rivals", MORE, settings=BOTH),)),
    "T10": Part(
        "Encoders",
        (Block("backbones", METHODS, encoders=GRID, label="{series}, {other}, {row}"),),
    ),
    "T11": Part("CM2 against each rival", (Block("paper-rivals", FIVE),), "tests"),
    "F2": Part("Fitted copula densities", (Block("copulas", FAMILIES),), "copula-density"),
    "F3": Part(
        "The parameter of Gumbel by epoch", (Block("copulas", {"gumbel": "Gumbel"}),), "alpha"
    ),
    "F4": Part(
        "The Gumbel density by epoch",
        (Block("copulas", {"gumbel": "Gumbel"}),),
        "density-by-epoch",
    ),
    "F5": Part(
        "Components of each mixture",
        (Block("components", {f"k{k}": f"K = {k}" for k in range(1, 9)}),),
        "components",
    ),
}
"""All of them. Figure 1 is a drawing of the framework, which is in the documentation."""


def entries(name: str) -> list[Entry]:
    """The rows of a table or figure, a task each, in the order of the paper.

    Args:
        name: A key of ``PARTS``.
    """
    return [one for block in PARTS[name].blocks for one in _of_block(name, block)]


def _of_block(name: str, block: Block) -> Iterator[Entry]:
    for data, setting in itertools.product(block.data, block.settings):
        pairs = block.encoders or [USUAL[data]]
        for (series, other), (method, row) in itertools.product(pairs, block.rows.items()):
            label = block.label.format(
                setting=setting, series=ENCODERS[series], other=ENCODERS[other], row=row
            )
            for task in TASKS:
                yield Entry(
                    name, data, setting, method, (series, other), task, block.variants, label
                )


def chosen(only: Sequence[str]) -> list[str]:
    """Names of parts, in the order of the paper; all where none is named.

    Raises:
        InputError: If there is no such table or figure.

    Example:
        >>> chosen(["f3", "T5"])
        ['T5', 'F3']
    """
    asked = [name.upper() for name in only]
    for name in asked:
        if name not in PARTS:
            why = " is a drawing in the documentation" if name == "F1" else " is none of them"
            raise InputError(f"--only takes tables and figures, {', '.join(PARTS)}; {name}{why}")
    return [name for name in PARTS if not asked or name in asked]
