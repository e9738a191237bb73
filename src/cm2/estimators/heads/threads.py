"""What belongs to the process while heads are fitted: threads of linear algebra, warning filters.

So that several Python threads leave it as it was, the first that enters sets it and the last that
leaves takes it back.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

__all__ = ["one_thread", "same_warnings"]


class _Shared:
    """A setting of the process; what a call returns is a context and a decorator.

    Args:
        enter: Sets it, and returns what takes it back.
    """

    def __init__(self, enter: Callable[[], Callable[[], object]]) -> None:
        self._enter = enter
        self._lock = threading.Lock()
        self._inside = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._leave = self._enter()
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._leave()


def _noted() -> Callable[[], object]:
    """Notes the warning filters, to be put back."""
    before = warnings.catch_warnings()
    before.__enter__()
    return lambda: before.__exit__(None, None, None)


one_thread = _Shared(lambda: threadpool_limits(1).restore_original_limits)
"""One thread for BLAS and OpenMP inside: on matrices as small as those of a head they wait for
each other."""

same_warnings = _Shared(_noted)
"""Warning filters that are inside another's, as scikit-learn sets some, are taken back in the order
in which threads leave them, and so not to what they were."""
