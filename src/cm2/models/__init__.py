"""Models: from a batch with missing modalities to logits."""

from cm2.models.base import Model, Prediction, encode_present
from cm2.models.cm2 import CM2

__all__ = ["CM2", "Model", "Prediction", "encode_present"]
