"""Models: from a batch with missing modalities to logits; CM2 and its rivals."""

from cm2.networks.models.base import REGISTRY, Model, Prediction, encode_present, register
from cm2.networks.models.cm2 import CM2
from cm2.networks.models.daft import DAFT
from cm2.networks.models.drfuse import DrFuse
from cm2.networks.models.flex_moe import FlexMoE
from cm2.networks.models.healnet import HEALNet
from cm2.networks.models.interleaved import Interleaved
from cm2.networks.models.late import Late
from cm2.networks.models.lsmt import LSMT
from cm2.networks.models.m3care import M3Care
from cm2.networks.models.medfuse import MedFuse
from cm2.networks.models.missing_token import MissingToken
from cm2.networks.models.mmtm import MMTM
from cm2.networks.models.modality_dropout import ModalityDropout
from cm2.networks.models.muse import MUSE
from cm2.networks.models.shaspec import ShaSpec
from cm2.networks.models.smil import SMIL
from cm2.networks.models.umse import UMSE
from cm2.networks.models.unified import Unified
from cm2.networks.models.unimodal import Unimodal

__all__ = [
    "CM2",
    "DAFT",
    "LSMT",
    "MMTM",
    "MUSE",
    "REGISTRY",
    "SMIL",
    "UMSE",
    "DrFuse",
    "FlexMoE",
    "HEALNet",
    "Interleaved",
    "Late",
    "M3Care",
    "MedFuse",
    "MissingToken",
    "ModalityDropout",
    "Model",
    "Prediction",
    "ShaSpec",
    "Unified",
    "Unimodal",
    "encode_present",
    "register",
]
