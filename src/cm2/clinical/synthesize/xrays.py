"""Pictures that look a little like chest X-rays and carry the latents of the modality "image".

The first latent is the brightness of the lungs, most of all at their bases; the second is the width
of the heart. Everything else (size of the body, ribs, exposure, noise) is nuisance.
"""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float
from numpy.random import Generator
from PIL import Image

__all__ = ["COLUMNS", "ROWS", "jpeg", "pixels"]

ROWS, COLUMNS = 320, 300
COMMENT = b"SYNTHETIC, no patient"
TURNED = 6  # EXIF orientation: to be turned by 90 degrees clockwise for display

Array = np.ndarray

Y, X = np.meshgrid(
    np.linspace(-1, 1, ROWS, dtype=np.float32),
    np.linspace(-1, 1, COLUMNS, dtype=np.float32),
    indexing="ij",
)


def pixels(latent: Float[Array, axis], view: str, rng: Generator) -> Float[Array, "row column"]:
    """Draws one picture, with grey values from 0 to 255.

    Args:
        latent: Opacity of the lungs and width of the heart.
        view: "AP", "PA" or "LATERAL".
        rng: Source of randomness.
    """
    size, shift = 1.0 + 0.05 * rng.standard_normal(), 0.04 * rng.standard_normal()
    exposure = 1.0 + 0.05 * rng.standard_normal()
    x, y = (X - np.float32(shift)) / np.float32(size), Y / np.float32(size)
    picture = 20.0 + 135.0 * _soft(1.0 - (x / 0.93) ** 2 - (y / 1.35) ** 2, 0.08)
    opacity = 32.0 + 20.0 * float(latent[0]) * (1.0 + 0.6 * y)
    width = 0.2 + 0.045 * float(latent[1])
    if view == "LATERAL":
        lungs = _soft(1.0 - (x / 0.55) ** 2 - ((y + 0.1) / 0.72) ** 2, 0.12)
        heart = _soft(1.0 - ((x + 0.2) / max(width, 0.06)) ** 2 - ((y - 0.3) / 0.25) ** 2, 0.2)
    else:
        right = _soft(1.0 - ((x + 0.42) / 0.31) ** 2 - ((y + 0.05) / 0.72) ** 2, 0.12)
        left = _soft(1.0 - ((x - 0.42) / 0.29) ** 2 - ((y + 0.08) / 0.7) ** 2, 0.12)
        lungs = np.maximum(right, left)
        heart = _soft(1.0 - ((x - 0.1) / max(width, 0.06)) ** 2 - ((y - 0.32) / 0.3) ** 2, 0.2)
    ribs = 9.0 * np.sin(22.0 * (y + 0.35 * x**2) + rng.uniform(0, 6.28))
    picture = picture * (1.0 - lungs) + lungs * (opacity + ribs + 15.0)
    picture = picture * (1.0 - heart) + heart * 190.0
    picture += 5.0 * rng.standard_normal(picture.shape, dtype=np.float32)
    return np.clip(picture * exposure, 0, 255)


def jpeg(picture: Float[Array, "row column"], *, turned: bool = False) -> bytes:
    """Encodes a picture, with a comment that it is synthetic.

    Args:
        picture: Grey values from 0 to 255.
        turned: Store it lying on its side, with the EXIF tag that says so.
    """
    image = Image.fromarray(picture.astype(np.uint8))
    exif = Image.Exif()
    if turned:
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[0x0112] = TURNED
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85, comment=COMMENT, exif=exif)
    return stream.getvalue()


def _soft(level: Array, width: float) -> Array:
    """One inside, zero outside, with a soft edge."""
    return np.clip(0.5 + level / (4.0 * width), 0.0, 1.0)
