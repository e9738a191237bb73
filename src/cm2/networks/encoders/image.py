"""A residual network for grey images, such as chest X-rays.

Source: He, Zhang, Ren, Sun (2016), Deep residual learning for image recognition, table 1,
https://arxiv.org/abs/1512.03385.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cm2.core.records import Steps
from cm2.networks.encoders import pretrained
from cm2.networks.encoders.base import Staged, register
from cm2.networks.encoders.pixels import Pixels, places
from cm2.networks.encoders.projection import Projection


@register("image")
class Image(Pixels):
    """A ResNet (34 layers by default), average pooling, and the projection.

    Training sees crops at random places, slightly rotated, darker or brighter; evaluation the
    middle. Batch normalisation meets the rows that have an image, and no others; one alone is
    normalised as in evaluation. Its steps are the places of the last map, 7 x 7 of a crop of 224,
    row by row.

    Args:
        dim: Width of the embedding.
        weights: Folder or hub name of weights for ``transformers``, such as
            ``"microsoft/resnet-34"``; ``None`` starts at random.
        architecture: What the network is built of, at random, in the place of ``weights``: the
            configuration of ``transformers`` as a dictionary, such as that of
            :meth:`architecture`.
        crop: Side of the square that the network reads.
        depths: Number of blocks of each stage, when neither is given.
        widths: Number of channels of each stage, when neither is given.
        dropout: Probability of dropping a pooled feature.
        frozen: Whether the network stays as it is.

    Example:
        >>> encoder = Image(dim=4, crop=28, depths=(1,), widths=(8,))
        >>> encoder(torch.zeros(3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        dim: int,
        *,
        weights: str | Path | None = None,
        architecture: dict[str, Any] | None = None,
        crop: int = 224,
        depths: tuple[int, ...] | list[int] = (3, 4, 6, 3),
        widths: tuple[int, ...] | list[int] = (64, 128, 256, 512),
        dropout: float = 0.1,
        frozen: bool = False,
    ) -> None:
        super().__init__(dim, crop)
        package = pretrained.transformers()
        pretrained.one_of(weights, architecture)
        if architecture is not None:
            body: Any = pretrained.build(architecture)
            if not isinstance(body, package.ResNetModel):
                raise ValueError(
                    f"the architecture of images is a ResNet, not {type(body).__name__}"
                )
        elif weights is None:
            if len(depths) != len(widths) or min(*depths, *widths, crop) < 1:
                raise ValueError(
                    "a residual network needs a positive depth and width for each stage, "
                    f"but depths are {depths}, widths {widths} and crop {crop}"
                )
            config = package.ResNetConfig(
                embedding_size=widths[0],
                depths=list(depths),
                hidden_sizes=list(widths),
                layer_type="basic",
            )
            body = package.ResNetModel(config)
        else:
            body = pretrained.load(package.ResNetModel, weights)
        self.body: nn.Module = body
        self.projection = Projection(int(body.config.hidden_sizes[-1]), dim, dropout)
        if frozen:
            self.freeze()

    def architecture(self) -> dict[str, Any]:
        """The network's configuration, in the place of its weights."""
        return {"weights": None, "architecture": pretrained.describe(self.body)}

    def forward(self, x: UInt8[Tensor, "row height width"]) -> Float[Tensor, "row dim"]:
        """Embeds grey images of 256 levels."""
        with self._normalised(x):
            pooled: Tensor = self.body(pixel_values=self.colour(x)).pooler_output
        out: Tensor = self.projection(pooled.flatten(1))
        return out

    @property
    def stages(self) -> tuple[int, ...]:
        """Number of channels after each stage of the ResNet."""
        body: Any = self.body
        return tuple(body.config.hidden_sizes)

    def staged(self, x: UInt8[Tensor, "row height width"]) -> Staged:
        """Embeds in the stages of the ResNet, whose places are those of the map."""
        body: Any = self.body
        with self._normalised(x):
            state: Tensor = body.embedder(self.colour(x))
        for stage in body.encoder.stages:
            with self._normalised(x):
                state = stage(state)
            flat = state.flatten(2).mT
            changed = yield flat, torch.ones(flat.shape[:2], dtype=torch.bool, device=x.device)
            state = changed.mT.reshape(state.shape)
        out: Tensor = self.projection(body.pooler(state).flatten(1))
        return out

    def steps(
        self,
        x: UInt8[Tensor, "row height width"],
        hours: Float[Tensor, "row ..."] | None = None,
    ) -> Steps:
        """Embeds each place of the last map; all have the image's hour."""
        with self._normalised(x):
            features: Tensor = self.body(pixel_values=self.colour(x)).last_hidden_state
        return places(self.projection(features.flatten(2).mT), hours)

    @contextmanager
    def _normalised(self, x: UInt8[Tensor, "row height width"]) -> Iterator[None]:
        """Normalises an image that has no other beside it by the averages so far.

        Its own place may be the only one of the last map, of which there is no deviation.
        """
        if len(x) > 1 or not self.body.training:
            yield
            return
        self.body.eval()
        try:
            yield
        finally:
            self.body.train()
