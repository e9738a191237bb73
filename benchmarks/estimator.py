"""Time and memory of fits and predictions, against what they grow with.

    python benchmarks/estimator.py                        # one thread a process, about an hour
    python benchmarks/estimator.py --cases base views --jobs 2
    python benchmarks/estimator.py --cases large          # 100,000 rows of the PhysioNet shape

Data are drawn: of each class means of its own, and half of the variance of every column from three
factors that all modalities share; 30% of the modalities are missing. Each cell is one fresh
process, which fits once and predicts 10,000 rows; the memory is the peak of its resident memory
(with ``--jobs``, without that of the processes that it starts), of which a part is for what is
imported, as the first line says.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from cm2.samples.worlds import remove

MISSING = 0.3
FACTORS = 3
PREDICTED = 10_000


class Case(NamedTuple):
    """The size of a data set.

    Attributes:
        rows: For training.
        modalities: Their number.
        columns: Of all modalities together.
        classes: Their number.
    """

    rows: int = 2_000
    modalities: int = 6
    columns: int = 60
    classes: int = 2


CASES = {
    "base": Case(),
    "8,000 rows": Case(rows=8_000),
    "32,000 rows": Case(rows=32_000),
    "12 modalities": Case(modalities=12, columns=120),
    "240 columns": Case(columns=240),
    "600 columns": Case(columns=600),
    "5 classes": Case(classes=5),
    "10 classes": Case(classes=10),
    "views": Case(rows=1_000, columns=650, classes=10),
    "PhysioNet": Case(rows=4_000, modalities=11, columns=220),
    "large": Case(rows=100_000, modalities=11, columns=220),
}
METHODS = ("CM², pooled heads", "late fusion", "boosting + dropout", "LR + dropout")
NOTHING = "nothing"


def draw(case: Case, rows: int, seed: int) -> tuple[dict[str, ndarray], ndarray]:
    """Rows of a case, NaN where a modality is missing, and their classes."""
    truth = np.random.default_rng(0)
    means = truth.normal(scale=0.3, size=(case.classes, case.columns))
    loadings = truth.normal(size=(FACTORS, case.columns)) / np.sqrt(FACTORS)
    rng = np.random.default_rng(seed)
    y = rng.integers(case.classes, size=rows)
    noise = rng.normal(size=(rows, case.columns)) + rng.normal(size=(rows, FACTORS)) @ loadings
    values = means[y] + noise / np.sqrt(2)
    blocks = np.array_split(values, case.modalities, axis=1)
    return remove({f"modality_{m}": x for m, x in enumerate(blocks)}, MISSING, rng), y


def measure(name: str, case: Case, jobs: int) -> dict[str, float]:
    """Fits and predicts once in this process."""
    from cm2.benchmark.methods import METHODS as KNOWN
    from cm2.benchmark.methods import Budget

    found: dict[str, float] = {}
    if name != NOTHING:
        X, y = draw(case, case.rows, 1)
        test, _ = draw(case, PREDICTED, 2)
        method: Any = KNOWN[name].build(Budget(seed=0, epochs=60))
        if "n_jobs" in method.get_params():
            method.set_params(n_jobs=jobs)
        start = time.perf_counter()
        method.fit(X, y)
        found["fit"] = time.perf_counter() - start
        start = time.perf_counter()
        method.predict_proba(test)
        found["predict"] = time.perf_counter() - start
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def apart(name: str, case: str, jobs: int) -> dict[str, float]:
    """Measures in a fresh process."""
    command = [sys.executable, __file__, "--one", name, "--cases", case, "--jobs", str(jobs)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Prints a table, a line a case and method."""
    parser = argparse.ArgumentParser(description=__doc__)
    small = [name for name in CASES if name != "large"]
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=small)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--one", choices=(*METHODS, NOTHING), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, CASES[given.cases[0]], given.jobs)))
        return
    idle = apart(NOTHING, "base", 1)["memory"]
    print(f"importing takes {idle:.2f} GB\n")
    print("| case | rows x modalities x columns, classes | method | fit s | 10,000 rows s | GB |")
    print("|---|---|---|---|---|---|")
    for case in given.cases:
        rows, modalities, columns, classes = CASES[case]
        for name in given.methods:
            found = apart(name, case, given.jobs)
            print(
                f"| {case} | {rows:,} x {modalities} x {columns}, {classes} | {name} "
                f"| {found['fit']:.1f} | {found['predict']:.1f} | {found['memory']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
