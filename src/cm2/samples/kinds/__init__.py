"""Kinds of modalities: how each comes, and how it is read by encoders and by other heads."""

from cm2.samples.kinds.base import (
    REGISTRY,
    Column,
    Inputs,
    Learned,
    column,
    kind_of,
    register,
)
from cm2.samples.kinds.events import UNSEEN, EventColumn, LearnedEvents
from cm2.samples.kinds.image import ImageColumn, LearnedImage
from cm2.samples.kinds.series import LearnedSeries, SeriesColumn
from cm2.samples.kinds.table import EmbeddingColumn, LearnedTable, TableColumn
from cm2.samples.kinds.text import LearnedText, TextColumn

__all__ = [
    "REGISTRY",
    "UNSEEN",
    "Column",
    "EmbeddingColumn",
    "EventColumn",
    "ImageColumn",
    "Inputs",
    "Learned",
    "LearnedEvents",
    "LearnedImage",
    "LearnedSeries",
    "LearnedTable",
    "LearnedText",
    "SeriesColumn",
    "TableColumn",
    "TextColumn",
    "column",
    "kind_of",
    "register",
]
