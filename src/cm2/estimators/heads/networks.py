"""What trained networks say, make of modalities and fill in, averaged over several of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from sklearn.utils.validation import check_is_fitted

from cm2.core.numerics import seeded
from cm2.core.persistence import load_module_arrays, module_arrays, plain
from cm2.estimators.heads.base import FLOOR, Head
from cm2.estimators.heads.encoding import batches
from cm2.networks.models import CM2, Model
from cm2.samples.inputs import Blocks


class Networks(Head):
    """A head of networks whose probabilities are averaged.

    Attributes:
        networks_: The trained networks.
        sections_: What their encoders are built of.
    """

    networks_: list[Model]
    sections_: dict[str, Any]
    network: str
    encoders: dict[str, Any] | None
    imputations: int
    seed: int

    @abstractmethod
    def _network(self, seed: int) -> Model:
        """A network at the start of its training."""

    def __getstate__(self) -> dict[str, Any]:
        """Networks as arrays and as what they are built of, for safe files."""
        state = dict(super().__getstate__())
        state["encoders"] = plain(self.encoders)
        if "networks_" in state:
            encoders = self.networks_[0].encoders
            state["sections_"] = {name: encoder.section() for name, encoder in encoders.items()}
            state["networks_"] = [module_arrays(network) for network in self.networks_]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuilds the networks from arrays."""
        super().__setstate__(state)
        if "networks_" in state:
            self.networks_ = [
                load_module_arrays(self._network(0), arrays).eval() for arrays in state["networks_"]
            ]

    def predict_log_proba(self, blocks: Blocks) -> Float[ndarray, "n label"]:
        """Log of the probabilities averaged over networks and imputations."""
        self._check()
        return self._log_average(self.networks_, blocks)

    def embed(self, blocks: Blocks, number: int = 0) -> Float[ndarray, "n modality dim"]:
        """Embeddings by one of the networks, zeros where a modality is absent.

        Each network has its own space, so embeddings are not averaged.
        """
        self._check()
        network = self.networks_[number]
        with torch.no_grad():
            parts = [
                network.embed(batch) if isinstance(network, CM2) else network.raw(batch)
                for batch in batches(blocks)
            ]
        out: Float[ndarray, "n modality dim"] = torch.cat(parts).numpy()
        return out

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
        network = self._imputing()[0]
        with torch.no_grad():
            parts = [
                network.complete(batch, draws or 1, sampled=draws is not None)
                for batch in batches(blocks)
            ]
        out: Float[ndarray, "draw n modality dim"] = torch.cat(parts, dim=1).numpy()
        return out

    def spread(self, blocks: Blocks) -> Float[ndarray, "n label"]:
        """Standard deviation of the class probabilities over draws, averaged over networks.

        Zero where nothing is missing.
        """
        return self._average(self._imputing(), blocks, "spread")

    def _imputing(self) -> list[CM2]:
        """The networks, if they draw what is missing."""
        self._check()
        networks = [network for network in self.networks_ if isinstance(network, CM2)]
        if not networks:
            raise ValueError(f"the network {self.network!r} imputes nothing")
        return networks

    def _log_average(self, networks: list[Model], blocks: Blocks) -> Float[ndarray, "n label"]:
        """Log of the probabilities averaged over some networks."""
        mean = np.maximum(self._average(networks, blocks, "mean"), np.exp(FLOOR))
        out: Float[ndarray, "n label"] = np.log(mean / mean.sum(axis=1, keepdims=True))
        return out

    def _average(
        self, networks: Sequence[Model], blocks: Blocks, what: Literal["mean", "spread"]
    ) -> Float[ndarray, "n label"]:
        """What the networks predict, averaged over them."""
        options: dict[str, Any] = {"sampled": what == "spread"} if self.network == "cm2" else {}
        with seeded(self.seed):
            parts = [
                torch.stack(
                    [
                        getattr(net.predict(batch, self.imputations, **options), what)
                        for net in networks
                    ]
                )
                for batch in batches(blocks)
            ]
        average: Float[ndarray, "n label"] = torch.cat(parts, dim=1).mean(dim=0).double().numpy()
        return average

    def _check(self) -> None:
        """Raises if the head has not been fitted."""
        check_is_fitted(self, "networks_")

    def _held_out(
        self,
        blocks: Blocks,
        labels: int,
        numbers: Int[ndarray, " n"],
        views: Sequence[Bool[ndarray, "n modality"]],
    ) -> Float[ndarray, "view n label"]:
        """What each network says of the rows that it did not see."""
        shown = [blocks, *map(blocks.hidden, views)]
        log_proba = np.full((len(shown), len(numbers), labels), FLOOR)
        for number, network in enumerate(self.networks_):
            outside = np.flatnonzero(numbers == number)
            for view, rows in enumerate(shown):
                log_proba[view, outside] = self._log_average([network], rows.take(outside))
        return log_proba


def inside(part: Any) -> Iterator[Model]:
    """Yields the networks of a fitted head and of all heads in it, or of several heads."""
    if isinstance(part, Networks):  # a pool keeps its heads as they were given, too, unfitted
        yield from getattr(part, "networks_", ())
    inner: list[Any] = []
    if isinstance(part, Mapping | list):
        inner = list(part.values() if isinstance(part, Mapping) else part)
    elif isinstance(part, Head):
        inner = list(vars(part).values())
    for one in inner:
        yield from inside(one)


def keep_reference(part: Any, *, keep: bool) -> dict[str, int]:
    """How many training embeddings the networks of a head read; they are cleared if not kept."""
    references = [one.reference for one in inside(part) if one.reference is not None]
    if not keep:
        for one in references:
            one.clear()
    return {"training_embeddings": sum(one.rows for one in references)} if references else {}
