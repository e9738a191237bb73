"""Figures of copulas draw the density and the draws they are given, and no single row of data."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from cm2 import copulas
from cm2.evaluation.figures import density, pairs

HALF = torch.tensor(0.5).double()


def test_a_density_integrates_to_one_on_both_scales():
    copula = copulas.Frank(3, torch.tensor(4.0).double())
    u = (torch.arange(100) + 0.5).double() / 100
    assert np.exp(density.grid(copula, u, pair=(0, 2))).mean() == pytest.approx(1, abs=1e-3)
    x = torch.linspace(-5, 5, 101).double()
    assert density.normal_grid(copula, x, pair=(2, 1)).sum() * 0.01 == pytest.approx(1, abs=1e-3)


def test_rows_of_a_grid_run_along_the_second_coordinate():
    copula = copulas.Rotated(copulas.Clayton(2, HALF), (True, False))
    u = torch.tensor([0.2, 0.7]).double()
    grid = density.grid(copula, u)
    point = torch.stack([u[0], u[1]])
    assert grid[1, 0] == pytest.approx(copula.log_prob(point).item())
    assert density.grid(copula, u, pair=(1, 0))[0, 1] == pytest.approx(grid[1, 0])


def test_families_have_one_tau_and_one_column_each():
    figure = density.families(("gumbel", "gaussian", "frank"), tau=0.3, points=21)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["Gumbel", "Gaussian", "Frank"]
    assert len(figure.axes) == 6
    with pytest.raises(ValueError, match=r"(?i)gumbel.*-0\.3"):
        density.families(("gumbel",), tau=-0.3)


def test_one_copula_needs_no_name():
    copula = copulas.Joe(2, 2.0)
    assert density.contours(copula, points=21).axes[0].get_title() == "Joe"
    surface = density.surfaces(copula, points=11)
    assert surface.axes[0].get_title() == "Joe"
    assert surface.axes[0].get_zlim() == (0, 6.0)
    for draw in (density.contours, density.surfaces):
        with pytest.raises(ValueError, match=r"2 coordinates; these have others: \['wide'\]"):
            draw({"wide": copulas.Gumbel(3, 2.0)})
        with pytest.raises(ValueError, match="or a batch"):
            draw(copulas.Gumbel(2, torch.tensor([2.0, 3.0])))


def test_samples_are_draws_that_leave_the_random_state_alone():
    copula = copulas.Clayton(3, HALF)
    before = torch.get_rng_state()
    figure = pairs.samples(copula, n=200, pair=(0, 2), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    above, main, right = figure.axes
    points = main.collections[0].get_offsets()
    torch.manual_seed(3)
    np.testing.assert_allclose(points, copula.sample((200,))[:, [0, 2]].numpy())
    for ax, size in ((above, "get_height"), (right, "get_width")):
        assert sum(getattr(bar, size)() for bar in ax.patches) == 200
    with pytest.raises(ValueError, match=r"coordinates \(0, 5\)"):
        pairs.samples(copula, pair=(0, 5))


def test_pairs_show_counts_of_many_rows_and_both_taus():
    copula = copulas.Gaussian.from_kendall_tau(HALF, dim=3)
    u = copula.sample((2000,))
    u[::5, 1] = torch.nan
    figure = pairs.pairs(copula, u, names=["a", "b", "c"], points=21)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == 9
    panel = figure.axes[3]  # second row, first column
    counts = panel.collections[0].get_array()
    assert counts.min() >= 5
    assert 0.5 * 1600 < counts.sum() <= 1600
    assert panel.get_xlabel() == "a"
    assert panel.get_ylabel() == "b"
    assert "copula 0.50" in figure.axes[1].texts[0].get_text()
    assert all(not ax.collections for ax in figure.axes[:3])


def test_pairs_show_no_bar_of_few_rows():
    u = torch.cat([torch.full((40, 2), 0.52), torch.full((4, 2), 0.02)]).double()
    (bars,) = pairs.pairs(copulas.Gumbel(2, 2.0), u, points=21).axes[0].patches
    assert sorted(set(bars.get_data().values.tolist())) == [0, 40]


def test_pairs_refuse_what_does_not_fit():
    u = torch.rand(50, 3).double()
    with pytest.raises(ValueError, match="must have 3 coordinates, as u has, and no batch; got 2"):
        pairs.pairs(copulas.Gumbel(2, 2.0), u)
    with pytest.raises(ValueError, match="2 names for 3 coordinates"):
        pairs.pairs(copulas.Gumbel(3, 2.0), u, names=["a", "b"])
    with pytest.raises(ValueError, match="u should lie from 0 to 1"):
        pairs.pairs(copulas.Gumbel(3, 2.0), 5 * u)
