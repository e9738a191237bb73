"""The distinct patterns of presence among many rows, so that matrices are made once for each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.types import _size

_BITS = 62


def distinct(present: Tensor, batch_shape: _size) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The patterns of presence, and the index of each element in a table over them.

    A table has the shape ``(pattern, *batch, ...)``. Where presence does not vary along the
    copula's batch, whole batches are picked at once.

    Args:
        present: Booleans of shape ``(*shape, *batch, part)``.
        batch_shape: The copula's.
    """
    batch, parts = len(batch_shape), present.shape[-1]
    present = present[(None,) * max(0, batch + 1 - present.dim())]
    flat = present.reshape(-1, parts)
    if parts <= _BITS:  # far faster than rows
        bits = 1 << torch.arange(parts, device=flat.device)
        codes, index = torch.unique((flat * bits).sum(-1), return_inverse=True)
        patterns = (codes[:, None] & bits) > 0
    else:
        patterns, index = torch.unique(flat, dim=0, return_inverse=True)
    patterns = patterns.view(-1, *[1] * batch, parts)
    index = index.view(present.shape[:-1])
    if all(size == 1 for size in index.shape[index.dim() - batch :]):
        return patterns, (index[(..., *[0] * batch)],)
    ranges = [torch.arange(size, device=index.device) for size in batch_shape]
    return patterns, (index, *torch.meshgrid(*ranges, indexing="ij"))


def pick(table: Tensor, index: tuple[Tensor, ...]) -> Tensor:
    """Entries of a table over patterns; one index picks whole batches, with a faster gradient."""
    if len(index) > 1:
        return table[index]
    return table.index_select(0, index[0].flatten()).view((*index[0].shape, *table.shape[1:]))
