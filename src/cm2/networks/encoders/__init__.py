"""Encoders: from one modality's raw input to its embedding."""

from cm2.networks.encoders.base import REGISTRY, Encoder, embed_together, register
from cm2.networks.encoders.codes import CodeBag
from cm2.networks.encoders.dense import Dense
from cm2.networks.encoders.image import Image
from cm2.networks.encoders.precomputed import Precomputed
from cm2.networks.encoders.series import Series
from cm2.networks.encoders.text import Text
from cm2.networks.encoders.transformer import Transformer
from cm2.networks.encoders.vit import ViT

__all__ = [
    "REGISTRY",
    "CodeBag",
    "Dense",
    "Encoder",
    "Image",
    "Precomputed",
    "Series",
    "Text",
    "Transformer",
    "ViT",
    "embed_together",
    "register",
]
