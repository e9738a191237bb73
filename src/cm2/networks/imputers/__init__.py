"""Imputers: how the embedding of a missing modality is filled in."""

from cm2.networks.imputers.base import REGISTRY, Imputer, register
from cm2.networks.imputers.conditional import Conditional
from cm2.networks.imputers.conditional_mean import ConditionalMean
from cm2.networks.imputers.marginal import Marginal
from cm2.networks.imputers.mean import Mean
from cm2.networks.imputers.zero import Zero

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
