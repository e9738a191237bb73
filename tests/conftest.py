"""What every test gets: fixed seeds, an untouched torch, the path of the data."""

import gc
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import numpy as np
import pytest
import torch
from torch.distributions import Distribution

import typecheck
from small_models import shrink

torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]


def torch_globals() -> dict[str, object]:
    """The process-wide switches of torch that a library must leave alone."""
    return {
        "default dtype": torch.get_default_dtype(),
        "default device": str(torch.get_default_device()),
        "number of threads": torch.get_num_threads(),
        "gradients enabled": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "validation of distributions": Distribution._validate_args,
    }


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out, by their marker, the tests that need a GPU where there is none."""
    if torch.cuda.is_available():
        return
    needing = [item for item in items if item.get_closest_marker("gpu")]
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]


def pytest_collection_finish() -> None:
    """What is imported by now lives as long as the process: no collection need look at it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test has its types checked from the start, alone or in company."""
    typecheck.calls.clear()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state, alone or in company."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  the legacy state is what is being fixed
    torch.manual_seed(0)


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Experts and rivals that are quick to fit, for tests of what does not depend on it."""
    shrink(monkeypatch)


@pytest.fixture(autouse=True)
def untouched_torch() -> Iterator[None]:
    """Fails a test that leaves torch's process-wide state changed."""
    before = torch_globals()
    yield
    after = torch_globals()
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    if changed:
        torch.set_default_dtype(before["default dtype"])
        torch.set_num_threads(before["number of threads"])
        torch.set_grad_enabled(before["gradients enabled"])
        Distribution.set_default_validate_args(before["validation of distributions"])
        pytest.fail(f"torch's global state changed (before, after): {changed}")


@pytest.fixture(scope="session")
def data_home() -> Path:
    """The folder of the data sets: CM2_DATA_HOME, or shared/data beside the checkout.

    Data are not part of the repository, so a test that needs them is skipped where they are not.
    This and ``dataset`` are the only skips.
    """
    given = os.environ.get("CM2_DATA_HOME")
    home = Path(given) if given else ROOT.parent / "shared" / "data"
    if not home.is_dir():
        pytest.skip(f"no data: {home} is absent; set CM2_DATA_HOME to a folder of data sets")
    return home


@pytest.fixture(scope="session")
def dataset(data_home: Path) -> Callable[[str], Path]:
    """The folder of a data set by its name; a test that asks for one that is absent is skipped."""

    def folder(name: str) -> Path:
        place = data_home / name
        if not place.is_dir():
            pytest.skip(f"no data: {place} is absent; CM2_DATA_HOME may name a folder with {name}")
        return place

    return folder
