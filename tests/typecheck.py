"""The run-time type checker behind jaxtyping's import hook: beartype, which knows no lone `Self`.

The hook decorates methods one by one, where beartype refuses `typing.Self` (it wants the class
decorated); such a hint is dropped, all others are checked.
"""

import re
from collections.abc import Callable
from typing import Any, Self

from beartype import beartype


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Applies beartype after taking `Self` out of the annotations."""
    annotations = getattr(function, "__annotations__", {})
    for name, hint in list(annotations.items()):
        if hint is Self or (isinstance(hint, str) and re.search(r"\bSelf\b", hint)):
            del annotations[name]
    return beartype(function)
