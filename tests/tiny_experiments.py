"""The experiments of configs/, on other data and cut down to run in seconds."""

import re
import shlex
from pathlib import Path

from cm2.experiments import config

CONFIGS = Path(__file__).parents[1] / "configs"
BODY = ["width=8", "layers=1"]
TINY = {
    "series": BODY,
    "notes": ["weights=null", "heads=2", *BODY],
    "report": ["weights=null", "heads=2", *BODY],
    "diagnosis": ["heads=2", *BODY],
    "cxr": ["weights=null", "crop=32", "depths=[1]", "widths=[4]"],
}


def tiny(path: Path, root: Path, *more: str) -> config.Experiment:
    """An experiment of the matrix on other data, its networks cut down, for one epoch."""
    given = [f"data.root={root}", "dim=4", "training.max_epochs=1", "training.accelerator=cpu"]
    modalities = config.load(path).data["modalities"]
    for name in modalities:
        given += [f"encoders.{name}.{change}" for change in TINY.get(name, [])]
    if {"notes", "report"} & set(modalities):
        given += ["data.tokenizer=null", "data.tokens=16"]
    return config.load(path, [*given, *more])


def command(path: Path) -> list[str]:
    """The command in the comment at the top of a file."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r"^# (cm2 prepare .*\n(?:#   .*\n)*)", text, re.MULTILINE)
    return shlex.split(found[1].replace("#   ", ""))[1:]
