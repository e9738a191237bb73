"""Strings that name files, of which no vocabulary may be learned: a path may name a patient."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""How image files end."""

FILE = re.compile(r"\.\w{2,8}$")
"""How names of files end, and sentences do not: only such strings are looked for on the disk."""


def are_images(texts: Sequence[tuple[int, str]]) -> bool:
    """Whether strings, each with the row of its sample, name image files.

    Raises:
        ValueError: If only some name files, or all end like images and are not there.
    """
    pictures = all(text.lower().endswith(ENDINGS) for _, text in texts)
    there = [bool(FILE.search(text[-9:])) and _is_file(text) for _, text in texts]
    if not texts or not (pictures or any(there)):
        return False
    lost = [row for (row, _), exists in zip(texts, there, strict=True) if not exists]
    if lost:
        raise ValueError(
            f"{len(lost)} of {len(texts)} strings name no file that exists, the first in row "
            f"{lost[0]}; correct them, and give None where there is no image"
        )
    if not pictures:
        raise ValueError(f"strings name files, but not all end like images ({', '.join(ENDINGS)})")
    return True


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # longer than a name can be, or with a zero byte
        return False
