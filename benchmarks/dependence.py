"""Does the copula earn its place? CM2 and its rivals on four simulated worlds.

    python benchmarks/dependence.py --out runs/dependence.csv            # runs what is missing
    python benchmarks/dependence.py --out runs/dependence.csv --report   # prints the tables only

Each cell (world, missing rate, seed) draws 2,400 samples and removes modalities at the rate in all
of them; the first 60% train, the others test. All methods see the same samples and the same gaps,
so differences are paired. Rows are written as cells finish, and a second call goes on where the
first stopped. The best rival is picked for each cell of the table by its mean on the test samples,
which is hard on CM2. A head by itself is the pool's member of that name; without the pool it is
fitted alone, to the same numbers in less time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from cm2 import CM2Classifier
from cm2.estimators.baselines import Concatenated, Imputed, LateFusion, Stacking
from cm2.evaluation.metrics import MEASURES, measure, paired
from cm2.samples.worlds import WORLDS, make_world, remove

RATES = (0.0, 0.3, 0.5, 0.7)
TRAIN = 0.6
OURS, INDEPENDENT, LATE = "CM2 pooled", "CM2 pooled, independence", "late fusion"


NETWORK = {"n_components": 1}
"""Of the fusion head, to save time: one Gaussian a modality. All else is the default. Chosen on
seeds below 100."""

POOLED = {OURS: "factor", INDEPENDENT: "independence"}
SINGLE = {"CM2 experts": "experts", "CM2 joint": "joint", "CM2 fusion": "fusion"}
"""Heads of the pooled model with the copula by themselves."""

COORDINATEWISE = "CM2 joint, by coordinate"

RIVALS: dict[str, Callable[[int], Any]] = {
    LATE: lambda seed: LateFusion(random_state=seed),
    "late fusion, log": lambda seed: LateFusion(average="log", random_state=seed),
    "late fusion, forests": lambda seed: LateFusion("forest", random_state=seed),
    "late fusion, forests, log": lambda seed: LateFusion("forest", "log", random_state=seed),
    "stacking": lambda seed: Stacking(random_state=seed),
    "concatenated LR": lambda seed: Concatenated("linear", random_state=seed),
    "imputed LR": lambda seed: Imputed(random_state=seed),
    "boosting": lambda seed: Concatenated("boosting", random_state=seed),
    "forest": lambda seed: Concatenated("forest", random_state=seed),
}
CM2_METHODS = [*SINGLE, COORDINATEWISE, *POOLED]
METHODS = [*CM2_METHODS, *RIVALS]


def run(world: str, rate: float, seed: int, n: int, methods: list[str]) -> list[dict[str, Any]]:
    """Fits and tests some methods in one cell."""
    X, y = make_world(world, n, seed)
    X = remove(X, rate, seed + 1000)
    cut = round(TRAIN * n)
    train = {m: block[:cut] for m, block in X.items()}
    test = {m: block[cut:] for m, block in X.items()}
    rows = []
    for method, proba, seconds in _predictions(methods, train, y[:cut], test, seed):
        values = {name: float(v[0]) for name, v in measure(y[cut:], proba).items()}
        cell = {"world": world, "rate": rate, "seed": seed, "n": n, "method": method}
        rows.append({**cell, **values, "seconds": seconds})
    return rows


def _predictions(
    methods: list[str], train: dict[str, Any], y: Any, test: dict[str, Any], seed: int
) -> Iterator[tuple[str, Any, float]]:
    """Each method's probabilities on the test samples, and the seconds for them."""
    singles = [m for m in SINGLE if m in methods]
    for pooled, copula in POOLED.items():
        if pooled not in methods:
            continue
        start = time.perf_counter()
        model = CM2Classifier(copula, random_state=seed, **NETWORK).fit(train, y)
        proba = model.predict_proba(test)
        yield pooled, proba, time.perf_counter() - start
        if pooled == OURS:
            blocks = model.reader_.blocks(test)
            for method in singles:
                head = model.head_.heads_[SINGLE[method]]
                yield method, np.exp(head.predict_log_proba(blocks)), float("nan")
            singles = []
    alone = {
        **{m: _head(POOLED[OURS], SINGLE[m]) for m in singles},
        COORDINATEWISE: _head("gaussian", "joint"),
        **RIVALS,
    }
    for method in (m for m in alone if m in methods):
        start = time.perf_counter()
        proba = alone[method](seed).fit(train, y).predict_proba(test)
        yield method, proba, time.perf_counter() - start


def _head(copula: str, head: str) -> Callable[[int], Any]:
    """A head of the estimator by itself, by its seed."""
    return lambda seed: CM2Classifier(copula, head=head, random_state=seed, **NETWORK)


