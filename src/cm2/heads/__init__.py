"""Prediction heads of the estimator: each turns blocks of modalities into class probabilities."""

from cm2.heads.base import REGISTRY, Head, register
from cm2.heads.experts import Experts
from cm2.heads.fusion import Fusion
from cm2.heads.joint import JointHead
from cm2.heads.pool import Pool

__all__ = ["REGISTRY", "Experts", "Fusion", "Head", "JointHead", "Pool", "register"]
