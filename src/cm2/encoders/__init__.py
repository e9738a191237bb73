"""Encoders: from one modality's raw input to its embedding."""

from cm2.encoders.base import REGISTRY, Encoder, register
from cm2.encoders.dense import Dense

__all__ = ["REGISTRY", "Dense", "Encoder", "register"]
