"""Fusions: from the embeddings of all modalities to one vector."""

from cm2.fusions.base import REGISTRY, Fusion, register
from cm2.fusions.concat import Concat
from cm2.fusions.recurrent import LSTM

__all__ = ["LSTM", "REGISTRY", "Concat", "Fusion", "register"]
