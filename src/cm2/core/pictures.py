"""Pictures of any kind of file as grey squares of 256 levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image, ImageOps

SIDE = 256
"""Side of the squares that pictures are kept as."""

DEPTHS = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
"""White, in floats and in 8, 10, 12, 14 and 16 bits."""


def decode(source: Path | Image.Image, side: int = SIDE) -> UInt8[ndarray, "side side"]:
    """Reads a picture as ``side`` by ``side`` grey values, upright.

    Its middle square is kept: the short side is scaled to ``side`` and the long one cropped evenly.
    Palettes, colours and transparency (on black) become grey; deeper greys are scaled to 8 bits.

    Args:
        source: A file, or a picture that is open.
        side: Of the square.
    """
    if isinstance(source, Image.Image):
        return _square(source, side)
    with Image.open(source) as image:
        # A JPEG file is decoded at a fraction of its size, never below twice what is kept.
        image.draft("L", (2 * side, 2 * side))
        image.load()
        return _square(image, side)


def _square(image: Image.Image, side: int) -> UInt8[ndarray, "side side"]:
    grey = _grey(ImageOps.exif_transpose(image))
    square = ImageOps.fit(grey, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(square, dtype=np.uint8)


def _grey(image: Image.Image) -> Image.Image:
    if image.mode == "L":
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _eight_bits(np.asarray(image, dtype=np.float64))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return image.convert("L")


def _eight_bits(pixels: Float[ndarray, "height width"]) -> Image.Image:
    """Greys of any depth from black to white: by the least depth that holds the brightest one.

    A file of 16 bits may hold 12, and one of floats may go from 0 to 1.
    """
    if not np.isfinite(pixels).all() or pixels.max() > DEPTHS[-1]:
        raise ValueError("grey values beyond 16 bits")
    low, high = pixels.min(), next(depth for depth in DEPTHS if pixels.max() <= depth)
    if low < 0:
        high = pixels.max()
        if high <= low:
            raise ValueError("one grey value, below black")
    low = min(low, 0.0)
    scaled = (pixels - low) * (255 / (high - low))
    return Image.fromarray(scaled.round().astype(np.uint8))
