"""The factor copula of vectors: against dense Gaussians, its numerics, and what it refuses."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

import oracles
from cm2 import copulas
from cm2.copulas import Estimate
from cm2.core.records import Base
from families import factor_correlation
from laws import EXACT, assert_same_law, monte_carlo

# blocks, coordinates of a block, factors; more factors than coordinates among them
SHAPES = [(3, 2, 2), (2, 3, 5), (4, 1, 2), (3, 4, 1)]
every_shape = pytest.mark.parametrize(("blocks", "dim", "rank"), SHAPES)


def make(blocks: int, dim: int, rank: int, size: float = 1.5) -> copulas.Factor:
    rng = np.random.default_rng(blocks + 10 * rank)
    loading = torch.tensor(size * rng.normal(size=(blocks * dim, rank)))
    return copulas.Factor(blocks * dim, loading, block=dim)


def patterns(blocks: int, dim: int) -> Tensor:
    """Every pattern of present blocks, as coordinates."""
    bits = torch.arange(2**blocks)[:, None] >> torch.arange(blocks) & 1
    return bits.bool().repeat_interleave(dim, -1)


@every_shape
def test_density_of_every_pattern_is_that_of_the_dense_gaussian(
    blocks: int, dim: int, rank: int
) -> None:
    copula = make(blocks, dim, rank)
    matrix = factor_correlation(copula.loading.numpy(), dim)
    np.testing.assert_allclose(copula.correlation, matrix, **EXACT)
    u = copula.sample((20,))
    for present in patterns(blocks, dim):
        keep = present.numpy()
        found = copula.log_prob(u, present.expand(20, -1)).numpy()
        expected = np.zeros(20)
        if keep.sum() > dim:
            expected = oracles.gaussian_log_density(matrix[np.ix_(keep, keep)], u.numpy()[:, keep])
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@every_shape
def test_a_block_that_is_there_in_part(blocks: int, dim: int, rank: int) -> None:
    """Then it is the dense Gaussian; coordinates of one block are independent."""
    copula = make(blocks, dim, rank)
    matrix = factor_correlation(copula.loading.numpy(), dim)
    u = copula.sample((10,))
    present = torch.ones(blocks * dim, dtype=torch.bool)
    present[0] = present[-1] = False
    keep = present.numpy()
    expected = oracles.gaussian_log_density(matrix[np.ix_(keep, keep)], u.numpy()[:, keep])
    found = copula.log_prob(u, present.expand(10, -1))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    margin = copula.marginal(present)
    np.testing.assert_allclose(margin.log_prob(u[:, present]), expected, rtol=1e-9, atol=1e-9)
    completed = copula.complete(u, present.expand(10, -1))
    assert torch.equal(completed[:, present], u[:, present])


@every_shape
def test_conditional_law_is_that_of_the_dense_gaussian(blocks: int, dim: int, rank: int) -> None:
    copula = make(blocks, dim, rank)
    dense = copulas.Gaussian(blocks * dim, correlation=copula.correlation)
    n = 20_000
    present = torch.zeros(blocks * dim, dtype=torch.bool)
    present[:dim] = True
    x = torch.randn(1, blocks * dim).double().expand(n, -1)
    torch.testing.assert_close(
        copula.mean_normal(x[:3], present), dense.mean_normal(x[:3], present), **EXACT
    )
    found, known = (law.complete_normal(x, present)[:, dim:] for law in (copula, dense))
    assert_same_law(found, known, "completions")
    spread = torch.cov(known.T).reshape(known.shape[1], -1)
    gap = (torch.cov(found.T).reshape(known.shape[1], -1) - spread).abs()
    assert gap.max() < 2 * monte_carlo(n, 1.5)


@every_shape
def test_information_is_that_of_the_dense_gaussian(blocks: int, dim: int, rank: int) -> None:
    copula = make(blocks, dim, rank)
    matrix = factor_correlation(copula.loading.numpy(), dim)
    found = copula.mutual_information()
    np.testing.assert_allclose(found.value, -0.5 * np.linalg.slogdet(matrix)[1], **EXACT)
    assert found.standard_error == 0
    # E[-log c] over independent scores, with the precision matrix
    lautum = 0.5 * (np.trace(np.linalg.inv(matrix)) - len(matrix) + np.linalg.slogdet(matrix)[1])
    np.testing.assert_allclose(copula.lautum_information(), lautum, **EXACT)


@pytest.mark.parametrize("family", ["gaussian", "gumbel", "frank", "clayton", "joe", "factor"])
def test_lautum_information_is_the_mean_over_independent_points(family: str) -> None:
    copula = copulas.REGISTRY[family].from_kendall_tau(torch.tensor(0.3).double(), dim=3)
    drawn = Estimate.of_mean(-copula.log_prob(torch.rand(40_000, 3).double()))
    # the fixed sequence of a family without a closed form has 128 points
    slack = 4 * drawn.standard_error + 0.1 * drawn.value
    assert (copula.lautum_information() - drawn.value).abs() < slack
    assert drawn.value > 0


def awkward() -> dict[str, tuple[int, int, Tensor]]:
    """Blocks, coordinates, and loadings at which other forms have no gradient."""
    generator = torch.Generator().manual_seed(1)
    orthonormal = torch.linalg.qr(torch.randn(4, 2, generator=generator)).Q.repeat(3, 1)
    zero_column = torch.randn(12, 3, generator=generator)
    zero_column[:, 1] = 0.0
    return {
        "zero": (3, 4, torch.zeros(12, 2)),
        "orthonormal": (3, 4, orthonormal),
        "zero column": (3, 4, zero_column),
        "more factors than coordinates": (2, 2, torch.randn(4, 5, generator=generator)),
        "batch": (3, 2, torch.randn(2, 6, 2, generator=generator)),
    }


@pytest.mark.parametrize("name", list(awkward()))
def test_gradcheck_where_roots_and_eigenvalues_have_none(name: str) -> None:
    blocks, dim, loading = awkward()[name]
    loading = loading.double().requires_grad_()
    shape = (4, *loading.shape[:-2])
    x = torch.randn(*shape, blocks * dim).double().requires_grad_()
    present = (torch.rand(*shape, blocks) < 0.6).repeat_interleave(dim, -1)

    def law(loading: Tensor) -> copulas.Factor:
        return copulas.Factor(blocks * dim, loading, block=dim, validate_args=False)

    def draw(x: Tensor, loading: Tensor) -> Tensor:
        torch.manual_seed(3)
        return law(loading).complete_normal(x, present)

    # of random combinations of all entries, which have an error where one of them has
    check = partial(torch.autograd.gradcheck, fast_mode=True)
    assert check(lambda x, a: law(a).log_prob_normal(x), (x, loading))
    assert check(lambda x, a: law(a).log_prob_normal(x, present), (x, loading))
    assert check(lambda x, a: law(a).mean_normal(x, present), (x, loading))
    assert check(draw, (x, loading))
    assert check(lambda a: law(a).mutual_information().value, (loading,))
    assert check(lambda a: law(a).lautum_information(), (loading,))


@pytest.mark.parametrize("rho", [0.9999, 0.999999])
def test_float32_keeps_its_digits_where_dependence_is_strong(rho: float) -> None:
    """The difference of two quadratic forms is 31 nats off at the second."""
    blocks, dim, rank, n = 3, 256, 16, 100
    directions = torch.linalg.qr(torch.randn(blocks, dim, rank).double()).Q
    loading = (directions * (rho / (1 - rho)) ** 0.5).flatten(0, 1).float()
    single = copulas.Factor(blocks * dim, loading, block=dim)
    double = copulas.Factor(blocks * dim, loading.double(), block=dim)
    nothing = torch.zeros(n, blocks * dim, dtype=torch.bool)
    x = double.complete_normal(torch.zeros(n, blocks * dim).double(), nothing).float()
    present = (torch.rand(n, blocks) < 0.7).repeat_interleave(dim, -1)
    for mask in (None, present):
        found, exact = single.log_prob_normal(x, mask), double.log_prob_normal(x.double(), mask)
        assert (found - exact).abs().max() < 1e-2
        assert exact.mean() > 20


def test_principal_factors_find_the_correlations_of_blocks() -> None:
    copula = make(3, 4, 2, size=0.6)
    found = copula.near(copula.correlation)["loading"]
    again = copulas.Factor(12, found, block=4)
    assert (again.correlation - copula.correlation).abs().max() < 0.05
    nothing = copula.near(torch.eye(12).double())["loading"]
    assert nothing.isfinite().all()
    assert (nothing != 0).any(0).all(), "a factor that stands at zero has no gradient"


def test_what_is_no_factor_copula_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Factor: the loading must have shape \(4, rank\)"):
        copulas.Factor(4, torch.zeros(3, 2))
    with pytest.raises(ValueError, match="blocks of 3 do not divide 4 coordinates"):
        copulas.Factor(4, torch.zeros(4, 2), block=3)
    with pytest.raises(ValueError, match=r"Factor.*loading.*nan"):
        copulas.Factor(2, torch.tensor([[1.0], [float("nan")]]))
    with pytest.raises(ValueError, match=r"Factor: Kendall's tau must be in \[0\.0, 1\.0\)"):
        copulas.Factor.from_kendall_tau(-0.2, dim=3)


def test_second_derivatives_are_refused() -> None:
    """They came out wrong, without a word, where the incoming gradient was a constant."""
    copula = make(3, 2, 2)
    x = torch.randn(5, 6).double()

    def value(loading: Tensor) -> Tensor:
        law = copulas.Factor(6, loading, block=2, validate_args=False)
        return law.log_prob_normal(x).sum()

    with pytest.raises(RuntimeError, match="no second derivatives by autograd"):
        torch.autograd.functional.hessian(value, copula.loading)


@pytest.mark.parametrize("family", ["gaussian", "factor", "gumbel"])
def test_normal_scores_promote_and_absent_ones_are_not_read(family: str) -> None:
    tau = torch.tensor(0.4)
    single = copulas.REGISTRY[family].from_kendall_tau(tau, dim=3)
    double = copulas.REGISTRY[family].from_kendall_tau(tau.double(), dim=3)
    x = torch.randn(4, 3).double()
    present = torch.tensor([True, False, True])
    torch.testing.assert_close(
        single.log_prob_normal(x), double.log_prob_normal(x), rtol=1e-5, atol=1e-5
    )
    dirty = torch.where(present, x, torch.nan)
    assert torch.equal(double.log_prob_normal(dirty, present), double.log_prob_normal(x, present))
    assert double.complete_normal(dirty, present).isfinite().all()


@pytest.mark.parametrize(("block", "rank", "size"), [(4, 16, 1e3), (1, 4, 1e4)])
def test_strong_loadings_in_float32_are_finite(block: int, rank: int, size: float) -> None:
    """More factors than coordinates: a Cholesky factor failed."""
    loading = (size * torch.randn(12, rank)).requires_grad_()
    copula = copulas.Factor(12, loading, block=block)
    value = copula.log_prob_normal(torch.randn(5, 12)).sum()
    assert value.isfinite()
    (slope,) = torch.autograd.grad(value, loading)
    assert slope.isfinite().all()


def test_what_is_absent_is_not_read() -> None:
    copula = copulas.Factor(3, torch.full((3, 1), 2.0).double())
    present = torch.tensor([True, True, False])
    x = torch.tensor([[0.0, 0.0, 2.3], [0.0, 0.0, -7.0]]).double()
    found = copula._log_prob_normal(x, present.expand(2, -1))
    expected = copula.log_prob(torch.full((3,), 0.5).double(), present)
    torch.testing.assert_close(found, expected.expand(2), **EXACT)


def test_a_mixture_conditions_on_what_is_there_alone() -> None:
    parts = [copulas.Factor(4, torch.full((4, 1), 2.0).double()), copulas.Gumbel(4, 1.5)]
    mixed = copulas.Mixture(parts)
    present = torch.tensor([True, True, False, False])
    u = torch.tensor([[0.5, 0.6, 0.7, 0.01], [0.5, 0.6, 0.7, 0.99]]).double()
    first, second = mixed.conditional_cdf(u, present)[:, 2]
    torch.testing.assert_close(first, second, **EXACT)


@pytest.mark.parametrize(("shape", "free"), [((4, 10), 6), ((4, 8), 6), ((4, 2), 6), ((6, 2), 11)])
def test_turns_of_factors_do_not_count(shape: tuple[int, int], free: int) -> None:
    """As many as the rank of the Jacobian of correlations by loadings."""
    loading = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).double()
    pairs = torch.tril_indices(shape[0], shape[0], -1)

    def entries(a: Tensor) -> Tensor:
        return copulas.Factor(shape[0], a).correlation[pairs[0], pairs[1]]

    jacobian = torch.autograd.functional.jacobian(entries, loading).flatten(1)
    assert int(torch.linalg.matrix_rank(jacobian, rtol=1e-9)) == free
    copula = copulas.Factor(shape[0], loading)
    flip = (True, *[False] * (shape[0] - 1))
    for one in (copula, copulas.Rotated(copula, flip)):
        assert loading.numel() - one.redundant == free
    assert copulas.Mixture([copula, copula]).redundant == 2 * copula.redundant


def test_a_reflection_is_completed_by_the_factors_of_the_copula_inside() -> None:
    copula = make(2, 2, 2)
    turned = copulas.Rotated(copula, (True, False, False, False))
    u, present = turned.sample((5,)), torch.tensor([True, True, False, False])
    like = torch.full((5, 4), 0.3).double()
    with pytest.raises(ValueError, match="factor"):
        turned.complete(u, present, Base(coordinate=like))
    base = Base(coordinate=like, factor=torch.full((5, *turned.factor_shape), 0.6).double())
    first, second = (turned.complete(u, present, base) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e2, 1e4, 1e9])
def test_dependence_that_rounds_to_one_can_be_told(size: float, dtype: torch.dtype) -> None:
    copula = copulas.Factor(2, torch.full((2, 1), size, dtype=dtype))
    assert float(copula.kendall_tau()[0, 1]) > 0.99
    assert torch.isfinite(copula.cdf(torch.tensor([0.3, 0.4], dtype=dtype)))
