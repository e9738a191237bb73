"""From raw clinical tables to frames of modalities: Ibis on an embedded DuckDB, and pandas.

An island: it imports no torch. Needs the extra ``cm2[tables]``.
"""

try:
    import duckdb as _duckdb  # noqa: F401
    import ibis as _ibis  # noqa: F401
except ImportError as error:
    raise ImportError(
        "reading raw tables needs Ibis and DuckDB; install them with: pip install 'cm2[tables]'"
    ) from error

from cm2.prepare.documents import vectorize
from cm2.prepare.splits import split

__all__ = ["split", "vectorize"]
