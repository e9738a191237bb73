"""Where a short name becomes a class: one registry for each kind of part.

A family, imputer, fusion or head is one class in one file, registered under the name that users
write.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
C = TypeVar("C", bound=type)


def hint(name: object, known: Iterable[str]) -> str:
    """How an error that names something unknown goes on: with the nearest that is known, if any.

    Example:
        >>> hint("gumble", ["frank", "gumbel"]), hint("t", ["frank", "gumbel"])
        ("; did you mean 'gumbel'?", '.')
    """
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


class Registry(Generic[T]):
    """Names of the classes of one kind, in the order of their registration.

    Args:
        kind: What the classes are, in the singular; used in errors.

    Example:
        >>> shapes = Registry[object]("shape")
        >>> @shapes.register("disc")
        ... class Disc: ...
        >>> shapes["disc"].__name__, list(shapes)
        ('Disc', ['disc'])
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Registers the decorated class under ``name``.

        Raises:
            ValueError: If the name is taken.
        """

        def decorator(cls: C) -> C:
            if name in self._classes:
                raise ValueError(f"{self.kind} {name!r} is registered already")
            self._classes[name] = cls
            return cls

        return decorator

    def __getitem__(self, name: str) -> type[T]:
        try:
            return self._classes[name]
        except (KeyError, TypeError):
            names = ", ".join(sorted(self._classes))
            raise ValueError(
                f"unknown {self.kind} {name!r}{hint(name, self._classes)} Registered: {names}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def __contains__(self, name: object) -> bool:
        return name in self._classes
