"""A residual network for grey images, such as chest X-rays.

Source: He, Zhang, Ren, Sun (2016), Deep residual learning for image recognition, table 1,
https://arxiv.org/abs/1512.03385.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cm2.networks.encoders import pretrained
from cm2.networks.encoders.base import Encoder, register
from cm2.networks.encoders.projection import Projection

MEAN = (0.485, 0.456, 0.406)
"""Mean of each colour over ImageNet, with which its weights were trained."""
DEVIATION = (0.229, 0.224, 0.225)
"""Standard deviation of each colour over ImageNet."""

ROTATION = 10.0
"""Largest angle in degrees by which training turns an image; it is never mirrored, since the heart
is on the left."""
BRIGHTNESS = 0.2
"""Largest relative change of brightness in training."""


@register("image")
class Image(Encoder):
    """A ResNet (34 layers by default), average pooling, and the projection.

    Training sees crops at random places, slightly rotated, darker or brighter; evaluation the
    middle. Batch normalisation meets the rows that have an image, and no others.

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

    mean: Tensor
    deviation: Tensor

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
        super().__init__(dim)
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
        self.crop = crop
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)
        self.projection = Projection(int(body.config.hidden_sizes[-1]), dim, dropout)
        if frozen:
            self.freeze()

    def architecture(self) -> dict[str, Any]:
        """The network's configuration, in the place of its weights."""
        return {"weights": None, "architecture": pretrained.describe(self.body)}

    def forward(self, x: UInt8[Tensor, "row height width"]) -> Float[Tensor, "row dim"]:
        """Embeds grey images of 256 levels."""
        if x.dim() != 3 or min(x.shape[1:]) < self.crop:
            raise ValueError(
                f"images need the shape (rows, height, width), each side at least {self.crop}, "
                f"but have {tuple(x.shape)}"
            )
        grey = x.to(self.mean.dtype).unsqueeze(1) / 255
        grey = self.augmented(grey) if self.training else self.middle(grey)
        colour = (grey - self.mean) / self.deviation  # three channels, each of them the grey one
        pooled: Tensor = self.body(pixel_values=colour).pooler_output
        out: Tensor = self.projection(pooled.flatten(1))
        return out

    def middle(self, grey: Float[Tensor, "row 1 height width"]) -> Float[Tensor, "row 1 side side"]:
        """Crops the middle."""
        top, left = ((side - self.crop) // 2 for side in grey.shape[-2:])
        return grey[..., top : top + self.crop, left : left + self.crop]

    def augmented(
        self, grey: Float[Tensor, "row 1 height width"]
    ) -> Float[Tensor, "row 1 side side"]:
        """Crops at random, with a small rotation and change of brightness; all rows at once."""
        rows = len(grey)
        free = 2 * torch.rand(4, rows, dtype=grey.dtype, device=grey.device) - 1
        angle = free[0] * math.radians(ROTATION)
        cosine, sine = angle.cos(), angle.sin()
        tall, wide = (self.crop / side for side in grey.shape[-2:])
        place = torch.stack(
            [
                torch.stack([wide * cosine, -wide * sine, free[1] * (1 - wide)], dim=-1),
                torch.stack([tall * sine, tall * cosine, free[2] * (1 - tall)], dim=-1),
            ],
            dim=1,
        )
        grid = F.affine_grid(place, [rows, 1, self.crop, self.crop], align_corners=False)
        crop = F.grid_sample(grey, grid, padding_mode="border", align_corners=False)
        return (crop * (1 + BRIGHTNESS * free[3]).view(-1, 1, 1, 1)).clamp(0, 1)
