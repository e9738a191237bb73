"""Real images cut into views: each view is a modality, so that any of them can be missing.

The digits are the test part of the UCI data set "Optical Recognition of Handwritten Digits"
(Alpaydin and Kaynak 1998) that scikit-learn carries: 1,797 images of 8 x 8 pixels, 10 classes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from sklearn.datasets import load_digits

QUADRANTS = {
    "upper left": (slice(0, 4), slice(0, 4)),
    "upper right": (slice(0, 4), slice(4, 8)),
    "lower left": (slice(4, 8), slice(0, 4)),
    "lower right": (slice(4, 8), slice(4, 8)),
}


def digit_views() -> tuple[dict[str, Float[ndarray, "n 16"]], Int[ndarray, " n"]]:
    """Cuts the digits into their four quadrants of 4 x 4 pixels.

    Returns:
        Pixels, from 0 to 16, by view, and the digit of each image.

    Example:
        >>> X, y = digit_views()
        >>> {name: block.shape for name, block in X.items()}
        {'upper left': (1797, 16), 'upper right': (1797, 16),
         'lower left': (1797, 16), 'lower right': (1797, 16)}
    """
    digits = load_digits()
    views = {
        name: np.ascontiguousarray(digits.images[:, rows, columns].reshape(-1, 16))
        for name, (rows, columns) in QUADRANTS.items()
    }
    return views, digits.target.astype(np.int64)
