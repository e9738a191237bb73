"""Imputers: how the embedding of a missing modality is filled in."""

from cm2.imputers.base import REGISTRY, Imputer, register
from cm2.imputers.conditional import Conditional
from cm2.imputers.conditional_mean import ConditionalMean
from cm2.imputers.marginal import Marginal
from cm2.imputers.mean import Mean
from cm2.imputers.zero import Zero

__all__ = [
    "REGISTRY",
    "Conditional",
    "ConditionalMean",
    "Imputer",
    "Marginal",
    "Mean",
    "Zero",
    "register",
]
