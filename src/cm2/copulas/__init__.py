"""Copula families; each is one class in one file, found by the name it is registered under."""

from cm2.copulas.base import REGISTRY, Copula, register
from cm2.copulas.frank import Frank
from cm2.copulas.gaussian import Gaussian
from cm2.copulas.gumbel import Gumbel
from cm2.copulas.independence import Independence

__all__ = ["REGISTRY", "Copula", "Frank", "Gaussian", "Gumbel", "Independence", "register"]
