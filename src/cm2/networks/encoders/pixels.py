"""What encoders of grey images share: crops, augmentation, and the colours a network reads."""

from __future__ import annotations

import math
from abc import ABC

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from cm2.core.records import Steps
from cm2.networks.encoders.base import Encoder, stepped

MEAN = (0.485, 0.456, 0.406)
"""Mean of each colour over ImageNet, with which its weights were trained."""
DEVIATION = (0.229, 0.224, 0.225)
"""Standard deviation of each colour over ImageNet."""

ROTATION = 10.0
"""Largest angle in degrees by which training turns an image; it is never mirrored, since the heart
is on the left."""
BRIGHTNESS = 0.2
"""Largest relative change of brightness in training."""


class Pixels(Encoder, ABC):
    """An encoder of grey images of 256 levels.

    Args:
        dim: Width of the embedding.
        crop: Side of the square that the network reads.
        mean: Mean of each colour in the images by which the network was trained.
        deviation: Standard deviation of each colour there.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        dim: int,
        crop: int,
        *,
        mean: tuple[float, ...] = MEAN,
        deviation: tuple[float, ...] = DEVIATION,
    ) -> None:
        super().__init__(dim)
        self.crop = crop
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1), persistent=False)

    def colour(self, x: UInt8[Tensor, "row height width"]) -> Float[Tensor, "row 3 side side"]:
        """Crops, in training at random, and standardises."""
        if x.dim() != 3 or min(x.shape[1:]) < self.crop:
            raise ValueError(
                f"images need the shape (rows, height, width), each side at least {self.crop}, "
                f"but have {tuple(x.shape)}"
            )
        grey = x.to(self.mean.dtype).unsqueeze(1) / 255
        grey = self.augmented(grey) if self.training else self.middle(grey)
        return (grey - self.mean) / self.deviation  # three channels, each of them the grey one

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


def places(values: Float[Tensor, "row step dim"], hours: Float[Tensor, "row ..."] | None) -> Steps:
    """The places of images as steps, each of which is real."""
    mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
    return stepped(values, mask, hours)
