"""From raw clinical tables to frames of modalities: Ibis on an embedded DuckDB, and pandas.

An island: it imports no torch. Needs the extra ``cm2[tables]``.
"""

from cm2.prepare.documents import vectorize
from cm2.prepare.splits import split

__all__ = ["split", "vectorize"]
