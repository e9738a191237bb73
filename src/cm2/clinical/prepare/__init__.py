"""From raw clinical tables to frames of modalities: Ibis on an embedded DuckDB, and pandas.

An island: it imports no torch. Needs the extra ``cm2[tables]``.
"""

from typing import TYPE_CHECKING, Any

try:
    import duckdb as _duckdb  # noqa: F401
    import ibis as _ibis  # noqa: F401
except ImportError as error:
    raise ImportError(
        "reading raw tables needs Ibis and DuckDB; install them with: pip install 'cm2[tables]'"
    ) from error

from cm2.clinical.prepare.own import write
from cm2.clinical.prepare.splits import split

if TYPE_CHECKING:
    from cm2.clinical.prepare.documents import vectorize

__all__ = ["split", "vectorize", "write"]


def __getattr__(name: str) -> Any:
    # Documents need scikit-learn, which is slow to import; most of preparation does without it.
    if name == "vectorize":
        from cm2.clinical.prepare.documents import vectorize

        return vectorize
    raise AttributeError(f"module 'cm2.clinical.prepare' has no attribute {name!r}")
