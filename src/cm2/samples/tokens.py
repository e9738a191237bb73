"""Text as token numbers, in chunks of bounded length.

A tokeniser is one of ``tokenizers``: that of a published model, or a small one that
``cm2.samples.vocabulary`` learned from training texts, which needs no download.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from cm2.core.errors import InputError
from cm2.core.pace import told

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Chunks", "chunk", "load", "package", "parse"]

LEAST = 4
"""Tokens a chunk must have room for: two special ones and two of the text."""

BATCH = 1024


class Chunks(NamedTuple):
    """Texts cut into chunks, one after the other.

    Attributes:
        ids: Token numbers of all chunks.
        lengths: Tokens in each chunk.
        texts: Position of the text that each chunk is from.
    """

    ids: Int[ndarray, " token"]
    lengths: Int[ndarray, " chunk"]
    texts: Int[ndarray, " chunk"]


def load(source: str | Path) -> Tokenizer:
    """Loads a tokeniser.

    Args:
        source: A file ``tokenizer.json``, or the folder or hub name of a model for
            ``transformers``; a hub name that is not on this machine yet is downloaded.
    """
    if str(source).endswith(".json"):
        if not Path(source).is_file():
            raise InputError(f"{source}: no such tokenizer file")
        tokenizer: Tokenizer = package().Tokenizer.from_file(str(source))
        return tokenizer
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise _needed(error) from None
    try:
        found = AutoTokenizer.from_pretrained(str(source))
    except (OSError, ValueError) as error:
        raise InputError(
            f"no tokenizer at {str(source)!r} ({type(error).__name__}): give a folder, a"
            " tokenizer.json or the hub name of a model"
        ) from None
    if getattr(found, "backend_tokenizer", None) is None:
        raise InputError(f"{source}: has no tokenizer.json; convert it to a fast tokenizer")
    backend: Tokenizer = found.backend_tokenizer
    return backend


def parse(text: str) -> Tokenizer:
    """Returns the tokeniser that its ``to_str`` describes."""
    tokenizer: Tokenizer = package().Tokenizer.from_str(text)
    return tokenizer


def chunk(
    tokenizer: Tokenizer, texts: Sequence[str], tokens: int, per_text: int | None = None
) -> Chunks:
    """Cuts texts into chunks, each opened and closed as the tokeniser does.

    Args:
        tokenizer: Its padding and truncation are set.
        texts: Any number of texts.
        tokens: Most tokens in a chunk.
        per_text: Most chunks of a text, the first ones; None for all.
    """
    if tokens < LEAST:
        raise InputError(f"a chunk needs room for {LEAST} tokens, but tokens is {tokens}")
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=tokens)
    # As Python's lists the tokens of a large folder would not fit into memory.
    ids: list[ndarray] = [np.empty(0, np.int32)]
    lengths: list[int] = []
    owners: list[int] = []
    starts = range(0, len(texts), BATCH)
    for start in told(starts, len(starts), f"parts of {BATCH} texts that are cut into tokens"):
        found = tokenizer.encode_batch(list(texts[start : start + BATCH]))
        for number, encoding in enumerate(found, start=start):
            pieces = [encoding, *encoding.overflowing][:per_text]
            ids += [np.array(piece.ids, np.int32) for piece in pieces]
            lengths += map(len, pieces)
            owners += [number] * len(pieces)
    return Chunks(np.concatenate(ids), np.array(lengths, np.int64), np.array(owners, np.int64))


def package() -> Any:
    """Returns the library ``tokenizers``, with its parts.

    Raises:
        ImportError: If it is not installed; the message says how to.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise _needed(error) from None
    # Submodules are loaded by name only when asked for.
    import tokenizers.models
    import tokenizers.normalizers
    import tokenizers.pre_tokenizers
    import tokenizers.processors

    return tokenizers


def _needed(error: ImportError) -> ImportError:
    return ImportError(f"text needs {error.name}; install it with: pip install 'cm2[clinical]'")
