"""Fusions: from the embeddings of all modalities to one vector."""

from cm2.networks.fusions.attention import Attention
from cm2.networks.fusions.base import REGISTRY, Fusion, register
from cm2.networks.fusions.beside import Beside
from cm2.networks.fusions.concat import Concat
from cm2.networks.fusions.mean import Mean
from cm2.networks.fusions.mlp import MLP
from cm2.networks.fusions.recurrent import LSTM

__all__ = ["LSTM", "MLP", "REGISTRY", "Attention", "Beside", "Concat", "Fusion", "Mean", "register"]
