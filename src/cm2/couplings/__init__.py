"""How a copula couples marginal laws of vectors; each is one class in one file."""

from cm2.couplings.base import REGISTRY, Joint, register
from cm2.couplings.multivariate_cdf import MultivariateCdfJoint
from cm2.couplings.rosenblatt import RosenblattJoint
from cm2.couplings.shared_components import SharedComponentsJoint

__all__ = [
    "REGISTRY",
    "Joint",
    "MultivariateCdfJoint",
    "RosenblattJoint",
    "SharedComponentsJoint",
    "register",
]
