"""How often `copulas.select` finds the family that made the data.

    python benchmarks/selection.py               # 100 sets of 2,000 points a family, tau 0.5, M = 2
    python benchmarks/selection.py --sets 10 --dim 3

Data of two coordinates are drawn by pyvinecopulib, of more by this library. Each set is fitted with
every registered family; the same fits are ranked by BIC and by AIC.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np
import pyvinecopulib as pv
import torch
from torch import Tensor

from cm2 import copulas

BICOP = {
    "gumbel": pv.BicopFamily.gumbel,
    "clayton": pv.BicopFamily.clayton,
    "frank": pv.BicopFamily.frank,
    "joe": pv.BicopFamily.joe,
    "gaussian": pv.BicopFamily.gaussian,
    "student": pv.BicopFamily.student,
}


def draw(family: str, dim: int, tau: float, rows: int, seed: int) -> Tensor:
    """Rows of the family's copula with this Kendall's tau; Student-t with 4 degrees of freedom."""
    copula = copulas.REGISTRY[family].from_kendall_tau(torch.tensor(tau).double(), dim=dim)
    if dim > 2:
        torch.manual_seed(seed)
        return copula.sample((rows,))
    if family in ("gaussian", "student"):
        values = [[copula.correlation[0, 1].item()]]
        values += [[4.0]] if family == "student" else []
    else:
        values = [[value.item()] for value in copula.parameters.values()]
    bicop = pv.Bicop(family=BICOP[family], parameters=np.array(values))
    return torch.from_numpy(bicop.sample(rows, seeds=[seed + 1]))


def main() -> None:
    """Prints a table with a line for each family, as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--dim", type=int, default=2)
    parser.add_argument("--tau", type=float, default=0.5)
    parser.add_argument("--families", nargs="+", choices=list(BICOP), default=list(BICOP))
    options = parser.parse_args()
    print("family    found by BIC  by AIC  seconds a set  taken for (BIC)")
    for family in options.families:
        bic: Counter[str] = Counter()
        aic: Counter[str] = Counter()
        began = time.perf_counter()
        for seed in range(options.sets):
            u = draw(family, options.dim, options.tau, options.rows, seed)
            fits = copulas.select(u).table
            bic[min(fits, key=lambda fit: fit.bic).family] += 1
            aic[min(fits, key=lambda fit: fit.aic).family] += 1
        seconds = (time.perf_counter() - began) / options.sets
        others = dict(bic - Counter({family: options.sets}))
        print(
            f"{family:<9} {bic[family]:>12}  {aic[family]:>6}  {seconds:>13.2f}  {others or ''}",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
