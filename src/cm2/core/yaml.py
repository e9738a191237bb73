"""YAML as users write it: a key given twice is refused, where YAML lets the last one win."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["check", "read"]


def read(text: str) -> Any:
    """Reads a text of YAML.

    Raises:
        yaml.YAMLError: It is none, or a mapping has a key twice.

    Example:
        >>> read("a: 1")
        {'a': 1}
    """
    check(text)
    try:
        return yaml.safe_load(text)
    except ValueError as error:  # what looks like a date or a number, and is none: 2024-02-30
        raise yaml.YAMLError(str(error)) from None


def check(text: str) -> None:
    """Refuses a text with a key given twice; for those who read YAML in a way of their own.

    Raises:
        yaml.YAMLError: It has one, or is no YAML.
    """
    # Before merges (<<) put the keys of one mapping into another, where they may stand again.
    _check(yaml.compose(text, yaml.SafeLoader), set())


def _check(node: yaml.Node | None, known: set[int]) -> None:
    if not isinstance(node, yaml.CollectionNode) or id(node) in known:
        return
    known.add(id(node))
    parts = node.value
    if isinstance(node, yaml.MappingNode):
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            # A merge may come several times, and a mapping or list is no key of ours.
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add((key.tag, key.value))
        parts = [value for _, value in node.value]
    for part in parts:
        _check(part, known)
