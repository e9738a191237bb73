"""One fit of one method on one split, and what it predicts where modalities were removed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import joblib
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cm2.benchmark.methods import Budget, Method
from cm2.benchmark.patterns import Blocks, Pattern, apply
from cm2.benchmark.studies import Study
from cm2.estimators.heads.threads import one_thread
from cm2.evaluation import checked
from cm2.samples.container import Samples
from cm2.samples.tables import present


class TimeUpError(Exception):
    """A fit took longer than it may."""


class Done(NamedTuple):
    """What came of a fit.

    Attributes:
        rows: The test rows.
        probability: Of the classes, for each pattern.
        missing: How many modalities each row lacks, for each pattern.
        fit: Seconds.
        predict: Seconds for the test rows, once.
        method: The fitted method.
    """

    rows: Int[ndarray, " test"]
    probability: dict[Pattern, Float[ndarray, "test label"]]
    missing: dict[Pattern, Int[ndarray, " test"]]
    fit: float
    predict: float
    method: Any


def side_by_side(
    calls: Iterable[Any], number: int, processes: int, console: Console
) -> Iterator[Any]:
    """Yields what calls return, in their order and one thread each, and shows how many there are.

    Args:
        calls: Made by ``joblib.delayed``.
        number: How many there are.
        processes: That run at a time.
        console: Where a bar is shown until the last is there.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    parallel = joblib.Parallel(n_jobs=processes, return_as="generator")
    with (
        joblib.parallel_config("loky", inner_max_num_threads=1),
        Progress(*columns, console=console, transient=True) as progress,
    ):
        task = progress.add_task("fits", total=number)
        for result in parallel(calls):
            progress.advance(task)
            yield result


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Ends what runs inside after some seconds.

    Raises:
        TimeUpError: If it had not ended.
        ValueError: Where there is no signal to end it by: on Windows, and beside the main thread.
    """
    if seconds is None:
        yield
        return
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        raise ValueError("a time limit needs signals, which only a POSIX main thread has")

    def stop(*_: object) -> None:
        raise TimeUpError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@one_thread()
def run(
    study: Study,
    method: Method,
    budget: Budget,
    patterns: Sequence[Pattern],
    limit: float | None = None,
) -> Done:
    """Fits a method once and predicts the test rows under each pattern.

    Test rows come in no other way, and all patterns remove the same from the training rows. A
    modality that no training row is left with is shown to no method, in test rows neither.

    Args:
        study: The data.
        method: What is fitted.
        budget: Its seed is that of the split and of what is removed, too.
        patterns: What is removed; they agree for the training rows.
        limit: Seconds that a fit may take.

    Raises:
        TimeUpError: If the fit took longer.
        ValueError: If patterns differ for training rows, or what the method predicts are no
            probabilities of the study's classes.
    """
    if len({pattern.at("train") for pattern in patterns}) != 1:
        raise ValueError("patterns of one fit should remove the same from the training rows")
    train, test = study.split(budget.seed)
    blocks = study.blocks(train)
    learned, asked = ({n: x[rows] for n, x in blocks.items()} for rows in (train, test))
    made = method.build(budget)
    start = time.perf_counter()
    with limited(limit):
        given = apply(patterns[0], "train", learned, budget.seed)
        given = {name: x for name, x in given.items() if present({name: x}).any()}
        whole = _whole(study, method, given)
        X, options = _input(given, whole and whole[train])
        made.fit(X, study.y[train], groups=study.groups[train], **options)
    fitted = time.perf_counter()
    held = whole and whole[test]
    probability, missing = {}, {}
    for pattern in patterns:
        left = apply(pattern, "test", asked, budget.seed)
        X, options = _input({name: left[name] for name in given}, held)
        probability[pattern] = _checked(made.predict_proba(X, **options), study, len(test))
        missing[pattern] = (~present(left)).sum(axis=1)
    each = (time.perf_counter() - fitted) / len(patterns)
    return Done(test, probability, missing, fitted - start, each, made)


def _checked(said: Any, study: Study, rows: int) -> Float[ndarray, "test label"]:
    """What a method predicted, with a column for each class of the study.

    Raises:
        ValueError: If it is something else.
    """
    found = checked.by_class(said)
    if found.shape != (rows, len(study.labels)):
        raise ValueError(
            f"predict_proba should return {len(study.labels)} probabilities, one a class, for each "
            f"of {rows} rows; it has shape {np.shape(said)}"
        )
    return found


def _whole(study: Study, method: Method, names: Iterable[str]) -> Samples | None:
    """A study's samples of some modalities, where it has samples and the method reads them."""
    if study.samples is None or not method.encodes:
        return None
    return Samples({name: study.samples.columns[name] for name in names})


def _input(left: Blocks, samples: Samples | None) -> tuple[Any, dict[str, Any]]:
    """What a method is given of rows: blocks; or samples, and which modalities are left of them."""
    return (left, {}) if samples is None else (samples, {"present": present(left)})
