"""The interface of an encoder: rows of one modality in, embeddings of a common width out.

An encoder keeps the arguments it was made of, so that it can say itself as a section of an
experiment (``Encoder.section``), of which ``sections.build`` makes another of its shape.

What it makes one embedding of it also gives one by one (``Encoder.steps``), to models that attend
over steps: the states of a series, the patches of an image, the chunks of a text.

An encoder meets only rows in which its modality is present (``models.base.encode_present`` sees to
that), so what stands in an absent row can reach neither an embedding nor a batch statistic.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Sequence
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cm2.core.errors import InputError
from cm2.core.records import Steps
from cm2.core.registry import Registry

Staged = Generator[tuple[Tensor, Tensor], Tensor, Tensor]
"""Yields features (row, place, width) and which places are real, is sent what goes on in their
place, and returns embeddings."""


def _noting(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that keeps its arguments, those of the outermost class."""

    @functools.wraps(init)
    def noting(self: Any, *args: Any, **options: Any) -> None:
        if "_given" not in vars(self):
            object.__setattr__(self, "_given", (args, options))
        init(self, *args, **options)

    return noting


class Encoder(nn.Module, ABC):
    """Maps the raw input of one modality to an embedding.

    Args:
        dim: Width of the embedding, the same for all modalities of a model.

    Attributes:
        timed: Whether the steps follow each other in time, so that their hours tell them apart.
    """

    timed: ClassVar[bool] = False

    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __init_subclass__(cls, **options: Any) -> None:
        """Lets every subclass note what it is made of."""
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = _noting(cls.__init__)  # type: ignore[method-assign]

    @_noting
    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"an embedding needs at least one coordinate, but dim is {dim}")
        super().__init__()
        self.dim = dim
        self._frozen: list[nn.Module] = []

    @abstractmethod
    def forward(self, x: Any) -> Float[Tensor, "row dim"]:
        """Embeds the rows in which the modality is present."""

    def steps(self, x: Any, hours: Float[Tensor, "row ..."] | None = None) -> Steps:
        """Embeds the parts of each row; by default the row as a whole, as its one step.

        Args:
            x: As ``forward`` reads it.
            hours: When a row or each of its steps is from, as in ``Batch.hours``; if ``None``, what
                the encoder knows of it.
        """
        z = self(x).unsqueeze(1)
        return stepped(z, torch.ones(z.shape[:2], dtype=torch.bool, device=z.device), hours)

    @property
    def stages(self) -> tuple[int, ...]:
        """Width of the features after each stage of ``staged``; by default, of the embedding."""
        return (self.dim,)

    def staged(self, x: Any) -> Staged:
        """Embeds in stages, between which a model may change the features.

        By default the one stage is the whole encoder, and the embedding its one place.
        """
        z = self(x).unsqueeze(1)
        changed = yield z, torch.ones(z.shape[:2], dtype=torch.bool, device=z.device)
        return changed.squeeze(1)

    def unpooled(self) -> Self:
        """Drops parameters that serve to pool steps alone, for a model that reads the steps."""
        return self

    def architecture(self) -> dict[str, Any]:
        """Arguments that stand for files read while it was made; by default, none were."""
        return {}

    @property
    def given(self) -> dict[str, Any]:
        """The arguments that it was made of, by name, without defaults."""
        return dict(self._bound().arguments)

    def _bound(self) -> inspect.BoundArguments:
        args, options = self._given
        return inspect.signature(type(self)).bind(*args, **options)

    def section(self) -> dict[str, Any]:
        """Says the encoder as a section: its kind and all arguments, as JSON knows them.

        What ``sections.build`` makes of it has the same shape, takes the same ``state_dict``, and
        needs no file of weights. A default that JSON does not know is left to the constructor.

        Raises:
            ValueError: If an argument that was given is no number, text, list or dictionary.
        """
        cls = type(self)
        bound = self._bound()
        given = set(bound.arguments)
        bound.apply_defaults()
        replaced = self.architecture()
        found: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if name in replaced:
                continue
            try:
                found[name] = json.loads(json.dumps(value, allow_nan=False, default=os.fspath))
            except (TypeError, ValueError) as error:
                if name in given:
                    raise InputError(
                        f"{cls.__name__} cannot be described by its argument {name!r}: {error}"
                    ) from None
        names = [name for name in REGISTRY if REGISTRY[name] is cls]
        kind = names[0] if names else f"{cls.__module__}.{cls.__qualname__}"
        return {"kind": kind, **found, **replaced}

    def kind(self) -> Hashable:
        """What encoders of one class that embed together have in common; by default, nothing."""
        return id(self)

    @classmethod
    def together(
        cls, encoders: Sequence[Any], inputs: Sequence[Any]
    ) -> list[Float[Tensor, "row dim"]]:
        """Embeds the rows of several modalities, each by its own encoder, all of one kind.

        One after the other, unless a subclass can do it faster.
        """
        return [encoder(x) for encoder, x in zip(encoders, inputs, strict=True)]

    def freeze(self) -> Self:
        """Keeps all but the projection as it is: no gradient, evaluation mode also in training."""
        self._frozen = [child for name, child in self.named_children() if name != "projection"]
        for module in self._frozen:
            module.requires_grad_(False)
        return self.train(self.training)

    @property
    def frozen(self) -> bool:
        """Whether training leaves it as it is, but for its projection."""
        return bool(self._frozen)

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


