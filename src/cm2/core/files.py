"""Writing a file in one step: another process finds what was there before, or all of the new."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a place beside a file to write to, which takes the file's place at the end.

    Where the writing fails, the file stays as it was, and nothing is left beside it. The place has
    a name of its own, so that of several processes the last one to end gives the file, whole.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / "a.txt") as part:
        ...         _ = part.write_text("whole")
        ...     [entry.name for entry in Path(folder).iterdir()]
        ['a.txt']
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text in one step."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def to_json(content: Any, **options: Any) -> str:
    """Returns JSON in lines; a number that is not finite, which JSON does not know, is null.

    Args:
        content: Of dictionaries, lists, texts and numbers.
        options: Others of ``json.dumps``.

    Example:
        >>> print(to_json({"auroc": float("nan")}), end="")
        {
          "auroc": null
        }
    """
    return json.dumps(_finite(content), indent=2, allow_nan=False, **options) + "\n"


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content
