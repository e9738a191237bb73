"""What several modules of this folder prepare from real data, once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cm2.clinical.prepare.pipeline import prepare


@pytest.fixture(scope="session")
def mimic4_demo(dataset: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MIMIC-IV demo, prepared with nothing but defaults. Read only."""
    out = tmp_path_factory.mktemp("mimic4-demo") / "out"
    prepare("mimic4", dataset("mimiciv-demo"), out)
    return out
