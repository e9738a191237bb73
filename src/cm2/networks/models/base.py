"""The interface of a model, and the one place where encoders meet only what is present."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from cm2.core.records import Batch, Output, Steps
from cm2.core.registry import Registry
from cm2.networks.attention import mean_of, readable
from cm2.networks.encoders import Encoder, embed_together
from cm2.networks.models.reference import Patients, Reference


class Prediction(NamedTuple):
    """Probabilities averaged over imputations.

    Attributes:
        mean: Probability of each label.
        spread: Standard deviation of the probability over the imputations.
    """

    mean: Float[Tensor, "batch label"]
    spread: Float[Tensor, "batch label"]


class Model(nn.Module, ABC):
    """Maps a batch to logits and penalties.

    Args:
        encoders: Encoder of each modality, all of one ``dim``; the order fixes the columns of
            ``present``.
        labels: Number of logits.

    Attributes:
        exclusive: Whether labels exclude each other; several do until a task says otherwise, which
            training tells the model. It is part of the state.
        reference: Training rows that prediction compares with, of a model that reads other
            patients; ``None`` for all others.
    """

    exclusive: Tensor
    reference: Reference | None

    def __init__(self, encoders: Mapping[str, Encoder], labels: int) -> None:
        widths = {name: encoder.dim for name, encoder in encoders.items()}
        if len(set(widths.values())) != 1:
            raise ValueError(f"all encoders need the same dim, but have {widths}")
        if labels < 1:
            raise ValueError(f"a model needs at least one label, but labels is {labels}")
        super().__init__()
        self.modalities = tuple(encoders)
        self.dim = next(iter(widths.values()))
        self.labels = labels
        self.reference = None
        self._encoders = nn.ModuleList(encoders.values())
        self.register_buffer("exclusive", torch.tensor(labels > 1))

    def unpool(self) -> None:
        """Leaves encoders without what only pools steps, for a model that reads nothing else."""
        for encoder in self.encoders.values():
            encoder.unpooled()

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The encoder of each modality."""
        return dict(zip(self.modalities, self._encoders, strict=True))  # type: ignore[arg-type]

    def raw(self, batch: Batch) -> Float[Tensor, "batch modality dim"]:
        """Returns the encoders' output where a modality is present, zeros elsewhere."""
        self._check(batch)
        return encode_present(self.encoders, batch.inputs, batch.present)

    def steps(self, batch: Batch) -> list[Steps]:
        """Returns the steps of each modality; a row has none of a modality that it lacks."""
        self._check(batch)
        return encode_steps(self.encoders, batch.inputs, batch.present, batch.hours or {})

    def _check(self, batch: Batch) -> None:
        """Raises unless the batch says of each modality who has it."""
        if batch.present.shape[-1] != len(self.modalities):
            raise ValueError(
                f"present needs a column for each of {list(self.modalities)}, "
                f"but has {batch.present.shape[-1]}"
            )

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Returns logits, penalties by name, and logits of each modality alone."""

    def probability(self, logits: Float[Tensor, "*batch label"]) -> Float[Tensor, "*batch label"]:
        """Returns the probabilities that logits stand for: of classes, or of each label."""
        return logits.softmax(dim=-1) if bool(self.exclusive) else logits.sigmoid()

    @torch.no_grad()
    def predict(
        self,
        batch: Batch,
        draws: int = 10,
        *,
        probability: Callable[[Tensor], Tensor] | None = None,
    ) -> Prediction:
        """Returns probabilities, in single precision at least, also under autocast.

        ``draws`` matters to a model that overrides this to impute.
        """
        probability = probability or self.probability
        with evaluating(self):
            mean = probability(single(self(batch).logits))
        return Prediction(mean, torch.zeros_like(mean))

    def initialize(self, batch: Batch) -> None:
        """Starts from data what should be; nothing, unless a model overrides this."""

    @torch.no_grad()
    def refer(self, batch: Batch) -> None:
        """Keeps the first rows of a training batch as reference, in a model that has one.

        Training calls this before each validation, so that the rows lie where encoders put them.
        """
        if self.reference is None:
            return
        with evaluating(self):
            self.reference.fill(Patients(self.raw(batch), batch.present))

    def restarted(self) -> list[nn.Parameter]:
        """Returns the parameters that ``initialize`` sets, whose optimiser state is then stale."""
        return []

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Returns groups for an optimiser; one group, unless a model overrides this."""
        return [{"params": list(self.parameters()), "lr": lr, "weight_decay": weight_decay}]

    def diagnostics(self, batch: Batch) -> dict[str, float]:
        """Returns numbers to be logged once an epoch; none, unless a model overrides this."""
        return {}

    def broken_terms(self, batch: Batch) -> list[str]:
        """Names the parts that are not finite on a batch, for an error message."""
        return [
            name for name, value in self.state_dict().items() if not bool(value.isfinite().all())
        ]


REGISTRY: Registry[Model] = Registry("model")
register = REGISTRY.register


