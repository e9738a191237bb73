"""Fusions: from the embeddings of all modalities to one vector."""

from cm2.fusions.attention import Attention
from cm2.fusions.base import REGISTRY, Fusion, register
from cm2.fusions.concat import Concat
from cm2.fusions.mean import Mean
from cm2.fusions.mlp import MLP
from cm2.fusions.recurrent import LSTM

__all__ = ["LSTM", "MLP", "REGISTRY", "Attention", "Concat", "Fusion", "Mean", "register"]
