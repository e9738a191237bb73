"""Prediction heads of the estimator: each turns blocks of modalities into class probabilities."""

from cm2.heads.base import REGISTRY, Head, register

__all__ = ["REGISTRY", "Head", "register"]
