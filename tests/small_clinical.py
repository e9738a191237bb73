"""A tiny encoder of every registered kind with its inputs, and batches of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cm2.core.records import Batch, Padded
from cm2.networks.encoders import (
    CodeBag,
    Dense,
    Encoder,
    Image,
    Precomputed,
    Series,
    Text,
    Transformer,
    ViT,
)
from cm2.networks.models import Model

VOCABULARY = 11

CLINICAL = ("series", "image", "text")
"""Kinds of encoders that the modalities of a stay have."""


def prefix(rows: int, steps: int, generator: torch.Generator) -> Tensor:
    """Masks of sequences of at least one step; the first has all."""
    length = torch.randint(1, steps + 1, (rows, 1), generator=generator)
    length[0] = steps
    return torch.arange(steps) < length


def table(rows: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, 5, generator=generator)


def image(rows: int, generator: torch.Generator) -> Tensor:
    return torch.randint(256, (rows, 32, 36), generator=generator, dtype=torch.uint8)


def series(rows: int, generator: torch.Generator) -> Padded:
    mask = prefix(rows, 7, generator)
    return Padded(torch.randn(rows, 7, 5, generator=generator) * mask.unsqueeze(-1), mask)


def codes(rows: int, generator: torch.Generator) -> Padded:
    mask = prefix(rows, 4, generator)
    return Padded(torch.randint(1, VOCABULARY, mask.shape, generator=generator) * mask, mask)


def text(rows: int, generator: torch.Generator) -> Padded:
    chunks, tokens = prefix(rows, 3, generator), prefix(rows * 3, 6, generator)
    mask = chunks.unsqueeze(-1) & tokens.view(rows, 3, 6)
    return Padded(torch.randint(1, VOCABULARY, mask.shape, generator=generator) * mask, mask)


class Case(NamedTuple):
    """How to build a tiny encoder of a given width, and inputs for it."""

    build: Callable[..., Encoder]
    inputs: Callable[[int, torch.Generator], Any]


def tiny_text(dim: int, **options: Any) -> Text:
    sizes = {"vocabulary": VOCABULARY, "width": 8, "layers": 1, "heads": 2, "tokens": 6}
    return Text(dim, **{**sizes, "dropout": 0.0} | options)


CASES: dict[str, Case] = {
    "dense": Case(lambda dim: Dense(5, dim, width=8, dropout=0.0), table),
    "precomputed": Case(lambda dim: Precomputed(5, dim), table),
    "series": Case(lambda dim, **o: Series(dim, features=5, width=8, dropout=0.0, **o), series),
    "transformer": Case(
        lambda dim, **o: Transformer(
            dim, **{"features": 5, "width": 8, "layers": 1, "heads": 2, "dropout": 0.0} | o
        ),
        series,
    ),
    "image": Case(
        lambda dim, **o: Image(
            dim, **{"crop": 28, "depths": (1,), "widths": (8,), "dropout": 0.0} | o
        ),
        image,
    ),
    "vit": Case(
        lambda dim, **o: ViT(
            dim,
            **{"crop": 28, "patch": 14, "width": 8, "layers": 1, "heads": 2, "dropout": 0.0} | o,
        ),
        image,
    ),
    "text": Case(tiny_text, text),
    "codes": Case(
        lambda dim, **o: CodeBag(dim, vocabulary=VOCABULARY, width=8, dropout=0.0, **o), codes
    ),
}


def encoder(kind: str, dim: int = 4, **options: Any) -> Encoder:
    """A tiny encoder, the same at every call."""
    torch.manual_seed(3)
    return CASES[kind].build(dim, **options)


def inputs(kind: str, rows: int = 6, seed: int = 0) -> Any:
    """Inputs of a tiny encoder."""
    return CASES[kind].inputs(rows, torch.Generator().manual_seed(seed))


def rows_of(x: Any, index: Any) -> Any:
    """Some rows of an input."""
    return x[index] if isinstance(x, Tensor) else type(x)(*(part[index] for part in x))


def spoiled(x: Any, rows: Tensor) -> Any:
    """The input with other contents in the given rows: NaN, or the largest number there is."""
    if not isinstance(x, Tensor):
        return type(x)(*(spoiled(part, rows) for part in x))
    junk = torch.nan if x.is_floating_point() else True if x.dtype == torch.bool else 127
    return torch.where(rows.view(-1, *[1] * (x.dim() - 1)), torch.full_like(x, junk), x)


def clinical_batch(
    kinds: tuple[str, ...], rows: int = 8, labels: int = 3, seed: int = 0, rate: float = 0.4
) -> Batch:
    """A batch with a modality of each kind; the first row has all, the second only the first."""
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(rows, len(kinds), generator=generator) >= rate
    present[:, 0] |= ~present.any(dim=1)
    present[0] = True
    if rows > 1:
        present[1] = torch.arange(len(kinds)) == 0
    given = {kind: CASES[kind].inputs(rows, generator) for kind in kinds}
    return Batch(given, present, torch.randint(labels, (rows,), generator=generator))


def check_absent_rows(build: Callable[[], Model], loss: Callable[[Model, Batch], Tensor]) -> None:
    """Whatever stands in rows of absent modalities changes neither loss, gradients nor buffers."""
    batch = clinical_batch(CLINICAL)
    dirty = {
        kind: spoiled(x, ~batch.present[:, column])
        for column, (kind, x) in enumerate(batch.inputs.items())
    }
    results = []
    for given in (batch.inputs, dirty):
        model = build()
        torch.manual_seed(0)
        value = loss(model, batch._replace(inputs=given))
        value.backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        results.append([value.detach(), *grads, *model.state_dict().values()])
    for clean, other in zip(*results, strict=True):
        assert clean.isfinite().all()
        assert torch.equal(clean, other)
