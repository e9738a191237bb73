"""Prediction heads of the estimator: each turns blocks of modalities into class probabilities."""

from cm2.estimators.heads.base import REGISTRY, Head, register
from cm2.estimators.heads.early import Boosting, Linear
from cm2.estimators.heads.embedded import Embedded
from cm2.estimators.heads.experts import Experts
from cm2.estimators.heads.frozen import Frozen
from cm2.estimators.heads.fusion import Fusion
from cm2.estimators.heads.joint import JointHead
from cm2.estimators.heads.pool import Pool
from cm2.estimators.heads.presence import Presence

__all__ = [
    "REGISTRY",
    "Boosting",
    "Embedded",
    "Experts",
    "Frozen",
    "Fusion",
    "Head",
    "JointHead",
    "Linear",
    "Pool",
    "Presence",
    "register",
]
