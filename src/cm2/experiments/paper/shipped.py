"""Where the files of experiments are: those that come with the package, or a user's own."""

from __future__ import annotations

from pathlib import Path

import cm2
from cm2.core.errors import InputError

__all__ = ["configs"]

NAME = "configs"


def configs(given: Path | None = None) -> Path:
    """Returns the folder of experiments and their variants.

    Args:
        given: A user's own; if None, that of the package, which an installed one has within, and a
            checkout beside ``src``.

    Raises:
        InputError: If there is none, or it is another folder.
    """
    package = Path(cm2.__file__).parent
    for one in (package / NAME, package.parents[1] / NAME) if given is None else (given,):
        if (one / "reference").is_dir() and (one / "ablations").is_dir():
            return one
    where = f"{package} has no {NAME} in it or beside it" if given is None else f"{given}"
    raise InputError(
        f"{where}: folders reference and ablations were expected; --configs names the folder "
        f"{NAME} of the repository"
    )
