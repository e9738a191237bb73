"""What trained networks say, make of modalities and fill in, averaged over several of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from lightning.fabric.utilities import move_data_to_device
from numpy import ndarray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from cm2.core.errors import check_count
from cm2.core.numerics import seeded
from cm2.core.pace import told
from cm2.core.persistence import load_module_arrays, module_arrays, plain
from cm2.core.records import Batch
from cm2.estimators.heads.base import FLOOR, Head
from cm2.estimators.heads.encoding import batches, built
from cm2.networks.models import CM2, Model
from cm2.networks.tasks import Binary, Multiclass, Multilabel, Task
from cm2.samples.inputs import Blocks


class Networks(Head):
    """A head of networks whose probabilities are averaged.

    Attributes:
        networks_: The trained networks.
        model_: Their kind and its arguments.
        sections_: What their encoders are built of.
        shapes_: What the data say of each modality.
        labels_: Number of classes, or of labels that may hold together.
        several_: Whether it is the latter.
    """

    networks_: list[Model]
    model_: dict[str, Any]
    sections_: dict[str, Any]
    shapes_: dict[str, Any]
    labels_: int
    several_: bool
    embedding_dim: int
    encoders: dict[str, Any] | None
    imputations: int
    task: str
    seed: int

    @property
    @abstractmethod
    def accelerator(self) -> str:
        """Where the networks compute."""

    @property
    def _task(self) -> Task:
        """What is learned."""
        return learned(self.task, self.labels_, several=self.several_)

    def start(self, seed: int) -> Model:
        """A network at the start of its training."""
        dim, labels = self.embedding_dim, self._task.labels
        return built(self.model_, self.sections_, self.shapes_, dim, labels, seed)

    def __getstate__(self) -> dict[str, Any]:
        """Networks as arrays and as what they are built of, for safe files."""
        state = dict(super().__getstate__())
        state |= {name: plain(state[name]) for name in ("encoders", "model", "training")}
        if state.get("networks_"):  # none yet where a process is about to train one
            encoders = self.networks_[0].encoders
            state["sections_"] = {name: encoder.section() for name, encoder in encoders.items()}
            state["networks_"] = [module_arrays(network) for network in self.networks_]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuilds the networks from arrays."""
        super().__setstate__(state)
        if state.get("networks_"):
            self.networks_ = [
                load_module_arrays(self.start(0), arrays).eval() for arrays in state["networks_"]
            ]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """In a pickle, as on the way to another process, what encoders begin from goes along.

        In a file it does not: there the networks are trained, and weights may be gone.
        """
        return _remade, (type(self), super().__getstate__())

    def predict_log_proba(self, blocks: Blocks) -> Float[ndarray, "n label"]:
        """Log of the probabilities averaged over networks and imputations.

        Those of labels that may hold together are of each of them to hold.
        """
        self._check()
        return self._log_average(self.networks_, blocks)

    def embed(self, blocks: Blocks, number: int = 0) -> Float[ndarray, "n modality dim"]:
        """Embeddings by one of the networks, zeros where a modality is absent.

        Each network has its own space, so embeddings are not averaged.
        """
        self._check()

        def ask(model: Any, batch: Batch) -> Tensor:
            out: Tensor = model.embed(batch) if isinstance(model, CM2) else model.raw(batch)
            return out

        z: Float[ndarray, "n modality dim"] = self._asked([self.networks_[number]], blocks, ask)[
            0
        ].numpy()
        return z

    def embedded(self, blocks: Blocks, number: int) -> Blocks:
        """The blocks with embeddings by one of the networks where only an encoder can read."""
        z = self.embed(blocks, number)
        values = {
            name: blocks.values[name] if name in blocks.values else z[:, column]
            for column, name in enumerate(blocks.names)
        }
        return Blocks(values, blocks.present)

    def impute(
        self, blocks: Blocks, draws: int | None = None
    ) -> Float[ndarray, "draw n modality dim"]:
        """Embeddings by the first network with missing ones drawn, ``draws`` times.

        Without ``draws`` they are filled in once, as for a prediction.
        """
        if draws is not None:
            check_count("draws", draws)

        def ask(model: Any, batch: Batch) -> Tensor:
            out: Tensor = model.complete(batch, draws or 1, sampled=draws is not None)
            return out.transpose(0, 1)

        found = self._asked(self.imputing()[:1], blocks, ask)[0].transpose(0, 1)
        drawn: Float[ndarray, "draw n modality dim"] = found.numpy()
        return drawn

    def spread(self, blocks: Blocks) -> Float[ndarray, "n label"]:
        """Standard deviation of the class probabilities over draws, averaged over networks.

        Zero where nothing is missing.
        """
        return self._average(self.imputing(), blocks, "spread")

    def imputing(self) -> list[CM2]:
        """The networks, if they draw what is missing."""
        self._check()
        networks = [network for network in self.networks_ if isinstance(network, CM2)]
        if not networks:
            raise ValueError(f"the network {self.model_['kind']!r} imputes nothing")
        return networks

    def _log_average(self, networks: list[Model], blocks: Blocks) -> Float[ndarray, "n label"]:
        """Log of the probabilities averaged over some networks."""
        mean = np.maximum(self._average(networks, blocks, "mean"), np.exp(FLOOR))
        whole = 1.0 if self.several_ else mean.sum(axis=1, keepdims=True)
        out: Float[ndarray, "n label"] = np.log(mean / whole)
        return out

    def _average(
        self, networks: Sequence[Model], blocks: Blocks, what: Literal["mean", "spread"]
    ) -> Float[ndarray, "n label"]:
        """What the networks predict, averaged over them."""
        draws = blocks.draws or self.imputations
        sampled = what == "spread" or blocks.draws is not None

        def ask(model: Any, batch: Batch) -> Tensor:
            options = {"sampled": sampled} if isinstance(model, CM2) else {}
            out: Tensor = getattr(model.predict(batch, draws, **options), what)
            return out

        found: Float[ndarray, "n label"]
        found = self._asked(networks, blocks, ask).mean(dim=0).double().numpy()
        if not self.several_ and found.shape[1] == 1:  # one logit of two classes
            found = np.concatenate([found if what == "spread" else 1 - found, found], axis=1)
        return found

    def _asked(
        self,
        networks: Sequence[Model],
        blocks: Blocks,
        ask: Callable[[Any, Batch], Tensor],
    ) -> Float[Tensor, "network n ..."]:
        """What each network says of the rows, batch by batch."""
        with torch.no_grad(), seeded(self.seed), placed(networks, self.accelerator) as device:
            parts = []
            loaded = batches(blocks)
            for batch in told(loaded, len(loaded), "batches that networks read"):
                here = move_data_to_device(batch, device)
                parts.append(torch.stack([ask(model, here).cpu() for model in networks]))
        return torch.cat(parts, dim=1)

    def _check(self) -> None:
        """Raises if the head has not been fitted."""
        check_is_fitted(self, "networks_")

    def _held_out(
        self,
        blocks: Blocks,
        numbers: Int[ndarray, " n"],
        views: Sequence[Bool[ndarray, "n modality"]],
    ) -> Float[ndarray, "view n label"]:
        """What each network says of the rows that it did not see."""
        shown = [blocks, *map(blocks.hidden, views)]
        log_proba = np.full((len(shown), len(numbers), self.labels_), FLOOR)
        for number, one in enumerate(self.networks_):
            outside = np.flatnonzero(numbers == number)
            for view, rows in enumerate(shown):
                log_proba[view, outside] = self._log_average([one], rows.take(outside))
        return log_proba