def hide(present: Bool[Tensor, "batch modality"], rate: float) -> Bool[Tensor, "batch modality"]:
    """Hides present modalities at random; a row that has any keeps at least one."""
    score = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
    best = torch.zeros_like(present).scatter(-1, score.argmax(dim=-1, keepdim=True), True)
    return present & ((score >= rate) | best)


def part_of(present: Bool[Tensor, "batch modality"]) -> Bool[Tensor, "batch modality"]:
    """Leaves some of what a row has, never all of two or more, and never nothing.

    How many are left is drawn evenly, from one to one less than there are.
    """
    count = present.sum(dim=1, keepdim=True)
    chance = torch.rand(len(present), 1, device=present.device)
    left = 1 + (chance * (count - 1)).floor()
    luck = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
    return present & (luck.argsort(dim=1, descending=True).argsort(dim=1) < left)


def average(
    values: Float[Tensor, "batch modality label"], present: Bool[Tensor, "batch modality"]
) -> Float[Tensor, "batch label"]:
    """Averages over the modalities that a row has; over all, whose embeddings are zeros, if none.

    The average is then defined for a row without any, and depends on no input.
    """
    return mean_of(values, readable(present))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module in evaluation mode inside, and back as it was."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def single_precision(like: Tensor) -> torch.autocast:
    """Returns a context without autocast: densities and quantiles need all digits."""
    return torch.autocast(device_type=like.device.type, enabled=False)


def select(x: Any, rows: Shaped[Tensor, " batch"] | slice) -> Any:
    """Returns the given rows of an input: a tensor, or a tuple of tensors such as ``Padded``."""
    if isinstance(x, Tensor):
        return x[rows]
    return type(x)(*(select(part, rows) for part in x))


def pieces(batch: Batch, size: int) -> Iterator[Batch]:
    """Yields the inputs of a large batch in parts, so that encoders need memory for one only."""
    for start in range(0, len(batch.present), size):
        rows = slice(start, start + size)
        inputs = {name: select(x, rows) for name, x in batch.inputs.items()}
        hours = batch.hours and {name: hour[rows] for name, hour in batch.hours.items()}
        yield Batch(inputs, batch.present[rows], hours=hours)


def single(z: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """Widens what autocast left in half precision, which is too coarse for a density."""
    return z.float() if z.dtype in (torch.bfloat16, torch.float16) else z


def encode_present(
    encoders: Mapping[str, Encoder],
    inputs: Mapping[str, Any],
    present: Bool[Tensor, "batch modality"],
) -> Float[Tensor, "batch modality dim"]:
    """Embeds what is present and leaves zeros elsewhere.

    Each encoder is called on the rows that have its modality, and not at all where no row has; the
    contents of absent rows are never read.
    """
    size, dim = len(present), next(iter(encoders.values())).dim
    counts = present.sum(dim=0).tolist()
    modality, row = present.T.nonzero(as_tuple=True)
    rows = dict(zip(encoders, row.split(counts), strict=True))
    seen = [name for name, count in zip(encoders, counts, strict=True) if count > 0]
    observed = embed_together(
        [encoders[name] for name in seen],
        [inputs[n] if len(rows[n]) == size else select(inputs[n], rows[n]) for n in seen],
    )
    if not seen:
        return torch.zeros(size, len(encoders), dim, device=present.device)
    values = torch.cat([single(z) for z in observed])
    z = values.new_zeros(size * len(encoders), dim)
    return z.index_copy(0, row * len(encoders) + modality, values).view(size, len(encoders), dim)


def encode_steps(
    encoders: Mapping[str, Encoder],
    inputs: Mapping[str, Any],
    present: Bool[Tensor, "batch modality"],
    hours: Mapping[str, Float[Tensor, "batch ..."]],
) -> list[Steps]:
    """Embeds the steps of what is present, as ``encode_present`` embeds the whole.

    Every modality has room for one step at least, real or not, so that there is something to read.
    """
    found = []
    for column, (name, encoder) in enumerate(encoders.items()):
        rows = present[:, column].nonzero().squeeze(1)
        if len(rows) == 0:
            z = torch.zeros(len(present), 1, encoder.dim, device=present.device)
            found.append(Steps(z, torch.zeros_like(z[..., 0], dtype=torch.bool), z[..., 0]))
            continue
        when = hours[name][rows] if name in hours else None
        steps = encoder.steps(select(inputs[name], rows), when)
        parts = (single(steps.values), steps.mask, steps.hours)
        found.append(Steps(*(_among(part, rows, len(present)) for part in parts)))
    return found


def _among(
    part: Shaped[Tensor, "row ..."], rows: Shaped[Tensor, " row"], size: int
) -> Shaped[Tensor, "batch ..."]:
    """Rows at their places in a batch, zeros elsewhere, with one step at least."""
    if part.shape[1] == 0:
        return part.new_zeros(size, 1, *part.shape[2:])
    return part.new_zeros(size, *part.shape[1:]).index_copy(0, rows, part)
