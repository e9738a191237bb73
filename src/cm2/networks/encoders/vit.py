"""A vision Transformer for grey images, such as chest X-rays.

Source: Dosovitskiy et al. (2021), An image is worth 16x16 words: transformers for image recognition
at scale, table 1, https://arxiv.org/abs/2010.11929.
"""

from __future__ import annotations

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

HALF = (0.5, 0.5, 0.5)
"""Mean and deviation of each colour with which the published weights were trained."""


@register("vit")
class ViT(Pixels):
    """The state of a vision Transformer's class token (that of ViT-Base by default), projected.

    Training sees crops at random places, slightly rotated, darker or brighter; evaluation the
    middle. Its steps are the states of the patches, 14 x 14 of a crop of 224, row by row. Weights
    trained on images of another size serve too: their positions are interpolated, as in the source.

    Args:
        dim: Width of the embedding.
        weights: Folder or hub name of weights for ``transformers``, such as
            ``"google/vit-base-patch16-224-in21k"``; ``None`` starts at random.
        architecture: What the network is built of, at random, in the place of ``weights``: the
            configuration of ``transformers`` as a dictionary, such as that of
            :meth:`architecture`.
        crop: Side of the square that the network reads.
        patch: Side of a patch, when neither is given; so the next three.
        width: Width of a patch's state.
        layers: Number of layers.
        heads: Number of attention heads.
        dropout: Probability of dropping a feature of the class token.
        frozen: Whether the network stays as it is.

    Example:
        >>> import torch
        >>> encoder = ViT(dim=4, crop=28, patch=14, width=8, layers=1, heads=2)
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
        patch: int = 16,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        dropout: float = 0.1,
        frozen: bool = False,
    ) -> None:
        super().__init__(dim, crop, mean=HALF, deviation=HALF)
        package = pretrained.transformers()
        pretrained.one_of(weights, architecture)
        if architecture is not None:
            body: Any = pretrained.build(architecture)
            if not isinstance(body, package.ViTModel):
                raise ValueError(
                    f"the architecture of a vision Transformer is a ViT, not {type(body).__name__}"
                )
        elif weights is not None:
            body = pretrained.load(package.ViTModel, weights, unused=("pooler",))
        else:
            if min(crop, patch, width, layers, heads) < 1 or width % heads:
                raise ValueError(
                    "a vision Transformer needs a positive crop, patch, width and number of layers "
                    "and heads, and a width that is a multiple of heads, but they are "
                    f"{crop}, {patch}, {width}, {layers} and {heads}"
                )
            config = package.ViTConfig(
                image_size=crop,
                patch_size=patch,
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * width,
            )
            body = package.ViTModel(config, add_pooling_layer=False)
        body.pooler = None  # nothing reads it, so that it would get no gradient
        if crop % body.config.patch_size:
            raise ValueError(
                f"crop must be a multiple of the side of a patch, {body.config.patch_size}, "
                f"but is {crop}"
            )
        self.body: nn.Module = body
        self.interpolates = crop != body.config.image_size
        self.projection = Projection(int(body.config.hidden_size), dim, dropout)
        if frozen:
            self.freeze()

    def architecture(self) -> dict[str, Any]:
        """The network's configuration, in the place of its weights."""
        return {"weights": None, "architecture": pretrained.describe(self.body)}

    def forward(self, x: UInt8[Tensor, "row height width"]) -> Float[Tensor, "row dim"]:
        """Embeds grey images of 256 levels."""
        out: Tensor = self.projection(self.states(x)[:, 0])
        return out

    def steps(
        self,
        x: UInt8[Tensor, "row height width"],
        hours: Float[Tensor, "row ..."] | None = None,
    ) -> Steps:
        """Embeds each patch; all have the image's hour."""
        return places(self.projection(self.states(x)[:, 1:]), hours)

    @property
    def stages(self) -> tuple[int, ...]:
        """Width of the last states; there is one stage, the whole network."""
        return (self.projection.linear.in_features,)

    def staged(self, x: UInt8[Tensor, "row height width"]) -> Staged:
        """Embeds in one stage, whose places are the class token and the patches."""
        states = self.states(x)
        changed = yield states, torch.ones(states.shape[:2], dtype=torch.bool, device=x.device)
        out: Tensor = self.projection(changed[:, 0])
        return out

    def states(self, x: UInt8[Tensor, "row height width"]) -> Float[Tensor, "row token feature"]:
        """Returns the last state of the class token and of each patch."""
        found: Tensor = self.body(
            pixel_values=self.colour(x), interpolate_pos_encoding=self.interpolates
        ).last_hidden_state
        return found
