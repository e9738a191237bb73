"""Embeddings of a whole data set by one encoder, to be kept and used in the encoder's place."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_map

from cm2.core.records import Batch
from cm2.networks.encoders import Encoder
from cm2.networks.models.base import evaluating, select, single


@torch.no_grad()
def embed(encoder: Encoder, batches: Iterable[Batch], modality: str) -> Float[Tensor, "sample dim"]:
    """Embeds one modality of every sample, in evaluation mode.

    Args:
        encoder: The encoder of the modality, on whichever device it computes.
        batches: All samples, once each, such as a data loader that does not shuffle; their
            ``inputs`` are in the order of the columns of ``present``.
        modality: Name of the modality.

    Returns:
        A row for each sample in the order given, on the CPU; NaN where the modality is absent.

    Raises:
        ValueError: If a batch does not have the modality.

    Example:
        >>> from cm2.networks.encoders import Dense
        >>> present = torch.tensor([[True], [False]])
        >>> embed(Dense(6, 2), [Batch({"labs": torch.zeros(2, 6)}, present)], "labs").isnan()
        tensor([[False, False],
                [ True,  True]])
    """
    device = next(encoder.parameters()).device
    parts = [torch.empty(0, encoder.dim, device="cpu")]
    with evaluating(encoder):
        for batch in batches:
            if modality not in batch.inputs:
                raise ValueError(f"there is no modality {modality!r} among {list(batch.inputs)}")
            rows = batch.present[:, list(batch.inputs).index(modality)]
            z = torch.full((len(rows), encoder.dim), torch.nan, device="cpu")
            if bool(rows.any()):
                x = tree_map(lambda part: part.to(device), select(batch.inputs[modality], rows))
                z[rows.cpu()] = single(encoder(x)).to(z)
            parts.append(z)
    return torch.cat(parts)
