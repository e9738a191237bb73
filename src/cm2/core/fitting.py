"""Fitting an estimator in one step."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def whole(fit: Callable[Concatenate[T, P], Any]) -> Callable[Concatenate[T, P], T]:
    """A ``fit`` that fails leaves the estimator as it was, with what it had learned before.

    Otherwise it would predict by a part of the one and a part of the other. What ``fit`` learns it
    sets anew, and changes nothing in place.

    Example:
        >>> class Mean:
        ...     @whole
        ...     def fit(self, x):
        ...         self.size_ = len(x)
        ...         self.mean_ = sum(x) / self.size_
        >>> mean = Mean().fit([1.0, 3.0])
        >>> mean.fit([])
        Traceback (most recent call last):
        ZeroDivisionError: division by zero
        >>> mean.size_, mean.mean_
        (2, 2.0)
    """

    @wraps(fit)
    def fitted(self: T, /, *args: P.args, **kwargs: P.kwargs) -> T:
        before = dict(vars(self))
        try:
            fit(self, *args, **kwargs)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise
        return self

    return fitted
