"""Time and memory of the joint's log density, forward and backward, beside the reference's loss.

    python benchmarks/joint.py                              # ours alone
    python benchmarks/joint.py --reference DIR              # DIR: a checkout of HKU-MedAI/CMCM
    python benchmarks/joint.py --reference DIR --encoders   # also a step with LSTM and ResNet-34
                                                            # (needs transformers)

The two take turns in one process with the same number of threads; figures are medians of the turns.
Ours is an exact density. The reference's is not one: it puts the Gumbel distribution function in
the place of its density, at the multivariate distribution functions of the embeddings. Peak memory
is the growth of the resident set of a fresh process that runs the case alone (Linux).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cm2 import CopulaJoint

DIM = 256
STEPS, FEATURES = 48, 76
RANK = 16


class Case(NamedTuple):
    """One line of the table."""

    batch: int
    modalities: int
    components: int
    dim: int = DIM


class Ours(nn.Module):
    """Mean negative log density of the joint, by one copula of vectors or shared by coordinates."""

    def __init__(self, case: Case, copula: str = "gumbel", coupling: str = "rosenblatt") -> None:
        super().__init__()
        rank = RANK if copula == "factor" else None
        self.joint = CopulaJoint(
            case.modalities, case.dim, copula, case.components, coupling, rank=rank, shared=True
        )

    def forward(self, *z: Tensor) -> Tensor:
        """The loss."""
        return -self.joint().log_prob(torch.stack(z, 1)).mean()


def reference(case: Case, folder: Path) -> nn.Module:
    """The reference's loss for two or three modalities, from a checkout."""
    sys.path.insert(0, str(folder.resolve()))
    from models import loss  # type: ignore[import-not-found]

    family = {2: loss.CopulaLoss, 3: loss.Copula3DLoss}[case.modalities]
    built: nn.Module = family(dim=case.dim, K=case.components, family="Gumbel")
    return built


def embeddings(case: Case) -> list[Tensor]:
    """Standard normal embeddings, scaled as the reference scales its own (unit length)."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(case.modalities, case.batch, case.dim, generator=generator)
    return [part.requires_grad_() for part in nn.functional.normalize(z, dim=-1)]


def step(loss: nn.Module, z: list[Tensor]) -> Callable[[], None]:
    """One forward and backward pass."""

    def run() -> None:
        loss.zero_grad()
        loss(*z).backward()

    return run


def turns(runs: dict[str, Callable[[], None]], seconds: float) -> dict[str, float]:
    """Median milliseconds of each, taken in turns for about so long."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 3:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def peak(case: Case, folder: Path | None) -> float:
    """Growth of the resident set in MiB while a case runs, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (case, folder))


def _peak(case: Case, folder: Path | None) -> float:
    torch.set_num_threads(1)
    loss = losses(case, None)["factor"] if folder is None else reference(case, folder)
    step(loss, embeddings(case._replace(batch=2)))()  # imports and parameters are in place
    run = step(loss, embeddings(case))
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest resident set so far
    before = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - before) / 1024


def _resident(field: str) -> int:
    """A figure of the resident set in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


class Network(nn.Module):
    """What surrounds the joint: projections, a 2-layer LSTM over modalities, a classifier.

    With encoders it starts from series (2-layer LSTM) and images (ResNet-34); else from embeddings.
    """

    def __init__(self, case: Case, encoders: bool) -> None:
        super().__init__()
        self.series = nn.LSTM(FEATURES, case.dim, 2, batch_first=True) if encoders else None
        self.image = resnet34() if encoders else None
        widths = [case.dim, 512 if encoders else case.dim, *[case.dim] * (case.modalities - 2)]
        self.project = nn.ModuleList(nn.Linear(width, case.dim) for width in widths)
        self.fuse = nn.LSTM(case.dim, case.dim, 2, batch_first=True)
        self.classify = nn.Sequential(
            nn.Linear(case.dim, case.dim), nn.ReLU(), nn.Linear(case.dim, 1)
        )

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Logits and embeddings."""
        if self.series is not None and self.image is not None:
            series = self.series(inputs[0])[0][:, -1]
            inputs = [series, self.image(inputs[1]).pooler_output.flatten(1)]
        z = [project(x) for project, x in zip(self.project, inputs, strict=True)]
        z = [nn.functional.normalize(part, dim=-1) for part in z]
        return self.classify(self.fuse(torch.stack(z, 1))[0][:, -1]), z


def resnet34() -> nn.Module:
    """An untrained ResNet-34."""
    from transformers import ResNetConfig, ResNetModel

    return ResNetModel(
        ResNetConfig(
            embedding_size=64,
            hidden_sizes=[64, 128, 256, 512],
            depths=[3, 4, 6, 3],
            layer_type="basic",
        )
    )


def training_step(case: Case, loss: nn.Module | None, encoders: bool) -> Callable[[], None]:
    """Forward, backward and Adam, with the joint's term or without."""
    torch.manual_seed(0)
    network = Network(case, encoders)
    parameters = [*network.parameters(), *(loss.parameters() if loss else [])]
    optimizer = torch.optim.Adam(parameters, 1e-4)
    if encoders:
        inputs = [torch.randn(case.batch, STEPS, FEATURES), torch.randn(case.batch, 3, 224, 224)]
    else:
        inputs = [torch.randn(case.batch, case.dim) for _ in range(case.modalities)]
    target = torch.randint(2, (case.batch, 1)).float()

    def run() -> None:
        optimizer.zero_grad()
        logits, z = network(inputs)
        total = nn.functional.binary_cross_entropy_with_logits(logits, target)
        if loss is not None:
            total = total + 1e-6 * loss(*z)
        total.backward()
        optimizer.step()

    return run


