"""The prepared folders that the paper's runs read: those of the user, or made from raw tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cm2.core.errors import InputError
from cm2.core.files import named_folders
from cm2.core.layout import MANIFEST
from cm2.experiments.paper.tables import SOURCES, TASKS

__all__ = ["NAMES", "RECIPES", "given", "lacking", "made_up", "prepare"]

PATIENTS = 200
"""Of made-up tables, in which about half of the stays are positive."""


class Recipe(NamedTuple):
    """How a source is prepared as in the paper; the commands in ``configs/reference`` say the same.

    Attributes:
        raw: Name of the raw tables, which is that of the source of ``cm2 prepare`` too.
        options: Of :class:`cm2.clinical.prepare.options.Options`, those of tasks aside.
        needed: Further folders by name, and the option of ``cm2 prepare`` that takes each.
        welcome: Those that the raw tables may have within.
    """

    raw: str
    options: Mapping[str, Any]
    needed: Mapping[str, str]
    welcome: Mapping[str, str]


WINDOW = {"hours_per_bin": 2.0, "look_back": 0.0, "selection": "reference"}
LISTED = WINDOW | {"splits_from": "medfuse"}
SECTIONS = {
    "sections": ("impression", "findings", "last_paragraph", "comparison"),
    "sections_kept": "every",
}
IMAGES = {"mimic-cxr-jpg": "images"}

RECIPES = {
    "mimic3": Recipe(
        "mimic3",
        WINDOW | {"notes_of": "third", "splits_from": "mimic3-benchmarks"},
        {"mimic3-benchmarks": "lists"},
        {"mimic3-notes": "notes"},
    ),
    "mimic4": Recipe("mimic4", LISTED, {"medfuse": "lists"}, IMAGES),
    "mimic4-trimodal": Recipe(
        "mimic4", LISTED | SECTIONS, {"medfuse": "lists", "mimic-cxr": "reports"}, IMAGES
    ),
}
OF_TASK = {
    "mortality": {"task": "in-hospital-mortality"},
    "readmission": {"task": "readmission", "readmission": "or-death"},
}
FIELDS = {"lists": "split_lists"}
"""Options of ``cm2 prepare`` that :class:`cm2.clinical.prepare.places.Named` calls otherwise."""

PREPARED = tuple(f"{source}-{task}" for source in SOURCES for task in TASKS.values())
NAMES = (
    *PREPARED,
    *dict.fromkeys(
        name
        for recipe in RECIPES.values()
        for name in (recipe.raw, *recipe.needed, *recipe.welcome)
    ),
)
"""All that ``--data`` takes: prepared folders, then raw tables and what goes with them."""


def given(words: Sequence[str]) -> dict[str, Path]:
    """Reads ``NAME=DIR``.

    Raises:
        InputError: If a word is not of that form, a name unknown, or a folder not there.
    """
    found = named_folders(words, NAMES)
    for name, folder in found.items():
        if name in PREPARED and not (folder / MANIFEST).is_file():
            raise InputError(
                f"--data {name}: {folder} is no folder of cm2 prepare; raw tables are "
                f"{_recipe(name).raw}=DIR"
            )
    return found


def lacking(name: str, folders: Mapping[str, Path]) -> list[str]:
    """What else ``--data`` would have to name for a prepared folder to be there."""
    recipe = _recipe(name)
    if name in folders:
        return []
    return [one for one in (recipe.raw, *recipe.needed) if one not in folders]


def prepare(name: str, folders: Mapping[str, Path], out: Path, say: Callable[[str], None]) -> Path:
    """Returns a prepared folder: as it was given, or made from raw tables unless it is there.

    Args:
        name: One that lacks nothing.
        folders: What :func:`given` returned.
        out: Where folders are made.
        say: Is told what is done.
    """
    if name in folders:
        return folders[name]
    from cm2.clinical.prepare import pipeline
    from cm2.clinical.prepare.options import Options
    from cm2.clinical.prepare.places import Named

    recipe = _recipe(name)
    places = {**recipe.needed, **recipe.welcome}
    named: Any = {
        FIELDS.get(option, option): folders[one] for one, option in places.items() if one in folders
    }
    options: Any = {**recipe.options, **OF_TASK[name.rpartition("-")[2]]}
    folder = out / name
    say(f"preparing {folder}")

    def brief(line: str) -> None:
        if "\n" not in line:  # the page has what was found
            say(line)

    pipeline.prepare(
        recipe.raw, folders[recipe.raw], folder, Options(**options), Named(**named), say=brief
    )
    return folder


def made_up(out: Path) -> dict[str, Path]:
    """Writes made-up raw tables of both sources, and returns their folders by name.

    Args:
        out: Where; what is there already is left as it is.
    """
    from cm2.clinical.synthesize import MANIFEST, World, synthesize

    for source in ("mimic3", "mimic4"):
        if not (out / source / MANIFEST).is_file():
            # Of few stays too, some of each split are positive and some are not.
            synthesize(source, PATIENTS, out / source, seed=3, world=World(death=(-0.5, 2.2)))
    return {
        "mimic3": out / "mimic3",
        "mimic3-benchmarks": out / "mimic3" / "lists",
        "mimic4": out / "mimic4",
        "medfuse": out / "mimic4" / "lists",
        "mimic-cxr-jpg": out / "mimic4" / "cxr",
        "mimic-cxr": out / "mimic4" / "cxr-reports",
    }


def _recipe(name: str) -> Recipe:
    return RECIPES[name.rpartition("-")[0]]
