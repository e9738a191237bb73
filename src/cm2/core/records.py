"""Records that pass between the parts: plain named tuples of tensors.

Named tuples are pytrees to torch and Lightning, which moves them between devices as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from cm2.core.numerics import log1mexp, log_ndtr


class Unit(NamedTuple):
    """A point of the unit cube that keeps its precision at both ends.

    In float32 a plain ``u`` cannot tell 1 - 1e-9 from 1; the pair can.

    Attributes:
        log_u: ``log(u)``.
        log_1mu: ``log(1 - u)``.
    """

    log_u: Float[Tensor, ...]
    log_1mu: Float[Tensor, ...]

    @property
    def u(self) -> Float[Tensor, ...]:
        """The point itself, rounded to the dtype."""
        return self.log_u.exp()

    @classmethod
    def from_u(cls, u: Float[Tensor, ...]) -> Unit:
        """Takes numbers in [0, 1]; 0 and 1 mean the nearest representable number inside."""
        finfo = torch.finfo(u.dtype)
        u = u.clamp(finfo.tiny, 1 - finfo.eps / 2)
        return cls(u.log(), torch.log1p(-u))

    @classmethod
    def from_log_u(cls, log_u: Float[Tensor, ...]) -> Unit:
        """Takes ``log(u)``, negative."""
        return cls(log_u, log1mexp(log_u))

    @classmethod
    def from_normal(cls, x: Float[Tensor, ...]) -> Unit:
        """The standard normal distribution function of ``x``."""
        return cls(log_ndtr(x), log_ndtr(-x))

    def flip(self) -> Unit:
        """The point ``1 - u``."""
        return Unit(self.log_1mu, self.log_u)

    def map(self, function: Any, *others: Unit) -> Unit:
        """Applies a function of tensors to both logarithms."""
        return Unit(*(function(*parts) for parts in zip(self, *others, strict=True)))


class Base(NamedTuple):
    """What draws are made of: independent uniform numbers that take a random generator's place.

    A draw is then a function of its base point and of what it is conditioned on. Leading shapes are
    broadcast against that of the rows.

    Attributes:
        coordinate: One for each coordinate: of a copula ``(*shape, dim)``, of a joint
            ``(*batch, M, d)``. Those of present coordinates are not used.
        component: Which component of the mixture, where modalities share one: ``(*batch,)``.
        factor: Of a copula with factors ``(*shape, *copula.factor_shape)``, of a joint the same for
            each of its copulas, ``(*batch, n, *copula.factor_shape)``.
    """

    coordinate: Float[Tensor, ...]
    component: Float[Tensor, ...] | None = None
    factor: Float[Tensor, ...] | None = None

    def map(self, function: Any) -> Base:
        """Applies a function of tensors to the parts that are there."""
        component, factor = (
            None if part is None else function(part) for part in (self.component, self.factor)
        )
        return Base(function(self.coordinate), component, factor)

    def flip(self, which: Bool[Tensor, ...]) -> Base:
        """The base points with these coordinates turned round."""
        return self._replace(coordinate=torch.where(which, 1 - self.coordinate, self.coordinate))


class Padded(NamedTuple):
    """Sequences of different lengths in one tensor.

    Attributes:
        values: Steps of every sequence, zeros where there is none.
        mask: Which steps are real; real steps come first.
    """

    values: Shaped[Tensor, "batch ..."]
    mask: Bool[Tensor, "batch ..."]


class Steps(NamedTuple):
    """What an encoder makes of the parts of each sample, before it makes one embedding of them.

    Attributes:
        values: An embedding of every step, zeros where there is none.
        mask: Which steps are real.
        hours: When a step is from; zeros where that is not known or there is none.
    """

    values: Float[Tensor, "batch step dim"]
    mask: Bool[Tensor, "batch step"]
    hours: Float[Tensor, "batch step"]


class Events(NamedTuple):
    """Measurements as they were made, one after the other, padded to one length.

    Attributes:
        hour: When, since the beginning of the window, ascending; zeros where there is none.
        variable: What was measured: 1 for a variable that training has not seen, then one number
            a variable; 0 where there is none.
        value: The number, standardised by the training split for each variable; 0 for one that
            training has not seen.
        mask: Which events are real; real events come first.
    """

    hour: Float[Tensor, "batch event"]
    variable: Int[Tensor, "batch event"]
    value: Float[Tensor, "batch event"]
    mask: Bool[Tensor, "batch event"]


class Batch(NamedTuple):
    """What a model is given.

    Attributes:
        inputs: Raw input of each modality; rows of absent modalities hold zeros and are not read.
        present: Which modalities each sample has, in the order of the model's modalities.
        target: Labels, absent at prediction.
        weight: Weight of each sample in the loss; ``None`` for equal weights.
        rows: Position of each sample in its data set, to say where something went wrong.
        hours: When the parts of an input are from, for the modalities of which this is known:
            of text one number a chunk, of images one a sample; zeros where there is nothing.
    """

    inputs: dict[str, Any]
    present: Bool[Tensor, "batch modality"]
    target: Tensor | None = None
    weight: Float[Tensor, " batch"] | None = None
    rows: Int[Tensor, " batch"] | None = None
    hours: dict[str, Float[Tensor, "batch ..."]] | None = None


class Output(NamedTuple):
    """What a model returns.

    Attributes:
        logits: Scores of the labels.
        penalties: Named terms that the learner adds to the task's loss, each with its weight.
        logits_by_modality: Scores of each encoder's own class head (deep supervision), and by any
            other name those of a part that modalities share.
    """

    logits: Float[Tensor, "batch label"]
    penalties: dict[str, Float[Tensor, ""]]
    logits_by_modality: dict[str, Float[Tensor, "batch label"]]
