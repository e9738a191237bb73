"""Encoders: from one modality's raw input to its embedding."""

from cm2.encoders.base import REGISTRY, Encoder, embed_together, register
from cm2.encoders.codes import CodeBag
from cm2.encoders.dense import Dense
from cm2.encoders.image import Image
from cm2.encoders.precomputed import Precomputed
from cm2.encoders.series import Series
from cm2.encoders.text import Text

__all__ = [
    "REGISTRY",
    "CodeBag",
    "Dense",
    "Encoder",
    "Image",
    "Precomputed",
    "Series",
    "Text",
    "embed_together",
    "register",
]