def missing_cells(args: argparse.Namespace, done: pd.DataFrame) -> list[tuple[Any, ...]]:
    """The cells, with the methods that each still lacks; paired seeds come first."""
    key = ["world", "rate", "seed", "n", "method"]
    have = set(map(tuple, done[key].to_numpy())) if len(done) else set()
    cells = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for world in args.worlds:
            for rate in args.rates:
                cell = (world, rate, seed, args.n)
                lacking = [m for m in args.methods if (*cell, m) not in have]
                if lacking:
                    cells.append((*cell, lacking))
    return cells


def complete(args: argparse.Namespace) -> pd.DataFrame:
    """Runs what is missing, appending to the file as cells finish."""
    done = pd.read_csv(args.out) if args.out.exists() else pd.DataFrame()
    cells = missing_cells(args, done)
    if args.report or not cells:
        return done
    args.out.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        work = joblib.Parallel(args.jobs, return_as="generator_unordered", batch_size=1)(
            joblib.delayed(run)(*cell) for cell in cells
        )
    for number, rows in enumerate(work, 1):
        frame = pd.DataFrame(rows)
        frame.to_csv(args.out, mode="a", header=not args.out.exists(), index=False)
        passed = time.perf_counter() - start
        left = passed / number * (len(cells) - number) / 60
        print(f"{number}/{len(cells)} cells, about {left:.0f} min left", flush=True)
    return pd.read_csv(args.out)


def report(rows: pd.DataFrame) -> str:
    """Markdown: AUROC of every method, then paired differences."""
    parts = []
    for world, part in rows.groupby("world", sort=False):
        parts += [f"### {world}", _means(part), _differences(part)]
    parts += ["### Median seconds (fit and predict, one thread)", _seconds(rows)]
    return "\n\n".join(parts)


def _means(part: pd.DataFrame) -> str:
    """Mean of each measure over seeds: AUROC at every rate, log loss beside it."""
    rates = sorted(part["rate"].unique())
    seeds = part.groupby(["method", "rate"])["seed"].nunique()
    head = "| method | " + " | ".join(f"{r:g}" for r in rates) + " |"
    lines = [
        f"AUROC (log loss), mean of {seeds.min()} to {seeds.max()} seeds, by missing rate:",
        "",
    ]
    lines += [head, "|---" * (len(rates) + 1) + "|"]
    mean = part.groupby(["method", "rate"])[list(MEASURES)].mean()
    for method in (m for m in METHODS if m in set(part["method"])):
        cells = [
            f"{mean.loc[(method, r), 'auroc']:.3f} ({mean.loc[(method, r), 'log_loss']:.3f})"
            if (method, r) in mean.index
            else ""
            for r in rates
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _differences(part: pd.DataFrame) -> str:
    """Paired AUROC differences +- standard error, with the p-value of a t-test."""
    rates = sorted(part["rate"].unique())
    tables = {
        r: part[part["rate"] == r].pivot(index="seed", columns="method", values="auroc")
        for r in rates
    }
    lines = ["Paired difference of AUROC +- standard error (p of a paired t-test):", ""]
    lines += ["| | " + " | ".join(f"{r:g}" for r in rates) + " |", "|---" * (len(rates) + 1) + "|"]
    ours = [m for m in CM2_METHODS if m in set(part["method"])]
    for method in ours:
        cells = [_difference(tables[r], method, LATE) for r in rates]
        lines.append(f"| {method} - {LATE} | {' | '.join(cells)} |")
    for method in ours:
        cells = []
        for r in rates:
            rivals = [m for m in RIVALS if m in tables[r]]
            best = tables[r][rivals].mean().idxmax() if rivals else LATE
            cells.append(f"{_difference(tables[r], method, best)} {best}")
        lines.append(f"| {method} - best rival | {' | '.join(cells)} |")
    for rival in (m for m in RIVALS if OURS in ours):
        cells = [_difference(tables[r], OURS, rival) for r in rates]
        lines.append(f"| {OURS} - {rival} | {' | '.join(cells)} |")
    if OURS in ours and INDEPENDENT in ours:
        cells = [_difference(tables[r], OURS, INDEPENDENT) for r in rates]
        lines.append(f"| {OURS} - {INDEPENDENT} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(table: pd.DataFrame, first: str, second: str) -> str:
    if first not in table or second not in table:
        return ""
    both = table[[first, second]].dropna()
    if len(both) < 2:
        return ""
    found = paired(both[first].to_numpy(), both[second].to_numpy())
    return f"{found.difference:+.3f} +- {found.standard_error:.3f} ({found.t_test:.1g})"


def _seconds(rows: pd.DataFrame) -> str:
    median = rows.groupby("method")["seconds"].median()
    return "\n".join(
        ["| method | seconds |", "|---|---|"]
        + [f"| {m} | {median[m]:.1f} |" for m in METHODS if m in median.index]
    )


def main() -> None:
    """Reads the options, runs, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/dependence.csv"))
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--seeds", type=int, default=8, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=2400)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="print the tables only")
    args = parser.parse_args()
    rows = complete(args)
    if not len(rows):
        parser.error(f"there are no results in {args.out}")
    print(report(rows))


if __name__ == "__main__":
    main()
