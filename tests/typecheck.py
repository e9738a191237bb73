"""The run-time type checker behind jaxtyping's import hook: beartype, which knows no lone `Self`.

The hook decorates methods one by one, where beartype refuses `typing.Self` (it wants the class
decorated); such a hint is dropped, all others are checked.

A check costs as much as a small function does, and the steps of a training loop repeat each other.
So each test checks a function at its first calls, and then now and then.
"""

import inspect
import re
from collections import Counter
from collections.abc import Callable
from functools import partial, wraps
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any, Self
from unittest.mock import patch

import jaxtyping
from beartype import beartype
from jaxtyping import _import_hook

FIRST, EVERY = 20, 50
"""The calls of a function in a test that are checked: so many, then one of so many."""

calls: Counter[CodeType] = Counter()
"""How often this test has run each function; `conftest.py` clears it before the next one.

By code, so that a function that is made anew at every call of another one is one of its kind.
"""

every_call = getattr(jaxtyping.jaxtyped, "every_call", jaxtyping.jaxtyped)
"""jaxtyping's own decorator, also where this module is imported by a second name."""


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Applies beartype after taking `Self` out of the annotations."""
    annotations = getattr(function, "__annotations__", {})
    for name, hint in list(annotations.items()):
        if hint is Self or (isinstance(hint, str) and re.search(r"\bSelf\b", hint)):
            del annotations[name]
    return beartype(function)


def some_calls(*, typechecker: Callable[..., Any]) -> Callable[[Any], Any]:
    """The decorator of the import hook, for some of a function's calls."""

    def decorate(target: Any) -> Any:
        check = every_call(target, typechecker=typechecker)
        if not inspect.isfunction(target):
            return check

        code = target.__code__

        @wraps(target)
        def sampled(*args: Any, **kwargs: Any) -> Any:
            calls[code] += 1
            count = calls[code]
            run = check if count <= FIRST or count % EVERY == 0 else target
            return run(*args, **kwargs)

        return sampled

    return decorate


some_calls.every_call = every_call  # type: ignore[attr-defined]
jaxtyping.jaxtyped = some_calls


def get_code(self: Any, fullname: str) -> CodeType | None:
    """The code of a module, with types checked, from a cache of its own.

    jaxtyping has that cache in force while the module is executed, and so for all that the module
    imports: thousands of modules of other packages, for which there then is no bytecode.
    """
    cache = partial(_import_hook._optimized_cache_from_source, self._typechecker.get_hash())
    with patch("importlib._bootstrap_external.cache_from_source", cache):
        return SourceFileLoader.get_code(self, fullname)


_import_hook._JaxtypingLoader.get_code = get_code
_import_hook._JaxtypingLoader.exec_module = SourceFileLoader.exec_module
