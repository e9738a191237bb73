"""Tracing by torch.compile, in a process of its own: the run-time checks of shapes hinder it."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import torch
import small_clinical
from cm2.networks import fusions

def compare(module, *given):
    before = module(*given)
    module.compile(backend="eager")
    torch.testing.assert_close(module(*given), before)

for kind in small_clinical.CASES:
    compare(small_clinical.encoder(kind).eval(), small_clinical.inputs(kind))
z, present = torch.randn(5, 3, 4), torch.rand(5, 3) < 0.5
for name in fusions.REGISTRY:
    compare(fusions.REGISTRY[name](3, 4, width=8).eval(), z, present)
"""


@pytest.mark.slow
def test_encoders_and_fusions_compile() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
