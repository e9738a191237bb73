"""What several modules of this folder prepare from real data, once."""

import os
from pathlib import Path

import pytest

from cm2.clinical.prepare.pipeline import prepare

HOME = os.environ.get("CM2_DATA_HOME") or Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture(scope="session")
def mimic4_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MIMIC-IV demo, prepared with nothing but defaults. Read only."""
    demo = Path(HOME) / "mimiciv-demo"
    if not demo.is_dir():
        pytest.skip("the MIMIC-IV demo is absent")
    out = tmp_path_factory.mktemp("mimic4-demo") / "out"
    prepare("mimic4", demo, out)
    return out
