"""The command `cm2`: options are the arguments of the functions of this folder's modules.

Nothing heavy is imported until a command runs, so that `cm2 --help` is quick. A new command is one
function, named in ``COMMANDS``.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader
from yaml import YAMLError

from cm2.cli.benchmark import benchmark
from cm2.cli.demo import demo
from cm2.cli.experiments import embed, evaluate, figures, predict, report, sweep, train
from cm2.cli.prepare import prepare
from cm2.cli.reproduce import reproduce
from cm2.cli.synthesize import synthesize
from cm2.core import yaml
from cm2.core.errors import InputError

__all__ = ["COMMANDS", "main", "parser"]

COMMANDS: dict[str, Callable[..., int | None]] = {
    "demo": demo,
    "benchmark": benchmark,
    "synthesize": synthesize,
    "prepare": prepare,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "embed": embed,
    "sweep": sweep,
    "figures": figures,
    "report": report,
    "reproduce": reproduce,
}

GOES_ON = ("benchmark", "sweep", "reproduce")
"""Commands that run what is not finished when they are given again."""


STRICT = "yaml without a key given twice"
"""The mode in which options and the files of ``--config`` are read."""


def _read(text: str) -> Any:
    yaml.check(text)
    return get_loader("yaml")(text)


set_loader(STRICT, _read, (YAMLError, ValueError))


def parser() -> ArgumentParser:
    """Builds the parser from the signatures and docstrings of the commands.

    As in Python, what stands before the ``*`` of a signature is given by place, the rest by name.
    """
    top = ArgumentParser(
        prog="cm2",
        description="Probabilistic multimodal learning with copulas when modalities are missing.",
        version=importlib.metadata.version("cm2"),
        parser_mode=STRICT,
    )
    commands = top.add_subcommands(required=True)
    for name, function in COMMANDS.items():
        text = inspect.getdoc(function) or ""
        command = ArgumentParser(description=text.split("\n\nArgs:")[0], parser_mode=STRICT)
        command.add_argument("--config", action="config", help="YAML file of options.")
        _add_arguments(command, function, text)
        commands.add_subcommand(name, command, help=text.splitlines()[0])
    return top


def _add_arguments(command: ArgumentParser, function: Callable[..., Any], text: str) -> None:
    """Adds the arguments of a function, with dashes in their names as is usual on a shell."""
    types = get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, default, about = types[name], parameter.default, _described(text, name)
        flag = "--" + name.replace("_", "-")
        if name == "overrides":
            command.add_argument(
                "--set", action="append", default=[], metavar="KEY=VALUE", dest=name, help=about
            )
        elif get_origin(kind) is tuple:
            command.add_argument(flag, type=Listed(get_args(kind)[0]), default=default, help=about)
        elif get_origin(kind) is Sequence:
            command.add_argument(
                flag, type=get_args(kind)[0], nargs="+", default=list(default), help=about
            )
        elif parameter.kind is not parameter.KEYWORD_ONLY and get_origin(kind) is list:
            command.add_argument(name, type=get_args(kind)[0], nargs="+", help=about)
        elif parameter.kind is not parameter.KEYWORD_ONLY:
            command.add_argument(name, type=kind, help=about)
        elif default is False:
            command.add_argument(flag, action="store_true", help=about)
        elif default is parameter.empty:
            command.add_argument(flag, type=kind, required=True, help=about)
        else:
            command.add_argument(flag, type=kind, default=default, help=about)


class Listed:
    """Reads several values of a type from one word, such as ``AP,PA``; brackets may enclose it.

    Args:
        item: The type.
    """

    def __init__(self, item: Callable[[str], Any]) -> None:
        self.item = item
        self.__name__ = repr(self)

    def __call__(self, given: Any) -> tuple[Any, ...]:
        """Returns the values of a word, or of the list of a YAML file."""
        if isinstance(given, str):
            words = given.strip(" []()").split(",")
            given = [word.strip(" '\"") for word in words if word.strip()]
        return tuple(self.item(one) for one in given)

    def __repr__(self) -> str:
        name = self.item.__name__
        return f"{name},{name},.."


def _described(text: str, name: str) -> str:
    """What a docstring says of an argument, up to the next one."""
    _, found, rest = text.partition(f"\n    {name}: ")
    return " ".join(re.split(r"\n    (?=\w)|\n\n", rest)[0].split()) if found else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: What follows `cm2`; None for those of the process.

    Returns:
        0; 2 if the input was refused before any long work; 1 if a part of the work failed; 130 if
        it was interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    chosen: Namespace = parser().parse_args(words)
    name = chosen.subcommand
    options = {key: value for key, value in chosen[name].items() if key != "config"}
    try:
        _check_once(COMMANDS[name], words)
        if options.get("replicates", 1) < 1:
            raise InputError(f"--replicates should be at least 1, got {options['replicates']}")
        return COMMANDS[name](**options) or 0
    except InputError as refusal:
        # Processes that train side by side all meet the same fault; one says it.
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"cm2 {name}: {refusal}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"cm2 {name}: interrupted{_go_on(name, words)}", file=sys.stderr)  # noqa: T201
        return 130
    except FloatingPointError as stop:
        print(f"cm2 {name}: {stop}", file=sys.stderr)  # noqa: T201
        return 1


def _check_once(function: Callable[..., Any], words: Sequence[str]) -> None:
    """Refuses an option of several values that is given twice, where the last alone would count."""
    given = [word.partition("=")[0] for word in words]
    for name, kind in get_type_hints(function).items():
        flag = "--" + name.replace("_", "-")
        if get_origin(kind) in (Sequence, tuple) and given.count(flag) > 1:
            raise InputError(f"{flag} is given twice; give all its values after one")


def _go_on(name: str, words: Sequence[str]) -> str:
    """What an interrupted command goes on with."""
    if name == "train":
        more = [] if "--resume" in words else ["--resume"]
        return f"; to go on: {shlex.join(['cm2', *words, *more])}"
    return "; the same command goes on where it stopped" if name in GOES_ON else ""