def embed_together(
    encoders: Sequence[Encoder], inputs: Sequence[Any]
) -> list[Float[Tensor, "row dim"]]:
    """Embeds the rows of several modalities, those with encoders of one kind together."""
    kinds: dict[Any, list[int]] = {}
    for place, encoder in enumerate(encoders):
        kinds.setdefault((type(encoder), encoder.kind()), []).append(place)
    embedded: dict[int, Tensor] = {}
    for (family, _), places in kinds.items():
        parts = family.together([encoders[i] for i in places], [inputs[i] for i in places])
        embedded.update(zip(places, parts, strict=True))
    return [embedded[place] for place in range(len(encoders))]


def stepped(
    values: Float[Tensor, "row step dim"],
    mask: Bool[Tensor, "row step"],
    hours: Float[Tensor, "row ..."] | None,
) -> Steps:
    """Puts steps together, with zeros where there is none.

    Args:
        values: An embedding of each step, anything where there is none.
        mask: Which steps are real.
        hours: One number a row or a step; zeros if ``None``.
    """
    when = 0.0 if hours is None else each(hours, mask)
    kept = torch.where(mask.unsqueeze(-1), values, 0.0)
    return Steps(kept, mask, torch.where(mask, when, torch.zeros_like(values[..., 0])))


def each(
    hours: Float[Tensor, "row ..."], mask: Bool[Tensor, "row step"]
) -> Float[Tensor, "row step"]:
    """Returns an hour for each step, of hours by row or by step."""
    when = hours.unsqueeze(1).expand_as(mask) if hours.dim() == 1 else hours
    if when.shape != mask.shape:
        raise ValueError(
            f"hours need one number a row or a step, that is the shape {tuple(mask.shape)}, "
            f"but have {tuple(hours.shape)}"
        )
    return when


def regular(mask: Bool[Tensor, "row step"], apart: float = 1.0) -> Float[Tensor, "row step"]:
    """The hours of steps that follow each other at one distance, the first of them at zero."""
    order = torch.arange(mask.shape[1], device=mask.device)
    return (order * apart).to(torch.get_default_dtype()).expand_as(mask)


def check_codes(codes: Int[Tensor, ...], mask: Bool[Tensor, ...], size: int) -> None:
    """Raises unless every real code can be looked up in a vocabulary of the given size."""
    unknown = int((mask & ((codes < 0) | (codes >= size))).sum())
    if unknown:
        raise ValueError(
            f"codes must lie in 0 to {size - 1}, the encoder's vocabulary, but {unknown} do not"
        )


REGISTRY: Registry[Encoder] = Registry("encoder")
register = REGISTRY.register
