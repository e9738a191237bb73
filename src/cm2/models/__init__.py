"""Models: from a batch with missing modalities to logits; CM2 and its rivals."""

from cm2.models.base import REGISTRY, Model, Prediction, encode_present, register
from cm2.models.cm2 import CM2
from cm2.models.daft import DAFT
from cm2.models.drfuse import DrFuse
from cm2.models.embedding import embed
from cm2.models.late import Late
from cm2.models.medfuse import MedFuse
from cm2.models.mmtm import MMTM
from cm2.models.unified import Unified
from cm2.models.unimodal import Unimodal

__all__ = [
    "CM2",
    "DAFT",
    "MMTM",
    "REGISTRY",
    "DrFuse",
    "Late",
    "MedFuse",
    "Model",
    "Prediction",
    "Unified",
    "Unimodal",
    "embed",
    "encode_present",
    "register",
]
