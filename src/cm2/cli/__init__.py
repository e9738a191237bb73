"""The command `cm2`: options are the arguments of the functions of this folder's modules.

Nothing heavy is imported until a command runs, so that `cm2 --help` is quick. A new command is one
function, named in ``COMMANDS``.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser, Namespace

from cm2.cli.demo import demo
from cm2.cli.experiments import embed, evaluate, predict, train
from cm2.cli.prepare import prepare
from cm2.cli.synthesize import synthesize
from cm2.errors import InputError

__all__ = ["COMMANDS", "main", "parser"]

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "synthesize": synthesize,
    "prepare": prepare,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "embed": embed,
}


def parser() -> ArgumentParser:
    """Builds the parser from the signatures and docstrings of the commands.

    As in Python, what stands before the ``*`` of a signature is given by place, the rest by name.
    """
    top = ArgumentParser(
        prog="cm2",
        description="Probabilistic multimodal learning with copulas when modalities are missing.",
        version=importlib.metadata.version("cm2"),
    )
    commands = top.add_subcommands(required=True)
    for name, function in COMMANDS.items():
        text = inspect.getdoc(function) or ""
        command = ArgumentParser(description=text.split("\n\nArgs:")[0])
        command.add_argument("--config", action="config", help="YAML file of options.")
        special = _add_special(command, function, text)
        command.add_function_arguments(function, as_group=False, skip=special)
        commands.add_subcommand(name, command, help=text.splitlines()[0])
    return top


def _add_special(command: ArgumentParser, function: Callable[..., None], text: str) -> set[str]:
    """Adds arguments given by place, flags, and ``--set``; returns their names."""
    added = set()
    for name, kind in get_type_hints(function).items():
        if name == "return":
            continue
        parameter = inspect.signature(function).parameters[name]
        about: dict[str, Any] = {"help": _described(text, name)}
        if name == "overrides":
            about |= {"action": "append", "default": [], "metavar": "KEY=VALUE", "dest": name}
            command.add_argument("--set", **about)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is not False:
                continue
            command.add_argument("--" + name.replace("_", "-"), action="store_true", **about)
        elif get_origin(kind) is list:
            command.add_argument(name, type=get_args(kind)[0], nargs="+", **about)
        else:
            command.add_argument(name, type=kind, **about)
        added.add(name)
    return added


def _described(text: str, name: str) -> str:
    """What a docstring says of an argument, up to the next one."""
    _, found, rest = text.partition(f"\n    {name}: ")
    return " ".join(re.split(r"\n    (?=\w)|\n\n", rest)[0].split()) if found else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: What follows `cm2`; None for those of the process.

    Returns:
        0, or 2 if the input was refused before any long work.
    """
    chosen: Namespace = parser().parse_args(arguments)
    name = chosen.subcommand
    options = {key: value for key, value in chosen[name].items() if key != "config"}
    try:
        COMMANDS[name](**options)
    except InputError as refusal:
        # Processes that train side by side all meet the same fault; one says it.
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"cm2 {name}: {refusal}", file=sys.stderr)  # noqa: T201
        return 2
    return 0