def losses(case: Case, folder: Path | None) -> dict[str, nn.Module]:
    """The losses to compare."""
    found: dict[str, nn.Module] = {
        "factor": Ours(case, "factor", "shared-components"),
        "gumbel": Ours(case),
    }
    if folder is not None:
        found["reference"] = reference(case, folder)
    return found


def print_costs(folder: Path | None, seconds: float) -> None:
    """Time and memory of the loss alone."""
    print(f"factor: rank {RANK}, shared components; gumbel: Rosenblatt, one copula for all d\n")
    print("| B | M | K | factor ms | gumbel ms | reference ms | factor / reference | MiB |")
    print("|---" * 8 + "|")
    for case in (Case(b, m, k) for k in (3, 10) for m in (2, 3) for b in (32, 256)):
        z = embeddings(case)
        ms = turns({name: step(loss, z) for name, loss in losses(case, folder).items()}, seconds)
        cells = [f"{ms['factor']:.1f}", f"{ms['gumbel']:.1f}", "", ""]
        memory = [peak(case, None)]
        if folder is not None:
            cells[2:] = [f"{ms['reference']:.1f}", f"{ms['factor'] / ms['reference']:.2f}"]
            memory.append(peak(case, folder))
        cells.append(" / ".join(f"{size:.0f}" for size in memory))
        print(f"| {case.batch} | {case.modalities} | {case.components} | {' | '.join(cells)} |")


def print_growth(seconds: float) -> None:
    """How the time grows when one size doubles."""
    base = Case(128, 2, 4, 128)
    grown = {
        "B": base._replace(batch=256),
        "M": base._replace(modalities=4),
        "K": base._replace(components=8),
        "d": base._replace(dim=256),
    }
    runs = {"base": step(losses(base, None)["factor"], embeddings(base))}
    runs |= {
        name: step(losses(case, None)["factor"], embeddings(case)) for name, case in grown.items()
    }
    ms = turns(runs, seconds)
    factors = ", ".join(f"{name} x{ms[name] / ms['base']:.2f}" for name in grown)
    print(f"\nTime when one size doubles (linear: x2), from {base}: {factors}")
    runs = {
        name: step(Ours(base, name), embeddings(base))
        for name in ("gumbel", "frank", "gaussian", "factor")
    }
    ms = turns(runs, seconds)
    print("By family at that size, ms: " + ", ".join(f"{k} {v:.1f}" for k, v in ms.items()))


def print_shares(folder: Path | None, encoders: bool, seconds: float) -> None:
    """The share of a training step that the joint's term takes."""
    kind = "LSTM and ResNet-34 encoders" if encoders else "precomputed embeddings"
    print(f"\nTraining step with {kind}, K = 3:\n")
    print("| B | M | loss | without ms | with ms | share |")
    print("|---|---|---|---|---|---|")
    for batch, modalities in ((32, 2),) if encoders else ((32, 2), (256, 2), (32, 3), (256, 3)):
        case = Case(batch, modalities, 3)
        for name, loss in losses(case, folder).items():
            runs = {
                "without": training_step(case, None, encoders),
                "with": training_step(case, loss, encoders),
            }
            ms = turns(runs, seconds)
            share = 1 - ms["without"] / ms["with"]
            print(
                f"| {batch} | {modalities} | {name} | {ms['without']:.1f} | {ms['with']:.1f} "
                f"| {share:.1%} |"
            )


@contextmanager
def single_thread() -> Iterator[None]:
    """One thread for everything inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path, help="a checkout of HKU-MedAI/CMCM")
    parser.add_argument("--encoders", action="store_true", help="time a step with encoders too")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each line")
    args = parser.parse_args()
    if args.reference and not (args.reference / "models" / "loss.py").is_file():
        parser.error(f"{args.reference} has no models/loss.py; is it a checkout of HKU-MedAI/CMCM?")
    with single_thread():
        print_costs(args.reference, args.seconds)
        print_growth(args.seconds)
        print_shares(args.reference, False, args.seconds)
        if args.encoders:
            print_shares(args.reference, True, max(args.seconds, 30.0))


if __name__ == "__main__":
    main()