def _remade(cls: type[Networks], state: Mapping[str, Any]) -> Networks:
    """The head of a pickle."""
    head = object.__new__(cls)
    head.__dict__.update(state)
    return head


def learned(task: str, labels: int, *, several: bool) -> Task:
    """What networks learn.

    Args:
        task: ``"multiclass"``, or ``"binary"`` for one logit if there are two classes.
        labels: Number of classes, or of labels.
        several: Whether it is of labels that may hold together.
    """
    if several:
        return Multilabel(labels)
    return Binary() if task == "binary" and labels == 2 else Multiclass(labels)


@contextmanager
def placed(networks: Sequence[nn.Module], accelerator: str) -> Iterator[torch.device]:
    """Brings networks to a GPU, if there is one that may be used, and back again."""
    gpu = accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    for one in networks:
        one.to(device)
    try:
        yield device
    finally:
        for one in networks:
            one.cpu()


def inside(part: Any) -> list[Model]:
    """The networks of a fitted head and of all heads in it, or of several heads, each once."""
    return list({id(model): model for model in _inside(part)}.values())


def _inside(part: Any) -> Iterator[Model]:
    if isinstance(part, Networks):  # a pool keeps its heads as they were given, too, unfitted
        yield from getattr(part, "networks_", ())
    inner: list[Any] = []
    if isinstance(part, Mapping | list):
        inner = list(part.values() if isinstance(part, Mapping) else part)
    elif isinstance(part, Head):
        inner = list(vars(part).values())
    for one in inner:
        yield from _inside(one)


def keep_reference(part: Any, *, keep: bool) -> dict[str, int]:
    """How many training embeddings the networks of a head read; they are cleared if not kept."""
    references = [one.reference for one in inside(part) if one.reference is not None]
    if not keep:
        for one in references:
            one.clear()
    return {"training_embeddings": sum(one.rows for one in references)} if references else {}
