"""YAML as users write it: a key given twice is refused, where YAML lets the last one win."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

__all__ = ["read"]


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            # A merge (<<) may come several times, and a mapping or list is no key of ours.
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def read(text: str) -> Any:
    """Reads a text of YAML.

    Raises:
        yaml.YAMLError: It is none, or a mapping has a key twice.

    Example:
        >>> read("a: 1")
        {'a': 1}
    """
    return yaml.load(text, _Loader)
