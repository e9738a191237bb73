"""Standardising embeddings: batches of any size, whole blocks, and what repeats itself."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cm2.couplings.joint import CopulaJoint
from cm2.marginals import GaussianMixture
from cm2.networks.models.matching import Matching, Whitening


def shares(*shape: int) -> Tensor:
    """Equal weights of rows."""
    return torch.full(shape, 1 / shape[0])


def mixed(rows: int) -> tuple[Tensor, Tensor]:
    """Two blocks of three correlated coordinates for two modalities, and the mixing matrix."""
    matrix = torch.tensor([[2.0, 0.0, 0.0], [1.5, 0.5, 0.0], [-1.0, 0.3, 0.4]])
    return torch.randn(rows, 2, 2, 3) @ matrix.mT + 5.0, matrix


def test_blocks_get_mean_zero_and_covariance_one() -> None:
    x, _ = mixed(4000)
    white = Whitening(2, 6, 3)
    e = white(x.flatten(-2), shares(4000, 2)).unflatten(-1, (2, 3))
    found = torch.einsum("bmnc,bmne->mnce", e, e) / 4000
    # Correlations are shrunk by 3 / 4003, and the smallest eigenvalue is a thirtieth.
    torch.testing.assert_close(found, torch.eye(3).expand(2, 2, 3, 3), atol=0.03, rtol=0)
    torch.testing.assert_close(e.mean(0), torch.zeros(2, 2, 3), atol=1e-4, rtol=0)


def test_many_small_batches_have_the_moments_of_all_rows() -> None:
    """Exactly, as long as none is forgotten."""
    x, _ = mixed(100)
    whole, parts = Whitening(2, 6, 3).double(), Whitening(2, 6, 3).double()
    rows = x.flatten(-2).double()
    present = torch.rand(100, 2) < 0.7
    present[0] = True

    def share(chosen: Tensor) -> Tensor:
        return chosen.double() / chosen.sum(0).clamp_min(1)

    whole(rows, share(present))
    for piece, there in zip(rows.split(3), present.split(3), strict=True):
        parts(piece, share(there))
    for name, value in whole.named_buffers():
        torch.testing.assert_close(getattr(parts, name), value)


def test_evaluation_remembers_nothing() -> None:
    white = Whitening(2, 6, 3).eval()
    white(mixed(50)[0].flatten(-2), shares(50, 2))
    assert (white.rows == 0).all()


def test_the_gradient_is_that_of_whitening_all_rows_together() -> None:
    """Against the derivative of the inverse root at covariance one, by finite differences."""
    rows = 3000
    x = torch.randn(rows, 1, 4, dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(x[:, 0].mT @ x[:, 0] / rows)).mT
    direction = torch.tanh(x) @ torch.randn(4, 4, dtype=torch.float64) + 0.5
    target = torch.randn(4, 4, dtype=torch.float64)

    def loss(e: Tensor) -> Tensor:
        return ((e @ target).tanh() * e.flip(-1)).mean()

    def whitened(step: float) -> Tensor:
        moved = (x + step * direction)[:, 0]
        moved = moved - moved.mean(0)
        values, vectors = torch.linalg.eigh(moved.mT @ moved / rows)
        return (moved @ (vectors * values.rsqrt()) @ vectors.mT)[:, None]

    expected = (loss(whitened(1e-4)) - loss(whitened(-1e-4))) / 2e-4
    leaf = x.clone().requires_grad_()
    value = loss(Whitening(1, 4, 4).double()(leaf, shares(rows, 1).double()))
    (gradient,) = torch.autograd.grad(value, leaf)
    # A row's own part, one in 3,000, is left out; the terms that cancel are thirty times the sum.
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=0.05, atol=0)


RHO = 0.9
TRUE = 0.5 * math.log(1 - RHO**2)
"""The mean of -log c of two numbers of this correlation."""


@pytest.mark.parametrize(("rows", "repeats"), [(2, 500), (8, 200)])
def test_small_batches_are_without_bias_and_have_a_gradient(rows: int, repeats: int) -> None:
    """Standardised by themselves, two rows have no gradient, and -.13 where -.83 is true."""
    ones = torch.ones(2, 1, 1)
    marginals = GaussianMixture(torch.zeros(2, 1), 0 * ones, ones)
    copula = CopulaJoint(2, 1, "gaussian", 1).copula
    copula.set(scale_tril=torch.tensor([[[1.0, 0.0], [RHO, math.sqrt(1 - RHO**2)]]]))
    law = copula(frozen=True)
    matching, present = Matching(2, 1, 1), torch.ones(rows, 2, dtype=torch.bool)
    found = []
    start = torch.randn(600, 2, 1)
    start[:, 1] = RHO * start[:, 0] + math.sqrt(1 - RHO**2) * start[:, 1]
    present_then = torch.ones(600, 2, dtype=torch.bool)
    matching.initialize(3 * start + 1, present_then, marginals)  # away from the marginals
    for _ in range(repeats):
        z = torch.randn(rows, 2, 1)
        z[:, 1] = RHO * z[:, 0] + math.sqrt(1 - RHO**2) * z[:, 1]
        mix = torch.zeros(3, requires_grad=True)
        second = (z[:, 1] + mix[0] * z[:, 0] + mix[1]) * mix[2].exp()
        z = torch.stack([3 * z[:, 0] + 1, 3 * second + 1], 1)
        matched = matching(z, present, shares(rows), marginals)
        loss = -law.log_prob_normal(matched.mT).mean()
        (gradient,) = torch.autograd.grad(loss, mix)
        found.append(torch.cat([loss.detach()[None], gradient]))
    mean = torch.stack(found).mean(0)
    error = torch.stack(found).std(0) / math.sqrt(repeats)
    # More of the first in the second raises the correlation by 1 - RHO^2, and log c so.
    slope = -RHO
    expected = torch.tensor([TRUE, slope, 0.0, 0.0])
    # Batches share the rows remembered, hence a little more than four standard errors.
    assert ((mean - expected).abs() < 4 * error + 0.03).all(), (mean, error)
    assert mean[1] < -0.5


def repeating(rows: int) -> Tensor:
    """Two embeddings whose 16 coordinates repeat one number each, of correlation .49."""
    number = torch.randn(rows, 2)
    number[:, 1] = 0.4943 * number[:, 0] + math.sqrt(1 - 0.4943**2) * number[:, 1]
    return number[..., None] + 0.1 * torch.randn(rows, 2, 16)


@pytest.mark.parametrize("coupling", ["rosenblatt", "shared-components"])
@pytest.mark.parametrize("components", [1, 3])
def test_alignment_does_not_pay_for_coordinates_that_repeat_each_other(
    coupling: str, components: int
) -> None:
    """The mean log c is at most the mutual information, .14, even of the best copula for it."""
    information = -0.5 * math.log(1 - 0.4943**2)
    z, present = repeating(1500), torch.ones(1500, 2, dtype=torch.bool)
    joint = CopulaJoint(2, 16, "factor", components, coupling, rank=4)
    joint.fit(z, present, steps=0)
    matching = Matching(2, 16, joint.copula().block)
    matching.initialize(z, present, joint.marginals(frozen=True))
    with torch.no_grad():
        raw = joint().log_prob_terms(z, present)["copula"].mean()
    if components == 1:  # what is avoided; three components cannot fit a line of numbers
        assert raw > 5 * information
    matched = matching(z, present, shares(1500), joint.marginals(frozen=True))
    optimizer = torch.optim.Adam(joint.copula.parameters(), lr=0.05)
    for _ in range(40):
        law = joint.coupling(joint.copula(), joint.marginals(frozen=True))
        optimizer.zero_grad()
        (-law.log_prob_terms(matched)["copula"].mean()).backward()
        optimizer.step()
    with torch.no_grad():
        others = matching(repeating(1500), present, shares(1500), joint.marginals())
        best = joint().log_prob_terms(others)["copula"]
    assert best.mean() < information + 4 * best.std() / math.sqrt(1500)


CODE = """
import sys
import torch
import torch.distributed as dist
from cm2.networks.models.matching import Whitening

process, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", f"file://{store}", rank=process, world_size=2)
torch.manual_seed(0)
x = torch.randn(20, 2, 6).cumsum(-1)
white = Whitening(2, 6, 3)
for batch in x.split(10):
    part = batch[process::2].clone().requires_grad_()
    e = white(part, torch.full((5, 2), 0.1))
    (gradient,) = torch.autograd.grad((e ** 3).sum(), part)
torch.save((e.detach(), gradient, dict(white.named_buffers())), out)
dist.destroy_process_group()
"""


def test_processes_side_by_side_standardise_as_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 2, 6).cumsum(-1)
    white = Whitening(2, 6, 3)
    for batch in x.split(10):
        whole = batch.clone().requires_grad_()
        e = white(whole, shares(10, 2))
        (gradient,) = torch.autograd.grad((e**3).sum(), whole)
    outs = [tmp_path / str(process) for process in range(2)]
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CODE, str(process), tmp_path / "store", out],
            env=os.environ,
        )
        for process, out in enumerate(outs)
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    for process, out in enumerate(outs):
        found, found_gradient, buffers = torch.load(out)
        # Sums in another order: float32, a few units in the last place of sums of ten.
        torch.testing.assert_close(found, e.detach()[process::2], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found_gradient, gradient[process::2], rtol=1e-3, atol=1e-4)
        for name, value in white.named_buffers():
            torch.testing.assert_close(buffers[name], value, rtol=1e-4, atol=1e-5)
