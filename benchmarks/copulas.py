"""Time and memory of copulas, beside pyvinecopulib, statsmodels, openturns and scipy.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python benchmarks/copulas.py
    python benchmarks/copulas.py --points 100000 --threads 1 --families gumbel,frank

Everything runs in one process on the same points, in turns; figures are the shortest of the turns,
in seconds. statsmodels and scipy use one thread only. Peak memory is the growth of the resident set
of a fresh process over the points, for the log density and with its gradient (Linux).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from cm2 import copulas

FAMILIES = ("gaussian", "student", "clayton", "gumbel", "frank", "joe")
TAU = 0.5
Run = Callable[[], Any]


def ours(family: str, dim: int) -> copulas.Copula:
    """The copula of Kendall's tau 1/2, in double precision."""
    tau = torch.tensor(TAU, dtype=torch.float64)
    return copulas.REGISTRY[family].from_kendall_tau(tau, dim)


def parameter(copula: copulas.Copula) -> float:
    """The correlation, or the parameter of the generator."""
    value = next(iter(copula.parameters.values()))
    return float(value if value.dim() == 0 else value[1, 0])


def pairs(family: str, copula: copulas.Copula, threads: int) -> tuple[Callable[..., Any], Run]:
    """Log density and sampler of pyvinecopulib."""
    import pyvinecopulib

    values = [[parameter(copula)], [4.0]] if family == "student" else [[parameter(copula)]]
    law = pyvinecopulib.Bicop(
        family=getattr(pyvinecopulib.BicopFamily, family), parameters=np.array(values)
    )
    return (
        lambda u: np.log(law.pdf(u, num_threads=threads)),
        lambda: law.sample(POINTS, num_threads=threads),
    )


def single(family: str, copula: copulas.Copula) -> tuple[Callable[..., Any], Run]:
    """Log density and sampler of statsmodels."""
    from statsmodels.distributions.copula import api as statsmodels

    theta, dim = parameter(copula), copula.dim
    matrix = (1 - theta) * np.eye(dim) + theta
    law = {
        "gaussian": lambda: statsmodels.GaussianCopula(matrix, k_dim=dim),
        "student": lambda: statsmodels.StudentTCopula(matrix, df=4, k_dim=dim),
        "clayton": lambda: statsmodels.ClaytonCopula(theta, k_dim=dim),
        "gumbel": lambda: statsmodels.GumbelCopula(theta, k_dim=dim),
        "frank": lambda: statsmodels.FrankCopula(theta, k_dim=dim),
    }[family]()
    return law.logpdf, lambda: law.rvs(POINTS)


def many(family: str, copula: copulas.Copula) -> tuple[str, Callable[..., Any] | None, Run]:
    """Name, log density and sampler of what else knows more than two coordinates."""
    theta, dim = parameter(copula), copula.dim
    matrix = (1 - theta) * np.eye(dim) + theta
    if family == "gaussian":
        import openturns

        law = openturns.NormalCopula(openturns.CorrelationMatrix(matrix.tolist()))
        return "openturns", law.computeLogPDF, lambda: law.getSample(POINTS)
    if family == "student":
        from scipy import stats

        joint = stats.multivariate_t(shape=matrix, df=4)

        def log_density(u: np.ndarray) -> np.ndarray:
            x = stats.t.ppf(u, 4)
            return np.asarray(joint.logpdf(x) - stats.t.logpdf(x, 4).sum(-1))

        return "scipy", log_density, lambda: stats.t.cdf(joint.rvs(POINTS), 4)
    density, sample = single(family, copula)
    # statsmodels has the densities of Gumbel and Frank for pairs only.
    return "statsmodels", density if family == "clayton" else None, sample


POINTS = 1_000_000


def forward_backward(copula: copulas.Copula, u: torch.Tensor) -> Run:
    """The gradient of the mean log density in the parameters and in the points."""

    def run() -> None:
        leaves = {k: v.detach().clone().requires_grad_() for k, v in copula.parameters.items()}
        points = u.detach().clone().requires_grad_()
        copula._like(leaves).log_prob(points).sum().backward()

    return run


def turns(runs: dict[str, Run], repeats: int) -> dict[str, float]:
    """The shortest time of each, taken in turns; what takes over three seconds runs once."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(repeats):
        for name, run in runs.items():
            if turn and best[name] > 3:
                continue
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def peak(family: str, dim: int, points: int, threads: int) -> list[float]:
    """Bytes per point that a fresh process grows by: for the log density, with its gradient."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return [grown / points for grown in pool.apply(_peak, (family, dim, points, threads))]


def _peak(family: str, dim: int, points: int, threads: int) -> list[float]:
    torch.set_num_threads(threads)
    copula = ours(family, dim)
    u = torch.rand(points, dim, dtype=torch.float64)
    growth = []
    for run in (copula.log_prob, lambda u: forward_backward(copula, u)()):
        run(u[:1000])
        Path("/proc/self/clear_refs").write_text("5")  # forget the highest resident set so far
        before = _resident("VmRSS")
        run(u)
        growth.append(1024.0 * (_resident("VmHWM") - before))
    return growth


def _resident(field: str) -> int:
    """A figure of the resident set in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def measure(family: str, dim: int, repeats: int, threads: int) -> list[str]:
    """One row of the table."""
    copula = ours(family, dim)
    u = copula.sample((POINTS,))
    columns = np.asfortranarray(u.numpy())  # the order in memory that pyvinecopulib asks for
    rows = u.numpy()
    runs: dict[str, Run] = {
        "cm2": lambda: copula.log_prob(u),
        "cm2 draws": lambda: copula.sample((POINTS,)),
        "both": forward_backward(copula, u),
    }
    rivals = []
    if dim == 2:
        density, sample = pairs(family, copula, threads)
        rivals.append("pyvinecopulib")
        runs |= {
            "pyvinecopulib": lambda: density(columns),
            "pyvinecopulib draws": sample,
        }
    if family != "joe":  # which no other library has for more than a pair
        name, rival_density, rival_sample = (
            ("statsmodels", *single(family, copula)) if dim == 2 else many(family, copula)
        )
        rivals.append(name)
        runs[f"{name} draws"] = rival_sample
        if rival_density is not None:
            runs[name] = partial(rival_density, rows)
    best = turns(runs, repeats)
    memory = peak(family, dim, POINTS, threads)
    row = [family, str(dim)]
    for kind in ("", " draws"):
        row.append(f"{best['cm2' + kind]:.3f}")
        row.append(", ".join(f"{best[r + kind]:.3f} {r}" for r in rivals if r + kind in best))
    return [*row, f"{best['both']:.3f}", " / ".join(f"{m:.0f}" for m in memory)]


def main() -> None:
    """Prints the table."""
    global POINTS
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--families", default=",".join(FAMILIES), help="names, with commas")
    parser.add_argument("--dims", default="2,5,10", help="numbers of coordinates, with commas")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    POINTS = args.points
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    headings = ("family", "M", "cm2", "others", "cm2 draws", "others draw", "both ways", "bytes")
    table = Table(*headings, title=f"Seconds for {POINTS:,} points on {args.threads} threads")
    load = [os.getloadavg()[0]]
    for dim in map(int, args.dims.split(",")):
        for family in args.families.split(","):
            row = measure(family, dim, args.repeats, args.threads)
            print(*row, sep=" | ", flush=True)  # should a long run be cut off
            table.add_row(*row)
    load.append(os.getloadavg()[0])
    Console(width=150).print(table)
    print("load average before and after: " + ", ".join(f"{value:.1f}" for value in load))


if __name__ == "__main__":
    main()
