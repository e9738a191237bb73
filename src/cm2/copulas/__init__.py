"""Copula families, and what is done with them: estimation, choice of a family, ranks.

Each family is one class in one file, found by the name it is registered under.
"""

from cm2.copulas.base import REGISTRY, Copula, register
from cm2.copulas.clayton import Clayton
from cm2.copulas.estimation import Fit, fit
from cm2.copulas.factor import Factor
from cm2.copulas.frank import Frank
from cm2.copulas.gaussian import Gaussian
from cm2.copulas.gumbel import Gumbel
from cm2.copulas.independence import Independence
from cm2.copulas.joe import Joe
from cm2.copulas.measures import Estimate
from cm2.copulas.mixture import Mixture
from cm2.copulas.ranks import pseudo_observations
from cm2.copulas.rotated import Rotated
from cm2.copulas.selection import Selection, select
from cm2.copulas.student import StudentT

__all__ = [
    "REGISTRY",
    "Clayton",
    "Copula",
    "Estimate",
    "Factor",
    "Fit",
    "Frank",
    "Gaussian",
    "Gumbel",
    "Independence",
    "Joe",
    "Mixture",
    "Rotated",
    "Selection",
    "StudentT",
    "fit",
    "pseudo_observations",
    "register",
    "select",
]
