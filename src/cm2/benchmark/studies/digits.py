"""The digits in four quadrants."""

from __future__ import annotations

from pathlib import Path

from cm2.benchmark.studies.base import Given, register
from cm2.samples.views import digit_views


@register("digits")
class Digits(Given):
    """Ten classes from four views; nothing is missing until it is removed."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(
            *digit_views(),
            title="Handwritten digits from four views",
            source="the real UCI digits that scikit-learn carries, cut into four views of 4 x 4 "
            "pixels",
        )
        self.flow = [("images", len(self.y))]
