"""Laws of the embedding of one modality; each is one class in one file."""

from cm2.marginals.gaussian_mixture import GaussianMixture

__all__ = ["GaussianMixture"]
