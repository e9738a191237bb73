"""Threads of linear algebra: on matrices as small as those of a head they wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

_LOCK = threading.Lock()
_HELD: list[threadpool_limits] = []


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for BLAS and OpenMP inside; also a decorator.

    The limit is the process's. So that several Python threads leave it as it was, the first that
    enters sets it and the last that leaves takes it back.
    """
    with _LOCK:
        _HELD.append(threadpool_limits(1) if not _HELD else _HELD[0])
    try:
        yield
    finally:
        with _LOCK:
            limit = _HELD.pop()
            if not _HELD:
                limit.restore_original_limits()
